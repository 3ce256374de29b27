"""How an image of the asked size comes from a network that was trained on small chips.

The network draws up to `WIDE` times its chip's side by itself, in the proportions and at the gsd that were asked for
(the base). It was shown few images wider than a chip and lays out nothing larger, so the base is drawn over a plan: the
same words on one chip, enlarged. A larger image is drawn with its longest side that wide, and so at a coarser gsd; the
cascade refines that x4, and what comes out is cut and reduced to the size. So 512 px at 10 m are 256 px at 20 m,
refined to 1024 px at 5 m, reduced by 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from terraloom.errors import InvalidInput
from terraloom.metadata import RANGES, Metadata

Pixels = npt.NDArray[np.uint8]

WIDE = (
    4  # sides of a chip that the network draws in one piece; recipes/text.toml trains it for that
)
FACTOR = 4  # of the cascade
HALFWAY = 0.5  # of the logarithm of the gsd, from the base's to the plan's
USUAL_GSD = (
    10.0  # metres per pixel of a base that is not told its gsd: what most training images have
)


@dataclass(frozen=True)
class Size:
    """Of an image to be drawn by a network of `chip` pixels a side.

    Args:
        height: pixels.
        width: likewise.
        chip: side of the network's training images.
        step: sides of the base are multiples of it.

    Raises:
        InvalidInput: a side that is no integer or outside chip to 16 * chip.
    """

    height: int
    width: int
    chip: int
    step: int

    def __post_init__(self) -> None:
        """Refuse what the cascade does not reach."""
        for name, side in (("height", self.height), ("width", self.width)):
            if not (isinstance(side, int) and self.chip <= side <= self.largest):
                raise InvalidInput(
                    f"{name} {side!r} is not an integer of {self.chip} to {self.largest} pixels"
                )

    @property
    def largest(self) -> int:
        """Pixels a side that can be asked for."""
        return self.chip * WIDE * FACTOR

    @property
    def refined(self) -> bool:
        """Whether the cascade refines the base."""
        return max(self.height, self.width) > self.chip * WIDE

    @property
    def coarser(self) -> float:
        """Gsd of the base over that of the image."""
        return max(self.height, self.width) / (self.chip * WIDE) if self.refined else 1.0

    @property
    def base(self) -> tuple[int, int]:
        """(height, width) of the base: the image's ground, and up to `step` pixels more."""
        steps = (side / self.coarser / self.step for side in (self.height, self.width))
        h, w = (math.ceil(n - 1e-9) * self.step for n in steps)
        return h, w

    def milder(self, guidance: float) -> float:
        """The guidance scale for a base of this size, from the one for a chip.

        What it adds piles up over a wide image: shapes become blots of one colour. So its excess over 1 falls with the
        side.
        """
        return 1 + (guidance - 1) / self.planned

    def bolder(self, guidance: float, most: float) -> float:
        """The guidance scale for the plan, from the base's: `milder` undone, up to `most` or the base's own."""
        return min(1 + (guidance - 1) * self.planned, max(guidance, most))

    @property
    def planned(self) -> float:
        """How many times coarser than the base its plan is: one of the chip's longest side; 1 means none."""
        return max(1.0, max(self.base) / self.chip)

    @property
    def plan(self) -> tuple[int, int]:
        """(height, width) of the plan: the base's ground, and up to `step` pixels more."""
        h, w = (math.ceil(side / self.planned / self.step) * self.step for side in self.base)
        return h, w

    def of_plan(self, metadata: Metadata | None) -> Metadata | None:
        """The metadata that the plan is drawn with: of a gsd halfway, as few images are known that far out."""
        known = self.of_base(metadata)
        if known is None or known.gsd is None:
            return known
        return replace(known, gsd=min(known.gsd * self.planned**HALFWAY, RANGES["gsd"][1]))

    def of_base(self, metadata: Metadata | None) -> Metadata | None:
        """The metadata that the base is drawn with."""
        if metadata is None or metadata.gsd is None:
            return metadata
        return replace(metadata, gsd=min(metadata.gsd * self.coarser, RANGES["gsd"][1]))

    def over(self, plans: Tensor) -> Tensor:
        """Plans (B, 3, h, w) enlarged to the base, their middle, bicubic."""
        large = F.interpolate(
            plans.clamp(-1, 1), scale_factor=self.planned, mode="bicubic", align_corners=False
        )
        return large[middle(large.shape, *self.base)]

    def finish(self, image: Pixels) -> Pixels:
        """Cut the middle out of the base, refined or not, and reduce it: uint8 (3, h, w) -> (3, height, width)."""
        finer = FACTOR / self.coarser if self.refined else 1.0  # pixels to one of the result
        h, w = (math.floor(side * finer + 1e-9) for side in (self.height, self.width))
        cut: Pixels = image[middle(image.shape, h, w)]
        if cut.shape[1:] == (self.height, self.width):
            return cut
        size = (self.width, self.height)
        bands = [  # of floats: bytes would be rounded twice, by rows and by columns
            Image.fromarray(band.astype(np.float32)).resize(size, Image.Resampling.BOX)
            for band in cut
        ]
        small: Pixels = np.rint(np.stack([np.asarray(band) for band in bands])).astype(np.uint8)
        return small


def middle(shape: Sequence[int], height: int, width: int) -> tuple[Any, ...]:
    """Index of the middle of images (..., h, w)."""
    top, left = (shape[-2] - height) // 2, (shape[-1] - width) // 2
    return np.s_[..., top : top + height, left : left + width]
