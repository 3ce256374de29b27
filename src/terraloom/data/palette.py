"""One palette: a tone curve per image set that brings the same land cover to about the same colour.

The sets were published with different stretches: Blue Marble's forests are nearly black, EuroSAT has a blue haze,
the Landsat dates differ from each other. A cascade hands colours down from level to level, so they must agree first.

A curve is, per channel,  out = 255 * clip((in - black) / (white - black), 0, 1) ** gamma.

The constants were fitted by hand on the sets' percentiles so that median colours come to about: forest (60, 78, 50),
savanna and mixed farmland (88, 96, 70), cropland (110, 112, 84), city (118, 116, 106), desert (190, 165, 130); then
looked at side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Curve:
    """Black point, white point (0..255) and gamma per channel."""

    black: RGB = (0, 0, 0)
    white: RGB = (255, 255, 255)
    gamma: RGB = (1, 1, 1)

    def __call__(self, rgb: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
        """Apply to (..., 3) values in 0..255 (integer or float)."""
        black, white, gamma = (
            np.array(v, np.float32) for v in (self.black, self.white, self.gamma)
        )
        unit = np.clip((rgb.astype(np.float32) - black) / (white - black), 0, 1)
        return np.asarray(np.round(255 * unit**gamma), np.uint8)


CURVES: dict[str, Curve] = {
    "bluemarble": Curve(gamma=(0.57, 0.57, 0.57)),
    "landsat/congo/2013-07-28": Curve((78, 108, 84), (230, 240, 240), (0.94, 0.79, 1.06)),
    "landsat/congo/2015-09-04": Curve((10, 35, 25), (262, 262, 255), (1.06, 0.68, 0.95)),
    "landsat/congo/2021-12-01": Curve((55, 70, 62), (260, 260, 260), (0.94, 1.0, 1.46)),
    "landsat/tokyo/2021-11-17": Curve((0, 10, 0), (262, 262, 262), (1.1, 1.05, 0.92)),
    "landsat/tokyo/2021-12-28": Curve((38, 60, 70), (250, 262, 262), (1.31, 1.5, 1.9)),
    # its haze lies on lakes as on forests, so that one curve makes either forests blue or lakes green
    "eurosat": Curve((0, 0, 48), (280, 258, 268), (0.72, 0.85, 0.8)),
    "eurosat/SeaLake": Curve((15, 35, 38), (255, 240, 233), (1.0, 0.85, 0.85)),
    "eurosat_mosaic": Curve((0, 0, 48), (280, 258, 268), (0.72, 0.85, 0.8)),
    "sentinel2": Curve(gamma=(0.85, 0.8, 1.0)),
    "sentinel2_chips": Curve(gamma=(0.9, 0.92, 0.95)),
    "planet3m": Curve(gamma=(1.15, 1.12, 1.08)),
    "naip": Curve((15, 15, 15), (250, 250, 250), (1.05, 1.05, 1.05)),
    "world_scenes/s2_33UUS": Curve(gamma=(0.72, 0.72, 0.76)),
    "world_scenes/l8_greenland_s": Curve(gamma=(1.0, 0.95, 1.1)),
    "world_scenes/corumba": Curve((10, 8, 8), (262, 245, 240), (1.15, 1.0, 1.15)),
}


def curve(*names: str) -> Curve:
    """The curve of the first known name (most specific first), else the identity."""
    return next((CURVES[n] for n in names if n in CURVES), Curve())


def bluemarble(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Blue Marble's curve, (..., 3) uint8 -> same, with its saturated modelled sea brought to a real sea's colour.

    The sea is recognised by its colour (blue above red), so coasts need no mask and shallow water stays lighter.
    """
    raw = rgb.astype(np.float32)
    sea = np.clip((raw[..., 2:] - raw[..., :1] - 25) / 60, 0, 1)
    water = raw * np.array((0.80, 0.72, 0.56), np.float32)
    land = CURVES["bluemarble"](rgb)
    return np.asarray(np.round(land + sea * (water - land)), np.uint8)
