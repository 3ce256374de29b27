"""Which pixels of a scene are to be filled: a mask in a file, polygons, or the clouds that a scene tells of itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform_geom

from terraloom.errors import InvalidInput
from terraloom.io.cog import known_crs
from terraloom.io.raster import Raster
from terraloom.io.source import Known, Pixels, Window, opened, sources_of

POLYGONS = (".geojson", ".json")
STEP = 1024  # pixels, side of the windows by which a whole mask is looked through
DEGREES = 4326
# bits of Landsat's Collection 2 QA_PIXEL: dilated cloud, cirrus, cloud, cloud shadow
QA_BITS = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4
# Collection 1 BQA: cloud (bit 4); confidence of shadow (7, 8) and of cirrus (11, 12) high, which is 3
BQA_CLOUD, BQA_HIGH = 1 << 4, (7, 11)
# before Collection 1, BQA had 14-15 for cloud and 12-13 for cirrus; fill is bit 0 in all of them
OLD_HIGH = (14, 12)
# Sentinel-2 scene classification: cloud shadow, cloud of medium and high probability, thin cirrus
SCL_CLASSES = (3, 8, 9, 10)

Source = Path | Literal["auto", "qa"] | None


class Hole(Protocol):
    """What is to be filled, on the grid of a scene."""

    def read(self, window: Window) -> Known:
        """(height, width), True where to be filled; False beyond the scene. Window: x, y, width, height."""


class Whole:
    """A mask of which every window is computed alone."""

    def __init__(self, raster: Raster, inside: Callable[[Window], Known]) -> None:
        self._raster, self._inside = raster, inside

    def read(self, window: Window) -> Known:
        """See `Hole`."""
        x, y, width, height = window
        across, down = np.arange(x, x + width), np.arange(y, y + height)
        there = ((down >= 0) & (down < self._raster.height))[:, None]
        inside = there & (across >= 0) & (across < self._raster.width)
        return np.asarray(self._inside(window) & inside, bool)


def hole(raster: Raster, source: str | Source, align: bool = False) -> Hole:
    """What is to be filled in a scene.

    Args:
        raster: the scene.
        source: a raster whose pixels other than 0 and nodata are the hole; GeoJSON polygons (pixels whose middle is
            inside), in degrees or in its `crs` member; "qa" for the clouds and shadows in the scene's QA_PIXEL, BQA or
            SCL; "auto" for those a network finds (extra `clouds`); None for the scene's own unknown pixels.
        align: warp a mask of another grid.

    Raises:
        InvalidInput: no mask there, another grid without `align`, or nothing to fill.
    """
    if source == "auto":
        from terraloom.io.clouds import clouds

        found: Hole = clouds(raster)
    elif source is None:
        found = Whole(raster, _unknown(raster))
    elif source == "qa":
        found = Whole(raster, _labelled(raster))
    elif Path(source).suffix.lower() in POLYGONS:
        found = Whole(raster, _polygons(raster, Path(source)))
    else:
        found = Whole(raster, _file(raster, Path(source), align))
    if not any(found.read(window).any() for window in windows(raster)):
        told = {
            "None": "unknown pixels of the scene itself",
            "qa": "its quality band",
            "auto": "clouds found in it",
        }.get(str(source), str(source))
        raise InvalidInput(
            f"the mask ({told}) covers no pixel of {raster.paths[0]}; there is nothing to fill"
        )
    return found


def windows(raster: Raster) -> Iterator[Window]:
    """Windows that tile a scene."""
    for y in range(0, raster.height, STEP):
        for x in range(0, raster.width, STEP):
            yield x, y, min(STEP, raster.width - x), min(STEP, raster.height - y)


def _unknown(raster: Raster) -> Callable[[Window], Known]:
    return lambda window: np.asarray(~raster.read(window, raster.bands)[1].all(0), bool)


def _file(raster: Raster, path: Path, align: bool) -> Callable[[Window], Known]:
    """The first band of a raster, not 0 and not nodata; a mask's own alpha and nodata are no hole."""
    if not path.is_file():
        raise InvalidInput(
            f"the mask {path} does not exist; give a GeoTIFF, a GeoJSON file, 'qa' or 'auto'"
        )
    file = opened(path)
    sources = [source for source in sources_of(file, path) if not source.alpha]
    if not sources:
        raise InvalidInput(f"the mask {path} has no band but transparency")
    band = sources[0]
    if not band.grid.same(raster.grid) and not align:
        raise InvalidInput(
            f"the mask {path} ({band.grid.describe()}) and {raster.paths[0]} ({raster.grid.describe()}) "
            "lie on different grids; give --align to warp the mask"
        )

    def inside(window: Window) -> Known:
        values, known = band.labels(file, raster.grid, window)
        return np.asarray(known & (values != 0), bool)

    return inside


