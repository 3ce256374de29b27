"""Torch modules. They know tensors alone: no files, no geography, no user interface."""
