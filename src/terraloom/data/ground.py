"""What is really there: land cover (IGBP) and Natural Earth's land, rivers, lakes, glaciers and urban areas.

Both are rasters in the package: land cover on 0.05 degree cells, Natural Earth as a bit mask on the pixels of Web
Mercator zoom 8 (611 m at the equator). A cell's value depends on its position alone, so the network stays local.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from numpy.lib.stride_tricks import sliding_window_view
from rasterio.windows import Window as RasterWindow

from terraloom.data.uses import UNKNOWN_COVER
from terraloom.errors import InvalidInput
from terraloom.grid import Window, level_size

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating[Any]]

LAYERS = ("known", "land", "river", "lake", "glacier", "urban")
MASK_LEVEL = 8  # the zoom whose pixels the Natural Earth mask has
FINEST_MASKED_LEVEL = 12  # finer output levels get no mask: 1 : 10 million maps know nothing there
ASSETS = Path(__file__).parent.parent / "assets"
MERCATOR_EDGE = 20037508.342789244
COVER_GRID = Affine(0.05, 0, -180, 0, -0.05, 90)
FARMS, FARMED = (12, 14), 0.1  # classes of farmland, and their share where farms are common
SQUARE = 0.25  # degrees
# bits of the mask above those of the layers: how wide a river is, 0 for one that is mostly dry
WIDTHS = (0.0, 60.0, 160.0, 500.0)  # metres
WIDTH_BIT = 6


class Ground:
    """Reader of both rasters at pixel positions."""

    def __init__(self, cover: Bytes, mask_path: Path, digest: str) -> None:
        self._cover = cover
        self._mask_path = mask_path
        self._mask: rasterio.DatasetReader | None = None
        self.digest = digest

    @classmethod
    def open(cls, cover: Path | None = None) -> Ground:
        """The shipped maps; `cover` replaces the land cover by a user's raster of IGBP classes.

        Raises:
            InvalidInput: the raster cannot be read, has no CRS, or holds values other than 0..18.
        """
        cover_path = cover or ASSETS / "landcover.tif"
        mask_path = ASSETS / "ground.tif"
        classes = _read_cover(cover_path)
        if cover is not None:  # outside the user's raster the shipped one holds
            shipped = _read_cover(ASSETS / "landcover.tif")
            classes = np.where(classes == 255, shipped, classes).astype(np.uint8)
        digest = hashlib.sha256(classes.tobytes())
        digest.update(mask_path.read_bytes())
        return cls(classes, mask_path, digest.hexdigest()[:16])

    def cells(self, window: Window) -> tuple[Bytes, npt.NDArray[np.float32]]:
        """Land cover (h, w) and `LAYERS` (6, h, w) of 0 or 1 at the pixels of `window`."""
        lon, lat = np.meshgrid(window.lon, window.lat)
        return self.cover_at(lon, lat), layers_of(self.bits(window))

    def cover_at(self, lon: Floats, lat: Floats) -> Bytes:
        """IGBP class 0..16 at positions in degrees, any shape; borders of cells are made wavy (see `_wave`)."""
        rows, cols = self._cover.shape
        lon, lat = lon + _wave(lon, lat, 0), lat + _wave(lon, lat, 1)
        row = np.clip(((90 - lat) * rows / 180).astype(np.int64), 0, rows - 1)
        col = ((lon + 180) * cols / 360).astype(np.int64) % cols
        classes: Bytes = self._cover[row, col]
        return classes

    def farmed_at(self, lon: Floats, lat: Floats) -> npt.NDArray[np.bool_]:
        """Whether farms are common around positions in degrees (n,): a tenth of the land cover within about 40 km."""
        row = np.clip(((90 - lat) / SQUARE).astype(np.int64), 0, len(self._farmed) - 1)
        col = ((lon + 180) / SQUARE).astype(np.int64) % self._farmed.shape[1]
        return np.asarray(self._farmed[row, col])

    @cached_property
    def _farmed(self) -> npt.NDArray[np.bool_]:
        """By squares: share of farms in nine of them."""
        n = round(SQUARE / COVER_GRID.a)
        rows, cols = self._cover.shape
        farms = np.isin(self._cover, FARMS).reshape(rows // n, n, cols // n, n).mean((1, 3))
        near = np.pad(np.pad(farms, ((1, 1), (0, 0)), mode="edge"), ((0, 0), (1, 1)), mode="wrap")
        return np.asarray(sliding_window_view(near, (3, 3)).mean((2, 3)) > FARMED)

    def mask_at(self, lon: Floats, lat: Floats) -> Bytes:
        """Natural Earth bit mask at positions in degrees, (h, w) grids of a small area."""
        size = level_size(MASK_LEVEL)
        x = np.floor((lon + 180) / 360 * size).astype(np.int64)
        y = np.floor((1 - np.arcsinh(np.tan(np.radians(lat))) / np.pi) / 2 * size).astype(np.int64)
        box = self.read_mask(x.min(), y.min(), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1)
        bits: Bytes = box[y - y.min(), x - x.min()]
        return bits

    def bits(self, window: Window) -> Bytes:
        """Bit mask of a window: finer levels repeat the mask's pixels, coarser ones join them by OR."""
        shift = window.level - MASK_LEVEL
        if shift >= 0:
            x = (window.x + np.arange(window.width)) >> shift
            y = (window.y + np.arange(window.height)) >> shift
            box = self.read_mask(x[0], y[0], x[-1] - x[0] + 1, y[-1] - y[0] + 1)
            return box[np.ix_(y - y[0], x - x[0])]
        n = 2**-shift
        box = self.read_mask(window.x * n, window.y * n, window.width * n, window.height * n)
        parts = box.reshape(window.height, n, window.width, n)
        return np.asarray(np.bitwise_or.reduce(np.bitwise_or.reduce(parts, 3), 1))

    def read_mask(self, x: int, y: int, width: int, height: int) -> Bytes:
        """Mask pixels; x wraps, rows beyond the map repeat its edge."""
        if self._mask is None:
            self._mask = rasterio.open(self._mask_path)
        size = level_size(MASK_LEVEL)
        rows = np.clip(y + np.arange(height), 0, size - 1)
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        parts, left, todo = [], int(x) % size, int(width)
        while todo > 0:
            step = min(todo, size - left)
            parts.append(self._mask.read(1, window=RasterWindow(left, top, step, bottom - top)))
            left, todo = 0, todo - step
        return np.asarray(np.concatenate(parts, 1)[rows - top])


