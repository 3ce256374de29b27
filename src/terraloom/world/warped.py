"""A canvas in any CRS: means of a level, sampled where GDAL says that each pixel lies.

GDAL gives the exact longitude and latitude of knots on a lattice that is fixed to the CRS, not to the canvas or the
part; between knots positions are interpolated. GDAL's own warper does the same from the corners of whatever it is
given, so that its pixels would depend on the part, and it has no place for what lies beyond the antimeridian.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform

from terraloom.errors import InvalidInput
from terraloom.grid import EDGE, FINEST_LEVEL, MAX_LATITUDE, BBox, cover, level_size
from terraloom.world.blocks import Pyramid

Pixels = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

DEGREES = CRS.from_epsg(4326)
METRES_PER_DEGREE = 2 * EDGE / 360
KNOT = 8  # pixels between exact positions
MAX_SOURCE = 1 << 26  # source pixels for one part; a CRS that needs more is torn there


@dataclass(frozen=True)
class WarpedCanvas:
    """A grid in any CRS, drawn from the coarsest level whose pixels are no larger than its own."""

    pyramid: Pyramid
    level: int
    centre: float  # degrees; longitudes are counted from here, so that nothing happens at the antimeridian
    step: float  # units of `crs` per pixel; pixel (left, top) of the lattice is the first one
    left: int
    top: int
    width: int
    height: int
    crs: CRS

    @classmethod
    def around(cls, pyramid: Pyramid, box: BBox, gsd: float, crs: CRS) -> WarpedCanvas:
        """See `terraloom.world.canvas.canvas`."""
        west, south, east, north = box
        east = east if west <= east else east + 360
        centre = (west + east) / 2
        lon, lat = np.meshgrid(np.linspace(west, east, 65), np.linspace(south, north, 65))
        x, y = _project(DEGREES, crs, lon, lat)
        if crs.is_geographic:
            x = lon + _turned(x - lon)  # the same meridians, but without a jump
        if np.abs(np.diff(x, axis=1)).max() > 0.5 * np.ptp(x):
            raise InvalidInput(
                f"bbox {box} crosses the edge of {crs}; choose a CRS made for that region"
            )
        step = gsd / (METRES_PER_DEGREE if crs.is_geographic else crs.linear_units_factor[1])
        left, width = cover(x.min() / step, x.max() / step)
        top, height = cover(-y.max() / step, -y.min() / step)
        level = _level_of(cls(pyramid, 0, centre, step, left, top, width, height, crs), gsd)
        return cls(pyramid, level, centre, step, left, top, width, height, crs)

    @property
    def transform(self) -> Affine:
        """Pixel to `crs`."""
        return Affine(self.step, 0, self.left * self.step, 0, -self.step, -self.top * self.step)

    def draw(self, column: int, row: int, width: int, height: int) -> Pixels:
        """See `Canvas.draw`."""
        x, y = self.left + column, self.top + row
        columns, rows = _knots(x, width), _knots(y, height)
        u, v = (level_size(self.level) * part for part in self.on_map(*np.meshgrid(columns, rows)))
        first, top = math.floor(u.min()) - 1, math.floor(v.min()) - 1
        across, down = math.ceil(u.max()) + 1 - first, math.ceil(v.max()) + 1 - top
        if across * down > MAX_SOURCE:
            raise InvalidInput(f"{self.crs} tears the map at this bbox; choose another CRS")
        source = self.pyramid.region(self.level, first, top, across, down)
        pixel = math.sqrt((np.ptp(u) + 1) * (np.ptp(v) + 1) / (np.ptp(columns) * np.ptp(rows)))
        samples = max(2, math.ceil(pixel))  # per pixel and axis
        offsets = (np.arange(samples) + 0.5) / samples
        total = np.zeros((3, height, width), np.float32)
        for dy in offsets:
            down_weights = _weights(rows, y + dy + np.arange(height))
            for dx in offsets:
                across_weights = _weights(columns, x + dx + np.arange(width)).T
                total += _bilinear(
                    source,
                    down_weights @ (u - first) @ across_weights,
                    down_weights @ (v - top) @ across_weights,
                )
        return np.rint(total / samples**2).astype(np.uint8)

    def on_map(self, columns: Doubles, rows: Doubles) -> tuple[Doubles, Doubles]:
        """Places of corners of the lattice on the Web Mercator map, whose sides are 1; u runs on past the edges."""
        lon, lat = _project(self.crs, DEGREES, columns * self.step, -rows * self.step)
        lat = np.clip(lat, -MAX_LATITUDE, MAX_LATITUDE)
        u = (self.centre + _turned(lon - self.centre) + 180) / 360
        return u, (1 - np.arcsinh(np.tan(np.radians(lat))) / np.pi) / 2


def _level_of(canvas: WarpedCanvas, gsd: float) -> int:
    """The coarsest level whose pixels are no larger than those of a canvas, at its finest place."""
    columns, rows = np.meshgrid(
        np.linspace(canvas.left, canvas.left + canvas.width, 33),
        np.linspace(canvas.top, canvas.top + canvas.height, 33),
    )
    lat = _project(canvas.crs, DEGREES, columns * canvas.step, -rows * canvas.step)[1]
    if np.abs(lat).max() > MAX_LATITUDE + 1e-9:
        raise InvalidInput(
            f"in {canvas.crs} the rectangle around the bbox leaves the map, which ends at latitude "
            f"+-{MAX_LATITUDE:.4f}; ask for a smaller bbox or another CRS"
        )
    u, v = canvas.on_map(columns, rows)
    steps = [
        (a - u, b - v)
        for a, b in (canvas.on_map(columns + 1, rows), canvas.on_map(columns, rows + 1))
    ]
    pixel = min(float(np.hypot(du, dv).min()) for du, dv in steps)
    for level in range(FINEST_LEVEL + 1):
        if 1 / level_size(level) <= pixel * (1 + 1e-6):
            return level
    raise InvalidInput(
        f"gsd {gsd} m is finer than the finest level {FINEST_LEVEL} in {canvas.crs}; ask for a coarser one"
    )


def _project(source: CRS, target: CRS, x: Doubles, y: Doubles) -> tuple[Doubles, Doubles]:
    """Coordinates of points, any shape.

    Raises:
        InvalidInput: a point has no place in `target`.
    """
    try:
        xs, ys = transform(source, target, x.ravel(), y.ravel())
        if not np.isfinite([xs, ys]).all():
            raise ValueError("not finite")
    except Exception as error:  # GDAL's own errors share no public base class
        other = source if target == DEGREES else target
        raise InvalidInput(
            f"{other} has no place for this bbox; choose a CRS made for that region"
        ) from error
    return np.reshape(xs, x.shape), np.reshape(ys, y.shape)


def _turned(degrees: Doubles) -> Doubles:
    """The same angle in [-180, 180)."""
    return (degrees + 180) % 360 - 180


def _knots(start: int, count: int) -> Doubles:
    """The lattice of knots around `count` pixels."""
    return np.arange(start // KNOT * KNOT, start + count + KNOT, KNOT, dtype=np.float64)


def _weights(knots: Doubles, at: Doubles) -> Doubles:
    """Linear interpolation between knots as a matrix, (at, knots)."""
    return np.maximum(0, 1 - np.abs(at[:, None] - knots) / KNOT)


def _bilinear(source: Pixels, x: Doubles, y: Doubles) -> npt.NDArray[np.float32]:
    """Values between pixel centres, (3, H, W) at (h, w) positions -> (3, h, w)."""
    column, row = np.floor(x - 0.5).astype(np.int64), np.floor(y - 0.5).astype(np.int64)
    right, below = (x - 0.5 - column).astype(np.float32), (y - 0.5 - row).astype(np.float32)
    upper = source[:, row, column] * (1 - right) + source[:, row, column + 1] * right
    lower = source[:, row + 1, column] * (1 - right) + source[:, row + 1, column + 1] * right
    return np.asarray(upper * (1 - below) + lower * below, np.float32)
