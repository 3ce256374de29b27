"""What stands between a cascade's convolutions as one pass over memory each, where the machine can compile it.

Norms, scales and activations read and write every number several times; compiled, a CPU trains a fifth faster.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from terraloom.models.cascade import CascadeUNet, ResBlock, activated, modulated


def fuse(net: CascadeUNet, device: torch.device) -> None:
    """Make the blocks of a network on a CPU use compiled passes; without a compiler they stay as they are."""
    if device.type != "cpu" or not (passes := _compiled()):
        return
    for block in net.modules():
        if isinstance(block, ResBlock):
            block.activated, block.modulated = passes  # type: ignore[assignment]


@cache
def _compiled() -> tuple[Callable[[Tensor], Tensor], Callable[..., Tensor]] | None:
    """Both passes, compiled and tried with their gradients; None where that fails, for whatever reason."""
    if os.environ.get("TORCH_COMPILE_DISABLE") == "1":
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of its own ways
            one = torch.compile(activated, dynamic=True)
            two = torch.compile(modulated, dynamic=True)
            x = torch.ones(2, 8, 6, 4).to(memory_format=torch.channels_last).requires_grad_()
            row = torch.ones(2, 8, 6, 1)
            (one(x).sum() + two(x, row, row).sum()).backward()  # type: ignore[no-untyped-call]
    except Exception:  # no compiler, no headers, no room: many kinds, of torch and of the system
        return None
    return one, two
