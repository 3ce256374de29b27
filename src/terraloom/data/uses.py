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
FORESTS, SHRUBS = (1, 2, 3, 4, 5), (6, 7)
SHARES: dict[int, dict[str, float]] = {  # land cover -> its uses; others stay as they are
    0: {"SeaLake": 1},
    **dict.fromkeys(FORESTS, {"Forest": 1}),
    **dict.fromkeys(SHRUBS, {"HerbaceousVegetation": 1}),
    8: {"HerbaceousVegetation": 0.7, "Forest": 0.3},  # woody savanna: trees on 30 to 60 %
    9: {"HerbaceousVegetation": 0.9, "Pasture": 0.1},
    10: {"HerbaceousVegetation": 0.5, "Pasture": 0.5},
    12: {"AnnualCrop": 0.7, "PermanentCrop": 0.15, "Pasture": 0.1, "Highway": 0.05},
    13: {"Residential": 0.75, "Industrial": 0.25},  # EuroSAT's highways run through fields
    14: {"AnnualCrop": 0.45, "PermanentCrop": 0.15, "Pasture": 0.2, "HerbaceousVegetation": 0.1, "Forest": 0.1},
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
