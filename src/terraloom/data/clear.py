"""Which images show the ground: the planet is cloudless, and a network that is shown clouds draws them as specks.

Clouds and their shadows also make up most of an image's contrast: of Landsat tiles at 38 m, those where the index finds
1 to 3 % of cloud have twice the standard deviation of those where it finds none.
"""

from __future__ import annotations

from typing import Any

# share of cloud in the index, by date; dates that are not here are hazy (Congo, 2021-12-01) or lie in the long shadows
# of midwinter (Tokyo, 2021-12-28). What the index takes for cloud in Tokyo is bright roofs
LANDSAT = {
    "landsat/congo/2013-07-28": 0.001,
    "landsat/congo/2015-09-04": 0.001,
    "landsat/tokyo/2021-11-17": 0.03,
}
# series of world_scenes with cumulus, haze or smoke
CLOUDED = {
    "l8_grenada",
    "l8_longisland",
    "l7_bahamas",
    "l8_quebec_a",
    "momotombo",
    "s2p_amazon-rainforest-minor-clouds",
    "s2p_congo-deforestation",
    "s2p_great-barrier-reef-low-clouds",
    "s2p_tokyo-low-clouds",
    "s2p_wildfires-US-yosemite-2018",
}


def is_clear(name: str, row: dict[str, Any]) -> bool:
    """Whether a row of a set's index is an image without clouds; sets that have none pass."""
    if name == "landsat":
        return bool(row["cloud"] <= LANDSAT.get(row["path"].rsplit("/", 1)[0], -1.0))
    return name != "world_scenes" or row["series"] not in CLOUDED
