"""Numbers about images: contrast, band power, lattices, consistency."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from terraloom.models.blur import blurred
from terraloom.training.batches import GROUPS
from terraloom.training.patterns import band_power

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating[Any]]
SQUARE = 64  # pixels; contrast and bands are measured in squares of this side, the size of the commonest chips
BLUR = 2.0  # pixels, sigma of the blur that high-pass detail leaves out


def group_of(cover: int) -> int:
    """Coarse class of an IGBP class."""
    return int(GROUPS[cover])


def as_tensor(rgb: npt.NDArray[Any]) -> Tensor:
    """uint8 (..., h, w) -> float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(rgb, dtype=np.float32)) / 127.5 - 1


def squares(rgb: Pixels) -> Tensor:
    """All whole squares of an image, uint8 (3, h, w) -> float (n, 3, SQUARE, SQUARE) in [-1, 1]."""
    parts = as_tensor(rgb).unfold(1, SQUARE, SQUARE).unfold(2, SQUARE, SQUARE)
    return parts.permute(1, 2, 0, 3, 4).flatten(0, 1)


def contrast(rgb: Pixels) -> float:
    """Standard deviation inside squares, mean over squares and channels, of 255."""
    return float(squares(rgb).std((2, 3), correction=0).mean() * 127.5)


def bands(rgb: Pixels) -> Floats:
    """Power of the grey image in three radial bands, mean over squares, (3,)."""
    return np.asarray(band_power(squares(rgb)).mean(0).numpy())


def ratio_of_bands(real: Tensor, other: Tensor) -> list[float]:
    """Mean band power of `other` over that of `real`, (B, 3, n, n) each."""
    ratio = band_power(other).mean(0) / band_power(real).mean(0)
    return [round(float(r), 3) for r in ratio]


def reduced(rgb: npt.NDArray[Any]) -> Floats:
    """4 x 4 means, (3, 4h, 4w) -> float (3, h, w)."""
    _, h, w = rgb.shape
    means: Floats = rgb.reshape(3, h // 4, 4, w // 4, 4).mean((2, 4), dtype=np.float64)
    return means


def detail(rgb: Pixels) -> Floats:
    """Grey image minus its Gaussian blur of sigma `BLUR`, float (h - 16, w - 16): the rim has no blur."""
    reach = int(4 * BLUR)
    grey = torch.from_numpy(rgb.astype(np.float32)).mean(0)[None, None]
    sharp = (grey - blurred(grey, BLUR, reach))[0, 0, reach:-reach, reach:-reach]
    return np.asarray(sharp.numpy(), np.float64)


def share_of_lattice(x: Floats, period: int) -> float:
    """Share of the variance of `x`, (h, w), that one repeated pattern of `period` x `period` px explains.

    The image is folded; the variance of the mean cell, less what independent cells would give it, over the variance
    of all (Terraloom's lattice estimator: about 0 without a lattice, 1 for a repeated tile).
    """
    rows, columns = (n // period for n in x.shape)
    count = rows * columns
    if count < 4:
        raise ValueError(f"an image of {x.shape} holds {count} cells of {period} px; 4 are needed")
    cells = x[: rows * period, : columns * period].reshape(rows, period, columns, period)
    mean = cells.mean((0, 2))
    within = float(cells.var((0, 2)).mean()) * count / (count - 1)
    total = float(cells.var())
    return (float(mean.var()) - within / count) / total if total > 0 else 0.0


def share_of_dots(x: Floats, period: int = 4) -> float:
    """The same for the size of the detail: strokes or dots at one place of every cell, whatever their sign."""
    return share_of_lattice(np.abs(x), period)
