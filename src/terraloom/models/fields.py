"""What a coarse network drew is put where a planet has laid out its fields, each of one tone, and slopes, furrows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from terraloom.models.blur import blurred
from terraloom.models.waves import enlarged

# pixels that what is drawn at a place depends on at most: where a field has its tone from, and what `enlarged` reads
REACH = 96
COARSER = 4  # pixels whose contrast is one
WIDE = (3.0, 8)  # of such, Gaussian under which it is measured
PALEST = 0.1  # of -1..1, contrast between fields at least
LIFTED = 4.0  # how much it is raised at most
LOUDEST = 0.6  # of -1..1, how much a field differs from its surroundings at most
GRAIN = 0.3  # of what was drawn, what remains upon a relief


def evened(y: Tensor, lr: Tensor, away: Tensor) -> tuple[Tensor, Tensor]:
    """Every part of a pixel takes the parent's colour at one place and what was drawn upon it at another.

    Args:
        y: (1, C, h, w).
        lr: (1, C, h / k, w / k), the means of k x k pixels of `y`, which stay about the same.
        away: (4, n h, n w) how far the places of n x n parts are, y and x of either in pixels.

    Returns:
        (1, C, h, w), a pixel is the mean of its parts, and the same of the parent alone; for places beyond the rim the
        nearest within stand.
    """
    low, parts = enlarged(lr, y), away.shape[-1] // y.shape[-1]
    here = _at(y, away[:2])
    detail, elsewhere = y - low, away[2:].any(0)
    if elsewhere.any():
        there = _at(y, away[2:])
        more = (PALEST / _strength(detail).mean(1, keepdim=True)).clamp(1, LIFTED)
        even = LOUDEST * (more * detail / LOUDEST).tanh()
        detail = F.avg_pool2d(torch.where(elsewhere, even[there], detail[there]), parts)
    ground = F.avg_pool2d(low[here], parts)
    out = ground + detail
    return _held(out, lr), _held(ground, lr)


def _held(x: Tensor, lr: Tensor) -> Tensor:
    """With the parent's pixels as means, about."""
    return x + enlarged(lr - F.avg_pool2d(x, x.shape[-1] // lr.shape[-1]), x)


def shaded(y: Tensor, low: Tensor, shade: Tensor) -> Tensor:
    """Slopes or furrows in the place of what was drawn, as strong as that was.

    Args:
        y: (1, C, h, w).
        low: likewise, what it was drawn upon.
        shade: (4, h, w), see `terraloom.data.relief.shade`.
    """
    share, least, most, light = shade
    detail = y - low
    strong = _strength(detail).clamp(least, most)
    return low + torch.lerp(detail, GRAIN * detail + strong * light, share)


def _strength(detail: Tensor) -> Tensor:
    """Contrast of what is drawn around each pixel."""
    power = blurred(F.avg_pool2d(detail**2, COARSER), *WIDE)
    return F.interpolate(power, size=detail.shape[-2:], mode="bilinear").sqrt()


def _at(y: Tensor, away: Tensor) -> tuple[slice | Tensor, ...]:
    """Index of the pixel so far from each part of one."""
    parts = away.shape[-1] // y.shape[-1]
    rows, columns = (
        ((torch.arange(parts * n) + 0.5).view(shape) / parts + by).floor().long().clamp(0, n - 1)
        for n, shape, by in zip(y.shape[-2:], ((-1, 1), (1, -1)), away, strict=True)
    )
    return slice(None), slice(None), rows, columns
