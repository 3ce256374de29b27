"""Terraloom: synthetic satellite imagery of the whole planet, at any place and resolution.

    from terraloom import World
    raster = World(seed=7).read((139.70, 35.60, 139.85, 35.72), gsd=10)

Names are imported when they are first used, so that `import terraloom` needs neither torch nor GDAL.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from terraloom.errors import BadCheckpoint, BadPack, InvalidInput, TerraloomError
    from terraloom.grid import Window
    from terraloom.metadata import Metadata
    from terraloom.noise import NoiseField
    from terraloom.pipelines import TextToImage
    from terraloom.world import Raster, World, WorldSpec

    __version__: str

__all__ = [
    "BadCheckpoint",
    "BadPack",
    "InvalidInput",
    "Metadata",
    "NoiseField",
    "Raster",
    "TerraloomError",
    "TextToImage",
    "Window",
    "World",
    "WorldSpec",
    "__version__",
]

_HOMES = {
    "BadCheckpoint": "errors",
    "BadPack": "errors",
    "InvalidInput": "errors",
    "Metadata": "metadata",
    "NoiseField": "noise",
    "Raster": "world",
    "TerraloomError": "errors",
    "TextToImage": "pipelines",
    "Window": "grid",
    "World": "world",
    "WorldSpec": "world",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("terraloom")
    if name not in _HOMES:
        raise AttributeError(f"module 'terraloom' has no attribute {name!r}")
    return getattr(import_module(f"terraloom.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
