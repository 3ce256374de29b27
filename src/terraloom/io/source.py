"""One band of one file, read by windows of any grid: its own by copying, another by resampling."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.warp import reproject
from rasterio.warp import transform as warp
from rasterio.windows import Window as FileWindow

from terraloom.errors import InvalidInput
from terraloom.io.cog import CACHE

Window = tuple[int, int, int, int]  # x, y, width, height in pixels; may reach beyond the image
Known = npt.NDArray[np.bool_]
Pixels = npt.NDArray[Any]

EDGE = 32  # points along a side of a window when it is carried to another grid
SAME = 1e-3  # pixels by which the corners of one grid may differ
MARGIN = 2.0  # source pixels around a window that resampling looks at


@dataclass(frozen=True)
class Grid:
    """Where the pixels of an image lie; any affine transform, rotated ones too. `crs` None is a plain picture."""

    crs: CRS | None
    transform: Affine
    width: int
    height: int

    def shift(self, other: Grid) -> tuple[int, int] | None:
        """(x, y) of this grid's corner in the other's pixels, None where pixels do not fall on pixels."""
        if self.crs != other.crs:
            return None
        inner = ~other.transform * self.transform
        x, y = round(inner.c), round(inner.f)
        far = (self.width, self.height)
        for column, row in ((0, 0), (far[0], 0), (0, far[1]), far):
            there = inner * (column, row)
            if max(abs(there[0] - column - x), abs(there[1] - row - y)) > SAME:
                return None
        return x, y

    def same(self, other: Grid) -> bool:
        """Whether both have the same pixels."""
        size = (self.width, self.height) == (other.width, other.height)
        return size and self.shift(other) == (0, 0)

    def to(self, other: Grid, x: Any, y: Any) -> tuple[Any, Any]:
        """Pixel coordinates of this grid as the other's; arrays of any one shape, infinite where there is none."""
        x, y = _apply(self.transform, np.asarray(x, float), np.asarray(y, float))
        if self.crs != other.crs:
            if self.crs is None or other.crs is None:
                raise InvalidInput("an image without a CRS cannot be laid on one that has one")
            x, y = (np.asarray(v) for v in warp(self.crs, other.crs, x.ravel(), y.ravel()))
        return _apply(~other.transform, x, y)

    def describe(self) -> str:
        """As a sentence has it: 627 x 603 px of 30 x 30 in EPSG:32616."""
        t = self.transform
        sides = (math.hypot(t.a, t.d), math.hypot(t.b, t.e))
        return f"{self.width} x {self.height} px of {sides[0]:g} x {sides[1]:g} in {self.crs or 'no CRS'}"


