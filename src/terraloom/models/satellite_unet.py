"""DiffusionSat's denoising network: Stable Diffusion's UNet, told where, when and how fine the image is.

One class for the official checkpoints (Stable Diffusion 2.1's size, `OFFICIAL`) and small ones (recipes/text.toml).
"""

from __future__ import annotations

from typing import Any

from diffusers.models.modeling_utils import ModelMixin  # noqa: F401 - diffusers looks for this name here
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel, UNet2DConditionOutput
from torch import Tensor

from terraloom.models.conditioning import MetadataConditioned

# Stable Diffusion 2.1 and DiffusionSat's two checkpoints. In diffusers `attention_head_dim` holds numbers of heads.
OFFICIAL: dict[str, Any] = dict(
    sample_size=96,
    block_out_channels=(320, 640, 1280, 1280),
    attention_head_dim=(5, 10, 20, 20),
    cross_attention_dim=1024,
    use_linear_projection=True,
    upcast_attention=True,
)


class SatelliteUNet(MetadataConditioned, UNet2DConditionModel):  # type: ignore[misc]
    """`UNet2DConditionModel` with metadata summed into the time embedding (DiffusionSat, section 3.1).

    Its constructor takes the arguments of both bases by name.
    """

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        class_labels: Tensor | None = None,
        metadata: Tensor | None = None,
        added_cond_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
        **others: Any,
    ) -> UNet2DConditionOutput | tuple[Tensor]:
        """The network's prediction for noisy `sample`.

        Args:
            sample: (B, in_channels, H, W).
            timestep: one for all, or (B,); 0 to 1000.
            encoder_hidden_states: text, (B, tokens, cross_attention_dim).
            class_labels: with `class_embed_type="projection"` the pooled text, (B, width).
            metadata: (B, num_metadata) float32 on the 0..1000 scale of `terraloom.metadata`; NaN where missing.
                `None`: all are missing.
            added_cond_kwargs: as in diffusers.
            return_dict: whether to return an object with `sample` or a tuple.
            others: as in diffusers, e.g. a ControlNet's residuals.

        Returns:
            (B, out_channels, H, W).

        Raises:
            InvalidInput: `metadata` has another shape.
        """
        if self.config["use_metadata"]:
            added_cond_kwargs = {**(added_cond_kwargs or {}), "metadata": metadata}
        output: UNet2DConditionOutput | tuple[Tensor] = super().forward(
            sample,
            timestep,
            encoder_hidden_states,
            class_labels=class_labels,
            added_cond_kwargs=added_cond_kwargs,
            return_dict=return_dict,
            **others,
        )
        return output

    def get_aug_embed(
        self, emb: Tensor, encoder_hidden_states: Tensor, added_cond_kwargs: dict[str, Any]
    ) -> Tensor | None:
        """What diffusers adds to the time embedding after the class embedding: here the metadata too."""
        added: Tensor | None = super().get_aug_embed(emb, encoder_hidden_states, added_cond_kwargs)
        if not self.config["use_metadata"]:
            return added
        embedded = self.embed_metadata(added_cond_kwargs["metadata"], emb.shape[0], emb)
        return embedded if added is None else added + embedded
