"""A tiny random model for dated images, in which every input matters; for the tests of its pipelines."""

from __future__ import annotations

from typing import Any

import torch

from terraloom.models.controlnet3d import ControlNet3D
from terraloom.models.frames import COLOURS, FACTOR, IN_CHANNELS, networks
from terraloom.models.satellite_unet import SatelliteUNet

TINY: dict[str, Any] = dict(
    sample_size=32,
    in_channels=IN_CHANNELS,
    out_channels=COLOURS * FACTOR**2,
    block_out_channels=(32, 32, 32),
    layers_per_block=1,
    down_block_types=("DownBlock2D",) * 3,
    up_block_types=("UpBlock2D",) * 3,
    mid_block_type="UNetMidBlock2D",
    attention_head_dim=8,
    resnet_time_scale_shift="scale_shift",
    missing="learned",
    cross_attention_dim=1,
)


def tiny_networks(seed: int = 3) -> tuple[SatelliteUNet, ControlNet3D]:
    """Always the same weights; layers that begin at zero would hide inputs from the output."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet, control = networks(TINY)
        with torch.no_grad():
            for net in (unet, control):
                for name, parameter in net.named_parameters():
                    parameter.add_(0.03 * torch.randn_like(parameter))
                    parameter.mul_(8 if "metadata" in name else 1)
    return unet.eval(), control.eval()
