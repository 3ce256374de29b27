"""Shores: a network draws land alone where a parent's pixels mix it with water, and water is laid over it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from terraloom.models.blur import blurred
from terraloom.models.waves import enlarged

REACH = 4  # cells, pixels of the parent that a colour is looked for
FAR = 8  # cells, likewise for that of open water
RIM = 2  # cells next to a shore whose water is not that of open water in a map, whose land is not land alone
MARGIN = FAR + RIM  # cells that a cell of a map depends on
PURE = 0.03  # share of water below which a cell is land, and of land below which it is water
DARK = (-0.5, -0.36, -0.38)  # water where none is near
OTHERS = 0.7  # share of the neighbours' colour in a cell by a shore
RIPPLE = 0.006  # of -1..1, standard deviation on water
CALM = 0.6  # how much less water takes of what a parent's pixel is off than land does
FAINT = 1e-3  # weight of that


def shored(lr: Tensor, share: Tensor) -> Tensor:
    """A map whose pixels are as much water as they should be.

    Shores of an image lie a pixel off those of a map, and its colours run across them. Here every cell near a shore is
    mixed anew: of open water's colour, and of its own or its neighbours' without what it has of the water's.

    Args:
        lr: (B, 3, h, w) in [-1, 1].
        share: (B, 1, h, w) of water in each cell.

    Returns:
        (B, 3, h, w); cells `MARGIN` or less from the edge of the window may look for colours in vain.
    """
    far = _least(1 - share, RIM) > 1 - PURE  # all land around
    deep = _least(share, RIM) >= 1 - PURE
    sea = _around(lr, deep.to(lr.dtype), lr.new_tensor(DARK).view(1, 3, 1, 1).expand_as(lr), FAR)
    land = _around(lr, far.to(lr.dtype), lr, REACH)
    way = sea - land
    length = way.square().sum(1, keepdim=True).clamp(min=1e-3)
    part = ((lr - land) * way).sum(1, keepdim=True) / length
    # the colour of a narrow river does not run, so what is beside it keeps its own
    wide = (2 * F.max_pool2d(share, 2 * RIM + 1, 1, RIM) - 0.6).clamp(0, 1)
    own = lr - wide * part.clamp(0, 1) * way
    much = torch.maximum((2 * share).clamp(max=1), OTHERS * wide)
    mixed = share * sea + (1 - share) * (much * land + (1 - much) * own)
    return torch.where(far | deep, lr, mixed)


def unmixed(lr: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """What colour the land and the water of each cell have.

    Both are means of the cells near that are land or water alone. Where a narrow river leaves most of a cell to the
    land, the land is what remains of the cell's colour without the river's.

    Args:
        lr: (B, 3, h, w) in [-1, 1].
        share: (B, 1, h, w) of water in each cell.

    Returns:
        Two of (B, 3, h, w): where a cell is all land or all water, that is `lr`.
    """
    dry, wet = (share <= PURE).to(lr.dtype), (share >= 1 - PURE).to(lr.dtype)
    land = _around(lr, dry, lr, REACH)
    sea = _around(lr, wet, lr.new_tensor(DARK).view(1, 3, 1, 1).expand_as(lr), REACH)
    rest = ((lr - share * sea) / (1 - share).clamp(min=0.5)).clamp(-1, 1)
    much = (2 * share).clamp(max=1)
    land = much * land + (1 - much) * rest
    return dry * lr + (1 - dry) * land, wet * lr + (1 - wet) * sea


def overlaid(y: Tensor, lr: Tensor, sea: Tensor, wet: Tensor, noise: Tensor) -> Tensor:
    """Water over an image, with a ripple that is hardly seen: rounding would leave the parent's pixels on even water.

    Args:
        y: (B, 3, k h, k w).
        lr: (B, 3, h, w), what the means of k x k pixels come to, about.
        sea: likewise, the water's colour.
        wet: (B, 1, k h, k w), how much of each pixel it covers.
        noise: (B, 1, k h, k w) standard normal.
    """
    side = y.shape[-1] // lr.shape[-1]
    out = y + wet * (enlarged(sea, y) + RIPPLE * noise - y)
    weight = 1 - CALM * wet
    off = (lr - F.avg_pool2d(out, side)) / F.avg_pool2d(weight, side)
    return out + weight * enlarged(off, y)


def _around(x: Tensor, weight: Tensor, otherwise: Tensor, reach: int) -> Tensor:
    """Weighted means of what is near; `otherwise` where nothing has a weight."""
    top = blurred(x * weight, reach / 2.5, reach) + FAINT * otherwise
    return top / (blurred(weight, reach / 2.5, reach) + FAINT)


def _least(x: Tensor, reach: int) -> Tensor:
    """The least of all cells so near."""
    return -F.max_pool2d(-x, 2 * reach + 1, 1, reach)
