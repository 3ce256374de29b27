"""What a coarse network drew is put where a planet has laid out its fields, each of one tone, and slopes, furrows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from terraloom.models.blur import blurred
from terraloom.models.waves import enlarged

# pixels that what is drawn at a place depends on at most: where a field has its tone from, and what `enlarged` reads
REACH = 96
COARSER, WIDE = (
    4,
    (3.0, 8),
)  # pixels whose contrast is one, and of such, Gaussian under which it is measured
GRAIN = 0.3  # of what was drawn, what remains upon a relief


def evened(y: Tensor, lr: Tensor, away: Tensor) -> Tensor:
    """Every quarter of a pixel takes the parent's colour at one place and what was drawn upon it at another.

    Args:
        y: (1, C, h, w).
        lr: (1, C, h / k, w / k), the means of k x k pixels of `y`, which stay about the same.
        away: (4, 2h, 2w) how far the places are, y and x of either in pixels.

    Returns:
        (1, C, h, w): a pixel is the mean of its quarters; for places beyond the rim the nearest within stand.
    """
    low = enlarged(lr, y)
    here, there = (_at(y, part) for part in (away[:2], away[2:]))
    out = F.avg_pool2d(low[here] + (y - low)[there], 2)
    side = y.shape[-1] // lr.shape[-1]
    return out + enlarged(lr - F.avg_pool2d(out, side), out)


def shaded(y: Tensor, lr: Tensor, shade: Tensor) -> Tensor:
    """Slopes or furrows in the place of what was drawn, as strong as that was.

    Args:
        y: (1, C, h, w).
        lr: (1, C, h / k, w / k), the means of k x k pixels of `y`.
        shade: (4, h, w), see `terraloom.data.relief.shade`.
    """
    share, least, most, light = shade
    low = enlarged(lr, y)
    detail = y - low
    power = blurred(F.avg_pool2d(detail**2, COARSER), *WIDE)
    strong = F.interpolate(power, size=y.shape[-2:], mode="bilinear").sqrt().clamp(least, most)
    return low + torch.lerp(detail, GRAIN * detail + strong * light, share)


def _at(y: Tensor, away: Tensor) -> tuple[slice | Tensor, ...]:
    """Index of the pixel so far from each quarter of one."""
    rows, columns = (
        ((torch.arange(2 * n) + 0.5).view(shape) / 2 + by).floor().long().clamp(0, n - 1)
        for n, shape, by in zip(y.shape[-2:], ((-1, 1), (1, -1)), away, strict=True)
    )
    return slice(None), slice(None), rows, columns
