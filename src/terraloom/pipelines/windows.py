"""A scene of any size drawn by windows of one size, without seams and in bounded memory.

The network norms over what it sees, so a pixel's value depends on the window around it. Hence the windows lie on one
fixed lattice, whoever asks; where two meet, one fades into the other over a quarter of a window. Beyond the scene's
edge it is mirrored. Rows of windows are finished from top to bottom, and a row can begin anywhere: so bytes depend
neither on the order nor on a run having been cut short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SIDE = 256  # pixels of a window's side
OVERLAP = 64
STRIDE = SIDE - OVERLAP

Floats = npt.NDArray[np.float32]
Draw = Callable[[int, int], Floats]  # left, top of a window -> (bands, SIDE, SIDE)


@dataclass(frozen=True)
class Lattice:
    """The windows over an image; the first ones begin an overlap before its edge, so their fading is outside it."""

    width: int
    height: int

    @property
    def columns(self) -> list[int]:
        """Left edges of the windows."""
        return _starts(self.width)

    @property
    def rows(self) -> list[int]:
        """Top edges of the windows."""
        return _starts(self.height)

    def strip(self, row: int) -> tuple[int, int]:
        """First row of pixels, and the one behind the last, that are finished once `row` rows of windows above it are.

        Strips follow each other without a gap and cover the image.
        """
        top = self.rows[row]
        return max(top, 0), min(top + STRIDE, self.height)


def _starts(size: int) -> list[int]:
    count = max(-(-(size - STRIDE + OVERLAP) // STRIDE), 0) + 1
    return [STRIDE * i - OVERLAP for i in range(count)]


def ramp() -> Floats:
    """Weight of a window's pixels along a side, (SIDE,): it and those of both neighbours sum to 1 at every pixel."""
    t = (np.arange(OVERLAP, dtype=np.float64) + 0.5) / OVERLAP
    rise = np.sin(t * np.pi / 2) ** 2
    flat = np.ones(SIDE - 2 * OVERLAP)
    return np.concatenate([rise, flat, rise[::-1]]).astype(np.float32)


def strips(lattice: Lattice, draw: Draw, first: int = 0) -> Iterator[Floats]:
    """The strips of an image from row `first` of the lattice on, (bands, rows, width) each.

    To begin at another row than 0 costs one row of windows more.
    """
    tail = None if first == 0 else _row(lattice, draw, first - 1)[:, STRIDE:]
    for row in range(first, len(lattice.rows)):
        drawn = _row(lattice, draw, row)
        if tail is not None:
            drawn[:, :OVERLAP] += tail
        tail = drawn[:, STRIDE:]
        top = lattice.rows[row]
        start, stop = lattice.strip(row)
        yield drawn[:, start - top : stop - top]


def _row(lattice: Lattice, draw: Draw, row: int) -> Floats:
    """One row of windows, weighted and added: (bands, SIDE, width)."""
    weights = ramp()
    fade = weights[:, None] * weights
    total: Floats | None = None
    for left in lattice.columns:
        window = draw(left, lattice.rows[row])
        if total is None:
            total = np.zeros((len(window), SIDE, lattice.width), np.float32)
        start, stop = max(left, 0), min(left + SIDE, lattice.width)
        total[:, :, start:stop] += (window * fade)[:, :, start - left : stop - left]
    assert total is not None
    return total


def mirrored(start: int, count: int, size: int) -> npt.NDArray[np.intp]:
    """Indices of `count` pixels from `start` on along a side of `size`, mirrored at its ends as often as needed."""
    i = np.arange(start, start + count) % (2 * size)
    return np.minimum(i, 2 * size - 1 - i)
