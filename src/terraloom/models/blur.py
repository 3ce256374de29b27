"""Gaussian blur of images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def blurred(x: Tensor, sigma: float | Tensor, reach: int) -> Tensor:
    """Images (B, C, H, W) under a Gaussian, mirrored beyond their edge.

    Args:
        x: of more than `reach` pixels a side.
        sigma: pixels, standard deviation, of all images or (B,) of each.
        reach: pixels on each side of the middle of the kernel.
    """
    b, c, h, w = x.shape
    t = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    sigmas = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(b)
    taps = torch.exp(-(t**2) / (2 * sigmas[:, None] ** 2))
    kernel = (taps / taps.sum(1, keepdim=True)).repeat_interleave(c, 0)
    flat = F.pad(x, (reach,) * 4, mode="reflect").reshape(1, b * c, h + 2 * reach, w + 2 * reach)
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=b * c)
    return F.conv2d(flat, kernel[:, None, None, :], groups=b * c).reshape(b, c, h, w)
