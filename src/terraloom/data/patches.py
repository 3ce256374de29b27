"""Smooth noise of a planet: by it borders bend and hills rise."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from terraloom.noise import NoiseField

EVEN = 0.48  # standard deviation of cubic splines through noise, on the average of places


def smooth(
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


def curved(
    noise: NoiseField, zoom: int, level: int, x: int, y: int, height: int, width: int
) -> Any:
    """Cubic splines through noise of a coarser zoom, so that slopes are smooth, of variance about 1."""
    per = 1 << level - zoom
    rows, down = _spline(y, height, per)
    columns, across = _spline(x, width, per)
    top, left = int(rows[0]), int(columns[0])
    drawn = noise.window(zoom, left, top, int(columns[-1]) - left + 4, int(rows[-1]) - top + 4)[0]
    lines: Any = sum(across[k] * drawn[:, columns - left + k] for k in range(4))
    return sum(down[k][:, None] * lines[rows - top + k] for k in range(4)) / EVEN


def _spline(
    start: int, count: int, per: int
) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[np.float64]]]:
    """The first of four neighbours of each pixel among those `per` times wider, and the weights of all four."""
    at = (start + np.arange(count) + 0.5) / per - 0.5
    first = np.floor(at).astype(np.int64)
    f = at - first
    cubes = (1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3
    return first - 1, [cube / 6 for cube in cubes]
