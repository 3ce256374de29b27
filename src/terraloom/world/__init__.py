"""The planet: base map, cascade, block cache, `World`."""

from terraloom.world.spec import WorldSpec
from terraloom.world.world import Raster, World

__all__ = ["Raster", "World", "WorldSpec"]
