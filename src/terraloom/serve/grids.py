"""Grids of pixels in any CRS, and how a world fills them.

A grid whose pixels are those of a level is cut from it. Any other is warped by GDAL from a level in a Mercator
projection that is centred on the grid, in which nothing happens at the antimeridian.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import from_bounds
from rasterio.warp import reproject, transform, transform_bounds
from rio_tiler.errors import InvalidBounds

from terraloom.grid import EDGE, EQUATOR_GSD, FINEST_LEVEL, MAX_LATITUDE, level_size
from terraloom.serve.work import check_wanted
from terraloom.world import World

Pixels = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

MERCATOR, DEGREES = CRS.from_epsg(3857), CRS.from_epsg(4326)
DEFAULT_SIZE = 1024  # pixels of the longest side when no size is given
SAMPLES = 33  # positions along each side of a grid that are looked at
STRIP = 512  # rows drawn between two looks at whether anybody still waits
MAX_SIDE = 16384  # source pixels
MARGIN = 3  # source pixels around a grid that resampling may reach


@dataclass(frozen=True)
class Grid:
    """Pixels that fill `bounds` (left, bottom, right, top) of a CRS; x may run past the antimeridian."""

    bounds: tuple[float, float, float, float]
    crs: CRS
    width: int
    height: int

    @property
    def transform(self) -> Affine:
        """Pixel to `crs`."""
        placed: Affine = from_bounds(*self.bounds, self.width, self.height)
        return placed


def grid_of(
    bbox: Sequence[float],
    bounds_crs: CRS,
    crs: CRS,
    *,
    width: int | None = None,
    height: int | None = None,
    max_size: int | None = None,
) -> Grid:
    """The grid of a box: pixels are square unless both sides are given.

    Raises:
        InvalidBounds: not four finite numbers, an empty box, or one that `crs` has no place for.
    """
    bounds = _bounds(bbox, bounds_crs, crs)
    across, down = bounds[2] - bounds[0], bounds[3] - bounds[1]
    if width is None and height is None:
        step = max(across, down) / (max_size or DEFAULT_SIZE)
        width, height = max(1, round(across / step)), max(1, round(down / step))
    elif width is None:
        width = max(1, round(across * (height or 1) / down))
    elif height is None:
        height = max(1, round(down * width / across))
    assert width is not None and height is not None
    return Grid(bounds, crs, width, height)


def draw(world: World, grid: Grid) -> Pixels:
    """Fill a grid, uint8 (3, height, width).

    Raises:
        InvalidBounds: a part of it is off the map.
    """
    cut = _cut(grid)
    if cut is not None:
        return _read(world, *cut)
    if grid.crs == MERCATOR:
        mercator, shift = MERCATOR, 0.0
    else:
        centre = _centre(grid)
        mercator, shift = _mercator(centre), centre / 180 * EDGE
    x, y, pixel = _extent(grid, mercator, shift)
    for level in range(_level(pixel), -1, -1):
        window = _window(level, x, y)
        if max(window[3:]) <= MAX_SIDE:
            break
    source = _read(world, *window)
    cell = EQUATOR_GSD / 2**level
    place = Affine(cell, 0, window[1] * cell - EDGE - shift, 0, -cell, EDGE - window[2] * cell)
    out = np.zeros((3, grid.height, grid.width), np.uint8)
    reproject(
        source,
        out,
        src_transform=place,
        src_crs=mercator,
        dst_transform=grid.transform,
        dst_crs=grid.crs,
        resampling=Resampling.bilinear,  # GDAL widens the kernel where the level is finer
        init_dest_nodata=False,
    )
    return out


def _bounds(bbox: Sequence[float], bounds_crs: CRS, crs: CRS) -> tuple[float, float, float, float]:
    try:
        left, bottom, right, top = (float(value) for value in bbox)
    except (TypeError, ValueError) as error:
        raise InvalidBounds(f"bounds {bbox!r} are not four numbers") from error
    given = (left, bottom, right, top)
    if not all(map(math.isfinite, given)):
        raise InvalidBounds(f"bounds {given} hold a value that is not finite")
    if bounds_crs.is_geographic:
        if max(abs(left), abs(right)) > 360:
            raise InvalidBounds(f"bounds {given} have a longitude that is no longitude")
        right = right + 360 if right < left else right
    if left >= right or bottom >= top:
        raise InvalidBounds(f"bounds {given} are empty; the order is left, bottom, right, top")
    bounds = (left, bottom, right, top)
    if crs != bounds_crs:
        bounds = _transformed(bounds, bounds_crs, crs)
    if crs == MERCATOR and (
        max(-bounds[1], bounds[3]) > EDGE * (1 + 1e-9)
        or bounds[2] - bounds[0] > 2 * EDGE * (1 + 1e-9)
    ):
        raise InvalidBounds(f"bounds {given} are larger than the map")
    return bounds


def _transformed(
    bounds: tuple[float, float, float, float], source: CRS, target: CRS
) -> tuple[float, float, float, float]:
    left, bottom, right, top = bounds
    if source == DEGREES and target == MERCATOR:  # past the antimeridian x goes on
        if max(-bottom, top) > MAX_LATITUDE + 1e-9:
            raise InvalidBounds(
                f"bounds {bounds} leave the map, which ends at +-{MAX_LATITUDE:.4f}"
            )
        south, north = (
            EDGE / math.pi * math.asinh(math.tan(math.radians(v))) for v in (bottom, top)
        )
        return left / 180 * EDGE, south, right / 180 * EDGE, north
    try:
        found = transform_bounds(source, target, *bounds, densify_pts=21)
    except Exception as error:  # GDAL's own errors share no public base class
        raise InvalidBounds(f"{target} has no place for the bounds {bounds}") from error
    if not all(map(math.isfinite, found)) or found[0] >= found[2] or found[1] >= found[3]:
        raise InvalidBounds(f"{target} has no place for the bounds {bounds}")
    return found[0], found[1], found[2], found[3]


def _cut(grid: Grid) -> tuple[int, int, int, int, int] | None:
    """The window (level, x, y, width, height) that a grid is, if it is one."""
    if grid.crs != MERCATOR:
        return None
    left, bottom, right, top = grid.bounds
    across, down = (right - left) / grid.width, (top - bottom) / grid.height
    level = round(math.log2(EQUATOR_GSD / across))
    if not 0 <= level <= FINEST_LEVEL:
        return None
    cell = EQUATOR_GSD / 2**level
    x, y = (left + EDGE) / cell, (EDGE - top) / cell
    near = 1e-6 * max(grid.width, grid.height)
    if (
        abs(across - cell) * grid.width > near * cell
        or abs(down - cell) * grid.height > near * cell
    ):
        return None
    if abs(x - round(x)) > 1e-3 or abs(y - round(y)) > 1e-3:
        return None
    if round(y) < 0 or round(y) + grid.height > level_size(level):
        return None
    return level, round(x), round(y), grid.width, grid.height


def _centre(grid: Grid) -> float:
    """Longitude of the middle of a grid, whole degrees."""
    left, bottom, right, top = grid.bounds
    lon = _project(
        grid.crs, DEGREES, np.array([(left + right) / 2]), np.array([(bottom + top) / 2])
    )[0]
    return float(round(lon[0]))


def _mercator(lon: float) -> CRS:
    """Web Mercator with its middle at a longitude."""
    return CRS.from_proj4(
        f"+proj=merc +a=6378137 +b=6378137 +lat_ts=0 +lon_0={lon:g} +x_0=0 +y_0=0 +k=1 +units=m "
        "+nadgrids=@null +wktext +no_defs"
    )


def _extent(
    grid: Grid, mercator: CRS, shift: float
) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Range of x and of y of a grid on the map, and its smallest pixel, in metres; x may run past the antimeridian."""
    columns, rows = np.meshgrid(
        np.linspace(0, grid.width, SAMPLES), np.linspace(0, grid.height, SAMPLES)
    )

    def at(columns: Doubles, rows: Doubles) -> tuple[Doubles, Doubles]:
        place = grid.transform
        across = place.c + place.a * columns.ravel()
        down = place.f + place.e * rows.ravel()
        if mercator == grid.crs:
            return across, down
        x, y = _project(grid.crs, mercator, across, down)
        return x + shift, y

    inward = np.where(columns < grid.width / 2, 1, -1), np.where(rows < grid.height / 2, 1, -1)
    x, y = at(columns, rows)
    steps = at(columns + inward[0], rows), at(columns, rows + inward[1])
    pixel = min(float(np.hypot(a - x, b - y).min()) for a, b in steps)
    if np.abs(y).max() > EDGE * (1 + 1e-6):
        raise InvalidBounds(
            f"bounds {grid.bounds} leave the map, which ends at latitude +-{MAX_LATITUDE:.4f}"
        )
    if np.ptp(x) > 2 * EDGE * (1 + 1e-6) or not pixel > 0:
        raise InvalidBounds(f"{grid.crs} tears the map at the bounds {grid.bounds}")
    return (float(x.min()), float(x.max())), (float(y.min()), float(y.max())), pixel


