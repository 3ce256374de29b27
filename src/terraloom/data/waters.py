"""Where water is, finer than the maps: shores and rivers that bend by noise between pixels of 611 m.

A pixel of the base map is 2.4 km wide, at a shore half land and half sea, and a network that is given the mixture
draws a mixture. The maps know on which side of the pixel the sea lies, and where a river runs through it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from terraloom.data.ground import LAYERS, MASK_LEVEL, WIDTH_BIT, WIDTHS, Ground
from terraloom.data.patches import smooth
from terraloom.grid import Window, level_size
from terraloom.noise import NoiseField

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
BENDS = (
    (8, 0.22),
    (9, 0.08),
    (10, 0.04),
)  # zoom and standard deviation, in pixels of the maps, of bends
REACH = 4  # pixels of the maps, further than shores bend
BENDING = NoiseField(0)  # the same for all planets, for shores are what is really there
WIDEST = 0.6  # pixels of the maps, half the width of a river at most
STEPS = ((0, 0), (0, 1), (1, 0), (1, 1), (1, -1))  # from a pixel of a river to the next


def water(ground: Ground, level: int, x: int, y: int, shape: tuple[int, int]) -> Floats:
    """How much of each pixel is sea, lake or river.

    Args:
        ground: the maps.
        level: of the pixels, `MASK_LEVEL` or finer.
        x: of the first pixel, any integer.
        y: likewise.
        shape: height and width.

    Returns:
        float32 (h, w) of 0..1.
    """
    per = 1 << level - MASK_LEVEL
    bits, (top, left) = _map(ground, per, x, y, shape)
    bit = {name: (bits >> k & 1).astype(bool) for k, name in enumerate(LAYERS)}
    wet = ~bit["land"] | bit["lake"]
    half = _half_widths(np.asarray(bits >> WIDTH_BIT, np.uint8), top)
    river = half > 0
    near = widened(widened(wet) & widened(~wet)) | widened(river)
    # of pixels of the map: which one each row and column lies in, and how far from the middle of the first read one
    row, column = (
        (start + np.arange(count)) // per - first
        for start, count, first in zip((y, x), shape, (top, left), strict=True)
    )
    out: Floats = wet[np.ix_(row, column)].astype(np.float32)
    rows, columns = np.nonzero(near[np.ix_(row, column)])
    if not len(rows):
        return out
    bend: Any = 0
    for source, size in BENDS:
        if source <= level:
            bend = bend + size * smooth(BENDING, source, (level, y, x), shape)[:, rows, columns]
    at = [
        (start + pixels + 0.5) / per - first - 0.5 + off
        for start, pixels, first, off in zip(
            (y, x), (rows, columns), (top, left), bend, strict=True
        )
    ]
    covered = np.clip(0.5 + (_between(wet, at) - 0.5) * per, 0, 1)
    if river.any():
        line = np.clip(0.5 + _inside(half, at) * per, 0, 1)
        covered = np.maximum(covered, line)
    out[rows, columns] = covered
    return out


def widened(mask: Mask) -> Mask:
    """With the eight neighbours of every pixel."""
    high = np.pad(mask, 1)
    rows = high[:-2] | high[1:-1] | high[2:]
    return np.asarray(rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:])


def _map(
    ground: Ground, per: int, x: int, y: int, shape: tuple[int, int]
) -> tuple[Bytes, tuple[int, int]]:
    top, left = y // per - REACH, x // per - REACH
    height, width = (
        (start + count - 1) // per + REACH + 1 - first
        for start, count, first in zip((y, x), shape, (top, left), strict=True)
    )
    return ground.read_mask(left, top, width, height), (top, left)


def _between(wet: Mask, at: list[Any]) -> Any:
    """Bilinear interpolation at places (n,) and (n,)."""
    first = [np.floor(v).astype(np.int64) for v in at]
    share = [v - f for v, f in zip(at, first, strict=True)]
    r, c = (np.clip(f, 0, n - 2) for f, n in zip(first, wet.shape, strict=True))
    upper = wet[r, c] * (1 - share[1]) + wet[r, c + 1] * share[1]
    lower = wet[r + 1, c] * (1 - share[1]) + wet[r + 1, c + 1] * share[1]
    return upper * (1 - share[0]) + lower * share[0]


def _half_widths(width: Bytes, top: int) -> Floats:
    """Half the width of the river in each pixel of the maps, in such pixels, 0 for none; `top` is the first row."""
    metres = np.asarray(WIDTHS, np.float32)[width] / 2
    rows = np.clip(top + np.arange(len(width)), 0, level_size(MASK_LEVEL) - 1)
    first, last = int(rows[0]), int(rows[-1])
    pixel = Window(MASK_LEVEL, 0, first, 1, last - first + 1).gsd[rows - first]
    return np.asarray(np.minimum(metres / pixel[:, None], WIDEST), np.float32)


def _inside(half: Floats, at: list[Any]) -> Any:
    """How far inside a river places are, in pixels of the maps, negative outside; -1 where none is near.

    A river is the line between neighbouring pixels that have one, as wide as they say.
    """
    river = half > 0
    middle = [
        np.clip(np.round(v).astype(np.int64), 2, n - 3)
        for v, n in zip(at, river.shape, strict=True)
    ]
    place = [v - m for v, m in zip(at, middle, strict=True)]
    most = np.full(len(at[0]), -1.0)
    for r in (-1, 0, 1):
        for c in (-1, 0, 1):
            here = half[middle[0] + r, middle[1] + c]
            for down, right in STEPS:
                there = half[middle[0] + r + down, middle[1] + c + right]
                both = (here > 0) & (there > 0)
                if down and right:  # corners are cut only where no pixel leads around them
                    both &= ~river[middle[0] + r + down, middle[1] + c]
                    both &= ~river[middle[0] + r, middle[1] + c + right]
                if not both.any():
                    continue
                py, px = place[0][both] - r, place[1][both] - c
                along = np.clip((py * down + px * right) / (down**2 + right**2 or 1), 0, 1)
                away = np.hypot(py - along * down, px - along * right)
                wide = here[both] + along * (there[both] - here[both])
                most[both] = np.maximum(most[both], wide - away)
    return most
