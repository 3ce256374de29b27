"""What a text model draws, as the evaluation asks for it: many prompts, one seed each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from terraloom.evaluation.chips import SIDE, Domain, stacked
from terraloom.metadata import Metadata

BATCH = 16  # images of SIDE pixels at a time


class Paint(Protocol):
    """Draws square images."""

    def __call__(
        self,
        prompts: Sequence[str],
        metadata: Sequence[Metadata],
        seeds: Sequence[int],
        side: int = SIDE,
    ) -> Tensor:
        """uint8 (n, 3, side, side), image i of prompt i, metadata i and seed i alone."""


class Painter:
    """Draws with a pipeline at its own default steps and guidance.

    Raises:
        BadCheckpoint: no text model of that name or folder.
    """

    def __init__(self, model: str) -> None:
        from terraloom.pipelines import TextToImage

        pipeline: Any = TextToImage.from_pretrained(model)
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline

    def __call__(
        self,
        prompts: Sequence[str],
        metadata: Sequence[Metadata],
        seeds: Sequence[int],
        side: int = SIDE,
    ) -> Tensor:
        """See `Paint`."""
        drawn = []
        batch = max(1, BATCH * SIDE**2 // side**2)
        for at in range(0, len(prompts), batch):
            some = slice(at, at + batch)
            images = self.pipeline(
                list(prompts[some]),
                metadata=list(metadata[some]),
                height=side,
                width=side,
                generator=[torch.Generator().manual_seed(s) for s in seeds[some]],
                output_type="np",
            ).images
            drawn += [np.asarray((i * 255).round(), np.uint8) for i in np.asarray(images)]
        return stacked(drawn)


def asked(domain: Domain, each: int, seed: int) -> tuple[list[str], list[int], list[int]]:
    """Prompts, classes and seeds of `each` images per class, the class's prompts in turn."""
    prompts, labels = [], []
    for k, name in enumerate(domain.classes):
        wording = domain.prompts[name]
        prompts += [wording[i % len(wording)] for i in range(each)]
        labels += [k] * each
    first = 1_000_000 * seed + 10_000 * domain.reduction
    return prompts, labels, list(range(first, first + len(prompts)))
