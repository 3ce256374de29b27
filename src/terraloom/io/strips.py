"""Large images drawn strip by strip, from top to bottom: a run that was killed goes on where it was.

Every finished strip is a file in a hidden folder beside the target, whose name ends in a hash of all that decides
pixels: another seed, model or input has another folder. When all are there they become Cloud-Optimized GeoTIFFs and
the folder goes. Memory holds one strip; the disk holds, while it works, the strips (compressed) beside what
`stream_cog` needs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from filelock import FileLock, Timeout
from rasterio.errors import RasterioError
from rasterio.windows import Window

from terraloom.errors import InvalidInput, TerraloomError
from terraloom.io.cog import BLOCK, Block, block_windows, check_whole, gdal, stream_cog
from terraloom.io.source import Grid, Known
from terraloom.io.staging import refuse, writing

SUFFIX = ".strips"
ROWS = 64  # of a block in a strip's file

Strip = tuple[npt.NDArray[Any], Known]  # (bands, rows, width) as stored, and where they are known
Draw = Callable[
    [int], Iterator[Sequence[Strip]]
]  # from strip n on, for each the strips of all targets


@dataclass(frozen=True)
class Target:
    """A GeoTIFF to be made.

    Args:
        path: the file; its folder must exist.
        grid: where its pixels lie.
        bands: their names.
        dtype: of the pixels.
        nodata: value of unknown pixels, which strips have there; None where there is none.
        masked: write a mask for what is unknown (where there is no nodata value).
        tags: see `stream_cog`.
        scaling: see `stream_cog`.
    """

    path: Path
    grid: Grid
    bands: tuple[str, ...]
    dtype: npt.DTypeLike
    nodata: float | None = None
    masked: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    scaling: tuple[tuple[float, float], ...] | None = None


def write_strips(
    targets: Sequence[Target],
    key: str,
    draw: Draw,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, rows: None,
) -> list[Path]:
    """Draw images of one size strip by strip and write them; all appear together, or none.

    Args:
        targets: the files.
        key: changes with everything that decides pixels; letters and digits.
        draw: from a number of strips, counted from 0 at the top, on: the strips that follow. Bytes may not depend on
            where it begins.
        overwrite: replace existing files.
        progress: called with (rows of pixels done, in all), first with what an earlier run left.

    Raises:
        InvalidInput: a path that cannot be written, an existing file without `overwrite`, or strips that do not fit.
        TerraloomError: writing fails, or another run writes the same file. What is finished stays for the next one.
    """
    for target in targets:
        refuse(target.path, overwrite)
    height = targets[0].grid.height
    with _folder(targets[0].path, key) as folder:
        heights = _finished(folder, targets)
        progress(sum(heights), height)
        strips = iter(()) if sum(heights) == height else draw(len(heights))
        for number, parts in enumerate(strips, len(heights)):
            heights.append(_keep(folder, number, targets, parts, sum(heights)))
            progress(sum(heights), height)
        if sum(heights) != height:
            raise InvalidInput(f"{sum(heights)} of {height} rows of {targets[0].path} came")
        for number, target in enumerate(targets):
            _assemble(folder, number, target, heights)
        for number, target in enumerate(targets):
            with writing(target.path, folder):
                os.replace(_whole(folder, number), target.path)
    _tidy(targets[0].path)
    return [target.path for target in targets]


@contextmanager
def _folder(path: Path, key: str) -> Iterator[Path]:
    """The hidden folder of a target, for this process alone; goes when no strip is in it."""
    folder = path.parent / f".{path.name}.{key}{SUFFIX}"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"cannot write in {path.parent}: {error.strerror}; choose another"
        ) from error
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise TerraloomError(
            f"another run is drawing {path}; wait for it or give another name"
        ) from None
    try:
        yield folder
    finally:
        empty = not any(folder.glob("*-*.tif"))
        lock.release()
        if empty:
            shutil.rmtree(folder, ignore_errors=True)


def _tidy(path: Path) -> None:
    """Remove the folders of a finished target, older ones of other seeds or inputs too; not those in use."""
    start = f".{path.name}."
    for folder in path.parent.iterdir():
        if folder.name.startswith(start) and folder.suffix == SUFFIX:
            lock = FileLock(folder / "lock")
            try:
                lock.acquire(timeout=0)
            except (Timeout, OSError):
                continue
            lock.release()
            shutil.rmtree(folder, ignore_errors=True)


def _finished(folder: Path, targets: Sequence[Target]) -> list[int]:
    """Heights of the strips that an earlier run finished for all targets, up to the first that is missing."""
    heights: list[int] = []
    while True:
        found = {_height(_file(folder, len(heights), n), t) for n, t in enumerate(targets)}
        if len(found) != 1 or None in found:
            return heights
        heights.append(next(height for height in found if height))


def _height(path: Path, target: Target) -> int | None:
    """Rows of a strip's file, None where it is not there or not whole."""
    try:
        with gdal(quiet=True), rasterio.open(path) as file:
            shape = (file.count, file.width, np.dtype(file.dtypes[0]))
            if shape != (len(target.bands), target.grid.width, np.dtype(target.dtype)):
                return None
            check_whole(path)
            return int(file.height)
    except (RasterioError, OSError):
        return None


