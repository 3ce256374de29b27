"""The small model's autoencoder: none. Pixels are moved to channels, which makes the network's canvas smaller."""

from __future__ import annotations

from os import PathLike
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_utils import ModelMixin  # diffusers looks for this name here
from torch import Tensor


class PixelAutoencoder(ModelMixin, ConfigMixin):
    """Pixel unshuffle in the shape of a diffusers autoencoder: exact, without weights.

    Args:
        factor: side of the square of pixels that becomes channels.
        scaling_factor: as in diffusers, latents are multiplied by it; here always 1.
    """

    config_name = "config.json"  # type: ignore[assignment]

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, factor: int = 2, scaling_factor: float = 1.0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # pipelines ask every part for its device and dtype
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, folder: str | PathLike[str], subfolder: str | None = None, **others: Any
    ) -> PixelAutoencoder:
        """Read `config.json`; there is nothing else to read, so `others` (dtype, variant ...) do not matter."""
        made: Any = cls.from_config(cls.load_config(folder, subfolder=subfolder))  # type: ignore[arg-type]
        return cast(PixelAutoencoder, made.eval())

    def encode(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, 3 factor^2, H / factor, W / factor); there is no distribution to draw from."""
        return F.pixel_unshuffle(x, self.config["factor"])

    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """The inverse of `encode`, as `.sample` or a tuple."""
        sample = F.pixel_shuffle(z, self.config["factor"])
        return DecoderOutput(sample) if return_dict else (sample,)
