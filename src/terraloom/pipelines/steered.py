"""A UNet steered by a ControlNet, called as the UNet alone is: so samplers and guidance need not know of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from terraloom.errors import InvalidInput
from terraloom.metadata import Metadata
from terraloom.models.controlnet2d import ControlNet2D


class Steered:
    """Both networks with the conditioning of one image.

    Args:
        unet: the network.
        controlnet: `ControlNet2D` or `ControlNet3D`.
        frames: (C, T, H, W) in [0, 1], as the released weights were trained; a 2D net takes them on the channel axis.
        told: (7, T) metadata of the frames, None where the ControlNet takes none.
        scale: factor of the residuals.
    """

    def __init__(
        self, unet: Any, controlnet: Any, frames: Tensor, told: Tensor | None, scale: float
    ) -> None:
        self.unet, self.controlnet, self.scale = unet, controlnet, scale
        self.dtype, self.device, self.config = unet.dtype, unet.device, unet.config
        flat = isinstance(controlnet, ControlNet2D)
        self.frames = (frames.movedim(1, 0).flatten(0, 1) if flat else frames)[None]
        self.told = None if told is None else told[None]

    def __call__(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        metadata: Tensor | None = None,
        return_dict: bool = False,
    ) -> Any:
        """The steered prediction, see `SatelliteUNet.forward`; rows whose metadata are all missing know no frame's."""
        rows = len(sample)
        told = self.told
        if told is not None:
            told = told.expand(rows, -1, -1)
            if (
                metadata is not None
            ):  # without guidance's condition, the frames' numbers are left out as well
                known = ~metadata.isnan().all(1)
                if known.any():
                    told = torch.where(known[:, None, None], told, torch.nan)
        down, middle = self.controlnet(
            sample,
            timestep,
            encoder_hidden_states,
            self.frames.expand(rows, *self.frames.shape[1:]).to(self.device, self.dtype),
            conditioning_scale=self.scale,
            metadata=metadata,
            cond_metadata=told,
            return_dict=False,
        )
        return self.unet(
            sample,
            timestep,
            encoder_hidden_states,
            metadata=metadata,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=return_dict,
        )


def vectors(metadata: list[Metadata | None]) -> Tensor:
    """Metadata of frames as the released weights know it, (7, T); NaN where nothing at all is known of a frame."""
    rows = [
        torch.full((7,), torch.nan) if m is None else torch.from_numpy(m.vector("diffusionsat"))
        for m in metadata
    ]
    return torch.stack(rows, 1)


def check_frames(frames: Tensor, controlnet: Any, height: int, width: int) -> None:
    """Refuse frames that the ControlNet cannot take for an image of this size.

    Raises:
        InvalidInput: another number of dimensions or bands, or another size.
    """
    wanted = controlnet.config["conditioning_channels"]
    flat = isinstance(controlnet, ControlNet2D)
    scale = controlnet.config["conditioning_scale"] if flat else 1
    if frames.ndim != 5:
        raise InvalidInput(
            f"frames have shape {tuple(frames.shape)}; (images, bands, dates, height, width) is needed"
        )
    bands = frames.shape[1] * frames.shape[2] if flat else frames.shape[1]
    if bands != wanted:
        raise InvalidInput(f"the frames have {bands} bands; this ControlNet takes {wanted}")
    if tuple(frames.shape[3:]) != (height // scale, width // scale):
        raise InvalidInput(
            f"frames of {frames.shape[4]} x {frames.shape[3]} px do not fit an image of {width} x {height} px: "
            f"they must be {width // scale} x {height // scale} px"
        )
