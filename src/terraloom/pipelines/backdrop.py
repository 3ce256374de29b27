"""What an image roughly is where nothing of it is known: filled from the known pixels around, near or far.

A window looks at its surroundings. In the middle of a large hole even those are unknown; there the mean colours of
32 px cells of the whole scene are taken, filled in turn from the cells around.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from terraloom.models.frames import composed, filled
from terraloom.pipelines.windows import SIDE, mirrored

CONTEXT = 128  # px around a window that are looked at
CELL = 32  # px
NEAR = 2  # cells: farther than this from any known pixel, a cell takes the scene's
BLOCK = 1024  # px, side of the windows by which a scene is averaged

Window = tuple[int, int, int, int]  # x, y, width, height
Read = Callable[[Window], tuple[Tensor, Tensor]]  # -> values and 0 or 1, (bands, 1, h, w) each


class Backdrop:
    """Fills a scene's unknown pixels.

    Args:
        read: a window of the scene, mirrored beyond its edge.
        width: of the scene, pixels.
        height: likewise.
    """

    def __init__(self, read: Read, width: int, height: int) -> None:
        self._read, self.width, self.height = read, width, height

    def window(self, left: int, top: int) -> Tensor:
        """(bands, 1, SIDE, SIDE) of the window whose corner this is: known pixels as they are, the others filled."""
        side = SIDE + 2 * CONTEXT
        values, known = self._read((left - CONTEXT, top - CONTEXT, side, side))
        near = F.max_pool2d(F.max_pool2d(known, CELL), 2 * NEAR + 1, 1, NEAR)
        layers = [(values, known)]
        if not bool(near.all()):
            far = F.interpolate(1 - near, scale_factor=CELL, mode="nearest")
            cells = self._around((left - CONTEXT) // CELL, (top - CONTEXT) // CELL, side // CELL)
            layers.append((cells, far))
        inner = slice(CONTEXT, CONTEXT + SIDE)
        return composed(layers)[:, :, inner, inner]

    def _around(self, x: int, y: int, count: int) -> Tensor:
        """Square of the scene's cells, enlarged to pixels without steps."""
        rows, columns = (
            torch.from_numpy(mirrored(n - 1, count + 2, size))
            for n, size in ((y, self._cells.shape[2]), (x, self._cells.shape[3]))
        )
        part = self._cells[:, :, rows][..., columns]
        large = F.interpolate(part, scale_factor=CELL, mode="bilinear", align_corners=False)
        return large[:, :, CELL:-CELL, CELL:-CELL]

    @cached_property
    def _cells(self) -> Tensor:
        """Mean of the known pixels of every cell, filled: (bands, 1, rows, columns)."""
        rows = []
        for y in range(0, self.height, BLOCK):
            parts = []
            for x in range(0, self.width, BLOCK):
                width, height = min(BLOCK, self.width - x), min(BLOCK, self.height - y)
                values, known = self._read((x, y, width, height))
                share = F.avg_pool2d(known, CELL, ceil_mode=True)
                mean = F.avg_pool2d(values * known, CELL, ceil_mode=True) / share.clamp(min=1e-9)
                parts.append(torch.cat([mean, (share > 0).float()], 1))
            rows.append(torch.cat(parts, 3))
        both = torch.cat(rows, 2)
        return filled(both[:, :1], both[:, 1:])
