"""Where chains are drawn: forty fixed land places over all kinds of land cover, and random ones."""

from __future__ import annotations

import numpy as np

from terraloom.data.ground import Ground

Place = tuple[float, float]  # lon, lat in degrees

PLACES: dict[str, Place] = {
    "Nile delta": (31.2, 30.9), "Tokyo": (139.7, 35.7), "London": (-0.1, 51.5), "Iowa": (-93.5, 42.0),
    "Amazon": (-62.0, -4.0), "Sahara": (10.0, 24.0), "Alps": (9.5, 46.6), "Ganges": (85.0, 25.6),
    "Sao Paulo": (-46.6, -23.55), "Taiga": (95.0, 60.0), "Outback": (133.0, -24.0), "Po plain": (10.5, 45.0),
    "Congo": (22.0, -1.0), "Bangkok": (100.5, 13.75), "Greenland": (-49.0, 67.0), "Punjab": (74.5, 30.8),
    "Java": (110.4, -7.5), "Pampas": (-61.0, -35.0), "Rockies": (-110.0, 44.0), "Kansas": (-99.5, 38.5),
    "Paris": (2.35, 48.85), "Mexico City": (-99.1, 19.4), "Lagos": (3.4, 6.6), "Ukraine": (32.0, 49.0),
    "Serengeti": (34.8, -2.4), "Sahel": (5.0, 14.0), "Cerrado": (-47.0, -13.0), "Borneo": (114.0, 1.0),
    "Namib": (15.5, -24.5), "Gobi": (104.0, 43.0), "Tibet": (88.0, 32.0), "Andes": (-70.0, -15.0),
    "Finland": (27.0, 62.5), "Scotland": (-4.5, 57.0), "Andalusia": (-5.0, 37.5), "Anatolia": (33.0, 38.5),
    "Hunan": (112.5, 28.0), "Perth": (116.5, -31.9), "Texas": (-101.0, 33.5), "Patagonia": (-70.0, -47.0),
}  # fmt: skip
TWELVE = 12  # the first so many are shown as pictures
MOST_NORTHERN = 70.0  # degrees; beyond, land is ice
WATER = 0  # IGBP


def random_land(count: int, ground: Ground, seed: int = 0) -> dict[str, Place]:
    """`count` places drawn evenly from what is not water between 56 south and 70 north, named by their position."""
    rng = np.random.default_rng(seed)
    found: dict[str, Place] = {}
    low, high = np.sin(np.radians((-56.0, MOST_NORTHERN)))
    while len(found) < count:
        lon = rng.uniform(-180, 180, 256)
        lat = np.degrees(np.arcsin(rng.uniform(low, high, 256)))
        dry = ground.cover_at(lon, lat) != WATER
        for x, y in zip(lon[dry].round(2).tolist(), lat[dry].round(2).tolist(), strict=True):
            name = f"{abs(y):.1f} {'NS'[y < 0]} {abs(x):.1f} {'EW'[x < 0]}"
            if len(found) < count:
                found[name] = (x, y)
    return found