def layers_of(mask: Bytes) -> npt.NDArray[np.float32]:
    """Bit mask (h, w) -> float32 (6, h, w) of 0 or 1 in the order of `LAYERS`."""
    bits = np.arange(len(LAYERS), dtype=np.uint8)[:, None, None]
    return (mask[None] >> bits & 1).astype(np.float32)


def _wave(lon: Floats, lat: Floats, axis: int) -> Floats:
    """Smooth displacement in degrees, at most about 0.03, fixed for the planet.

    Land cover cells are 5 km squares; without it their straight borders would show in the image.
    """
    total = np.zeros(lon.shape)
    for octave, (cell, amplitude) in enumerate(((0.045, 0.022), (0.012, 0.007))):
        u, v = lon / cell, lat / cell
        i, j = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
        s, t = u - i, v - j
        s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
        key = 2 * octave + axis
        top = _hash(i, j, key) * (1 - s) + _hash(i + 1, j, key) * s
        bottom = _hash(i, j + 1, key) * (1 - s) + _hash(i + 1, j + 1, key) * s
        total += amplitude * (top * (1 - t) + bottom * t)
    return total


def _hash(i: npt.NDArray[np.int64], j: npt.NDArray[np.int64], key: int) -> Floats:
    """Uniform in [-1, 1) from two lattice indices (integer finaliser of the splitmix64 kind)."""
    h = i.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    h ^= j.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F) + np.uint64(key)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (h >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def _read_cover(path: Path) -> Bytes:
    """IGBP raster warped to the 0.05 degree grid, uint8 (3600, 7200); 255 where it has no data."""
    from rasterio.vrt import WarpedVRT

    try:
        with rasterio.open(path) as src:
            if src.crs is None:
                raise InvalidInput(f"land cover {path} has no CRS; give it one (gdal_edit -a_srs)")
            with WarpedVRT(
                src, crs="EPSG:4326", transform=COVER_GRID, width=7200, height=3600, nodata=255
            ) as vrt:
                classes: Bytes = vrt.read(1)
    except rasterio.errors.RasterioIOError as error:
        raise InvalidInput(f"cannot read land cover {path}: {error}") from error
    bad = np.unique(classes[(classes > UNKNOWN_COVER) & (classes != 255)])
    if bad.size:
        raise InvalidInput(
            f"land cover {path} holds class {bad[0]}; IGBP classes are 0..16, 18 is unknown"
        )
    return classes
