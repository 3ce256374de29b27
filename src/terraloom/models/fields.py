"""Fields of one colour: what a coarse network drew is put where a planet has laid out its fields."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from terraloom.models.waves import enlarged

# pixels that what is drawn at a place can depend on: half of the longest field, and three cells of 16 in `enlarged`
REACH = 64


def gathered(y: Tensor, lr: Tensor, moved: Tensor) -> Tensor:
    """Every quarter of a pixel takes the colour of another place; its low-resolution image stays about the same.

    Args:
        y: (1, C, h, w).
        lr: (1, C, h / k, w / k), what the means of k x k pixels were.
        moved: (2, 2h, 2w) how far the place is away, y and x in pixels; 0 changes nothing.

    Returns:
        (1, C, h, w): a pixel is the mean of its quarters; places beyond the rim stand for its own pixels.
    """
    rows, columns = (
        ((torch.arange(2 * n) + 0.5).view(shape) / 2 + by).floor().long().clamp(0, n - 1)
        for n, shape, by in zip(y.shape[-2:], ((-1, 1), (1, -1)), moved, strict=True)
    )
    out = F.avg_pool2d(y[:, :, rows, columns], 2)
    side = y.shape[-1] // lr.shape[-1]
    return out + enlarged(lr - F.avg_pool2d(out, side), out)