@dataclass(frozen=True)
class Source:
    """One band of one file."""

    path: Path
    index: int  # from 1
    name: str
    grid: Grid
    dtype: np.dtype[Any]
    nodata: float | None
    masked: bool  # by an alpha band or a mask
    scale: float
    offset: float
    bits: int | None  # fewer than the dtype's: 12 of 16
    alpha: bool  # is itself transparency
    opaque: bool = False  # what the file calls transparency is a band: see `opaque_if_band`

    def read(
        self, file: rasterio.DatasetReader, grid: Grid, window: Window
    ) -> tuple[Pixels, Known]:
        """A window of `grid`: (h, w) and where it is known; the stored dtype where pixels fall on pixels, else float32.

        Elsewhere coarser pixels are interpolated (bilinear) and finer ones averaged, known ones only.
        """
        x, y, width, height = window
        offset = grid.shift(self.grid)
        if offset is not None:
            return self._cut(file, (x + offset[0], y + offset[1], width, height))
        there = self._around(grid, window)
        if there is None:
            return np.zeros((height, width), np.float32), np.zeros((height, width), bool)
        values, known = self._cut(file, there)
        pixels = np.where(known, values, np.nan).astype(np.float32)
        found = np.full((height, width), np.nan, np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            reproject(
                pixels,
                found,
                src_transform=self.grid.transform * Affine.translation(*there[:2]),
                src_crs=self.grid.crs or CRS.from_epsg(3857),  # a picture: any one will do
                dst_transform=grid.transform * Affine.translation(x, y),
                dst_crs=grid.crs or CRS.from_epsg(3857),
                src_nodata=np.nan,
                dst_nodata=np.nan,
                resampling=Resampling.average if self._finer(grid) else Resampling.bilinear,
                tolerance=0,
            )
        known = np.isfinite(found)
        return np.where(known, found, np.float32(0)), known

    def labels(
        self, file: rasterio.DatasetReader, grid: Grid, window: Window
    ) -> tuple[Pixels, Known]:
        """A window of `grid` by nearest neighbour, in the stored dtype: for whole numbers with a meaning."""
        x, y, width, height = window
        rows, columns = np.mgrid[y : y + height, x : x + width]
        across, down = grid.to(self.grid, columns.ravel() + 0.5, rows.ravel() + 0.5)
        inside = (
            (across >= 0) & (across < self.grid.width) & (down >= 0) & (down < self.grid.height)
        )
        found = np.zeros(width * height, self.dtype)
        known = np.zeros(width * height, bool)
        if inside.any():
            column, row = (np.floor(v[inside]).astype(int) for v in (across, down))
            left, top = int(column.min()), int(row.min())
            there = (left, top, int(column.max()) - left + 1, int(row.max()) - top + 1)
            values, valid = self._cut(file, there)
            found[inside] = values[row - top, column - left]
            known[inside] = valid[row - top, column - left]
        return found.reshape(height, width), known.reshape(height, width)

    def sample(self, side: int) -> npt.NDArray[np.float64]:
        """Known values on every n-th row and column, so that at most `side` x `side` remain: 1-D.

        Overviews are left aside: values must not depend on whether a file has any.
        """
        step = max(1, math.ceil(max(self.grid.width, self.grid.height) / side))
        shape = (-(-self.grid.height // step), -(-self.grid.width // step))
        nearest = {"out_shape": shape, "resampling": Resampling.nearest}
        with _reading(self.path), opened(self.path, OVERVIEW_LEVEL="NONE") as file:
            values = file.read(self.index, **nearest)
            known = self._known(file, values, **nearest)
        return np.asarray(values[known], np.float64)

    def _known(self, file: rasterio.DatasetReader, values: Pixels, **part: Any) -> Known:
        known = _finite(values)
        if self.opaque:
            return known if self.nodata is None else known & (values != self.nodata)
        return np.asarray(known & (file.read_masks(self.index, **part) > 0), bool)

    def _finer(self, grid: Grid) -> bool:
        """Whether this band's pixels are smaller than those of the grid, in its middle."""
        x, y = grid.width / 2, grid.height / 2
        across, down = grid.to(self.grid, [x, x + 1, x], [y, y, y + 1])
        sides = (math.hypot(across[i] - across[0], down[i] - down[0]) for i in (1, 2))
        return math.prod(sides) > 1.2

    def _around(self, grid: Grid, window: Window) -> Window | None:
        """The window of this band that holds all that a window of the grid is made of, None where they do not meet."""
        x, y, width, height = window
        along = np.linspace(0, 1, EDGE)
        inside = np.stack(np.meshgrid(along, along), -1).reshape(-1, 2)
        across, down = grid.to(self.grid, x + inside[:, 0] * width, y + inside[:, 1] * height)
        real = np.isfinite(across) & np.isfinite(down)
        if not real.any():
            return None
        margin = MARGIN + 0.05 * max(np.ptp(across[real]), np.ptp(down[real])) * (
            grid.crs != self.grid.crs
        )
        left, right = across[real].min() - margin, across[real].max() + margin
        top, bottom = down[real].min() - margin, down[real].max() + margin
        first = (max(0, math.floor(left)), max(0, math.floor(top)))
        last = (min(self.grid.width, math.ceil(right)), min(self.grid.height, math.ceil(bottom)))
        size = (last[0] - first[0], last[1] - first[1])
        return None if min(size) < 1 else (*first, *size)

    def _cut(self, file: rasterio.DatasetReader, window: Window) -> tuple[Pixels, Known]:
        """A window of the own grid; 0 and unknown beyond the image."""
        x, y, width, height = window
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + width, self.grid.width), min(y + height, self.grid.height)
        values = np.zeros((height, width), self.dtype)
        known = np.zeros((height, width), bool)
        if right > left and bottom > top:
            inner = FileWindow(left, top, right - left, bottom - top)
            place = np.s_[top - y : bottom - y, left - x : right - x]
            with _reading(self.path):
                values[place] = file.read(self.index, window=inner)
                known[place] = self._known(file, values[place], window=inner)
        return values, known


def opened(path: Path, **options: str) -> rasterio.DatasetReader:
    """A raster file for reading, with open options of GDAL.

    Raises:
        InvalidInput: not there, or not a raster.
    """
    with _reading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path, **options)


def grid_of(file: rasterio.DatasetReader, path: Path) -> Grid:
    """Where a file lies.

    Raises:
        InvalidInput: it is placed by ground control points alone, or its transform is degenerate.
    """
    if file.transform.is_identity and file.gcps[0]:
        raise InvalidInput(
            f"{path} is placed by ground control points alone; give it a grid first, e.g. with gdalwarp"
        )
    if file.transform.is_degenerate:
        raise InvalidInput(f"{path} has pixels without an area: its transform is degenerate")
    return Grid(file.crs, file.transform, file.width, file.height)


def sources_of(file: rasterio.DatasetReader, path: Path) -> list[Source]:
    """The bands of a file, transparency too.

    Raises:
        InvalidInput: complex numbers, or a file without a usable place.
    """
    grid = grid_of(file, path)
    found = []
    for index in file.indexes:
        dtype = str(file.dtypes[index - 1])
        if dtype.startswith("complex"):
            raise InvalidInput(f"{path} holds complex numbers ({dtype}); give real ones")
        bits = file.tags(index, ns="IMAGE_STRUCTURE").get("NBITS")
        found.append(
            Source(
                path=path,
                index=index,
                name=file.descriptions[index - 1] or "",
                grid=grid,
                dtype=np.dtype(dtype),
                nodata=file.nodatavals[index - 1],
                masked=MaskFlags.per_dataset in file.mask_flag_enums[index - 1],
                scale=file.scales[index - 1],
                offset=file.offsets[index - 1],
                alpha=file.colorinterp[index - 1].name == "alpha",
                bits=int(bits) if bits and int(bits) < 8 * np.dtype(dtype).itemsize else None,
            )
        )
    return found


def opaque_if_band(sources: Sequence[Source]) -> list[Source]:
    """Bands in use, so that one which its file calls transparency hides nothing.

    GDAL calls the fourth band of 8 bits transparency unless told otherwise, near infrared too.
    """
    files = {source.path for source in sources if source.alpha}
    return [replace(s, opaque=True, masked=False) if s.path in files else s for s in sources]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what GDAL raises while it reads into one sentence, and bound its cache."""
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE):
            yield
    except (RasterioError, OSError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise InvalidInput(f"cannot read {path}: {' '.join(str(cause).split())}") from error


def _apply(transform: Affine, x: Pixels, y: Pixels) -> tuple[Pixels, Pixels]:
    t = transform
    return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f


def _finite(values: Pixels) -> Known:
    if values.dtype.kind == "f":
        return np.isfinite(values)
    return np.ones(values.shape, bool)
