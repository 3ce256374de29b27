"""How the maps of what is really there are made: `landcover.tif` and `ground.tif` (terraloom.data.ground)."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.features
from affine import Affine
from rasterio.windows import Window as RasterWindow

from terraloom.data.ground import (
    ASSETS,
    COVER_GRID,
    LAYERS,
    MASK_LEVEL,
    MERCATOR_EDGE,
    WIDTHS,
)
from terraloom.data.waters import widened
from terraloom.grid import level_size

Bytes = npt.NDArray[np.uint8]
STRIP = 4096  # rows at a time
# rivers that are lakes: rank at most, share of their line that is water in cells of 5 km at least, and how many pixels
# they are wider than a line on both sides: 3 km
BROAD_RANK, BROAD_SHARE, BROAD = 4, 0.35, 2
WATER = 0  # IGBP
ARID = {16: 5, 7: 7}  # barren land and open shrubs: from which scale rank on rivers there are dry
SOURCES = {
    "land": ("10m_land", "10m_minor_islands"),
    "river": (
        "10m_rivers_lake_centerlines_scale_rank",
        "10m_rivers_europe",
        "10m_rivers_north_america",
    ),
    "lake": ("10m_lakes", "10m_lakes_europe", "10m_lakes_north_america"),
    "glacier": ("10m_glaciated_areas",),
    "urban": ("50m_urban_areas",),
}


def build(
    data_dir: Path,
    out_dir: Path = ASSETS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Make `landcover.tif` and `ground.tif` from `aux/` of the data folder in two minutes.

    `progress` is called with the rows of `ground.tif` that are written and their number.
    """
    aux = Path(data_dir) / "aux"
    with rasterio.open(aux / "mcd12c1_2019_igbp.tif") as src:
        cover = src.read(1)
    out_dir.mkdir(parents=True, exist_ok=True)
    with _raster(
        out_dir / "landcover.tif", width=7200, height=3600, crs="EPSG:4326", transform=COVER_GRID
    ) as dst:
        dst.write(cover, 1)
    shapes = {
        name: [(g, 1) for f in files for g, _ in _shapes(aux, f)] for name, files in SOURCES.items()
    }
    widths = [
        (g, _width(g, about, cover)) for f in SOURCES["river"] for g, about in _shapes(aux, f)
    ]
    shapes["width"] = sorted(((g, min(w, 3)) for g, w in widths), key=lambda shape: shape[1])
    shapes["broad"] = [(g, 1) for g, w in widths if w == len(WIDTHS)]
    size = level_size(MASK_LEVEL)
    with _raster(
        out_dir / "ground.tif",
        width=size,
        height=size,
        crs="EPSG:3857",
        transform=_transform(MASK_LEVEL),
        blockxsize=512,
        blockysize=512,
    ) as dst:
        for y in range(0, size, STRIP):
            window = RasterWindow(0, y, size, STRIP)
            mask = _rasterize(shapes, dst.window_transform(window), STRIP, size)
            mask |= _broad(shapes["broad"], dst.window_transform(window), STRIP, size)
            dst.write(mask, 1, window=window)
            progress(y + STRIP, size)


@contextmanager
def _raster(path: Path, **shape: Any) -> Iterator[Any]:
    """A GeoTIFF of bytes, written to a temporary name and renamed."""
    part = path.with_name(f".{path.name}.part")
    profile = dict(
        driver="GTiff", dtype="uint8", count=1, tiled=True, compress="zstd", zstd_level=9
    )
    try:
        with rasterio.open(part, "w", **profile, **shape) as dst:
            yield dst
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _transform(level: int) -> Affine:
    step = 2 * MERCATOR_EDGE / level_size(level)
    return Affine(step, 0, -MERCATOR_EDGE, 0, -step, MERCATOR_EDGE)


def _rasterize(shapes: dict[str, Any], transform: Any, height: int, width: int) -> Bytes:
    """Bit mask of one strip; bit k is `LAYERS[k]`, the two highest are the place in `WIDTHS`."""
    mask = np.ones((height, width), np.uint8)  # bit 0: the maps know this place
    for bit, name in enumerate((*LAYERS[1:], "width"), start=1):
        hit = rasterio.features.rasterize(
            shapes[name], (height, width), transform=transform, dtype="uint8"
        )
        mask |= hit << bit
    return mask


def _broad(shapes: list[Any], transform: Affine, height: int, width: int) -> Bytes:
    """Lakes of one strip that are rivers, `BROAD` pixels wider than a line on both sides."""
    above = transform * Affine.translation(0, -BROAD)
    line = rasterio.features.rasterize(
        shapes, (height + 2 * BROAD, width), transform=above, dtype="uint8"
    ).astype(bool)
    for _ in range(BROAD):
        line = widened(line)
    return np.asarray(line[BROAD:-BROAD], np.uint8) << np.uint8(LAYERS.index("lake"))


def _width(shape: dict[str, Any], about: dict[str, Any], cover: Bytes) -> int:
    """Place in `WIDTHS` of a river, one more for `BROAD`, by its rank, how boldly maps draw it, and the land there.

    Where a river is wider than a few kilometres, so that cells of land cover are water, the line is that of a lake.
    """
    rank, weight = about["scalerank"], about["strokeweig"] or 0
    parts = shape["coordinates"] if shape["type"] == "MultiLineString" else [shape["coordinates"]]
    x, y = np.concatenate([np.asarray(part, np.float64) for part in parts]).T / MERCATOR_EDGE
    lon, lat = 180 * x, np.degrees(np.arctan(np.sinh(np.pi * y)))
    rows = np.clip(((90 - lat) / COVER_GRID.a).astype(int), 0, len(cover) - 1)
    land = cover[rows, ((lon + 180) / COVER_GRID.a).astype(int) % cover.shape[1]]
    if rank <= BROAD_RANK and np.mean(land == WATER) >= BROAD_SHARE:
        return len(WIDTHS)
    if "Intermittent" in about["featurecla"]:
        return 0
    if any(rank >= least and np.mean(land == kind) > 0.5 for kind, least in ARID.items()):
        return 0
    if rank <= 2 or weight >= 0.8:
        return 3
    return 2 if rank <= 6 or weight >= 0.4 else 1


def _shapes(aux: Path, name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Geometries of a gzipped GeoJSON in Web Mercator, and what is known of each."""
    with gzip.open(aux / "natural_earth" / f"{name}.geojson.gz") as file:
        features = json.load(file)["features"]
    for feature in features:
        geometry = feature["geometry"]
        if geometry:
            shape = {**geometry, "coordinates": _project(geometry["coordinates"])}
            yield shape, feature["properties"]


def _project(coordinates: Any) -> Any:
    """Nested lists of lon/lat degrees -> Web Mercator metres."""
    if isinstance(coordinates[0][0], (int, float)):
        lon, lat = np.asarray([c[:2] for c in coordinates], np.float64).T
        y = np.arcsinh(np.tan(np.radians(np.clip(lat, -89.5, 89.5)))) / np.pi
        return np.stack([lon / 180 * MERCATOR_EDGE, y * MERCATOR_EDGE], 1).tolist()
    return [_project(part) for part in coordinates]
