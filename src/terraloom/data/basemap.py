"""The shipped base map: Blue Marble at zoom 6 (2.4 km) with its tone curve, as one Cloud-Optimized GeoTIFF."""

from __future__ import annotations

import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.windows import Window as RasterWindow

from terraloom.data import palette
from terraloom.data.deblock import deblocked
from terraloom.data.ground import ASSETS, MERCATOR_EDGE
from terraloom.grid import BASE_LEVEL, TILE, level_size


def tiles(data_dir: Path, zoom: int) -> Iterator[tuple[int, int, npt.NDArray[np.uint8]]]:
    """(x, y, rgb uint8 (256, 256, 3)) of every Blue Marble tile of a zoom, raw colours, without block edges."""
    with tarfile.open(Path(data_dir) / "bluemarble.tar") as tar:
        for line in (Path(data_dir) / "bluemarble.jsonl").open():
            row = json.loads(line)
            if row["z"] == zoom:
                member = tar.extractfile(row["path"])
                assert member is not None
                yield row["x"], row["y"], deblocked(member.read())


def build(data_dir: Path, out: Path = ASSETS / "basemap.tif", quality: int = 83) -> None:
    """Write the base map as a WebP-compressed COG; `quality` keeps it within 16 MB."""
    size = level_size(BASE_LEVEL)
    step = 2 * MERCATOR_EDGE / size
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        raw, done = Path(folder) / "raw.tif", Path(folder) / "done.tif"
        with rasterio.open(
            raw,
            "w",
            driver="GTiff",
            width=size,
            height=size,
            count=3,
            dtype="uint8",
            tiled=True,
            compress="deflate",
            photometric="rgb",
            crs="EPSG:3857",
            transform=Affine(step, 0, -MERCATOR_EDGE, 0, -step, MERCATOR_EDGE),
        ) as dst:
            for x, y, rgb in tiles(data_dir, BASE_LEVEL):
                window = RasterWindow(x * TILE, y * TILE, TILE, TILE)
                dst.write(palette.bluemarble(rgb).transpose(2, 0, 1), window=window)
            dst.update_tags(
                TIFFTAG_COPYRIGHT="NASA Earth Observatory / GIBS, Blue Marble Next Generation",
                TIFFTAG_IMAGEDESCRIPTION="Terraloom base map: Blue Marble, zoom 6, with Terraloom's tone curve",
            )
        rasterio.shutil.copy(
            raw,
            done,
            driver="COG",
            compress="webp",
            quality=quality,
            blocksize=512,
            overviews="none",
        )
        os.replace(done, out)
