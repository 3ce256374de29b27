"""DiffusionSat's 3D ControlNet: a set of dated, multispectral images steers a `SatelliteUNet`.

Section 3.2 and appendix A of arXiv 2312.03606, and the authors' code where the two differ: the frames' residuals are
summed, not averaged. So outputs grow with the number of frames, and weights expect the number they were trained with,
unless `conditioning_scale` makes up for it.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.controlnets.controlnet import ControlNetOutput
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401 - diffusers looks for this name here
from torch import Tensor, nn

from terraloom.errors import InvalidInput
from terraloom.models.controlnet import MetadataControlNet
from terraloom.models.temporal import (
    FrameConv,
    FrameEncoder,
    TemporalAttention,
    mix,
    present,
    zeroed,
)


class ControlNet3D(MetadataControlNet):
    """`MetadataControlNet` over T frames: 3D conditioning encoder, temporal attention, sum over frames.

    Args:
        use_temporal_transformer: attention over the frames behind `conv_in` and behind every downsampler.
        config: of `MetadataControlNet`.
    """

    def __init__(self, *, use_temporal_transformer: bool = False, **config: Any) -> None:
        super().__init__(**config)
        self.register_to_config(use_temporal_transformer=use_temporal_transformer)  # type: ignore[no-untyped-call]
        c = self.config
        convs: Any = self.controlnet_down_blocks
        channels = [conv.out_channels for conv in convs]
        self.controlnet_cond_embedding: Any = FrameEncoder(
            c["conditioning_channels"], c["conditioning_embedding_out_channels"], channels[0]
        )
        self.controlnet_down_blocks = nn.ModuleList(zeroed(FrameConv(n, n, 1)) for n in channels)
        self.controlnet_mid_block: Any = zeroed(FrameConv(channels[-1], channels[-1], 1))
        if use_temporal_transformer:
            blocks = self._temporal_blocks(channels)
            self.temporal_blocks = nn.ModuleList(blocks)
            # one for every skip, as in the released weights; those without attention are never trained
            self.mixing_attns = nn.ParameterList(
                nn.Parameter(torch.tensor(0.0), requires_grad=isinstance(b, TemporalAttention))
                for b in blocks
            )

    def _temporal_blocks(self, channels: list[int]) -> list[nn.Module]:
        """Attention for the skips behind `conv_in` and the downsamplers, nothing for the others."""
        blocks: list[nn.Module] = [nn.Identity() for _ in channels]
        blocks[0] = TemporalAttention(8, 64, in_channels=channels[0])
        heads, skip = self.config["attention_head_dim"], 0
        if isinstance(heads, int):
            heads = [heads] * len(self.down_blocks)
        for level in range(len(self.down_blocks) - 1):
            skip += self.config["layers_per_block"] + 1
            # The released weights were trained with the number of heads as the width of a head.
            width = heads[level]
            blocks[skip] = TemporalAttention(
                channels[skip] // width,
                width,
                in_channels=channels[skip],
                norm_num_groups=self.config["norm_num_groups"],
            )
        return blocks

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
        frame_mask: Tensor | None = None,
        guess_mode: bool = False,
        return_dict: bool = True,
    ) -> ControlNetOutput | tuple[Any, ...]:
        """Residuals for a `SatelliteUNet`'s skips and middle block.

        Args:
            sample: noisy latents, (B, in_channels, h, w).
            timestep: one for all, or (B,); 0 to 1000.
            encoder_hidden_states: text, (B, tokens, cross_attention_dim).
            controlnet_cond: (B, conditioning_channels, T, H, W), of the output's size, in [0, 1] for the released
                weights. The order of the frames matters little but not nothing: convolutions mix neighbours.
            conditioning_scale: factor of all residuals.
            class_labels: as for `SatelliteUNet`.
            metadata: of the target, (B, num_metadata), NaN where missing; `None`: all are missing.
            cond_metadata: of every frame, (B, num_metadata, T), or (B, num_metadata) for all; `None`: nothing is added.
            frame_mask: (B, T) bool, False where there is no frame. What stands there, NaN included, changes nothing;
                missing frames at the end equal a shorter set. Without any frame the residuals are zero.
            guess_mode: as in diffusers.
            return_dict: whether to return an object or a tuple.

        Raises:
            InvalidInput: metadata, conditioning or mask of another shape.
        """
        frames = _frames(controlnet_cond, sample.shape[0])
        mask = _mask(frame_mask, (sample.shape[0], frames), sample.device)
        emb = self.embed(sample, timestep, class_labels, metadata).repeat_interleave(frames, 0)
        of_frames = self.embed_frames(cond_metadata, frames, emb[::frames])
        if of_frames is not None:
            emb = emb + of_frames.flatten(0, 1)
        hint = self.controlnet_cond_embedding(self.in_order(controlnet_cond), mask)
        x = self.conv_in(sample).repeat_interleave(frames, 0) + hint.movedim(2, 1).flatten(0, 1)
        text = encoder_hidden_states.repeat_interleave(frames, 0)
        skips, middle = self.encode(x, emb, text)
        merged = [self._merge(i, skip, frames, mask) for i, skip in enumerate(skips)]
        middle = self.controlnet_mid_block(_stacked(middle, frames))
        residuals = merged, present(middle, mask).sum(2)
        output = self.scaled(residuals, conditioning_scale, guess_mode)
        return output if return_dict else output.to_tuple()

    def _merge(self, i: int, skip: Tensor, frames: int, mask: Tensor | None) -> Tensor:
        """Residual of skip `i`: (B * T, C, h, w) -> (B, C, h, w)."""
        x = self.controlnet_down_blocks[i](_stacked(skip, frames))
        if self.config["use_temporal_transformer"]:
            attention = self.temporal_blocks[i]
            if isinstance(attention, TemporalAttention):
                x = mix(self.mixing_attns[i], attention(x, mask), x)
        return present(x, mask).sum(2)


def _stacked(x: Tensor, frames: int) -> Tensor:
    """(B * T, C, h, w) -> (B, C, T, h, w)."""
    return x.reshape(-1, frames, *x.shape[1:]).movedim(1, 2)


def _frames(cond: Tensor, rows: int) -> int:
    if cond.ndim != 5 or cond.shape[0] != rows:
        raise InvalidInput(
            f"conditioning has shape {tuple(cond.shape)}; (batch {rows}, channels, frames, height, width) is needed"
        )
    return cond.shape[2]


def _mask(mask: Tensor | None, shape: tuple[int, int], device: torch.device) -> Tensor | None:
    """The mask on `device`, or `None` if every frame is there."""
    if mask is None:
        return None
    if tuple(mask.shape) != shape:
        raise InvalidInput(f"frame_mask has shape {tuple(mask.shape)}; {shape} is needed")
    return None if bool(mask.all()) else mask.to(device, torch.bool)
