"""Where a single image lies: a square of ground around a point, and back from a file to its metadata."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform as warp
from rasterio.windows import Window

from terraloom.data.geotiff import read_metadata as read_metadata
from terraloom.errors import InvalidInput
from terraloom.io.cog import BLOCK, Pixels, block_windows, known_crs, stream_cog

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