def _level(pixel: float) -> int:
    """The coarsest level that is as fine as a pixel in metres of the map, or the finest one."""
    return min(max(math.ceil(math.log2(EQUATOR_GSD / pixel) - 1e-6), 0), FINEST_LEVEL)


def _window(
    level: int, x: tuple[float, float], y: tuple[float, float]
) -> tuple[int, int, int, int, int]:
    """The window of a level around ranges of x and y."""
    cell, size = EQUATOR_GSD / 2**level, level_size(level)
    left, right = (
        math.floor((x[0] + EDGE) / cell) - MARGIN,
        math.ceil((x[1] + EDGE) / cell) + MARGIN,
    )
    top, bottom = (
        math.floor((EDGE - y[1]) / cell) - MARGIN,
        math.ceil((EDGE - y[0]) / cell) + MARGIN,
    )
    top, bottom = min(max(top, 0), size - 1), max(min(bottom, size), 1)
    return level, left, top, right - left, bottom - top


def _read(world: World, level: int, x: int, y: int, width: int, height: int) -> Pixels:
    """A window, strip by strip: an answer that nobody waits for any more is not drawn to its end."""
    strips = []
    for row in range(0, height, STRIP):
        check_wanted()
        strips.append(world.level(level, x, y + row, width, min(STRIP, height - row)))
    return strips[0] if len(strips) == 1 else np.concatenate(strips, 1)


def _project(source: CRS, target: CRS, x: Doubles, y: Doubles) -> tuple[Doubles, Doubles]:
    try:
        xs, ys = (np.asarray(values) for values in transform(source, target, x, y))
    except Exception as error:  # GDAL's own errors share no public base class
        raise InvalidBounds(f"{source} has no place on the map there") from error
    if not (np.isfinite(xs).all() and np.isfinite(ys).all()):
        raise InvalidBounds(f"{source} has no place on the map there")
    return xs, ys
