"""Holes for in-painting: blobs like clouds, straight edges like missing tiles, stripes like a failed scan line."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

Mask = npt.NDArray[np.float32]
SHARES = (0.03, 0.45)  # of the image that is missing


def hole(rng: np.random.Generator, side: int) -> Mask:
    """(side, side), 1 where pixels are missing; never nothing and never everything."""
    kind = rng.random()
    if kind < 0.6:
        mask = blobs(rng, side, float(rng.uniform(*SHARES)))
    elif kind < 0.85:
        mask = _boxes(rng, side)
    else:
        mask = _stripes(rng, side)
    if mask.all() or not mask.any():
        mask[:] = 0
        mask[side // 4 : side // 2, side // 4 : side // 2] = 1
    return mask


def blobs(rng: np.random.Generator, side: int, share: float) -> Mask:
    """The highest `share` of a smooth random field."""
    cells = int(rng.integers(2, 7))
    coarse = torch.from_numpy(rng.standard_normal((1, 1, cells, cells), dtype=np.float32))
    fine = torch.from_numpy(rng.standard_normal((1, 1, 4 * cells, 4 * cells), dtype=np.float32))
    field = sum(
        F.interpolate(part, size=(side, side), mode="bicubic", align_corners=False) * weight
        for part, weight in ((coarse, 1.0), (fine, 0.25))
    )
    assert isinstance(field, torch.Tensor)
    values: Mask = field[0, 0].numpy()
    return (values > np.quantile(values, 1 - share)).astype(np.float32)


def _boxes(rng: np.random.Generator, side: int) -> Mask:
    mask = np.zeros((side, side), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        h, w = (int(n) for n in rng.integers(side // 10, side // 2, 2))
        y, x = int(rng.integers(-h // 2, side - h // 2)), int(rng.integers(-w // 2, side - w // 2))
        mask[max(y, 0) : y + h, max(x, 0) : x + w] = 1
    return mask


def _stripes(rng: np.random.Generator, side: int) -> Mask:
    """Parallel slanted bands."""
    y, x = np.mgrid[:side, :side]
    angle, period = rng.uniform(0, np.pi), rng.uniform(16, 48)
    along = (x * np.cos(angle) + y * np.sin(angle)) / period
    width = rng.uniform(0.1, 0.4)
    return np.asarray((along + rng.random()) % 1 < width, np.float32)
