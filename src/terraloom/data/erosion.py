"""Valleys and ridges as water carves them: gullies that run down the slopes of hills, octave by octave.

Each octave follows the slope of all before it, so small gullies lead into large ones and both off the ridges, as they
do where it has rained for long. Nothing flows: a place is known from the noise around it. The gullies of a cell are a
wave across the slope, of a phase of its own, and where cells meet, the phases of waves are blended, not
heights (as in Tricard and others, "Procedural phasor noise", 2019), so that gullies neither end nor cross there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from terraloom.data.patches import curved
from terraloom.noise import NoiseField, share_below

Floats = npt.NDArray[np.float32]
HILLS = ((64, 1.0), (32, 0.175))  # pixels from one hill to the next, and their height
GULLIES = (32, 16, 8, 4, 2)  # pixels from one gully to the next
MARGIN = len(GULLIES)  # pixels: each octave looks at its neighbours
DEEP = 0.3 / 64  # depth of a gully over the distance to the next
GENTLE = 0.25 / 64  # slope at which gullies have half their depth
JITTER = 0.4  # of a cell, how far off its middle its point lies at most
REACH = 1.2  # of a cell, how far its wave reaches
TINY = np.float32(1e-9)


def carved(noise: NoiseField, level: int, x: int, y: int, height: int, width: int) -> Floats:
    """How high the pixels of a window lie above or below the hills that gullies are carved in, float32 (h, w)."""
    x, y, height, width = x - MARGIN, y - MARGIN, height + 2 * MARGIN, width + 2 * MARGIN
    hills = np.zeros((height, width), np.float32)
    for apart, tall in HILLS:
        drawn = curved(noise, _zoom(level, apart), level, x, y, height, width)
        hills += (tall * drawn).astype(np.float32)
    ground = hills
    for apart in GULLIES:
        x, y = x + 1, y + 1
        east, south = slopes(ground)
        steep = np.sqrt(east**2 + south**2)
        across = south / (steep + TINY), -east / (steep + TINY)
        deep = np.float32(DEEP * apart) * steep / (steep + np.float32(GENTLE))
        ground = ground[1:-1, 1:-1] + deep * _waves(noise, level, apart, x, y, across)
    return ground - hills[MARGIN:-MARGIN, MARGIN:-MARGIN]


def slopes(height: Floats) -> tuple[Floats, Floats]:
    """How much heights rise a pixel, to the east and to the south, of all but the outermost pixels."""
    east = height[1:-1, 2:] - height[1:-1, :-2]
    south = height[2:, 1:-1] - height[:-2, 1:-1]
    return np.float32(0.5) * east, np.float32(0.5) * south


def _zoom(level: int, pixels: int) -> int:
    """The zoom whose pixels are so many pixels of a level wide, a power of two."""
    return level - pixels.bit_length() + 1


def _waves(
    noise: NoiseField, level: int, apart: int, x: int, y: int, across: tuple[Floats, Floats]
) -> Floats:
    """Waves of -1..1, `apart` pixels long, in the direction `across`, unit vectors to the east and to the south."""
    height, width = across[0].shape
    rows, columns = y + np.arange(height), x + np.arange(width)
    top, left = int(rows[0]) // apart - 1, int(columns[0]) // apart - 1
    row, column = rows // apart - top, columns // apart - left
    size = int(column[-1]) + 2, int(row[-1]) + 2
    drawn = share_below(noise.window(_zoom(level, apart), left, top, *size, 3))
    most = np.array([np.pi, JITTER, JITTER], np.float32)[:, None, None]
    points = most * (2 * drawn - 1).astype(np.float32)  # phase, y and x
    down, right = (((at % apart + 0.5) / apart - 0.5).astype(np.float32) for at in (rows, columns))
    east, south = (np.float32(2 * np.pi) * part for part in across)
    cosine, sine = np.zeros((2, height, width), np.float32)
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            point = points.take(row + i, 1).take(column + j, 2)
            off_y, off_x = (down - i)[:, None] - point[1], (right - j) - point[2]
            near = np.maximum(1 - (off_y**2 + off_x**2) / np.float32(REACH**2), 0)
            weight = near**2 * near**2
            phase = off_x * east + off_y * south + point[0]
            cosine += weight * np.cos(phase)
            sine += weight * np.sin(phase)
    return np.asarray(cosine / np.sqrt(cosine**2 + sine**2 + TINY))
