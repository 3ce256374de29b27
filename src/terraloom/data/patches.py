"""Smooth noise of a planet, by which borders bend."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from terraloom.noise import NoiseField


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
