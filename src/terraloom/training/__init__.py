"""One training loop, recipes as TOML files. Imports nothing geographic, so bare GPU machines can run it."""

from terraloom.training.loop import run

__all__ = ["run"]
