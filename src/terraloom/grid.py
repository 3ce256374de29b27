"""The Web Mercator pyramid: levels, windows of pixels, ground sampling distance.

Level z is zoom z of the WebMercatorQuad tile matrix set (OGC 17-083r4, Annex D) with 256 px tiles.
Everything is float64 and computed as origin + index * cell size, never by adding steps, so that
corners equal those of morecantile to the last bit. x wraps at the antimeridian; y ends at +-85.0511
degrees, where the map is square.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import overload

import numpy as np
import numpy.typing as npt
from affine import Affine

from terraloom.errors import InvalidInput

TILE = 256
BASE_LEVEL = 6
FINEST_LEVEL = 18
MAX_LATITUDE = 85.0511287798066
EQUATOR_GSD = 156543.03392804097  # metres per pixel at level 0 on the equator
EDGE = 20037508.342789244  # metres from the centre of the map to each of its edges, EPSG:3857
SNAP = 1e-6  # pixels; an edge this close to a grid line lies on it (float64 errs by about 1e-7)

BBox = tuple[float, float, float, float]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """A rectangle of global pixels of one level; pixel (0, 0) is the north-west corner of the map.

    x may be any integer (columns wrap at `level_size(level)`), rows must lie on the map.

    Raises:
        InvalidInput: on a number that is not an integer, an unknown level, an empty window or rows off the map.
    """

    level: int
    x: int
    y: int
    width: int
    height: int

    def __post_init__(self) -> None:
        """Refuse what is not on the map; numpy's integers, which overflow, become Python's."""
        size = level_size(self.level)
        for name in ("level", "x", "y", "width", "height"):
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, index(value))
            except TypeError:
                raise InvalidInput(f"{name} {value!r} of a window is not an integer") from None
        if self.width < 1 or self.height < 1:
            raise InvalidInput(
                f"a window of {self.width} x {self.height} pixels is empty; "
                "both sides must be at least 1"
            )
        if self.y < 0 or self.y + self.height > size:
            raise InvalidInput(
                f"rows {self.y} to {self.y + self.height} leave the map: level {self.level} has "
                f"rows 0 to {size}, which end at latitude +-{MAX_LATITUDE:.4f}"
            )

    @property
    def lon(self) -> Floats:
        """Longitude of the pixel centres, degrees in [-180, 180), shape (width,)."""
        size = level_size(self.level)
        columns = (self.x % size + np.arange(self.width, dtype=np.float64)) % size
        return (columns + 0.5) * (360.0 / size) - 180.0

    @property
    def lat(self) -> Floats:
        """Latitude of the pixel centres, degrees, falling from north to south, shape (height,)."""
        rows = self.y + np.arange(self.height, dtype=np.float64) + 0.5
        north = 1 - 2 * rows / level_size(self.level)
        lat: Floats = np.degrees(np.arctan(np.sinh(np.pi * north)))
        return lat

    @property
    def gsd(self) -> Floats:
        """Ground sampling distance of each row, metres per pixel, shape (height,)."""
        return gsd_at(self.lat, self.level)

    @property
    def transform(self) -> Affine:
        """Pixel to EPSG:3857 metres, from the north-west corner of the window.

        x is not wrapped: a window that runs on past the antimeridian stays continuous.
        """
        cell = EQUATOR_GSD / 2**self.level
        return Affine(cell, 0.0, self.x * cell - EDGE, 0.0, -cell, EDGE - self.y * cell)

    def pad(self, pixels: int) -> Window:
        """Grow by `pixels` on every side; rows stop at the edge of the map.

        Raises:
            InvalidInput: when `pixels` is negative.
        """
        if pixels < 0:
            raise InvalidInput(f"cannot pad by {pixels} pixels; the padding must be 0 or more")
        top = max(self.y - pixels, 0)
        bottom = min(self.y + self.height + pixels, level_size(self.level))
        return Window(self.level, self.x - pixels, top, self.width + 2 * pixels, bottom - top)

    def coarser(self, factor: int = 4) -> Window:
        """The same ground at the level whose pixels are `factor` (a power of two) times larger.

        Raises:
            InvalidInput: when an edge does not fall between pixels of that level, or when there
                is no such level.
        """
        if factor < 1 or factor & (factor - 1):
            raise InvalidInput(f"factor {factor} is not a power of two")
        numbers = (self.x, self.y, self.width, self.height)
        if any(number % factor for number in numbers):
            raise InvalidInput(f"x, y, width, height = {numbers} are not all multiples of {factor}")
        x, y, width, height = (number // factor for number in numbers)
        return Window(self.level - factor.bit_length() + 1, x, y, width, height)


def level_size(level: int) -> int:
    """Pixels along each side of the map at a level: 256 * 2**level.

    Raises:
        InvalidInput: when `level` is not an integer of 0..18.
    """
    try:
        number = index(level)
    except TypeError:
        raise InvalidInput(
            f"level {level!r} is not an integer; levels are 0 to {FINEST_LEVEL}"
        ) from None
    if not 0 <= number <= FINEST_LEVEL:
        raise InvalidInput(f"level {level} does not exist; levels are 0 to {FINEST_LEVEL}")
    return TILE << number


def check_bbox(bbox: Sequence[float]) -> BBox:
    """Return (west, south, east, north) in degrees as floats, or say what is wrong with it.

    west > east crosses the antimeridian (RFC 7946, section 5.2).

    Raises:
        InvalidInput: on anything but four finite numbers, an empty box, or a corner off the map.
    """
    try:
        west, south, east, north = (float(value) for value in bbox)
    except (TypeError, ValueError):
        raise InvalidInput(f"bbox {bbox!r} is not four numbers: west, south, east, north") from None
    box = (west, south, east, north)
    if not all(math.isfinite(value) for value in box):
        raise InvalidInput(f"bbox {box} holds a value that is not finite")
    if max(abs(west), abs(east)) > 180:
        raise InvalidInput(
            f"bbox {box} has a longitude outside -180 to 180 degrees; "
            "give west > east to cross the antimeridian"
        )
    if max(abs(south), abs(north)) > MAX_LATITUDE:
        raise InvalidInput(
            f"bbox {box} goes beyond the Web Mercator map, "
            f"which ends at latitude +-{MAX_LATITUDE:.4f}"
        )
    if south >= north:
        raise InvalidInput(
            f"bbox {box} has south {south} >= north {north}; the order is west, south, east, north"
        )
    if degrees_wide(west, east) <= 0:
        raise InvalidInput(f"bbox {box} has no width; west and east must differ")
    return box


def window_of(bbox: Sequence[float], level: int) -> Window:
    """The smallest window of a level that covers a bbox, 0 <= x < size; edges are snapped outwards.

    Raises:
        InvalidInput: see `check_bbox` and `level_size`.
    """
    west, south, east, north = check_bbox(bbox)
    size = level_size(level)
    left = (west + 180) / 360 * size
    x, width = cover(left, left + degrees_wide(west, east) / 360 * size)
    y, height = cover(row_of(north, size), row_of(south, size))
    y = min(y, size - 1)
    return Window(level, x % size, y, min(width, size), min(height, size - y))


def bbox_of(window: Window) -> BBox:
    """(west, south, east, north) of a window's outer edges, degrees.

    west > east when it crosses the antimeridian. A window as wide as the map, or wider, is -180 to
    180 wherever it starts.
    """
    size = level_size(window.level)
    south, north = (_latitude(row, size) for row in (window.y + window.height, window.y))
    if window.width >= size:
        return -180.0, south, 180.0, north
    west = window.x % size / size * 360 - 180
    right = (window.x + window.width) % size or size  # an east edge on the antimeridian is +180
    return west, south, right / size * 360 - 180, north


def drawn_level(gsd: float) -> int:
    """The even level, 6 to 18, whose gsd on the equator is nearest to `gsd` (x4 steps from 0.6 m)."""
    level = FINEST_LEVEL - 2 * round(math.log2(gsd / 0.6) / 2)
    return min(max(level, BASE_LEVEL), FINEST_LEVEL)


@overload
def gsd_at(lat: float, level: int) -> float: ...
@overload
def gsd_at(lat: Floats, level: int) -> Floats: ...
def gsd_at(lat: float | Floats, level: int) -> float | Floats:
    """Ground sampling distance 156543.03392804097 cos(lat) / 2**level, metres per pixel.

    Args:
        lat: degrees, a number or an array.
        level: 0..18.

    Raises:
        InvalidInput: on an unknown level or a latitude that is not finite or beyond +-85.0511.
    """
    zoom = level_size(level) // TILE
    off = np.extract(~(np.abs(lat) <= MAX_LATITUDE), lat)
    if off.size:
        raise InvalidInput(
            f"latitude {off[0]} is off the Web Mercator map, which ends at +-{MAX_LATITUDE:.4f}"
        )
    gsd = EQUATOR_GSD * np.cos(np.radians(lat)) / zoom
    return gsd if isinstance(lat, np.ndarray) else float(gsd)


def coarsest_gsd(bbox: Sequence[float], level: int) -> float:
    """Ground sampling distance of a level where a bbox is nearest to the equator, metres per pixel.

    Raises:
        InvalidInput: see `check_bbox` and `level_size`.
    """
    _, south, _, north = check_bbox(bbox)
    return gsd_at(0.0 if south <= 0 <= north else min(abs(south), abs(north)), level)


def level_for(gsd: float, lat: float) -> int:
    """The coarsest level that is at least as fine as `gsd` at latitude `lat`.

    Args:
        gsd: ground sampling distance, metres per pixel.
        lat: degrees.

    Raises:
        InvalidInput: when gsd is not finite, not above 0 or finer than level 18 is there, or when
            the latitude is off the map.
    """
    if not (math.isfinite(gsd) and gsd > 0):
        raise InvalidInput(f"gsd {gsd} is not allowed; give metres per pixel, above 0")
    for level in range(FINEST_LEVEL + 1):
        if gsd_at(lat, level) <= gsd * (1 + 1e-9):
            return level
    # Rounded up, so that the advice is accepted when it is followed.
    finest = math.ceil(gsd_at(lat, FINEST_LEVEL) * 1e4) / 1e4
    raise InvalidInput(
        f"gsd {gsd} m is finer than the finest level: at latitude {lat} ask for {finest} m or more"
    )


def degrees_wide(west: float, east: float) -> float:
    """Degrees from west to east; west > east crosses the antimeridian."""
    return east - west if west <= east else east + 360 - west


def row_of(lat: float, size: float) -> float:
    """Row coordinate of a latitude on a map of `size` rows, 0 at the north edge (inverse Gudermannian)."""
    row = (1 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2 * size
    return min(max(row, 0.0), float(size))


def _latitude(row: int, size: int) -> float:
    lat = math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * row / size))))
    return min(max(lat, -MAX_LATITUDE), MAX_LATITUDE)


def cover(start: float, stop: float) -> tuple[int, int]:
    """First pixel and number of pixels that cover [start, stop]; an edge within `SNAP` of a grid line lies on it."""
    first = math.floor(start + SNAP)
    return first, max(math.ceil(stop - SNAP) - first, 1)
