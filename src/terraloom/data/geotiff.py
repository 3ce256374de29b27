"""What a GeoTIFF says of itself, and its colours."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.warp import transform as warp

from terraloom.errors import InvalidInput
from terraloom.metadata import RANGES, Metadata

DEGREES = 4326


def read_colours(path: str | Path) -> npt.NDArray[Any]:
    """The bands called red, green and blue, else the first three, else the first: (3 or 1, h, w) of the file's type.

    Raises:
        InvalidInput: not a raster that can be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as file:
                names = [colour.name for colour in file.colorinterp]
                if {"red", "green", "blue"} <= set(names):
                    bands = [names.index(name) + 1 for name in ("red", "green", "blue")]
                else:
                    bands = [1, 2, 3] if file.count >= 3 else [1]
                pixels: npt.NDArray[Any] = file.read(bands)
                return pixels
    except (RasterioError, OSError) as error:
        raise InvalidInput(f"cannot read {path}: {error}") from error


def read_metadata(path: str | Path) -> Metadata:
    """What a GeoTIFF says of itself: Terraloom's tags, and where there are none, its place and pixel size.

    Pixel size counts on the ground: Web Mercator's shrinks by cos(latitude). A file without CRS has no place.

    Raises:
        InvalidInput: not a raster that can be read, or a tag outside its range.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as file:
                tags, crs = file.tags(), file.crs
                place = (
                    None if crs is None else middle(file.transform, file.width, file.height, crs)
                )
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


def middle(transform: Affine, width: int, height: int, crs: CRS) -> tuple[float, float, float]:
    """Longitude, latitude and metres per pixel of the middle pixel, measured on the ground from its neighbours."""
    x, y = width / 2, height / 2
    points = [transform * spot for spot in ((x, y), (x + 1, y), (x, y + 1))]
    lons, lats = warp(crs, CRS.from_epsg(DEGREES), *zip(*points, strict=True))
    sides = (_metres(lons[0], lats[0], lons[i], lats[i]) for i in (1, 2))
    lon = (lons[0] + 180) % 360 - 180
    return lon, lats[0], math.prod(sides) ** 0.5


def _metres(lon: float, lat: float, other_lon: float, other_lat: float) -> float:
    """Between two points close to each other, on a sphere of 111,319.5 m a degree."""
    east = ((other_lon - lon + 180) % 360 - 180) * math.cos(math.radians(lat))
    return math.hypot(east, other_lat - lat) * 111_319.49
