"""Where, when and how fine: seven numbers per image, added to a network's time embedding.

DiffusionSat, section 3.1: every number goes through the sinusoid of the timestep and an MLP of its own; the sum joins
the time embedding. The order of the numbers and their scale (0..1000) are those of `terraloom.metadata`.
"""

from __future__ import annotations

import inspect
from typing import Any, Literal

import torch
from diffusers.models.embeddings import TimestepEmbedding
from torch import Tensor, nn

from terraloom.errors import InvalidInput

Missing = Literal["zero", "learned"]  # what stands for a number that is not known


class MetadataConditioned(nn.Module):
    """Makes a diffusers network with a `time_embedding` one that knows metadata; stands before it among the bases.

    A missing number is NaN. With `missing="learned"`, a trained vector stands in for the output of its MLP; with
    "zero", the number 0 goes into the sinusoid, as DiffusionSat's released weights were trained (0 is also a real
    value there).

    Args:
        use_metadata: without, the network is diffusers' own and takes no metadata.
        num_metadata: numbers per image.
        missing: "zero" or "learned".
        config: of the diffusers network.

    Raises:
        InvalidInput: `missing` is something else.
    """

    time_proj: Any  # diffusers' sinusoid of a timestep
    time_embedding: Any  # and the MLP behind it

    def __init__(
        self,
        *,
        use_metadata: bool = True,
        num_metadata: int = 7,
        missing: Missing = "zero",
        **config: Any,
    ) -> None:
        if missing not in ("zero", "learned"):
            raise InvalidInput(f'missing={missing!r} is not known; give "zero" or "learned"')
        super().__init__(**config)
        ours: Any = self
        ours.register_to_config(
            use_metadata=use_metadata, num_metadata=num_metadata, missing=missing
        )
        if not use_metadata:
            return
        width = self.time_embedding.linear_1.in_features
        time_embed_dim = self.time_embedding.linear_2.out_features
        self.metadata_embedding = nn.ModuleList(
            TimestepEmbedding(width, time_embed_dim) for _ in range(num_metadata)
        )
        if missing == "learned":  # no such tensor in the official weights
            self.metadata_missing = nn.Parameter(torch.zeros(num_metadata, time_embed_dim))

    @staticmethod
    def _get_init_keys(input_class: type) -> set[str]:
        """Names that diffusers lets a `config.json` have: what any class on the way up takes, not just the first."""
        inits = (vars(c)["__init__"] for c in input_class.__mro__ if "__init__" in vars(c))
        parameters = (p for init in inits for p in inspect.signature(init).parameters.values())
        return {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}

    def embed_metadata(self, metadata: Tensor | None, rows: int, like: Tensor) -> Tensor:
        """Sum of the embedded numbers, (rows, count) float32, NaN where missing -> (rows, time_embed_dim) as `like`.

        `None`: all are missing. The sinusoid is computed in float32, because half precision would round
        coordinates to a fifth of a degree, then cast to the dtype of `like`, the time embedding.

        Raises:
            InvalidInput: `metadata` has another shape.
        """
        shape = rows, len(self.metadata_embedding)
        if metadata is None:
            metadata = torch.full(shape, torch.nan, device=like.device)
        if tuple(metadata.shape) != shape:
            raise InvalidInput(
                f"metadata has shape {tuple(metadata.shape)}; {shape} is needed: a row for every image"
            )
        numbers = metadata.to(like.device, torch.float32)
        absent = numbers.isnan()
        waves = self.time_proj(numbers.masked_fill(absent, 0).flatten()).to(like.dtype)
        total = torch.zeros((), dtype=like.dtype, device=like.device)
        for i, wave in enumerate(waves.unflatten(0, shape).unbind(1)):
            embedded = self.metadata_embedding[i](wave)
            if hasattr(self, "metadata_missing"):
                embedded = torch.where(absent[:, i, None], self.metadata_missing[i], embedded)
            total = total + embedded
        return total.to(like.dtype)
