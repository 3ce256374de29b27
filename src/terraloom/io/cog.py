"""Cloud-Optimized GeoTIFF of any size in bounded memory.

A COG stores overviews before the pixels they summarise, so it cannot be written front to back. Blocks are streamed
into a plain tiled GeoTIFF, from which GDAL's COG driver then makes the real file; both are staged beside the target,
which takes about 2.3 times the room of the result while it works.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError, NotGeoreferencedWarning
from rasterio.windows import Window

from terraloom.errors import InvalidInput
from terraloom.io.staging import staging, writing

BLOCK = 512  # pixels, side of the tiles inside the file
COLOURS = ("red", "green", "blue")
CACHE = 64_000_000  # bytes of GDAL's block cache (rasterio takes no megabytes); bounds memory with blocks in flight

Pixels = npt.NDArray[np.uint8]
Block = npt.NDArray[Any]  # (bands, h, w); a masked array where a file has a mask


def block_windows(width: int, height: int, step: int = BLOCK) -> Iterator[Window]:
    """The windows of `step` px (a multiple of 512), row by row, that tile an image of this size."""
    for row in range(0, height, step):
        for column in range(0, width, step):
            yield Window(column, row, min(step, width - column), min(step, height - row))


def stream_cog(
    path: str | Path,
    blocks: Iterable[tuple[Window, Block]],
    *,
    width: int,
    height: int,
    bands: Sequence[str],
    transform: Affine,
    crs: Any,
    tags: Mapping[str, str],
    overwrite: bool = False,
    dtype: npt.DTypeLike = np.uint8,
    nodata: float | None = None,
    masked: bool = False,
    scaling: Sequence[tuple[float, float]] | None = None,
) -> Path:
    """Write a Cloud-Optimized GeoTIFF from blocks, in memory that does not grow with the image.

    Args:
        path: the file to make; its folder must exist.
        blocks: (rasterio Window, array (bands, h, w) of `dtype`); windows lie on the 512 px lattice, together
            cover the image, and none comes twice. Not touched before all other input is checked.
        width: pixels.
        height: pixels.
        bands: names, stored as band descriptions.
        transform: pixel to `crs`; any affine one, rotated too.
        crs: anything rasterio understands; None for a picture without a place.
        tags: dataset tags, such as SYNTHETIC=true; TIFFTAG_* ones become TIFF fields. No clock is read:
            equal input gives equal bytes.
        overwrite: replace an existing file.
        dtype: of the pixels, any real one.
        nodata: value of unknown pixels.
        masked: blocks are masked arrays, and a pixel masked in any band is unknown: the file gets a mask of its own.
        scaling: scale and offset of each band, when its quantity is stored value * scale + offset.

    Raises:
        InvalidInput: on a path that cannot be written, an existing file without `overwrite`, or blocks
            that are off the lattice, doubled or missing.
        TerraloomError: when writing fails, for instance because the disk is full.
    """
    crs = None if crs is None else known_crs(crs)
    if width < 1 or height < 1:
        raise InvalidInput(
            f"an image of {width} x {height} pixels is empty; both sides must be at least 1"
        )
    profile = {
        "width": width,
        "height": height,
        "count": len(bands),
        "transform": transform,
        "crs": crs,
        "dtype": np.dtype(dtype),
        "nodata": nodata,
        **(
            {"photometric": "rgb"} if tuple(bands[:3]) == COLOURS else {"photometric": "minisblack"}
        ),
        **({"alpha": "no"} if len(bands) > 3 else {}),
    }
    with staging(path, overwrite) as folder, gdal(quiet=crs is None):
        _write_raw(folder / "raw.tif", blocks, profile, bands, tags, path, masked, scaling)
        with writing(path, folder):
            rasterio.shutil.copy(
                folder / "raw.tif",
                folder / "done",
                driver="COG",
                compress="deflate",
                predictor="YES",
                blocksize=BLOCK,
                overview_resampling="average",
                bigtiff="IF_SAFER",
            )
            check_whole(folder / "done")
    return Path(path)


def _write_raw(
    raw: Path,
    blocks: Iterable[tuple[Window, Block]],
    profile: dict[str, Any],
    bands: Sequence[str],
    tags: Mapping[str, str],
    path: str | Path,
    masked: bool,
    scaling: Sequence[tuple[float, float]] | None,
) -> None:
    """Stream blocks into a tiled GeoTIFF, every 512 px tile written once and whole."""
    layout = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "interleave": "pixel"}
    predictor = 3 if profile["dtype"].kind == "f" else 2
    layout |= {"compress": "deflate", "zlevel": 1, "predictor": predictor, "bigtiff": "IF_SAFER"}
    missing = np.ones((-(-profile["height"] // BLOCK), -(-profile["width"] // BLOCK)), bool)
    with writing(path, raw.parent):
        file = rasterio.open(raw, "w", driver="GTiff", **profile, **layout)
    try:
        file.update_tags(**tags)
        for number, name in enumerate(bands, 1):
            file.set_band_description(number, name)
        if scaling is not None:
            file.scales, file.offsets = zip(*scaling, strict=True)
        for window, block in blocks:
            _take(missing, window, block, profile)
            with writing(path, raw.parent):
                file.write(np.ma.getdata(block), window=window)
                if masked:
                    file.write_mask(~np.ma.getmaskarray(block).any(0), window=window)
    finally:
        with writing(path, raw.parent):
            file.close()
    if missing.any():
        raise InvalidInput(f"{missing.sum()} of {missing.size} blocks of {path} never came")
    with writing(path, raw.parent):
        check_whole(raw)


@contextmanager
def gdal(quiet: bool) -> Iterator[None]:
    """GDAL with bounded memory and masks inside their files; `quiet` about an image that has no place."""
    with (
        warnings.catch_warnings(),
        rasterio.Env(GDAL_CACHEMAX=CACHE, GDAL_TIFF_INTERNAL_MASK=True),
    ):
        if quiet:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def check_whole(path: Path) -> None:
    """Raise when a tile of a GeoTIFF lies beyond its end: GDAL keeps silent on what it fails to write while closing."""
    end = path.stat().st_size
    with gdal(quiet=True), rasterio.open(path) as file:
        for (row, column), _ in file.block_windows(1):
            start, size = (
                file.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=1)
                for what in ("OFFSET", "SIZE")
            )
            if start is None or int(start) + int(size) > end:
                raise OSError(f"its end is missing, after {end} bytes")


def _take(
    missing: npt.NDArray[np.bool_], window: Window, block: Block, profile: dict[str, Any]
) -> None:
    """Strike the tiles of a window off the list, or say why they do not fit."""
    column, row, width, height = window.flatten()
    right, bottom = column + width, row + height
    if (
        any(start < 0 or start % BLOCK for start in (column, row))
        or any(
            stop > end or (stop % BLOCK and stop != end)
            for stop, end in ((right, profile["width"]), (bottom, profile["height"]))
        )
        or min(width, height) < 1
    ):
        raise InvalidInput(f"{window} is off the lattice of {BLOCK} px blocks of the image")
    if block.shape != (profile["count"], height, width) or block.dtype != profile["dtype"]:
        raise InvalidInput(f"a block of {block.dtype} {block.shape} does not fit {window}")
    tiles = missing[row // BLOCK : -(-bottom // BLOCK), column // BLOCK : -(-right // BLOCK)]
    if not tiles.all():
        raise InvalidInput(f"{window} holds a block that was written before")
    tiles[:] = False


def known_crs(crs: Any) -> CRS:
    """A CRS from anything rasterio understands.

    Raises:
        InvalidInput: it is unknown.
    """
    try:
        return CRS.from_user_input(crs)
    except (CRSError, ValueError) as error:  # rasterio lets a bad EPSG number through
        raise InvalidInput(f"the CRS {crs!r} is not known; give one such as EPSG:32631") from error
