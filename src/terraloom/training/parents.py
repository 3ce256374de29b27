"""Parents as they are at run time, where training else shows true ones: what networks drew, and what is even."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from terraloom.models.waves import reduce4
from terraloom.training.batches import Batch, quantise
from terraloom.weights import COARSE_GSD

# sigmas of a flow's steps where it draws its own parents
OWN_STEPS = (1.0, 0.82, 0.65, 0.48, 0.33, 0.19, 0.08, 0.0)
EVEN = 0.08  # range of a parent's neighbouring pixels, of [-1, 1], where a chain teaches little
BASE_GSD = 1000.0  # metres; coarser parents are the base map
# low-resolution images (hr of the batch) -> images, (B, 3, 4h, 4w)
Drawer = Callable[[Batch], Tensor]


@torch.no_grad()
def own_parents(batch: Batch, near: Drawer, far: Drawer) -> Tensor:
    """What is drawn at the level of images' low-resolution images from their own, (B, 3, 4h, 4w) -> (B, 3, h, w).

    Args:
        batch: the images.
        near: draws parents below `COARSE_GSD`.
        far: draws those from there on; may be the same.

    Images whose parents nobody draws, those of the base map, keep the true ones.
    """
    lr = reduce4(batch.hr)
    here = Batch(
        quantise(reduce4(lr)), batch.cover[:, ::4, ::4], batch.ground[:, :, ::4, ::4], batch.gsd * 4
    )
    drawn = near(here)
    if far is not near:
        drawn = torch.where((here.gsd >= COARSE_GSD)[:, None, None, None], far(here), drawn)
    return quantise(torch.where((here.gsd > BASE_GSD)[:, None, None, None], lr, drawn))


def evenness(lr: Tensor) -> Tensor:
    """1 where a low-resolution image (B, 3, h, w) is even, towards 0 where neighbours differ: (B, 1, h, w)."""
    grey = F.pad(lr.mean(1, keepdim=True), (1, 1, 1, 1), mode="reflect")
    spread = F.max_pool2d(grey, 3, 1) + F.max_pool2d(-grey, 3, 1)
    return torch.exp(-((spread / EVEN) ** 2))
