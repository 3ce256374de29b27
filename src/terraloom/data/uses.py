"""Land use: what stands on a land cover, a class for each part of it, so that fine levels know what they draw.

Land cover has one class for 5 km: a town is "urban", be it terraces, sheds or a motorway, and a network that is told no
more draws a mean of all. EuroSAT's ten classes (Helber et al. 2019) tell them apart in images of 640 m, and UC Merced's
21 (Yang & Newsam 2010), here called sites, in images of 77 m. So images carry their use where it is known, and a planet
draws one for every place: by shares of its land cover, in patches of some hundred metres, and by shares of the use a
site, in patches of 150 m, from noise of its seed.

Codes go on where IGBP's end: 0..18 are land cover, 19..28 uses, 29..49 sites.
"""

from __future__ import annotations

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
SITES = {  # UC Merced's, likewise
    **dict.fromkeys(
        "airplane baseballdiamond buildings denseresidential freeway harbor intersection mediumresidential "
        "mobilehomepark overpass parkinglot runway sparseresidential storagetanks tenniscourt".split(),
        13,
    ),
    "agricultural": 12,
    "beach": 0,
    "chaparral": 7,
    "forest": 5,
    "golfcourse": 10,
    "river": 0,
}
CODES = {name: UNKNOWN_COVER + 1 + k for k, name in enumerate((*USES, *SITES))}
WITH_USES = UNKNOWN_COVER + 1 + len(USES)  # codes that a network which is told uses knows
WITH_SITES = WITH_USES + len(SITES)
COVER_OF = np.array(
    [*range(UNKNOWN_COVER + 1), *USES.values(), *SITES.values()], np.uint8
)  # code -> land cover
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
SITE_SHARES: dict[str, dict[str, float]] = {  # use -> its sites; others are told by their land cover alone
    "AnnualCrop": {"agricultural": 1},
    "PermanentCrop": {"agricultural": 1},
    "Forest": {"forest": 1},
    "HerbaceousVegetation": {"chaparral": 1},
    "Residential": {
        "mediumresidential": 0.4, "denseresidential": 0.3, "sparseresidential": 0.1, "mobilehomepark": 0.05,
        "intersection": 0.07, "buildings": 0.05, "baseballdiamond": 0.01, "tenniscourt": 0.02,
    },
    "Industrial": {"buildings": 0.5, "parkinglot": 0.35, "storagetanks": 0.1, "intersection": 0.05},
    "Highway": {"freeway": 0.6, "overpass": 0.1, "sparseresidential": 0.1, "mediumresidential": 0.2},
    "River": {"river": 1},
}  # fmt: skip
# zooms whose pixels are patches, 611 and 153 m on the equator; their noise is of the level below, read by nothing else
USE_LEVEL, SITE_LEVEL = 8, 10
BEND = 0.3  # of a patch, standard deviation of how far its edges are moved


def laid_out(
    cover: Bytes, noise: NoiseField, level: int, x: int, y: int, sites: bool = False
) -> Bytes:
    """The use, or the site, of every cell of a planet.

    Args:
        cover: uint8 (h, w) IGBP class of the cells, 18 unknown.
        noise: of the planet.
        level: whose pixels the cells are, finer than patches: 10 or more, with sites 12.
        x: of the first cell, any integer.
        y: likewise; rows off the map have a use too (a halo reaches there).
        sites: tell sites, and nothing but land cover of what has none.

    Returns:
        uint8 (h, w) codes; land cover without uses stays as it is.
    """
    out = _chosen(cover, SHARES, noise, USE_LEVEL, (level, y, x))
    if not sites:
        return out
    named = {CODES[use]: share for use, share in SITE_SHARES.items()}
    out = _chosen(out, named, noise, SITE_LEVEL, (level, y, x))
    return np.where(out < WITH_USES, COVER_OF[out], out)


def _chosen(
    codes: Bytes,
    shares: dict[int, dict[str, float]],
    noise: NoiseField,
    patches: int,
    at: tuple[int, int, int],
) -> Bytes:
    """Codes that have shares replaced by one of these for each patch."""
    having = sorted(set(np.unique(codes).tolist()) & set(shares))
    if not having:
        return codes
    chance = _chances(noise, patches, at, codes.shape)
    out = codes.copy()
    for code in having:
        here = codes == code
        names, parts = zip(*shares[code].items(), strict=True)
        ends = np.cumsum(parts)[:-1]  # but the last
        out[here] = np.array([CODES[name] for name in names], np.uint8)[
            np.searchsorted(ends, chance[here])
        ]
    return out


def _chances(
    noise: NoiseField, patches: int, at: tuple[int, int, int], shape: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """Uniform in 0..1, one number a patch, float32 (h, w): patches are squares with their edges bent."""
    level, *corner = at
    per = 1 << level - patches  # cells along a patch
    bend = BEND * per * _smooth(noise, patches + 1, at, shape)
    spots = [start + np.arange(count) + 0.5 for start, count in zip(corner, shape, strict=True)]
    rows = np.floor((spots[0][:, None] + bend[0]) / per).astype(int)
    columns = np.floor((spots[1] + bend[1]) / per).astype(int)
    top, left = int(rows.min()), int(columns.min())
    height, width = int(rows.max()) - top + 1, int(columns.max()) - left + 1
    drawn = noise.window(patches + 1, 2 * left, 2 * top, 2 * width, 2 * height)[0, ::2, ::2]
    return _normal_share(drawn[rows - top, columns - left])


def _smooth(
    noise: NoiseField, source: int, at: tuple[int, int, int], shape: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """Smooth normal noise, float32 (2, h, w): bilinear between pixels of a coarser level, its variance kept."""
    level, *corner = at
    per = 1 << level - source
    spots = [
        (start + np.arange(count) + 0.5) / per - 0.5
        for start, count in zip(corner, shape, strict=True)
    ]
    near = [np.floor(spot).astype(int) for spot in spots]
    height, width = (int(n[-1] - n[0]) + 2 for n in near)
    value = noise.window(source, int(near[1][0]), int(near[0][0]), width, height, 3)[1:]
    for axis in (0, 1):
        share = (spots[axis] - near[axis]).astype(np.float32)
        share = share[:, None] if axis == 0 else share
        one, two = (value.take(near[axis] - near[axis][0] + k, axis + 1) for k in (0, 1))
        value = (one * (1 - share) + two * share) / np.sqrt((1 - share) ** 2 + share**2)
    return np.asarray(value, np.float32)


def _normal_share(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Share of a standard normal below a value; the usual logistic stand-in is within 0.01 of it."""
    return np.asarray(1 / (1 + np.exp(-1.702 * value)), np.float32)
