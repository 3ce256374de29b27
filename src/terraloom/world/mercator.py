"""A canvas in Web Mercator: a level as it is, or area means of one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS

from terraloom.grid import EDGE, EQUATOR_GSD, SNAP, BBox, cover, degrees_wide, level_for, row_of
from terraloom.world.blocks import Pyramid

Pixels = npt.NDArray[np.uint8]

MERCATOR = CRS.from_epsg(3857)


@dataclass(frozen=True)
class MercatorCanvas:
    """A window of the Web Mercator lattice whose pixels are `ratio` (>= 1) pixels of `level`."""

    pyramid: Pyramid
    level: int
    ratio: float
    left: int
    top: int
    width: int
    height: int
    crs: CRS = MERCATOR

    @classmethod
    def around(cls, pyramid: Pyramid, box: BBox, gsd: float) -> MercatorCanvas:
        """See `canvas`."""
        west, south, east, north = box
        nearest = 0.0 if south <= 0 <= north else min(abs(south), abs(north))
        level = level_for(gsd, nearest)
        ratio = gsd / math.cos(math.radians(nearest)) * 2**level / EQUATOR_GSD
        ratio = 1.0 if abs(ratio - 1) < 1e-9 else ratio
        size = 2**level * 256 / ratio  # pixels around the equator, not always whole
        left = (west + 180) / 360 * size
        x, width = cover(left, left + degrees_wide(west, east) / 360 * size)
        y, height = cover(row_of(north, size), row_of(south, size))
        return cls(pyramid, level, ratio, x, y, width, height)

    @property
    def transform(self) -> Affine:
        """Pixel to EPSG:3857 metres; x runs on past the antimeridian."""
        cell = EQUATOR_GSD / 2**self.level * self.ratio
        return Affine(cell, 0, self.left * cell - EDGE, 0, -cell, EDGE - self.top * cell)

    def draw(self, column: int, row: int, width: int, height: int) -> Pixels:
        """See `Canvas.draw`."""
        x, y = self.left + column, self.top + row
        if self.ratio == 1:
            return self.pyramid.region(self.level, x, y, width, height)
        columns, rows = Taps.of(x, width, self.ratio), Taps.of(y, height, self.ratio)
        source = self.pyramid.region(
            self.level, columns.first, rows.first, columns.count, rows.count
        )
        pixels = columns.average(rows.average(source.swapaxes(1, 2)).swapaxes(1, 2))
        return np.rint(pixels).astype(np.uint8)


@dataclass(frozen=True)
class Taps:
    """Area averages along one axis: output pixel i covers `ratio` source pixels from i * ratio on."""

    first: int  # source pixel of index 0
    count: int  # source pixels needed
    indices: npt.NDArray[np.int64]  # (taps, outputs)
    weights: npt.NDArray[np.float32]  # (taps, outputs)

    @classmethod
    def of(cls, start: int, outputs: int, ratio: float) -> Taps:
        """Taps of `outputs` pixels from number `start` on."""
        edges = np.arange(start, start + outputs + 1) * ratio
        whole = np.rint(edges)
        edges = np.where(np.abs(edges - whole) < SNAP, whole, edges)
        low, high = np.floor(edges[:-1]), np.ceil(edges[1:])
        taps = low + np.arange(int((high - low).max()))[:, None]
        inside = np.minimum(taps + 1, edges[1:]) - np.maximum(taps, edges[:-1])
        indices = np.minimum(taps, high - 1) - low[0]  # taps beyond the last one weigh nothing
        return cls(
            int(low[0]),
            int(high[-1] - low[0]),
            indices.astype(np.int64),
            (np.maximum(inside, 0) / np.diff(edges)).astype(np.float32),
        )

    def average(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Along the last axis, (..., count) -> (..., outputs)."""
        total = np.zeros((*pixels.shape[:-1], self.indices.shape[1]), np.float32)
        for index, weight in zip(self.indices, self.weights, strict=True):
            total += pixels[..., index] * weight
        return total