def _labelled(raster: Raster) -> Callable[[Window], Known]:
    """Clouds, their shadows and cirrus by the quality band that lies beside."""
    if not raster.labels:
        raise InvalidInput(
            f"{raster.paths[0]} has no QA_PIXEL, BQA or SCL beside its bands; give the mask as a file, or 'auto'"
        )
    name = next(n for n in ("qa_pixel", "scl", "bqa") if n in raster.labels)
    meaning = {"qa_pixel": _qa_pixel, "scl": _scl, "bqa": _bqa}[name]

    def inside(window: Window) -> Known:
        values, known = raster.read_labels(name, window)
        return known & meaning(values)

    return inside


def _qa_pixel(values: Pixels) -> Known:
    return np.asarray(
        (values & QA_BITS != 0) & (values & 1 == 0), bool
    )  # bit 0 is fill: no image there


def _bqa(values: Pixels) -> Known:
    """Collection 1, or the layout before it: there every pixel has a confidence of cloud, so some of bits 13 to 15."""
    old = np.logical_or.reduce([values >> bit & 3 == 3 for bit in OLD_HIGH])
    new = np.logical_or.reduce([values >> bit & 3 == 3 for bit in BQA_HIGH]) | (
        values & BQA_CLOUD != 0
    )
    return np.asarray(np.where(values >> 13 != 0, old, new) & (values & 1 == 0), bool)


def _scl(values: Pixels) -> Known:
    return np.isin(values, SCL_CLASSES)


def _polygons(raster: Raster, path: Path) -> Callable[[Window], Known]:
    """GeoJSON's polygons in the scene's CRS."""
    if raster.crs is None:
        raise InvalidInput(
            f"{raster.paths[0]} has no CRS, so polygons have no place in it; give the mask as a raster"
        )
    shapes, crs = read_polygons(path)
    try:
        shapes = [transform_geom(crs, raster.crs, shape) for shape in shapes]
    except Exception as error:  # GDAL's own errors share no public base class
        raise InvalidInput(
            f"the polygons of {path} have no place in {raster.crs}: {error}"
        ) from error

    def inside(window: Window) -> Known:
        x, y, width, height = window
        place = raster.transform * raster.transform.translation(x, y)
        burnt: npt.NDArray[np.uint8] = rasterize(
            shapes, out_shape=(height, width), transform=place, dtype="uint8"
        )
        return burnt > 0

    return inside


def read_polygons(path: Path) -> tuple[list[dict[str, Any]], CRS]:
    """The polygons of a GeoJSON file, whatever wraps them, and their CRS: degrees unless a `crs` member says otherwise.

    Raises:
        InvalidInput: no such file, no GeoJSON, or nothing with an area in it.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        found = [
            shape for shape in _geometries(content) if shape["type"] in ("Polygon", "MultiPolygon")
        ]
        name = ((content.get("crs") or {}).get("properties") or {}).get("name", f"EPSG:{DEGREES}")
        for shape in found:
            parts = (
                shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
            )
            if any(len(ring) < 4 or not _numbers(ring) for part in parts for ring in part):
                raise ValueError("a ring needs four positions or more")
    except OSError as error:
        raise InvalidInput(f"cannot read the mask {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(
            f"the mask {path} is no GeoJSON: {' '.join(str(error).split())}"
        ) from error
    if not found:
        raise InvalidInput(f"the mask {path} holds no polygon; points and lines have no area")
    return found, known_crs(name)


def _geometries(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    kind = node["type"]
    if kind == "FeatureCollection":
        for feature in node["features"]:
            yield from _geometries(feature)
    elif kind == "Feature":
        if node["geometry"] is not None:
            yield from _geometries(node["geometry"])
    elif kind == "GeometryCollection":
        for geometry in node["geometries"]:
            yield from _geometries(geometry)
    else:
        yield node


def _numbers(ring: list[Any]) -> bool:
    return bool(np.isfinite(np.array([position[:2] for position in ring], float)).all())
