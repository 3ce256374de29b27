"""One palette: a tone curve per image set that brings the same land cover to about the same colour.

The sets were published with different stretches: Blue Marble's forests are nearly black, EuroSAT has a blue haze,
the Landsat dates differ from each other. A cascade hands colours down from level to level, so they must agree first.

A curve is, per channel,  out = 255 * clip((in - black) / (white - black), 0, 1) ** gamma.

The constants were fitted by hand on the sets' percentiles so that median colours come to about: forest (60, 78, 50),
savanna and mixed farmland (88, 96, 70), cropland (110, 112, 84), city (118, 116, 106), desert (190, 165, 130), and so
that the same land cover has about the same contrast at one gsd; then looked at side by side. A black point below 0 and
a white point above 255 soften what was published with a hard stretch.
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
    "landsat/congo/2013-07-28": Curve((56, 95, 59), (272, 282, 283), (0.91, 0.71, 1.09)),
    "landsat/congo/2015-09-04": Curve((-63, 17, -8), (348, 402, 365), (1.11, 0.56, 0.93)),
    "landsat/tokyo/2021-11-17": Curve((-39, -52, -12), (331, 353, 317), (1.15, 1.09, 0.9)),
    "landsat/congo/2021-12-01": Curve((55, 70, 62), (260, 260, 260), (0.94, 1.0, 1.46)),
    "landsat/tokyo/2021-12-28": Curve((38, 60, 70), (250, 262, 262), (1.31, 1.5, 1.9)),
    # its haze lies on lakes as on forests, so that one curve makes either forests blue or lakes green
    "eurosat": Curve((0, 0, 48), (280, 258, 268), (0.72, 0.85, 0.8)),
    "eurosat/SeaLake": Curve((15, 35, 38), (255, 240, 233), (1.0, 0.85, 0.85)),
    "eurosat_mosaic": Curve((0, 0, 48), (280, 258, 268), (0.72, 0.85, 0.8)),
    "sentinel2": Curve((-21, -21, -30), (319, 313, 310), (0.8, 0.73, 1.0)),
    "sentinel2_chips": Curve((-26, -31, -20), (341, 332, 347), (0.86, 0.88, 0.94)),
    "planet3m": Curve((-28, -40, -37), (340, 334, 336), (1.2, 1.18, 1.12)),
    "naip": Curve((15, 15, 15), (250, 250, 250), (1.05, 1.05, 1.05)),
    "world_scenes/s2_33UUS": Curve((-22, -25, -17), (435, 423, 453), (0.61, 0.6, 0.69)),
    "world_scenes/naip_florida": Curve((-51, -60, -24), (374, 365, 401)),
    "world_scenes/naip_oklahoma": Curve((-24, -24, -11), (295, 295, 308)),
    "world_scenes/bearlake_idaho": Curve((-71, -73, -56), (354, 352, 369)),
    "world_scenes/l5_tucurui": Curve((-4, -16, 8), (336, 324, 348)),
    "world_scenes/l7_chiapas": Curve((-39, -56, -36), (354, 337, 357)),
    "world_scenes/l7_gewata": Curve((-14, -29, 6), (350, 335, 370)),
    "world_scenes/l7_olinda": Curve((-66, -86, -65), (326, 306, 327)),
    "world_scenes/l7_raleigh": Curve((-43, -69, -41), (350, 324, 351)),
    "world_scenes/l8_rmnp": Curve((-54, -55, -37), (338, 337, 355)),
    "world_scenes/l8_westvirginia": Curve((-27, -43, -9), (398, 382, 416)),
    "world_scenes/s2_baviaanskloof": Curve((-26, -33, -16), (314, 307, 324)),
    "world_scenes/s2_jutland": Curve((-6, -23, 11), (277, 260, 295)),
    "world_scenes/s2_betsiboka": Curve((-28, -36, -8), (272, 264, 292)),
    "world_scenes/brumadinho": Curve((-43, -54, -6), (382, 371, 419)),
    "world_scenes/l8_guangdong": Curve((-22, -35, -10), (318, 305, 330)),
    "world_scenes/l8_kanto": Curve((-15, -24, -11), (304, 294, 308)),
    "world_scenes/s2p_bejing-lowclouds": Curve((-70, -76, -51), (355, 349, 374)),
    "world_scenes/s2p_ijsselmeer-and-surroundings-low-clouds-relatively-dark": Curve(
        (-29, -35, -12), (335, 329, 352)
    ),
    "world_scenes/s2p_us-suburban-sprawl": Curve((-73, -93, -54), (391, 371, 410)),
    "world_scenes/s2_49JGM": Curve((-81, -74, -53), (284, 291, 312)),
    "ucmerced": Curve((-14, -13, -12), (286, 287, 288)),
    "world_scenes/l8_greenland_s": Curve(gamma=(1.0, 0.95, 1.1)),
    "world_scenes/corumba": Curve((4, 1, 19), (297, 280, 283), (1.16, 1.0, 1.13)),
}
TOWN_BLUE = 0.4  # of what blue lacks, the share that towns get


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


def towns(rgb: npt.NDArray[np.uint8], urban: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Blue Marble's towns, (..., 3) uint8 -> same, grey instead of yellow, as far as (...) 0..1 they are towns.

    Only blue changes, towards the mean of red and green: in its towns at 2.4 km it is 70 % of that.
    """
    raw = rgb.astype(np.float32)
    grey = raw[..., :2].mean(-1)
    blue = raw[..., 2]
    lifted = blue + urban * TOWN_BLUE * np.clip(grey - blue, 0, None)
    return np.concatenate([rgb[..., :2], np.round(lifted)[..., None].astype(np.uint8)], -1)
