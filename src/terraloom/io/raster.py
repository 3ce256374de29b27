"""A scene: one GeoTIFF, or several single-band files of one scene, read by windows on one grid.

The grid is that of the red band (without one, of the first colour or band there is). Bands of other pixel sizes are
resampled to it. Values stay in the file's units; what is nodata, masked, transparent, NaN or off the image is unknown.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.crs import CRS

from terraloom.data.geotiff import middle
from terraloom.errors import InvalidInput
from terraloom.io.bands import COLOURS, counted
from terraloom.io.scenefiles import find, listed
from terraloom.io.source import Grid, Known, Pixels, Source, Window, opened
from terraloom.metadata import RANGES, Metadata


class Raster:
    """A scene on one grid; make one with `open`. Closes its files as a context manager or by `close`.

    `grid` is where all that is read lies: CRS, transform, width and height.
    """

    def __init__(
        self, sources: dict[str, Source], labels: dict[str, Source], metadata: Metadata
    ) -> None:
        self._sources, self._labels = sources, labels
        first = next((name for name in COLOURS if name in sources), next(iter(sources)))
        self.grid = sources[first].grid
        self._metadata = metadata
        self._units: dict[str, tuple[float, float]] = {}
        self._files: dict[Path, rasterio.DatasetReader] = {}

    @classmethod
    def open(
        cls,
        paths: Sequence[str | Path] | str | Path,
        bands: str | None = None,
        date: str | None = None,
    ) -> Self:
        """Open a file, a folder of single-band files, or the files of one scene.

        Args:
            paths: any raster that GDAL reads.
            bands: names that the files lack, such as "red=3,green=2,blue=1,nir=4"; numbers count over all files.
            date: "2021", "2021-06" or "2021-06-15", for files that do not tell.

        Raises:
            InvalidInput: nothing there, no raster, damaged, an unknown band or date, several scenes in one.
        """
        files = listed(paths)
        return cls(*find(files, bands, date))

    @property
    def bands(self) -> tuple[str, ...]:
        """STAC's common names where they are known, else the file's own or "band 7"; in the order of the files."""
        return tuple(self._sources)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of bands of whole numbers with a meaning that lie beside: "qa_pixel", "bqa", "scl"."""
        return tuple(self._labels)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, each once."""
        every = (*self._sources.values(), *self._labels.values())
        return tuple(dict.fromkeys(source.path for source in every))

    @property
    def width(self) -> int:
        """Pixels."""
        return self.grid.width

    @property
    def height(self) -> int:
        """Pixels."""
        return self.grid.height

    @property
    def transform(self) -> Affine:
        """Pixel to `crs`."""
        return self.grid.transform

    @property
    def crs(self) -> CRS | None:
        """None for a picture without a place."""
        return self.grid.crs

    @property
    def dtype(self) -> np.dtype[Any]:
        """Holds all bands as they are stored."""
        return np.result_type(*(source.dtype for source in self._sources.values()))

    @property
    def nodata(self) -> float | None:
        """Stored value of unknown pixels, None where files have none."""
        every = (source.nodata for source in self._sources.values())
        return next((value for value in every if value is not None), None)

    @property
    def masked(self) -> bool:
        """Whether a mask or an alpha band, and no nodata value, tells what is unknown."""
        return self.nodata is None and any(s.masked for s in self._sources.values())

    @property
    def date(self) -> str | None:
        """As in `metadata`."""
        return None if self._metadata.date is None else str(self._metadata.date)

    @property
    def metadata(self) -> Metadata:
        """Longitude, latitude and gsd of the middle of the grid, cloud cover, date."""
        known = {"cloud_cover": self._metadata.cloud_cover, "date": self.date}
        if self.crs is None:
            return Metadata(**known)  # type: ignore[arg-type]
        lon, lat, gsd = middle(self.transform, self.width, self.height, self.crs)
        low, high, _ = RANGES["gsd"]
        within = gsd if low <= gsd <= high else None
        return Metadata(lon=lon, lat=lat, gsd=within, **known)  # type: ignore[arg-type]

    def scaling(self, band: str) -> tuple[float, float]:
        """Scale and offset of a band: quantity = stored value * scale + offset; (1, 0) where the file has none."""
        source = self._sources[self.require(band)[0]]
        return source.scale, source.offset

    def source(self, band: str) -> Source:
        """Where a band comes from."""
        return self._sources[self.require(band)[0]]

    def require(self, *bands: str) -> tuple[str, ...]:
        """The bands themselves.

        Raises:
            InvalidInput: some are missing; says which, and which there are.
        """
        missing = [name for name in bands if name not in self._sources]
        if missing:
            raise InvalidInput(
                f"{self.paths[0]} has no band {', '.join(missing)}; it has {counted(self.bands)}: "
                "name them, e.g. --bands red=3,green=2,blue=1"
            )
        return bands

    def read(self, window: Window, bands: Sequence[str]) -> tuple[npt.NDArray[np.float32], Known]:
        """Values in the file's units, and where they are known.

        Args:
            window: x, y, width, height in pixels of the grid; may reach beyond the scene.
            bands: names.

        Returns:
            float32 (bands, height, width), 0 where unknown; bool of the same shape.

        Raises:
            InvalidInput: a band that is not there, an empty window, a damaged file.
        """
        parts = self._parts(window, bands)
        values = np.stack([part[0].astype(np.float32) for part in parts])
        known = np.stack([part[1] for part in parts])
        for i, name in enumerate(bands):
            if name in self._units:
                gain, offset = self._units[name]
                values[i] = values[i] * gain + offset
        return np.where(known, values, np.float32(0)), known

    def stored(self, window: Window, bands: Sequence[str]) -> tuple[Pixels, Known]:
        """As `read`, but the very numbers in the file, in `dtype`: bands of other grids or units come rounded."""
        parts = self._parts(window, bands)
        values = np.zeros((len(parts), *parts[0][0].shape), self.dtype)
        for i, (name, (pixels, _)) in enumerate(zip(bands, parts, strict=True)):
            if name in self._units:
                gain, offset = self._units[name]
                pixels = pixels * gain + offset
            if pixels.dtype.kind == "f" and self.dtype.kind in "iu":
                pixels = np.rint(pixels).clip(*self.limits)
            values[i] = pixels
        return values, np.stack([part[1] for part in parts])

    def read_labels(self, name: str, window: Window) -> tuple[Pixels, Known]:
        """Labels by nearest neighbour, (height, width) in the stored dtype, and where they are known."""
        source = self._labels[name]
        return source.labels(self._file(source), self.grid, window)

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest value that can be stored: 0 and 4095 in 12 bits; infinite for floats."""
        if self.dtype.kind == "f":
            return -np.inf, np.inf
        info = np.iinfo(self.dtype)
        bits = [source.bits for source in self._sources.values()]
        if all(bits) and self.dtype.kind == "u":
            return 0, 2 ** max(n for n in bits if n) - 1
        return int(info.min), int(info.max)

    def encode(self, values: npt.NDArray[np.floating[Any]], known: Known) -> Pixels:
        """Values in the file's units as they are stored: rounded, within `limits`, `nodata` (else 0) where unknown.

        A known value that would read as nodata moves to the next one.
        """
        low, high = self.limits
        nodata = self.nodata
        if self.dtype.kind == "f":
            pixels: Pixels = values.astype(self.dtype)
            if nodata is not None and np.isfinite(nodata):
                one = np.nextafter(self.dtype.type(nodata), self.dtype.type(np.inf))
                pixels[pixels == self.dtype.type(nodata)] = one
        else:
            pixels = np.rint(values.clip(low, high)).astype(self.dtype)
            if nodata is not None and low <= nodata <= high:
                pixels[pixels == nodata] = nodata + 1 if nodata < high else nodata - 1
        return np.where(known, pixels, self.dtype.type(0 if nodata is None else nodata))

    def sample(self, band: str, side: int = 1024) -> npt.NDArray[np.float64]:
        """Known values of a band from a grid of about `side` x `side` points over its whole file, 1-D, file's units."""
        source = self.source(band)
        gain, offset = self._units.get(band, (1.0, 0.0))
        return source.sample(side) * gain + offset

    def regridded(self, grid: Grid) -> Self:
        """This scene on another grid."""
        moved = copy.copy(self)
        moved.grid, moved._files, moved._units = grid, {}, dict(self._units)
        return moved

    def on(self, other: Raster) -> Self:
        """This scene on another's grid and, where files tell scale and offset, in its units."""
        moved = self.regridded(other.grid)
        for name in set(self.bands) & set(other.bands):
            (scale, offset), (scale2, offset2) = self.scaling(name), other.scaling(name)
            if (scale, offset) != (scale2, offset2):
                moved._units[name] = (scale / scale2, (offset - offset2) / scale2)
        return moved

    def identity(self) -> str:
        """Changes with the files (name, size, time of change), the names of the bands and the grid: a hash."""
        digest = hashlib.sha256(repr((self.bands, self.labels, self.grid, self._metadata)).encode())
        for path in self.paths:
            stat = path.stat()
            digest.update(f"{path.resolve()}{stat.st_size}{stat.st_mtime_ns}".encode())
        return digest.hexdigest()

    def close(self) -> None:
        """Close the files; reading opens them again."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _file(self, source: Source) -> rasterio.DatasetReader:
        if source.path not in self._files:
            self._files[source.path] = opened(source.path)
        return self._files[source.path]

    def _parts(self, window: Window, bands: Sequence[str]) -> list[tuple[Pixels, Known]]:
        if not bands or min(window[2:]) < 1:
            raise InvalidInput(f"window {window} of {len(bands)} bands is empty")
        sources = [self._sources[name] for name in self.require(*bands)]
        x, y, width, height = window
        across, down = np.arange(x, x + width), np.arange(y, y + height)
        inside = (
            ((down >= 0) & (down < self.height))[:, None] & (across >= 0) & (across < self.width)
        )
        parts = [source.read(self._file(source), self.grid, window) for source in sources]
        return [(values, known & inside) for values, known in parts]


def same_grid(rasters: Sequence[Raster], align: bool) -> list[Raster]:
    """Scenes on the grid of the first, and in its units.

    Raises:
        InvalidInput: without `align`, a scene on another grid; with it, one without a CRS.
    """
    first = rasters[0]
    for other in rasters[1:]:
        if other.grid.same(first.grid):
            continue
        if not align:
            raise InvalidInput(
                f"{other.paths[0]} ({other.grid.describe()}) and {first.paths[0]} ({first.grid.describe()}) "
                "lie on different grids; give --align to warp it to the first"
            )
        if (other.crs is None) != (first.crs is None):
            raise InvalidInput(
                f"{other.paths[0]} or {first.paths[0]} has no CRS; it cannot be aligned"
            )
    return [first, *(other.on(first) for other in rasters[1:])]
