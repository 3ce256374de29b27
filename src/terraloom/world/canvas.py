"""Canvases: the pixel grids that are read and exported, and how their pixels come from a level of the pyramid.

A Mercator canvas lies on a lattice of its own pixel size from the north-west corner of the map, so one whose pixels
are those of a level is cut from that level unchanged; any other is area-averaged from the next finer level. A warped
canvas lies on multiples of its pixel size in another CRS and is drawn whole: its corners reach beyond the bbox.

Every pixel is computed from its position alone, so a canvas may be drawn in parts of any size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import CRSError
from rasterio.warp import reproject, transform

from terraloom.errors import InvalidInput
from terraloom.grid import (
    EDGE,
    EQUATOR_GSD,
    FINEST_LEVEL,
    MAX_LATITUDE,
    SNAP,
    BBox,
    check_bbox,
    level_for,
)
from terraloom.world.blocks import Pyramid

Pixels = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

MERCATOR = CRS.from_epsg(3857)
METRES_PER_DEGREE = 2 * EDGE / 360
MARGIN = (
    3  # source pixels around what a part needs, for the kernel and for curved edges between samples
)
MAX_SOURCE = 1 << 26  # source pixels for one part; a CRS that needs more is torn there


class Canvas(Protocol):
    """A georeferenced grid of pixels that can be drawn part by part."""

    @property
    def width(self) -> int:
        """Pixels."""

    @property
    def height(self) -> int:
        """Pixels."""

    @property
    def transform(self) -> Affine:
        """Pixel to `crs`."""

    @property
    def crs(self) -> CRS:
        """Coordinate reference system."""

    def draw(self, column: int, row: int, width: int, height: int) -> Pixels:
        """Pixels of a part, uint8 (3, height, width)."""


def canvas(pyramid: Pyramid, bbox: Sequence[float], gsd: float, crs: Any = None) -> Canvas:
    """The grid that covers a bbox at a ground sampling distance.

    Args:
        pyramid: where pixels come from.
        bbox: west, south, east, north in degrees; west > east crosses the antimeridian.
        gsd: metres per pixel. In Web Mercator it holds where the bbox is nearest to the equator, and pixels are finer
            towards the poles; elsewhere it is the pixel size in units of the CRS (a degree is 111 319.5 m).
        crs: anything rasterio understands; Web Mercator by default.

    Raises:
        InvalidInput: a bad bbox, an unknown CRS, one that cannot show the bbox, or a gsd not above 0 or too fine.
    """
    box = check_bbox(bbox)
    target = MERCATOR if crs is None else parse_crs(crs)
    if target == MERCATOR:
        return MercatorCanvas.around(pyramid, box, gsd)
    level_for(gsd, 0.0)  # refuses what no level can give
    return WarpedCanvas.around(pyramid, box, gsd, target)


def parse_crs(crs: Any) -> CRS:
    """A CRS from anything rasterio understands.

    Raises:
        InvalidInput: it is unknown, or neither projected nor in degrees.
    """
    try:
        found = CRS.from_user_input(crs)
    except CRSError as error:
        raise InvalidInput(f"the CRS {crs!r} is not known; give one such as EPSG:32631") from error
    if not (found.is_projected or found.is_geographic):
        raise InvalidInput(
            f"the CRS {crs!r} is neither projected nor in degrees; give one such as EPSG:32631"
        )
    return found


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
        degrees = east - west if west <= east else east + 360 - west
        x, width = _cover((west + 180) / 360 * size, (west + degrees + 180) / 360 * size)
        y, height = _cover(_mercator_row(north) * size, _mercator_row(south) * size)
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


@dataclass(frozen=True)
class WarpedCanvas:
    """A grid in any CRS, averaged from the coarsest level whose pixels are no larger than its own.

    Sources are in a Mercator projection centred on the bbox, so that nothing happens at the antimeridian.
    """

    pyramid: Pyramid
    level: int
    centre: float  # degrees
    width: int
    height: int
    transform: Affine
    crs: CRS

    @classmethod
    def around(cls, pyramid: Pyramid, box: BBox, gsd: float, crs: CRS) -> WarpedCanvas:
        """See `canvas`."""
        west, south, east, north = box
        east = east if west <= east else east + 360
        centre = (west + east) / 2
        lon, lat = np.meshgrid(np.linspace(west, east, 65), np.linspace(south, north, 65))
        x, y = _project(CRS.from_epsg(4326), crs, lon, lat)
        if crs.is_geographic:
            x = (x - centre + 180) % 360 - 180 + centre
            x[:, 0], x[:, -1] = min(x[0, 0], x[0, 1]), max(x[0, -1], x[0, -2])
        _whole(x, y, box, crs)
        step = gsd / (METRES_PER_DEGREE if crs.is_geographic else crs.linear_units_factor[1])
        left, width = _cover(x.min() / step, x.max() / step)
        top, height = _cover(-y.max() / step, -y.min() / step)
        grid = Affine(step, 0, left * step, 0, -step, -top * step)
        level = _level_of(grid, width, height, centre, crs, gsd)
        return cls(pyramid, level, centre, width, height, grid, crs)

    def draw(self, column: int, row: int, width: int, height: int) -> Pixels:
        """See `Canvas.draw`."""
        step = self.transform.a
        grid = Affine(
            step, 0, self.transform.c + column * step, 0, -step, self.transform.f - row * step
        )
        mercator = centred_mercator(self.centre)
        columns, rows = np.meshgrid(np.linspace(0, width, 33), np.linspace(0, height, 33))
        x, y = _project(self.crs, mercator, *_at(grid, columns, rows))
        cell = EQUATOR_GSD / 2**self.level
        west = (
            self.centre * METRES_PER_DEGREE + EDGE
        )  # metres from the map's west edge to the centre
        first, last = math.floor((x.min() + west) / cell), math.ceil((x.max() + west) / cell)
        top, bottom = math.floor((EDGE - y.max()) / cell), math.ceil((EDGE - y.min()) / cell)
        first, last, top, bottom = first - MARGIN, last + MARGIN, top - MARGIN, bottom + MARGIN
        if (last - first) * (bottom - top) > MAX_SOURCE:
            raise InvalidInput(f"{self.crs} tears the map at this bbox; choose another CRS")
        out = np.zeros((3, height, width), np.uint8)
        reproject(
            self.pyramid.region(self.level, first, top, last - first, bottom - top),
            out,
            src_transform=Affine(cell, 0, first * cell - west, 0, -cell, EDGE - top * cell),
            src_crs=mercator,
            dst_transform=grid,
            dst_crs=self.crs,
            resampling=Resampling.average,
            tolerance=0,  # exact: an approximation would depend on the part
        )
        return out


def centred_mercator(longitude: float) -> CRS:
    """Web Mercator with x = 0 at a longitude."""
    return CRS.from_proj4(
        f"+proj=merc +a=6378137 +b=6378137 +lon_0={longitude!r} +k=1 +units=m +nadgrids=@null +no_defs"
    )


def _level_of(grid: Affine, width: int, height: int, centre: float, crs: CRS, gsd: float) -> int:
    """The coarsest level whose pixels are no larger than those of a grid, at its finest place."""
    columns, rows = np.meshgrid(np.linspace(0, width, 33), np.linspace(0, height, 33))
    mercator = centred_mercator(centre)
    here = _project(crs, mercator, *_at(grid, columns, rows))
    if not np.isfinite(here).all() or np.abs(here[1]).max() > EDGE * (1 + 1e-9):
        raise InvalidInput(
            f"in {crs} the rectangle around the bbox leaves the map, which ends at latitude +-{MAX_LATITUDE:.4f}; "
            "ask for a smaller bbox or another CRS"
        )
    sizes = []
    for step in ((1, 0), (0, 1)):
        there = _project(crs, mercator, *_at(grid, columns + step[0], rows + step[1]))
        sizes.append(np.hypot(there[0] - here[0], there[1] - here[1]).min())
    for level in range(FINEST_LEVEL + 1):
        if EQUATOR_GSD / 2**level <= min(sizes) * (1 + 1e-6):
            return level
    raise InvalidInput(
        f"gsd {gsd} m is finer than the finest level {FINEST_LEVEL} in {crs}; ask for a coarser one"
    )


def _whole(x: Doubles, y: Doubles, box: BBox, crs: CRS) -> None:
    """Refuse a CRS that has no place for parts of a bbox, or shows it in two pieces."""
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InvalidInput(f"{crs} cannot show bbox {box}; choose a CRS made for that region")
    if np.abs(np.diff(x, axis=1)).max() > 0.5 * np.ptp(x):
        raise InvalidInput(
            f"bbox {box} crosses the edge of {crs}; choose a CRS made for that region"
        )


def _project(source: CRS, target: CRS, x: Doubles, y: Doubles) -> tuple[Doubles, Doubles]:
    """Coordinates of points, any shape; infinite where a projection has none."""
    xs, ys = transform(source, target, x.ravel(), y.ravel())
    return np.reshape(xs, x.shape), np.reshape(ys, y.shape)


def _at(grid: Affine, columns: Doubles, rows: Doubles) -> tuple[Doubles, Doubles]:
    """Coordinates of the corners of pixels of a north-up grid."""
    return grid.c + grid.a * columns, grid.f + grid.e * rows


def _cover(start: float, stop: float) -> tuple[int, int]:
    """First pixel and number of pixels that cover [start, stop]."""
    first = math.floor(start + SNAP)
    return first, max(math.ceil(stop - SNAP) - first, 1)


def _mercator_row(lat: float) -> float:
    """How far down the map a latitude is, 0 to 1."""
    row = (1 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2
    return min(max(row, 0.0), 1.0)
