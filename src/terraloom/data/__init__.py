"""Imagery sets, the maps of what is really there, and the pack that training reads."""
