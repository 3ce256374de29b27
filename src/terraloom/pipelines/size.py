"""How an image of the asked size comes from a network that knows one size.

The network draws a square of its own size (the base), which shows the whole ground that was asked for; the cascade
refines it x4 until it is at least as large, then it is cut to the asked proportions and reduced. So 128 px at 10 m is a
64 px base at 20 m, refined to 256 px at 5 m, reduced by 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from terraloom.errors import InvalidInput
from terraloom.metadata import RANGES, Metadata

Pixels = npt.NDArray[np.uint8]

FACTOR = 4  # of one level of the cascade
LEVELS = 2  # at most: 64 px become 1024
USUAL_GSD = (
    10.0  # metres per pixel of a base that is not told its gsd: what most training images have
)


@dataclass(frozen=True)
class Size:
    """Of an image to be drawn by a network of `base` pixels a side.

    Raises:
        InvalidInput: a side that is no integer or outside base to 16 * base.
    """

    height: int
    width: int
    base: int

    def __post_init__(self) -> None:
        """Refuse what the cascade does not reach."""
        for name, side in (("height", self.height), ("width", self.width)):
            if not (isinstance(side, int) and self.base <= side <= self.largest):
                raise InvalidInput(
                    f"{name} {side!r} is not an integer of {self.base} to {self.largest} pixels"
                )

    @property
    def largest(self) -> int:
        """Pixels a side that can be asked for."""
        return self.base * int(FACTOR**LEVELS)

    @property
    def levels(self) -> int:
        """How often the cascade refines."""
        levels = 0
        while self.base * FACTOR**levels < max(self.height, self.width):
            levels += 1
        return levels

    def of_base(self, metadata: Metadata | None) -> Metadata | None:
        """The metadata that the base is drawn with: the same ground on fewer pixels has a coarser gsd."""
        if metadata is None or metadata.gsd is None:
            return metadata
        gsd = metadata.gsd * max(self.height, self.width) / self.base
        return replace(metadata, gsd=min(gsd, RANGES["gsd"][1]))

    def finish(self, image: Pixels) -> Pixels:
        """Cut the middle out of the refined square and reduce it, uint8 (3, n, n) -> (3, height, width)."""
        side, longest = image.shape[1], max(self.height, self.width)
        h, w = (round(side * part / longest) for part in (self.height, self.width))
        top, left = (side - h) // 2, (side - w) // 2
        cut = image[:, top : top + h, left : left + w]
        if cut.shape[1:] == (self.height, self.width):
            return cut
        picture = Image.fromarray(np.moveaxis(cut, 0, 2))
        small = picture.resize((self.width, self.height), Image.Resampling.BOX)
        return np.moveaxis(np.asarray(small), 2, 0)
