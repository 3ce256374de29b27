"""Dated images of a place in, one image out: the small network behind super-resolution, in-painting and forecasting.

DiffusionSat's second half (section 3.2 of arXiv 2312.03606) in a size for two cores: a `SatelliteUNet` steered by a
`ControlNet3D`, trained together. Three things differ from the official weights, and docs/decisions.md says why. The
network works on 4 x 4 px unshuffled, without attention. It is shown a *base*, a first guess of the answer made by
arithmetic alone, and draws what is missing from it. And one evaluation is a draw: the noise is an input, and the
loss (terraloom.training.frames) rewards draws that are spread like the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terraloom.models.controlnet3d import ControlNet3D
from terraloom.models.satellite_unet import SatelliteUNet
from terraloom.models.waves import consistent

FACTOR = 4  # pixels of a side that the networks see as channels
PERIOD = 16  # sides of an image are multiples of it
# STAC's common names of bands, in the order of the conditioning channels; the last channel is 1 where they are known
BANDS = (
    "red",
    "green",
    "blue",
    "nir",
    "rededge071",
    "rededge075",
    "rededge078",
    "nir08",
    "swir16",
    "swir22",
    "pan",
)
CHANNELS = len(BANDS) + 1
COLOURS = 3
RGB = BANDS[:COLOURS]
MOST_FRAMES = 3  # dates that are shown at once, in training and after
IN_CHANNELS = (COLOURS + COLOURS + 1) * FACTOR**2  # noise, base, free
SMOOTH = 17  # px, see `mingled`
LIMIT = 1.5  # what the networks see is held to +- this; roofs and clouds may lie far outside the stretch


@dataclass(frozen=True)
class Frames:
    """What is known of a batch of images; float32 unless said otherwise.

    `pixels` holds every band on the output's grid, about [-1, 1] after one linear stretch, 0 where a band is missing
    or a pixel unknown. Frames of one row stand in the order of their dates.
    """

    pixels: Tensor  # (B, CHANNELS, T, H, W)
    present: Tensor  # (B, T) bool, False where there is no frame
    dated: Tensor  # (B, 7, T) metadata of the frames, `Metadata.vector()`, NaN where missing
    target: Tensor  # (B, 7) metadata of the image to draw
    base: Tensor  # (B, 3, H, W) first guess
    free: Tensor  # (B, 1, H, W) 1 where pixels are drawn, 0 where `base` is the answer
    coarse: Tensor | None = (
        None  # (B, 3, H / 4, W / 4) what the 4 x 4 means must be (super-resolution)
    )

    def to(self, device: torch.device | str) -> Frames:
        """Moved to a device."""
        return self.each(lambda tensor: tensor.to(device))

    def each(self, change: Callable[[Tensor], Tensor]) -> Frames:
        """Every tensor changed."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: Any = {k: None if v is None else change(v) for k, v in parts.items()}
        return Frames(**changed)


def draw(unet: SatelliteUNet, control: ControlNet3D, frames: Frames, noise: Tensor) -> Tensor:
    """One draw for every row: (B, 3, H, W) standard normal noise -> (B, 3, H, W) float32.

    Equal to `base` where nothing is free; with `coarse`, its 4 x 4 means are exactly those.
    """
    parts = torch.cat([noise, frames.base.clamp(-LIMIT, LIMIT), frames.free], 1)
    sample = F.pixel_unshuffle(parts, FACTOR).contiguous(memory_format=torch.channels_last)
    count = frames.pixels.shape[2]
    text = sample.new_zeros(len(sample), 1, 1)  # no attention reads it
    time = torch.full((len(sample),), 1000.0, device=sample.device)
    down, middle = control(
        sample,
        time,
        text,
        frames.pixels.clamp(-LIMIT, LIMIT),
        # frames are summed; missing ones count, so more dates say more
        conditioning_scale=1 / count,
        metadata=frames.target,
        cond_metadata=frames.dated,
        frame_mask=frames.present,
        return_dict=False,
    )
    (detail,) = unet(
        sample,
        time,
        text,
        metadata=frames.target,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
        return_dict=False,
    )
    image = frames.base + frames.free * F.pixel_shuffle(detail.float(), FACTOR)
    return image if frames.coarse is None else consistent(image, frames.coarse)


def networks(config: dict[str, Any]) -> tuple[SatelliteUNet, ControlNet3D]:
    """UNet and ControlNet with fresh weights, from the arguments of a `SatelliteUNet` in a recipe."""
    unet = SatelliteUNet(**config)
    widths = (8, 24, config["block_out_channels"][0])
    control = ControlNet3D.from_unet(
        unet, conditioning_channels=CHANNELS, conditioning_embedding_out_channels=widths
    )
    for conv in (*unet.modules(), *control.modules()):
        if isinstance(
            conv, nn.Conv2d
        ):  # twice as fast on a CPU; not for the frames' 3D convolutions
            conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return unet, control


def filled(image: Tensor, known: Tensor) -> Tensor:
    """Unknown pixels from the mean of the known ones around them, ever farther out.

    Args:
        image: (B, C, H, W); what stands at unknown pixels does not count, NaN included.
        known: (B, 1, H, W), 0 or 1.

    Returns:
        (B, C, H, W), `image` where known; 0 where nothing at all is known.
    """
    image = torch.where(known > 0, image, 0)
    if min(image.shape[-2:]) == 1 or bool((known > 0).all()):
        share = known.mean((2, 3), keepdim=True)
        mean = image.mean((2, 3), keepdim=True) / share.clamp(min=1e-9)
        return torch.where(known > 0, image, mean)
    size = image.shape[-2:]
    weight = F.avg_pool2d(known, 2, ceil_mode=True)
    mean = F.avg_pool2d(image, 2, ceil_mode=True) / weight.clamp(min=1e-9)
    around = filled(mean, (weight > 0).to(known.dtype))
    smooth = F.interpolate(around, size=size, mode="bilinear", align_corners=False)
    return torch.where(known > 0, image, smooth)


def agreed(other: Tensor, image: Tensor, both: Tensor) -> Tensor:
    """Another date with the difference to an image added, smoothly carried on to where the image is unknown.

    What is pasted from it then meets the image without a step, whatever light and season did to the whole place.

    Args:
        other: (B, C, H, W), the other date.
        image: (B, C, H, W).
        both: (B, 1, H, W), 1 where both are known.

    Returns:
        (B, C, H, W), `image` where both are known.
    """
    return other + filled(image - other, both)


def mingled(images: Sequence[Tensor]) -> Tensor:
    """First guess of another date, from dates of a place: the first one's detail on the colours of their mean.

    Detail is what is finer than `SMOOTH` px. A mean of dates blurs it, a single date carries its own season.

    Args:
        images: (B, C, H, W) each, without unknown pixels, the nearest date first.

    Returns:
        (B, C, H, W).
    """
    return images[0] + smooth(torch.stack(list(images)).mean(0) - images[0])


def smooth(image: Tensor) -> Tensor:
    """Box means of `SMOOTH` px, twice, (B, C, H, W) -> same; of the pixels that there are at the rim."""
    for _ in range(2):
        image = F.avg_pool2d(image, SMOOTH, 1, SMOOTH // 2, count_include_pad=False)
    return image


def composed(images: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The first image where it is known, then the second ..., then `filled`: pairs (B, C, H, W), (B, 1, H, W)."""
    image, known = images[0]
    for other, there in images[1:]:
        image = torch.where(known > 0, image, other)
        known = torch.maximum(known, there)
    return filled(image, known)
