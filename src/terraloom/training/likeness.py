"""How alike images are: their detail, wave by wave, and the features of a frozen network (`models.critic.Features`)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from terraloom.models.critic import Features
from terraloom.models.waves import SIZES, WAVES, detail_of, reduce4, scaling

FAINT = 0.4  # power of detail under an even parent
GOES_ON = 0.3  # and what is added to it, as part of the power of the parent's own detail
MAPS = 4  # features compared: strides 2 to 16
GROWN = 1.5  # a chip of 64 px is shown as 96 px: the coarsest features are 3 x 3


def misses(seen: Tensor, truth: Tensor, sigma: Tensor, weight: Tensor, lr: Tensor) -> Tensor:
    """Squared error of seen detail in the network's own scaling, relative to the power that its parent promises.

    A faint image counts about as much as a bold one. But never by the truth's own power: the mean of all that an image
    may be would then count the faint ones more, at every sigma, and what is drawn would be faint (by power, less than
    half of real detail under a parent that shows little).

    Args:
        seen: (B, waves, h, w).
        truth: (B, waves, h, w).
        sigma: (B,) where it was seen.
        weight: (B, 1, h, w) or (1, 1, 1, 1) of cells.
        lr: (B, 3, h, w) the parent as it was shown, in [-1, 1]; of a leap `softened`.

    Returns:
        (B,)
    """
    waves = seen.shape[1]
    sizes = SIZES.to(seen.device)[:, None, None]
    error = (weight * ((seen - truth) / scaling(sigma, waves)[1]) ** 2 * sizes[:waves]).mean(
        (1, 2, 3)
    )
    parent = lr if waves == WAVES else reduce4(lr)
    own = (detail_of(parent, reduce4(parent)).square() / sizes[:WAVES]).mean((1, 2, 3))
    return error / (GOES_ON * own + FAINT)


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
