"""What both ControlNets share: the encoder half of a `SatelliteUNet`, whose skips steer the UNet it was made from.

ControlNet (arXiv 2302.05543) as DiffusionSat extends it: section 3.2 and appendix A of arXiv 2312.03606.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel, ControlNetOutput
from torch import Tensor

from terraloom.errors import InvalidInput
from terraloom.models.conditioning import MetadataConditioned
from terraloom.models.satellite_unet import SatelliteUNet

Residuals = tuple[list[Tensor], Tensor]  # of every skip, and of the middle block


class MetadataControlNet(MetadataConditioned, ControlNetModel):  # type: ignore[misc]
    """diffusers' `ControlNetModel` with metadata of the target and of the conditioning images.

    Its constructor takes the arguments of both bases by name; `conditioning_channels` is also read under the name
    that DiffusionSat's checkpoints have for it, `conditioning_in_channels`.
    """

    @classmethod
    def from_unet(  # type: ignore[override]
        cls, unet: SatelliteUNet, load_weights_from_unet: bool = True, **config: Any
    ) -> Self:
        """A ControlNet of the UNet's shape, by default with its weights; it changes nothing until it is trained.

        Args:
            unet: the network to steer.
            load_weights_from_unet: copy the weights of the encoder half and of the embeddings.
            config: what the UNet's configuration does not say, e.g. `conditioning_channels`.
        """
        names = cls._get_init_keys(cls)
        shared = {k: v for k, v in dict(unet.config).items() if k in names}
        net = cls(**{**shared, **config})
        if load_weights_from_unet:
            own = net.state_dict()
            net.load_state_dict({**own, **{k: v for k, v in unet.state_dict().items() if k in own}})
        return net

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Reads DiffusionSat's name of `conditioning_channels` too."""
        config = dict(config_dict)
        if "conditioning_in_channels" in config:
            config["conditioning_channels"] = config.pop("conditioning_in_channels")
        return super().extract_init_dict(config, **kwargs)  # type: ignore[no-untyped-call]

    def embed(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        class_labels: Tensor | None,
        metadata: Tensor | None,
    ) -> Tensor:
        """Time, class and the target's metadata in one vector per image, (B, time_embed_dim)."""
        rows = sample.shape[0]
        times = torch.as_tensor(timestep, device=sample.device).reshape(-1).expand(rows)
        emb: Tensor = self.time_embedding(self.time_proj(times).to(sample.dtype))
        if self.class_embedding is not None:
            if class_labels is None:
                raise InvalidInput("this ControlNet needs class_labels, one row for every image")
            emb = emb + self.class_embedding(class_labels).to(emb.dtype)
        if self.config["use_metadata"]:
            emb = emb + self.embed_metadata(metadata, rows, emb)
        return emb

    def embed_frames(self, cond_metadata: Tensor | None, frames: int, emb: Tensor) -> Tensor | None:
        """Metadata of the conditioning images, (B, num_metadata[, frames]) -> (B, frames, time_embed_dim)."""
        if cond_metadata is None or not self.config["use_metadata"]:
            return None
        if cond_metadata.ndim == 2:  # one row for all frames of an image
            cond_metadata = cond_metadata[..., None].expand(-1, -1, frames)
        rows = cond_metadata.movedim(1, 2).flatten(0, 1)
        embedded = self.embed_metadata(rows, emb.shape[0] * frames, emb)
        return embedded.reshape(-1, frames, emb.shape[1])

    def encode(self, x: Tensor, emb: Tensor, text: Tensor) -> tuple[list[Tensor], Tensor]:
        """Every skip of the UNet's encoder, finest first, and the output of its middle block."""
        skips = [x]
        for block in self.down_blocks:
            more = {"encoder_hidden_states": text} if _attends(block) else {}
            x, outputs = block(hidden_states=x, temb=emb, **more)
            skips.extend(outputs)
        more = {"encoder_hidden_states": text} if _attends(self.mid_block) else {}
        return skips, self.mid_block(x, emb, **more)

    def in_order(self, image: Tensor) -> Tensor:
        """Conditioning (B, C, ...) in the order of channels that the weights were trained with."""
        return (
            image.flip(1)
            if self.config["controlnet_conditioning_channel_order"] == "bgr"
            else image
        )

    def scaled(self, residuals: Residuals, scale: float, guess_mode: bool) -> ControlNetOutput:
        """Residuals times `scale`; in guess mode the finest count a tenth, the middle block in full."""
        outputs = [*residuals[0], residuals[1]]
        scales = torch.logspace(-1, 0, len(outputs)) if guess_mode else torch.ones(len(outputs))
        outputs = [r * (scale * float(s)) for r, s in zip(outputs, scales, strict=True)]
        if self.config["global_pool_conditions"]:
            outputs = [r.mean((2, 3), keepdim=True) for r in outputs]
        return ControlNetOutput(tuple(outputs[:-1]), outputs[-1])  # type: ignore[arg-type]


def _attends(block: Any) -> bool:
    return bool(getattr(block, "has_cross_attention", False))
