"""A tiny random cascade network, and where tests look at a planet."""

from __future__ import annotations

from typing import Any

import torch

from terraloom.grid import TILE
from terraloom.models.cascade import CascadeConfig, CascadeUNet


def tiny(seed: int, **shape: Any) -> CascadeUNet:
    """A random network in which every input matters: layers that start at zero would hide some."""
    torch.manual_seed(seed)
    net = CascadeUNet(CascadeConfig(widths=(8, 16, 16), depth=1, embed=16, **shape))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


def corner(level: int) -> tuple[int, int]:
    """Global pixels of a corner of blocks at about 31 E 30 N."""
    tiles = 2**level
    return TILE * (int(tiles * 0.586) // 4 * 4), TILE * (int(tiles * 0.413) // 4 * 4)
