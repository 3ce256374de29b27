"""How alike images are: their detail, wave by wave, and the features of a frozen network (`models.critic.Features`)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from terraloom.models.cascade import SIZES, scaling
from terraloom.models.critic import Features

FAINT = 0.1  # added to the power of an image's detail before dividing by it
MAPS = 4  # features compared: strides 2 to 16
GROWN = 1.5  # a chip of 64 px is shown as 96 px: the coarsest features are 3 x 3


def misses(seen: Tensor, truth: Tensor, sigma: Tensor, weight: Tensor) -> Tensor:
    """Squared error of seen detail in the network's own scaling, relative to the power of the true one.

    A faint image counts as much as a bold one.

    Args:
        seen: (B, 45, h, w) waves.
        truth: (B, 45, h, w) waves.
        sigma: (B,) where it was seen.
        weight: (B, 1, h, w) or (1, 1, 1, 1) of cells.

    Returns:
        (B,)
    """
    sizes = SIZES.to(seen.device)[:, None, None]
    error = (weight * ((seen - truth) / scaling(sigma)[1]) ** 2 * sizes).mean((1, 2, 3))
    return error / ((truth.square() / sizes).mean((1, 2, 3)) + FAINT)


def looked_at(features: Features, images: Tensor) -> list[Tensor]:
    """Maps of images (B, 3, H, W) in [-1, 1], `GROWN`, finest first, float32."""
    return maps(
        features, F.interpolate(images, scale_factor=GROWN, mode="bilinear", align_corners=False)
    )


def maps(features: Features, images: Tensor) -> list[Tensor]:
    """Maps of images (B, 3, H, W) in [-1, 1] as they are, finest first, float32."""
    with torch.autocast(images.device.type, torch.bfloat16):
        seen = features(images.contiguous(memory_format=torch.channels_last))
    return [f.float() for f in seen]


def looks_apart(features: Features, images: Tensor, true: Tensor) -> Tensor:
    """`unlikeness` of images (B, 3, H, W) in [-1, 1] and of what they should show, by the finest `MAPS`, (B,)."""
    with torch.no_grad():
        right = maps(features, true)[:MAPS]
    return unlikeness(maps(features, images)[:MAPS], right)


def unlikeness(seen: list[Tensor], true: list[Tensor]) -> Tensor:
    """Difference of features relative to each channel's size, mean over the images and the maps.

    Args:
        seen: maps (B, C, h, w) of the images, float32.
        true: the maps of what they should show.

    Returns:
        (B,), 0 or more.
    """
    return torch.stack([_relative(a, b) for a, b in zip(seen, true, strict=True)]).mean(0)


def _relative(a: Tensor, b: Tensor) -> Tensor:
    """(B,): the size of a channel is its mean absolute value over the images of `b`."""
    return ((a - b).abs() / (b.abs().mean((0, 2, 3), keepdim=True) + 0.05)).mean((1, 2, 3))
