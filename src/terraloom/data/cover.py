"""Land cover as a planet takes it: water where the maps have shores, and grassland without farms is wild."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from terraloom.data.ground import MASK_LEVEL, Ground
from terraloom.data.uses import CODES, UNKNOWN_COVER
from terraloom.data.waters import water
from terraloom.grid import Window

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
WATER, GRASSLAND = 0, 10
WILD = CODES["HerbaceousVegetation"]
AROUND = (0.04, 0.09)  # degrees, where the class of land is looked for that land cover calls water


def cells(ground: Ground, window: Window, shores: bool = True) -> tuple[Bytes, Floats]:
    """As `Ground.cells`, of a planet.

    Args:
        ground: the maps.
        window: of any level.
        shores: whether water lies where the maps of land and rivers have it (terraloom.data.waters), as far as pixels
            are as fine as these maps; else where land cover has it, in cells of 5 km.

    Returns:
        uint8 (h, w), IGBP classes, and `WILD` for grassland with no farms around it, where no pastures are; and the map
        layers.
    """
    classes, layers = ground.cells(window)
    rows, columns = np.nonzero(classes == GRASSLAND)
    farmed = ground.farmed_at(window.lon[columns], window.lat[rows])
    classes[rows[~farmed], columns[~farmed]] = WILD
    if not shores or window.level < MASK_LEVEL:
        return classes, layers
    wet = water(ground, window.level, window.x, window.y, classes.shape) > 0.5
    rows, columns = np.nonzero((classes == WATER) & ~wet)
    if len(rows):
        classes[rows, columns] = _land_near(ground, window.lon[columns], window.lat[rows])
    classes[wet] = WATER
    return classes, layers


def _land_near(ground: Ground, lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64]) -> Bytes:
    """The first class that is no water around places (n,), unknown where there is none."""
    found = np.full(len(lon), WATER, np.uint8)
    for ring in AROUND:
        for turn in np.arange(8) * np.pi / 4:
            left = found == WATER
            found[left] = ground.cover_at(
                lon[left] + ring * np.cos(turn), lat[left] + ring * np.sin(turn)
            )
    return np.where(found == WATER, UNKNOWN_COVER, found).astype(np.uint8)
