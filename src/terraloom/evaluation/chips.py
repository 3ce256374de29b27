"""Real images with a class: the two sets that judge whether a text model draws what it is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from terraloom.errors import BadPack
from terraloom.evaluation import prompts
from terraloom.training.captioned import Captioned, TextPack

SIDE = 64  # pixels, what the base model draws


@dataclass(frozen=True)
class Domain:
    """A set with classes, as the base model draws it."""

    set: str
    reduction: int  # pixels of the set that make one of ours
    gsd: float  # metres per pixel after the reduction, told with every prompt
    prompts: prompts.Prompts  # class -> what is asked

    @property
    def classes(self) -> list[str]:
        """Names, in the order of their numbers."""
        return sorted(self.prompts)


EUROSAT = Domain("eurosat", 1, 10.0, prompts.EUROSAT)
UCMERCED = Domain("ucmerced", 4, 1.2, prompts.UCMERCED)
DOMAINS = (EUROSAT, UCMERCED)


@dataclass(frozen=True)
class Chips:
    """Images of one domain."""

    images: Tensor  # uint8 (n, 3, SIDE, SIDE)
    labels: Tensor  # int64 (n,)
    rows: list[Captioned]


def chips(pack: TextPack, domain: Domain) -> Chips:
    """All images of a domain in one side of a pack.

    Raises:
        BadPack: there is none, or one has a class that the domain lacks.
    """
    rows = [row for row in pack.rows if row.set == domain.set]
    if not rows:
        raise BadPack(f"the pack has no images of {domain.set} on one of its sides")
    if unknown := {row.label for row in rows} - set(domain.classes):
        raise BadPack(f"{domain.set} has classes {sorted(unknown)}; known are {domain.classes}")
    labels = torch.tensor([domain.classes.index(row.label) for row in rows])
    return Chips(stacked([square(row.rgb, domain.reduction) for row in rows]), labels, rows)


def square(rgb: npt.NDArray[np.uint8], reduction: int = 1) -> npt.NDArray[np.uint8]:
    """The middle SIDE x SIDE pixels of an image (h, w, 3) reduced by box means."""
    image = Image.fromarray(rgb)
    if reduction > 1:
        image = image.reduce(reduction)
    left, top = ((n - SIDE) // 2 for n in image.size)
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))


def stacked(images: list[npt.NDArray[np.uint8]]) -> Tensor:
    """Images (h, w, 3) as one uint8 tensor (n, 3, h, w)."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def unit(images: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1], channels last in memory."""
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def spread(count: int, wanted: int) -> Tensor:
    """At most `wanted` of `count` numbers, a random choice that is the same every time, sorted."""
    generator = torch.Generator().manual_seed(0)
    return torch.randperm(count, generator=generator)[:wanted].sort().values