def _keep(
    folder: Path, number: int, targets: Sequence[Target], parts: Sequence[Strip], top: int
) -> int:
    """Write one strip of every target; its rows."""
    rows = {int(pixels.shape[1]) for pixels, _ in parts}
    if len(parts) != len(targets) or len(rows) != 1 or top + max(rows) > targets[0].grid.height:
        raise InvalidInput(
            f"strip {number} of {targets[0].path} has {len(parts)} parts of {sorted(rows)} rows at row {top}"
        )
    for n, (target, (pixels, known)) in enumerate(zip(targets, parts, strict=True)):
        shape = (len(target.bands), max(rows), target.grid.width)
        if pixels.shape != shape or pixels.dtype != np.dtype(target.dtype):
            raise InvalidInput(
                f"strip {number} of {target.path} is {pixels.dtype} {pixels.shape}, not {target.dtype} {shape}"
            )
        path = _file(folder, number, n)
        with writing(target.path, folder):
            _write(path.with_suffix(".part"), pixels, known if target.masked else None)
            check_whole(path.with_suffix(".part"))
            os.replace(path.with_suffix(".part"), path)
    return max(rows)


def _write(path: Path, pixels: npt.NDArray[Any], known: Known | None) -> None:
    """A strip's file: fast to write, and cheap to read by blocks of columns."""
    count, height, width = pixels.shape
    layout: dict[str, Any] = {"tiled": True, "blockxsize": BLOCK, "blockysize": ROWS}
    layout |= {
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "IF_SAFER",
        "photometric": "minisblack",
    }
    layout |= {"predictor": 3 if pixels.dtype.kind == "f" else 2, "interleave": "pixel"}
    if count > 1:
        layout["alpha"] = "no"
    size = {"width": width, "height": height, "count": count, "dtype": pixels.dtype}
    with gdal(quiet=True), rasterio.open(path, "w", driver="GTiff", **size, **layout) as file:
        file.write(pixels)
        if known is not None:
            file.write_mask(known.all(0))


def _assemble(folder: Path, number: int, target: Target, heights: Sequence[int]) -> None:
    """One whole file from its strips, in the hidden folder."""
    stream_cog(
        _whole(folder, number),
        _blocks(folder, number, target, heights),
        width=target.grid.width,
        height=target.grid.height,
        bands=target.bands,
        transform=target.grid.transform,
        crs=target.grid.crs,
        tags=target.tags,
        overwrite=True,
        dtype=target.dtype,
        nodata=target.nodata,
        masked=target.masked,
        scaling=target.scaling,
    )


def _blocks(
    folder: Path, number: int, target: Target, heights: Sequence[int]
) -> Iterator[tuple[Window, Block]]:
    """Blocks of the whole, each from the strips it lies in."""
    tops = np.cumsum([0, *heights])
    for window in block_windows(target.grid.width, target.grid.height):
        first = int(np.searchsorted(tops, window.row_off, side="right")) - 1
        row, bottom, parts = window.row_off, window.row_off + window.height, []
        for strip in range(first, len(heights)):
            if row >= bottom:
                break
            stop = min(bottom, int(tops[strip + 1]))
            inner = Window(window.col_off, row - int(tops[strip]), window.width, stop - row)
            parts.append(_read(_file(folder, strip, number), inner, target.masked))
            row = stop
        pixels = np.concatenate([np.ma.getdata(part) for part in parts], 1)
        if target.masked:
            unknown = np.concatenate([np.ma.getmaskarray(part) for part in parts], 1)
            pixels = np.ma.masked_array(pixels, unknown)
        yield window, pixels


def _read(path: Path, window: Window, masked: bool) -> Block:
    try:
        with gdal(quiet=True), rasterio.open(path) as file:
            pixels: Block = file.read(window=window)
            if not masked:
                return pixels
            unknown = np.broadcast_to(file.dataset_mask(window=window) == 0, pixels.shape)
            return np.ma.masked_array(pixels, unknown)
    except (RasterioError, OSError) as error:
        raise TerraloomError(
            f"cannot read {path}: {error}; remove its folder and begin anew"
        ) from error


def _file(folder: Path, strip: int, target: int) -> Path:
    return folder / f"{strip:05d}-{target}.tif"


def _whole(folder: Path, target: int) -> Path:
    return folder / f"whole{target}.tif"
