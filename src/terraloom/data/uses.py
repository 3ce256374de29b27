"""Land use: what stands on a land cover, a class for each part of it, so that fine levels know what they draw.

Land cover has one class for 5 km: a town is "urban", be it terraces, sheds or a motorway, and a network that is told no
more draws a mean of all. EuroSAT's ten classes (Helber et al. 2019) tell them apart in images of 640 m. So images carry
their use where it is known, and a planet draws one for every place: by shares of its land cover, in patches of some
hundred metres, from noise of its seed.

Codes go on where IGBP's end: 0..18 are land cover, 19.. the uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from terraloom.noise import NoiseField

Bytes = npt.NDArray[np.uint8]

UNKNOWN_COVER = 18
USES = {  # EuroSAT's classes and the land cover that each is of
    "AnnualCrop": 12,
    "PermanentCrop": 12,
    "Pasture": 10,
    "HerbaceousVegetation": 10,
    "Forest": 5,
    "Residential": 13,
    "Industrial": 13,
    "Highway": 13,
    "River": 0,
    "SeaLake": 0,
}
CODES = {name: UNKNOWN_COVER + 1 + k for k, name in enumerate(USES)}
COUNT = UNKNOWN_COVER + 1 + len(USES)
COVER_OF = np.array([*range(UNKNOWN_COVER + 1), *USES.values()], np.uint8)  # code -> land cover
FORESTS, SHRUBS, SAVANNAS = (1, 2, 3, 4, 5), (6, 7), (8, 9)
SHARES: dict[int, dict[str, float]] = {  # land cover -> its uses; others stay as they are
    0: {"SeaLake": 1},
    **dict.fromkeys(FORESTS, {"Forest": 1}),
    **dict.fromkeys(SHRUBS, {"HerbaceousVegetation": 1}),
    **dict.fromkeys(SAVANNAS, {"HerbaceousVegetation": 0.6, "Forest": 0.3, "Pasture": 0.1}),
    10: {"HerbaceousVegetation": 0.5, "Pasture": 0.5},
    12: {"AnnualCrop": 0.7, "PermanentCrop": 0.15, "Pasture": 0.1, "Highway": 0.05},
    13: {"Residential": 0.6, "Highway": 0.18, "Industrial": 0.22},
    14: {"AnnualCrop": 0.35, "PermanentCrop": 0.1, "Pasture": 0.25, "HerbaceousVegetation": 0.1, "Forest": 0.2},
}  # fmt: skip
PATCH_LEVEL = 8  # zoom whose pixels are patches, 611 m on the equator; noise is level 9's, which draws nothing else
BEND = 0.3  # of a patch, standard deviation of how far its edges are moved


def laid_out(cover: Bytes, noise: NoiseField, level: int, x: int, y: int) -> Bytes:
    """The use of every cell of a planet.

    Args:
        cover: uint8 (h, w) IGBP class of the cells, 18 unknown.
        noise: of the planet.
        level: whose pixels the cells are, 10 or finer.
        x: of the first cell, any integer.
        y: likewise; rows off the map have a use too (a halo reaches there).

    Returns:
        uint8 (h, w) codes; land cover without uses stays as it is.
    """
    if not set(np.unique(cover).tolist()) & set(SHARES):
        return cover
    chance = _chances(noise, level, y, x, cover.shape)
    out = cover.copy()
    for land, shares in SHARES.items():
        here = cover == land
        if here.any():
            codes = np.array([CODES[name] for name in shares], np.uint8)
            out[here] = codes[np.searchsorted(_ends(list(shares.values())), chance[here])]
    return out


def _ends(shares: Sequence[float]) -> npt.NDArray[Any]:
    """Upper ends of all but the last."""
    return np.cumsum(shares)[:-1] / sum(shares)


def _chances(
    noise: NoiseField, level: int, y: int, x: int, shape: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """Uniform in 0..1, one number a patch, float32 (h, w): patches are squares with their edges bent."""
    per = 1 << level - PATCH_LEVEL  # cells along a patch
    bend = BEND * per * _smooth(noise, level, y, x, shape)
    spots = [start + np.arange(count) + 0.5 for start, count in zip((y, x), shape, strict=True)]
    rows = np.floor((spots[0][:, None] + bend[0]) / per).astype(int)
    columns = np.floor((spots[1] + bend[1]) / per).astype(int)
    top, left = int(rows.min()), int(columns.min())
    height, width = int(rows.max()) - top + 1, int(columns.max()) - left + 1
    patches = noise.window(PATCH_LEVEL + 1, 2 * left, 2 * top, 2 * width, 2 * height)[0, ::2, ::2]
    return _normal_share(patches[rows - top, columns - left])


def _smooth(
    noise: NoiseField, level: int, y: int, x: int, shape: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """Smooth normal noise of half a patch, float32 (2, h, w): bilinear between pixels of level 9, its variance kept."""
    per = 1 << level - PATCH_LEVEL - 1
    spots = [
        (start + np.arange(count) + 0.5) / per - 0.5
        for start, count in zip((y, x), shape, strict=True)
    ]
    near = [np.floor(spot).astype(int) for spot in spots]
    height, width = (int(n[-1] - n[0]) + 2 for n in near)
    value = noise.window(PATCH_LEVEL + 1, int(near[1][0]), int(near[0][0]), width, height, 3)[1:]
    for axis in (0, 1):
        share = (spots[axis] - near[axis]).astype(np.float32)
        share = share[:, None] if axis == 0 else share
        one, two = (value.take(near[axis] - near[axis][0] + k, axis + 1) for k in (0, 1))
        value = (one * (1 - share) + two * share) / np.sqrt((1 - share) ** 2 + share**2)
    return np.asarray(value, np.float32)


def _normal_share(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Share of a standard normal below a value; the usual logistic stand-in is within 0.01 of it."""
    return np.asarray(1 / (1 + np.exp(-1.702 * value)), np.float32)
