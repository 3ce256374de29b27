"""ControlNet for one multispectral conditioning image, or several stacked on the channel axis.

DiffusionSat's super-resolution of fMoW-Sentinel: 10 bands at half the output's size.
"""

from __future__ import annotations

import math
from typing import Any, cast

from diffusers.models.controlnets.controlnet import ControlNetOutput
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401 - diffusers looks for this name here
from torch import Tensor

from terraloom.errors import InvalidInput
from terraloom.models.controlnet import MetadataControlNet


class ControlNet2D(MetadataControlNet):
    """`MetadataControlNet` whose conditioning image may be smaller than the output.

    Args:
        conditioning_scale: output size over conditioning size, a power of two up to the latents' reduction.
        config: of `MetadataControlNet`.

    Raises:
        InvalidInput: `conditioning_scale` is something else.
    """

    def __init__(self, *, conditioning_scale: int = 1, **config: Any) -> None:
        super().__init__(**config)
        self.register_to_config(conditioning_scale=conditioning_scale)  # type: ignore[no-untyped-call]
        shrinking = list(self.controlnet_cond_embedding.blocks)[1::2]
        if conditioning_scale not in [2**i for i in range(len(shrinking) + 1)]:
            top = 2 ** len(shrinking)
            raise InvalidInput(
                f"conditioning_scale {conditioning_scale}: give a power of two from 1 to {top}"
            )
        for conv in shrinking[len(shrinking) - int(math.log2(conditioning_scale)) :]:
            cast(Any, conv).stride = (1, 1)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        controlnet_cond: Tensor,
        conditioning_scale: float = 1.0,
        class_labels: Tensor | None = None,
        metadata: Tensor | None = None,
        cond_metadata: Tensor | None = None,
        guess_mode: bool = False,
        return_dict: bool = True,
    ) -> ControlNetOutput | tuple[Any, ...]:
        """Residuals for a `SatelliteUNet`'s skips and middle block.

        Args:
            sample: noisy latents, (B, in_channels, h, w).
            timestep: one for all, or (B,); 0 to 1000.
            encoder_hidden_states: text, (B, tokens, cross_attention_dim).
            controlnet_cond: (B, conditioning_channels, H, W), in [0, 1] for the released weights.
            conditioning_scale: factor of all residuals (not the configuration's key of the same name).
            class_labels: as for `SatelliteUNet`.
            metadata: of the target, (B, num_metadata), NaN where missing; `None`: all are missing.
            cond_metadata: of the conditioning images, (B, num_metadata) or (B, num_metadata, images), whose
                embeddings are summed; `None`: nothing is added.
            guess_mode: as in diffusers.
            return_dict: whether to return an object or a tuple.

        Raises:
            InvalidInput: metadata of another shape.
        """
        emb = self.embed(sample, timestep, class_labels, metadata)
        images = (
            cond_metadata.shape[2] if cond_metadata is not None and cond_metadata.ndim == 3 else 1
        )
        of_images = self.embed_frames(cond_metadata, images, emb)
        if of_images is not None:
            emb = emb + of_images.sum(1)
        hint = self.controlnet_cond_embedding(self.in_order(controlnet_cond))
        skips, middle = self.encode(self.conv_in(sample) + hint, emb, encoder_hidden_states)
        pairs = zip(self.controlnet_down_blocks, skips, strict=True)
        residuals = [conv(skip) for conv, skip in pairs], self.controlnet_mid_block(middle)
        output = self.scaled(residuals, conditioning_scale, guess_mode)
        return output if return_dict else output.to_tuple()
