"""Classifier-free guidance with one scale for the text and one for the metadata.

out = u + g_m (m - u) + g_t (t - m): u is told nothing, m the metadata alone, t both. Ho and Salimans 2022
(arXiv 2207.12598), with two conditions as Brooks et al. 2023 (arXiv 2211.09800, equation 3) have it. As a sum over the
three predictions their factors are 1 - g_m, g_m - g_t and g_t: a prediction with factor 0 is never evaluated. So equal
scales cost two evaluations a step, and scales of 1 cost one.

Much guidance makes hard contrast and loud colours. What does it is the part of out - t that lies along the image seen,
its means and its contrast: `projected` keeps `KEPT` of it (eta of Sadat et al. 2024, arXiv 2410.02416).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import compress

import torch
from torch import Tensor

from terraloom.errors import InvalidInput

KEPT = 0.5


@dataclass(frozen=True)
class Scales:
    """How strongly a prompt and metadata are followed; 1 is what was learned, 0 ignores them.

    Raises:
        InvalidInput: a scale below 0, or not finite.
    """

    text: float
    metadata: float

    def __post_init__(self) -> None:
        """Refuse what cannot be a scale."""
        for name, value in (
            ("guidance_scale", self.text),
            ("metadata_guidance_scale", self.metadata),
        ):
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
                raise InvalidInput(
                    f"{name} {value!r} is not a number of 0 or more; 1 is no guidance"
                )

    def factors(self, metadata_known: bool = True) -> tuple[float, float, float]:
        """Factors of (u, m, t); they sum to 1. Without metadata m is u, and takes no evaluation of its own."""
        if not metadata_known:
            return 1 - self.text, 0.0, self.text
        return 1 - self.metadata, self.metadata - self.text, self.text


def projected(guided: Tensor, told: Tensor, image: Tensor) -> Tensor:
    """Guidance that moves the image's means and contrast less than all else, (1, C, h, w) float32.

    Args:
        guided: the sum, (1, C, h, w) float32.
        told: the prediction that was told most, likewise.
        image: what that prediction sees, likewise.
    """
    moved = guided - told
    contrast = image - image.mean((2, 3), keepdim=True)
    share = (moved * contrast).sum() / contrast.square().sum().clamp(min=1e-6)
    along = moved.mean((2, 3), keepdim=True) + share * contrast
    return guided - (1 - KEPT) * along


@dataclass(frozen=True)
class Conditions:
    """What a network is told about one image, a row for each evaluation (1 to 3), and the factors of the sum."""

    text: Tensor  # (rows, tokens, width)
    pooled: Tensor | None  # (rows, width), for networks that take it
    metadata: Tensor | None  # (rows, 7) float32, NaN where missing
    factors: tuple[float, ...]

    def combine(self, predictions: Tensor) -> Tensor:
        """(rows, C, h, w) -> (1, C, h, w) float32."""
        rows = predictions.float().unbind(0)
        total = sum(f * row for f, row in zip(self.factors, rows, strict=True))
        assert isinstance(total, Tensor)
        return total[None]


Text = tuple[Tensor, Tensor | None]  # token states (tokens, width), pooled (width,)


def conditions(scales: Scales, prompt: Text, negative: Text, metadata: Tensor | None) -> Conditions:
    """The evaluations that an image needs.

    Args:
        scales: of text and metadata.
        prompt: what `t` is told.
        negative: what `u` and `m` are told instead, usually the empty prompt.
        metadata: (7,) float32, NaN where missing; `None` for a network without metadata.
    """
    known = metadata is not None and not bool(metadata.isnan().all())
    factors = scales.factors(known)
    needed = [factor != 0 for factor in factors]

    def rows(u: Tensor, m: Tensor, t: Tensor) -> Tensor:
        return torch.stack(list(compress((u, m, t), needed)))

    pooled = None
    if prompt[1] is not None and negative[1] is not None:
        pooled = rows(negative[1], negative[1], prompt[1])
    if metadata is not None:
        metadata = rows(torch.full_like(metadata, torch.nan), metadata, metadata)
    text = rows(negative[0], negative[0], prompt[0])
    return Conditions(text, pooled, metadata, tuple(compress(factors, needed)))
