"""The base map: level 6 of every world, from the shipped Blue Marble or a user's own GeoTIFF."""

from __future__ import annotations

import hashlib
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import torch
import torch.nn.functional as F
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterWindow

from terraloom.data.ground import MASK_LEVEL, Ground
from terraloom.data.waters import water
from terraloom.errors import InvalidInput
from terraloom.grid import BASE_LEVEL, EDGE, EQUATOR_GSD, level_size
from terraloom.models.shores import MARGIN, shored

SHIPPED = Path(__file__).parent.parent / "assets" / "basemap.tif"

Pixels = npt.NDArray[np.uint8]


class BaseMap:
    """RGB at level 6 (2446 m at the equator); a user's map lies over the shipped one."""

    def __init__(self, path: str | Path | None = None) -> None:
        """Open the shipped map, or a user's GeoTIFF in any CRS, warped to Web Mercator.

        Args:
            path: uint8, one band (grey), three (RGB) or four (RGB and alpha). Where it has no data, and around it,
                the shipped map shows.

        Raises:
            InvalidInput: the file cannot be read, has no CRS, or other bands.
        """
        self._lock = threading.Lock()  # GDAL datasets take one thread at a time
        self._below: BaseMap | None = None
        self._path = Path(path or SHIPPED)
        self.is_own = path is not None  # its waters may be where the maps have none
        source = _open(self._path)
        if self.is_own:
            self._bands = _colours(source, self._path)
            source = _warped(source, self._path)
        else:
            self._bands = [1, 2, 3]
        self._source: Any = source
        self.digest = _digest(
            self._path
        )  # of the map's bytes: the shipped one below it never changes

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        """Pixels of level 6, uint8 (3, height, width); x wraps, rows must lie on the map."""
        size = level_size(BASE_LEVEL)
        parts, todo, left = [], width, x % size
        while todo > 0:
            step = min(todo, size - left)
            parts.append(self._read(left, y, step, height))
            left, todo = 0, todo - step
        return np.concatenate(parts, 2)

    def with_shores(self, ground: Ground, x: int, y: int, width: int, height: int) -> Pixels:
        """As `read`, with water where the maps have it (terraloom.models.shores); a user's map stays as it is."""
        if self.is_own:
            return self.read(x, y, width, height)
        top, bottom = max(y - MARGIN, 0), min(y + height + MARGIN, level_size(BASE_LEVEL))
        left, wide, high = x - MARGIN, width + 2 * MARGIN, bottom - top
        n = 1 << MASK_LEVEL - BASE_LEVEL
        wet = water(ground, MASK_LEVEL, n * left, n * top, (n * high, n * wide))
        share = F.avg_pool2d(torch.from_numpy(wet)[None, None], n)
        pixels = self.read(left, top, wide, high)
        if share.amin() == share.amax():
            out = pixels
        else:
            lr = torch.from_numpy(pixels)[None].float() / 127.5 - 1
            out = ((shored(lr, share)[0] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
        return out[:, y - top : y - top + height, MARGIN : MARGIN + width]

    def _read(self, x: int, y: int, width: int, height: int) -> Pixels:
        window = RasterWindow(x, y, width, height)
        with self._lock:
            pixels: Pixels = self._source.read(self._bands, window=window)
            alpha: Pixels | None = (
                self._source.read(self._source.count, window=window) if self.is_own else None
            )
        if alpha is None or alpha.all():
            return pixels
        if self._below is None:
            self._below = BaseMap()
        return np.where(alpha[None] > 0, pixels, self._below.read(x, y, width, height))


def _open(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # refused below, in words
            return rasterio.open(path)
    except RasterioIOError as error:
        raise InvalidInput(f"cannot read the base map {path}: {error}") from error


def _colours(source: Any, path: Path) -> list[int]:
    """The bands that are red, green and blue."""
    if source.crs is None:
        raise InvalidInput(
            f"base map {path} has no CRS; say which it is, for instance: gdal_edit.py -a_srs EPSG:4326 {path}"
        )
    if any(dtype != "uint8" for dtype in source.dtypes):
        raise InvalidInput(
            f"base map {path} is {source.dtypes[0]}; it must be uint8 (gdal_translate -ot Byte -scale)"
        )
    if source.colorinterp[0] == ColorInterp.palette:
        raise InvalidInput(
            f"base map {path} has a colour table; turn it into RGB (gdal_translate -expand rgb)"
        )
    if source.count >= 3:
        return [1, 2, 3]
    return [1, 1, 1]


def _warped(source: Any, path: Path) -> WarpedVRT:
    """The map on the pixels of level 6, with transparency as the last band."""
    cell, size = EQUATOR_GSD / 2**BASE_LEVEL, level_size(BASE_LEVEL)
    try:
        return WarpedVRT(
            source,
            crs=CRS.from_epsg(3857),
            transform=Affine(cell, 0, -EDGE, 0, -cell, EDGE),
            width=size,
            height=size,
            resampling=Resampling.bilinear,  # GDAL widens the kernel where the map is finer
            add_alpha=ColorInterp.alpha not in source.colorinterp,
        )
    except (RasterioError, ValueError) as error:
        raise InvalidInput(f"base map {path} cannot be warped to Web Mercator: {error}") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
