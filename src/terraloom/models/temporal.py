"""Layers over a set of dated images, (B, C, T, H, W), of which some may be missing.

A mask (B, T) is False where there is no image. Such a frame acts as if it were not there: it is zero before every
convolution, as what lies beyond the first and the last frame is; it has no part in group statistics or attention.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from torch import Tensor, nn


def present(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x`, (B, C, T, H, W), with zeros (never NaN) in frames that are missing."""
    return x if mask is None else torch.where(mask[:, None, :, None, None], x, 0)


class FrameConv(nn.Conv3d):
    """A 3D convolution with stride in space alone that a CPU computes as one in 2D over neighbouring frames.

    oneDNN has no fast 3D kernel here: the ControlNet's encoder took four fifths of a draw. And under autocast the
    gradient of 3D weights in bfloat16 holds garbage now and then (torch 2.13: 1e28 among 1e-2).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, out, T, h, w)."""
        if x.device.type != "cpu":
            return super().forward(x)
        return self._flat(x)

    def _flat(self, x: Tensor) -> Tensor:
        rows, frames, reach = x.shape[0], x.shape[2], self.kernel_size[0]
        around = F.pad(x, (0, 0, 0, 0, reach // 2, reach // 2))
        near = torch.stack([around[:, :, i : i + frames] for i in range(reach)], 2)
        flat = near.permute(0, 3, 1, 2, 4, 5).reshape(rows * frames, -1, *x.shape[3:])
        y = F.conv2d(
            flat,
            self.weight.flatten(1, 2),
            self.bias,
            self.stride[1:],
            self.padding[1:],
        )
        return y.reshape(rows, frames, *y.shape[1:]).movedim(1, 2)


class FrameEncoder(nn.Module):
    """Conditioning images to the size of the latents: 3D convolutions, stride in space alone (DiffusionSat, A.2).

    Between two `widths` the sides are halved. The last convolution starts at zero.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], out: int) -> None:
        super().__init__()
        self.conv_in = FrameConv(channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for a, b in pairwise(widths):
            self.blocks.append(FrameConv(a, a, 3, padding=1))
            halve = FrameConv(a, b, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
            self.blocks.append(halve)
        self.conv_out = zeroed(FrameConv(widths[-1], out, 3, padding=1))

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, channels, T, H, W) -> (B, out, T, h, w)."""
        x = self.conv_in(present(frames, mask))
        for block in self.blocks:
            x = block(present(F.silu(x), mask))
        out: Tensor = self.conv_out(present(F.silu(x), mask))
        return out


class TemporalAttention(TransformerTemporalModel):
    """diffusers' transformer over the frames of each pixel, for frames that may be missing."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """(B, C, T, H, W) -> same."""
        b, c, t, h, w = x.shape
        y = self.norm(x) if mask is None else _masked_group_norm(self.norm, x, mask)
        y = self.proj_in(y.permute(0, 3, 4, 2, 1).reshape(b * h * w, t, c))
        bias = None
        if mask is not None:
            bias = torch.zeros(mask.shape, dtype=y.dtype, device=y.device)
            bias = bias.masked_fill(~mask, torch.finfo(y.dtype).min)
            bias = bias[:, None].repeat_interleave(h * w, 0)  # (rows, 1, keys)
        for block in self.transformer_blocks:  # both of its attentions are over the frames
            y = block(y, attention_mask=bias, encoder_attention_mask=bias)
        y = self.proj_out(y).reshape(b, h, w, t, c).permute(0, 4, 3, 1, 2)
        out: Tensor = x + y
        return out


def mix(weight: Tensor, on: Tensor, off: Tensor) -> Tensor:
    """`on` by `weight` and `off` by the rest, the weight held to [0, 1] without stopping its gradient."""
    held = (weight + (weight.clamp(0, 1) - weight).detach()).to(on.dtype)
    return held * on + (1 - held) * off


def zeroed(module: Any) -> Any:
    """The module with all parameters zero."""
    for p in module.parameters():
        nn.init.zeros_(p)
    return module


def _masked_group_norm(norm: nn.GroupNorm, x: Tensor, mask: Tensor) -> Tensor:
    """`norm` with the statistics of the present frames alone; a sample without any stays finite."""
    grouped = x.reshape(len(x), norm.num_groups, -1, *x.shape[2:]).float()  # (B, G, C / G, T, H, W)
    there = mask[:, None, None, :, None, None]
    axes = (2, 3, 4, 5)
    count = there.expand_as(grouped).sum(axes, keepdim=True).clamp(min=1)
    mean = torch.where(there, grouped, 0).sum(axes, keepdim=True) / count
    var = torch.where(there, grouped - mean, 0).square().sum(axes, keepdim=True) / count
    y = ((grouped - mean) * torch.rsqrt(var + norm.eps)).to(x.dtype).flatten(1, 2)
    per_channel = (slice(None), None, None, None)
    out: Tensor = y * norm.weight[per_channel] + norm.bias[per_channel]
    return out
