"""Where a single image lies: a square of ground around a point, and back from a file to its metadata."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform as warp
from rasterio.windows import Window

from terraloom.errors import InvalidInput
from terraloom.io.cog import BLOCK, Pixels, block_windows, known_crs, stream_cog
from terraloom.metadata import RANGES, Metadata

MERCATOR = 3857
DEGREES = 4326
BANDS = ("red", "green", "blue")


def utm(lon: float, lat: float) -> CRS:
    """The UTM zone of a point by its six degrees of longitude; beyond -80 and 84 degrees the polar UPS grid."""
    if not -80 <= lat <= 84:
        return CRS.from_epsg(5041 if lat > 0 else 5042)
    zone = min(int((lon + 180) // 6) + 1, 60)
    return CRS.from_epsg((32600 if lat >= 0 else 32700) + zone)


def around(
    lon: float, lat: float, gsd: float, width: int, height: int, crs: Any = None
) -> tuple[Affine, CRS]:
    """Where an image with a point in its middle lies, north up.

    Args:
        lon: degrees.
        lat: degrees.
        gsd: metres per pixel; also the pixel size, except in Web Mercator, where that is gsd / cos(lat).
        width: pixels.
        height: pixels.
        crs: anything rasterio understands, projected; None is `utm`.

    Returns:
        Pixel to `crs`, and that CRS. Edges are multiples of the pixel size, so the point is half a pixel off at most.

    Raises:
        InvalidInput: a CRS that is unknown, not projected or cannot show the point.
    """
    crs = utm(lon, lat) if crs is None else known_crs(crs)
    if not crs.is_projected:
        raise InvalidInput(f"the CRS {crs} is not projected; give one such as EPSG:3857")
    pixel = gsd / crs.linear_units_factor[1]
    if crs.to_epsg() == MERCATOR:
        pixel /= max(math.cos(math.radians(lat)), 1e-9)
    try:
        (x,), (y,) = warp(CRS.from_epsg(DEGREES), crs, [lon], [lat])
    except RasterioError as error:
        raise InvalidInput(f"{lon}, {lat} is not on the map of {crs}: {error}") from error
    if not (math.isfinite(x) and math.isfinite(y)) or (
        crs.to_epsg() == MERCATOR and abs(lat) > 85.06
    ):
        raise InvalidInput(f"lon {lon}, lat {lat} is not on the map of {crs}; leave --crs out")
    left, top = round(x / pixel - width / 2), round(y / pixel + height / 2)
    return Affine(pixel, 0.0, left * pixel, 0.0, -pixel, top * pixel), crs


def write_scene(
    path: str | Path,
    rgb: Pixels,
    transform: Affine,
    crs: CRS,
    tags: dict[str, str],
    *,
    overwrite: bool = False,
) -> Path:
    """Write uint8 RGB (3, height, width) as a Cloud-Optimized GeoTIFF.

    Raises:
        InvalidInput: a path that cannot be written, or an existing file without `overwrite`.
        TerraloomError: when writing fails, for instance because the disk is full.
    """
    _, height, width = rgb.shape
    return stream_cog(
        path,
        ((window, _cut(rgb, window)) for window in block_windows(width, height, BLOCK)),
        width=width,
        height=height,
        bands=BANDS,
        transform=transform,
        crs=crs,
        tags=tags,
        overwrite=overwrite,
    )


def _cut(rgb: Pixels, window: Window) -> Pixels:
    rows, columns = window.toslices()
    return rgb[:, rows, columns]


def read_metadata(path: str | Path) -> Metadata:
    """What a GeoTIFF says of itself: Terraloom's tags, and where there are none, its place and pixel size.

    Pixel size counts on the ground: Web Mercator's shrinks by cos(latitude). A file without CRS has no place.

    Raises:
        InvalidInput: not a raster that can be read, or a tag outside its range.
    """
    try:
        with rasterio.open(path) as file:
            tags, crs = file.tags(), file.crs
            place = None if crs is None else _middle(file, crs)
    except (RasterioError, OSError) as error:
        raise InvalidInput(f"cannot read {path}: {error}") from error
    found = Metadata.from_tags(tags)
    if place is None:
        return found
    lon, lat, gsd = place
    low, high, _ = RANGES["gsd"]
    return replace(
        found,
        lon=lon if found.lon is None else found.lon,
        lat=lat if found.lat is None else found.lat,
        gsd=gsd if found.gsd is None and low <= gsd <= high else found.gsd,
    )


def _middle(file: rasterio.DatasetReader, crs: CRS) -> tuple[float, float, float]:
    """Longitude, latitude and metres per pixel of the middle pixel, measured on the ground from its neighbours."""
    columns, rows = (file.width / 2, file.width / 2 + 1), (file.height / 2, file.height / 2 + 1)
    here, right, down = ((columns[0], rows[0]), (columns[1], rows[0]), (columns[0], rows[1]))
    points = [file.transform * spot for spot in (here, right, down)]
    lons, lats = warp(crs, CRS.from_epsg(DEGREES), *zip(*points, strict=True))
    sides = (_metres(lons[0], lats[0], lons[i], lats[i]) for i in (1, 2))
    lon = (lons[0] + 180) % 360 - 180
    return lon, lats[0], math.prod(sides) ** 0.5


def _metres(lon: float, lat: float, other_lon: float, other_lat: float) -> float:
    """Between two points close to each other, on a sphere of 111,319.5 m a degree."""
    east = ((other_lon - lon + 180) % 360 - 180) * math.cos(math.radians(lat))
    return math.hypot(east, other_lat - lat) * 111_319.49
