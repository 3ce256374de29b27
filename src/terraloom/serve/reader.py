"""WorldReader: the planet as a rio-tiler reader, so that whatever works on a COG works on a world.

Defaults are those of `rio_tiler.io.Reader`. Pixels that fall on those of a level are that level's bytes; any other
grid is warped from the coarsest level that is as fine as it (`terraloom.serve.grids`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attr
import numpy as np
from morecantile import Tile, TileMatrixSet
from rasterio.crs import CRS
from rasterio.features import bounds as feature_bounds
from rasterio.features import geometry_mask
from rasterio.warp import transform, transform_geom
from rio_tiler.constants import WEB_MERCATOR_TMS, WGS84_CRS
from rio_tiler.errors import (
    InvalidBandName,
    InvalidBounds,
    InvalidBufferSize,
    MaxArraySizeError,
    PointOutsideBounds,
    TileOutsideBounds,
)
from rio_tiler.expression import parse_expression
from rio_tiler.io.base import BaseReader
from rio_tiler.models import BandStatistics, ImageData, Info, PointData
from rio_tiler.utils import CRS_to_uri

from terraloom.grid import EDGE, FINEST_LEVEL, MAX_LATITUDE, TILE, level_size, row_of
from terraloom.serve.grids import Grid, draw, grid_of
from terraloom.world import World

BANDS = ("red", "green", "blue")
TILE_SIZES = (256, 512, 1024)
MAX_PIXELS = 4096 * 4096
Indexes = int | Sequence[int] | None


@attr.s
class WorldReader(BaseReader):
    """Reads a `World`.

    Args:
        input: the world.
        tms: the grid of tiles; worlds know WebMercatorQuad.
        max_pixels: largest image, width times height.
    """

    input: World = attr.ib()
    tms: TileMatrixSet = attr.ib(default=WEB_MERCATOR_TMS)
    minzoom: int = attr.ib(default=0)
    maxzoom: int = attr.ib(default=FINEST_LEVEL)
    max_pixels: int = attr.ib(default=MAX_PIXELS)

    def __attrs_post_init__(self) -> None:
        self.bounds = (-EDGE, -EDGE, EDGE, EDGE)
        self.crs = CRS.from_epsg(3857)

    def info(self) -> Info:
        """What the world is; beyond rio-tiler's fields it says that it is synthetic, its id, seed and zooms."""
        world = self.input
        extra: dict[str, Any] = {
            "driver": "terraloom",
            "count": 3,
            "synthetic": True,
            "world_id": world.id,
            "seed": world.spec.seed,
            "minzoom": self.minzoom,
            "maxzoom": self.maxzoom,
        }
        return Info(
            bounds=self.bounds,
            crs=CRS_to_uri(self.crs) or self.crs.to_wkt(),
            band_metadata=[(f"b{i}", {}) for i in (1, 2, 3)],
            band_descriptions=[(f"b{i}", name) for i, name in enumerate(BANDS, 1)],
            dtype="uint8",
            nodata_type="None",
            colorinterp=list(BANDS),
            **extra,
        )

    def statistics(
        self,
        categorical: bool = False,
        categories: list[float] | None = None,
        percentiles: list[int] | None = None,
        hist_options: dict[str, Any] | None = None,
        max_size: int = 1024,
        indexes: Indexes = None,
        expression: str | None = None,
    ) -> dict[str, BandStatistics]:
        """Statistics of a preview, by band name."""
        image = self.preview(max_size=max_size, indexes=indexes, expression=expression)
        return image.statistics(
            categorical=categorical,
            categories=categories,
            percentiles=percentiles,
            hist_options=hist_options,
        )

    def tile(
        self,
        tile_x: int,
        tile_y: int,
        tile_z: int,
        tilesize: int | None = None,
        indexes: Indexes = None,
        expression: str | None = None,
        buffer: float | None = None,
    ) -> ImageData:
        """One tile of the map: 256, 512 or 1024 pixels of side, plus `buffer` (a multiple of 0.5) all around.

        Raises:
            TileOutsideBounds: there is no such tile.
            InvalidBounds: another tile size.
            InvalidBufferSize: a buffer that is not a multiple of 0.5.
        """
        size = TILE if tilesize is None else tilesize
        if size not in TILE_SIZES:
            raise InvalidBounds(f"tilesize {size} is not one of {TILE_SIZES}")
        if not (self.minzoom <= tile_z <= self.maxzoom and _on_map(tile_x, tile_y, tile_z)):
            raise TileOutsideBounds(
                f"tile {tile_z}/{tile_x}/{tile_y} does not exist: zooms are {self.minzoom} to {self.maxzoom}, "
                "columns and rows 0 to 2**zoom - 1"
            )
        left, bottom, right, top = self.tms.xy_bounds(Tile(tile_x, tile_y, tile_z))
        if buffer:
            if buffer % 0.5 or not 0 < buffer <= size:
                raise InvalidBufferSize(
                    f"buffer {buffer} is not a multiple of 0.5 from 0.5 to {size}"
                )
            margin = (right - left) / size * buffer
            left, bottom, right, top = (
                left - margin,
                bottom - margin,
                right + margin,
                top + margin,
            )
        side = round(size + 2 * (buffer or 0))
        grid = Grid((left, bottom, right, top), self.crs, side, side)
        return self._image(grid, indexes, expression)

    def part(
        self,
        bbox: Sequence[float],
        dst_crs: CRS | None = None,
        bounds_crs: CRS = WGS84_CRS,
        indexes: Indexes = None,
        expression: str | None = None,
        max_size: int | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> ImageData:
        """A box, exactly its bounds; west > east in degrees crosses the antimeridian.

        Args:
            bbox: left, bottom, right, top in `bounds_crs`.
            dst_crs: CRS of the image; `bounds_crs` by default.
            bounds_crs: CRS of `bbox`.
            indexes: bands, 1 to 3.
            expression: of bands, "b1/b2".
            max_size: pixels of the longest side, at most.
            height: pixels; with `width` alone the other follows.
            width: pixels. With none of the three: 1024 on the longest side.

        Raises:
            InvalidBounds: an empty or unknown box, or one off the map.
            MaxArraySizeError: more than `max_pixels`.
        """
        self._check_size(width, height, max_size)
        grid = grid_of(
            bbox, bounds_crs, dst_crs or bounds_crs, width=width, height=height, max_size=max_size
        )
        self._check_size(grid.width, grid.height)
        return self._image(grid, indexes, expression)

    def preview(
        self,
        indexes: Indexes = None,
        expression: str | None = None,
        max_size: int | None = 1024,
        height: int | None = None,
        width: int | None = None,
        dst_crs: CRS | None = None,
    ) -> ImageData:
        """The whole map, small.

        Raises:
            MaxArraySizeError: more than `max_pixels`.
        """
        return self.part(
            self.bounds,
            dst_crs=dst_crs,
            bounds_crs=self.crs,
            indexes=indexes,
            expression=expression,
            max_size=max_size,
            height=height,
            width=width,
        )

    def point(
        self,
        lon: float,
        lat: float,
        coord_crs: CRS = WGS84_CRS,
        indexes: Indexes = None,
        expression: str | None = None,
    ) -> PointData:
        """The pixel of the finest level at a place.

        Raises:
            PointOutsideBounds: the place is off the map.
        """
        if not (math.isfinite(lon) and math.isfinite(lat)):
            raise PointOutsideBounds(f"point {lon}, {lat} is not a place")
        degrees = _degrees(lon, lat, coord_crs)
        bands = _bands(indexes, expression)
        size = level_size(self.maxzoom)
        x = math.floor((degrees[0] + 180) / 360 * size)
        y = min(math.floor(row_of(degrees[1], size)), size - 1)
        point = PointData(
            np.ma.MaskedArray(self.input.level(self.maxzoom, x, y, 1, 1)[bands, 0, 0]),
            band_names=[f"b{i + 1}" for i in bands],
            band_descriptions=[BANDS[i] for i in bands],
            coordinates=(lon, lat),
            crs=coord_crs,
            pixel_location=(x, y),
        )
        return point.apply_expression(expression) if expression else point

    def feature(
        self,
        shape: dict[str, Any],
        dst_crs: CRS | None = None,
        shape_crs: CRS = WGS84_CRS,
        indexes: Indexes = None,
        expression: str | None = None,
        max_size: int | None = None,
        height: int | None = None,
        width: int | None = None,
        align_bounds_with_dataset: bool = False,
    ) -> ImageData:
        """The box around a GeoJSON shape, masked outside it.

        `align_bounds_with_dataset` is rio-tiler's; a world has pixels of every size, so that there is nothing to align.

        Raises:
            InvalidBounds: see `part`, or no polygon.
            MaxArraySizeError: see `part`.
        """
        geometry = shape.get("geometry", shape)
        try:
            box = feature_bounds(shape)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise InvalidBounds(f"the shape has no bounds: {error}") from error
        image = self.part(
            box,
            dst_crs=dst_crs or shape_crs,
            bounds_crs=shape_crs,
            indexes=indexes,
            expression=expression,
            max_size=max_size,
            height=height,
            width=width,
        )
        try:
            if image.crs != shape_crs:
                geometry = transform_geom(shape_crs, image.crs, geometry)
            outside = geometry_mask([geometry], (image.height, image.width), image.transform)
        except (LookupError, TypeError, ValueError) as error:
            raise InvalidBounds(f"the shape cannot be drawn: {error}") from error
        image.array.mask = np.broadcast_to(outside, image.array.shape)
        return image

    def _image(self, grid: Grid, indexes: Indexes, expression: str | None) -> ImageData:
        """Draw, pick bands, compute."""
        bands = _bands(indexes, expression)
        image = ImageData(
            np.ma.MaskedArray(draw(self.input, grid)[bands]),
            bounds=grid.bounds,
            crs=grid.crs,
            band_names=[f"b{i + 1}" for i in bands],
            band_descriptions=[BANDS[i] for i in bands],
        )
        return image.apply_expression(expression) if expression else image

    def _check_size(
        self, width: int | None, height: int | None, max_size: int | None = None
    ) -> None:
        """Refuse an image that is too large before anything is drawn."""
        for name, value in (("width", width), ("height", height), ("max_size", max_size)):
            if value is not None and value < 1:
                raise InvalidBounds(f"{name} {value} is not allowed; give at least 1 pixel")
        sides = [side for side in (width, height, max_size) if side is not None]
        pixels = (width or 1) * (height or 1)
        if pixels > self.max_pixels or max(sides, default=1) > self.max_pixels**0.5 * 4:
            raise MaxArraySizeError(
                f"an image of {width or max_size} x {height or max_size} pixels is too large: at most "
                f"{self.max_pixels} in all, {int(self.max_pixels**0.5 * 4)} a side"
            )


def _on_map(x: int, y: int, z: int) -> bool:
    return max(x, y) < 1 << z and min(x, y) >= 0


def _bands(indexes: Indexes, expression: str | None) -> list[int]:
    """Positions of the bands asked for, counted from 0; an expression, which is checked, gets all.

    Raises:
        InvalidBandName: there is no such band.
        InvalidExpression: one that names none.
    """
    if expression:
        used = parse_expression(expression)
        numbers = [1, 2, 3]
    else:
        numbers = [indexes] if isinstance(indexes, int) else list(indexes or (1, 2, 3))
        used = tuple(numbers)
    if any(number not in (1, 2, 3) for number in used):
        raise InvalidBandName(f"bands {used} are not among 1, 2 and 3 (red, green, blue)")
    return [number - 1 for number in numbers]


def _degrees(x: float, y: float, crs: CRS) -> tuple[float, float]:
    """Longitude and latitude of a point.

    Raises:
        PointOutsideBounds: it is off the map.
    """
    try:
        lon, lat = (
            (x, y)
            if crs == WGS84_CRS
            else (value[0] for value in transform(crs, WGS84_CRS, [x], [y]))
        )
    except Exception as error:  # GDAL's own errors share no public base class
        raise PointOutsideBounds(f"point {x}, {y} has no place on the map") from error
    if not (abs(lon) <= 180 and abs(lat) <= MAX_LATITUDE):
        raise PointOutsideBounds(
            f"point {x}, {y} is off the map: longitudes are -180 to 180, latitudes end at +-{MAX_LATITUDE:.4f}"
        )
    return lon, lat
