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
from tqdm import tqdm

from terraloom.data import palette
from terraloom.data.deblock import deblocked
from terraloom.data.ground import ASSETS, LAYERS, MERCATOR_EDGE, Ground
from terraloom.data.restore import REACH, Restorer, fit, restored, surroundings
from terraloom.grid import BASE_LEVEL, TILE, level_size

HELD_OUT = 11  # of so many tiles with children one is not learned from
LAND, URBAN = LAYERS.index("land"), LAYERS.index("urban")


def tiles(data_dir: Path, zoom: int) -> Iterator[tuple[int, int, npt.NDArray[np.uint8]]]:
    """(x, y, rgb uint8 (256, 256, 3)) of every Blue Marble tile of a zoom, raw colours, without block edges."""
    with tarfile.open(Path(data_dir) / "bluemarble.tar") as tar:
        for line in (Path(data_dir) / "bluemarble.jsonl").open():
            row = json.loads(line)
            if row["z"] == zoom:
                member = tar.extractfile(row["path"])
                assert member is not None
                yield row["x"], row["y"], deblocked(member.read())


def pairs(
    data_dir: Path, wanted: dict[tuple[int, int], npt.NDArray[np.uint8]]
) -> dict[tuple[int, int], npt.NDArray[np.uint8]]:
    """Tone-curved means of 4 x 4 pixels of zoom 8, uint8 (256, 256, 3), of tiles of zoom 6 that have all children."""
    side, out = TILE // 4, {}
    parts: dict[tuple[int, int], dict[tuple[int, int], npt.NDArray[np.float32]]] = {}
    for x, y, rgb in tiles(data_dir, BASE_LEVEL + 2):
        means = palette.bluemarble(rgb).reshape(side, 4, side, 4, 3).mean((1, 3), np.float32)
        parts.setdefault((x // 4, y // 4), {})[x % 4, y % 4] = means
    for place, found in parts.items():
        if len(found) == 16 and place in wanted:
            rows = [np.concatenate([found[i, j] for i in range(4)], 1) for j in range(4)]
            out[place] = np.concatenate(rows).round().astype(np.uint8)
    return out


def build(
    data_dir: Path, out: Path = ASSETS / "basemap.tif", quality: int = 87
) -> dict[str, float]:
    """Write the base map as a WebP-compressed COG; `quality` keeps it within 16 MB. Takes half an hour.

    Pixels of the published zoom 6 become means (terraloom.data.restore): where zoom 8 exists its own, elsewhere those
    that a network finds which learned from these. Towns lose the yellow that Blue Marble lends them.

    Returns:
        How far samples and what was restored are from means of tiles that were not learned from, of 255.
    """
    size, ground = level_size(BASE_LEVEL), Ground.open()
    step, count = 2 * MERCATOR_EDGE / size, size // TILE
    samples = {(x, y): palette.bluemarble(rgb) for x, y, rgb in tiles(data_dir, BASE_LEVEL)}
    means = pairs(data_dir, samples)
    errors: dict[str, list[float]] = {}
    places = [place for k, place in enumerate(sorted(means)) if k % HELD_OUT]
    around = [surroundings(ground, TILE * x, TILE * y, TILE, TILE) for x, y in places]
    model = fit([samples[p] for p in places], [means[p] for p in places], around)
    for place in sorted(means)[::HELD_OUT]:
        tile = _restored(model, samples, ground, *place, count)
        for name, rgb in (("samples", samples[place]), ("restored", tile)):
            errors.setdefault(name, []).append(np.square(rgb - means[place].astype(float)).mean())
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
            for x, y in tqdm(sorted(samples), desc="base map", unit="tile"):
                known = (x, y) in means
                rgb = means[x, y] if known else _restored(model, samples, ground, x, y, count)
                window = RasterWindow(x * TILE, y * TILE, TILE, TILE)
                urban = surroundings(ground, TILE * x, TILE * y, TILE, TILE)[URBAN] / 16
                dst.write(palette.towns(rgb, urban).transpose(2, 0, 1), window=window)
            dst.update_tags(
                TIFFTAG_COPYRIGHT="NASA Earth Observatory / GIBS, Blue Marble Next Generation",
                TIFFTAG_IMAGEDESCRIPTION="Terraloom base map: Blue Marble, zoom 6, restored, in Terraloom's palette",
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
    return {name: float(np.mean(squares)) ** 0.5 for name, squares in errors.items()}


def _restored(
    model: Restorer,
    samples: dict[tuple[int, int], npt.NDArray[np.uint8]],
    ground: Ground,
    x: int,
    y: int,
    count: int,
) -> npt.NDArray[np.uint8]:
    """One tile as means; rows beyond the map repeat its edge. Open sea, which is modelled, stays as it is."""
    rows = np.clip(np.arange(-REACH, TILE + REACH) + TILE * y, 0, TILE * count - 1)
    top = max(TILE * y - REACH, 0)
    around = surroundings(ground, TILE * x - REACH, top, TILE + 2 * REACH, int(rows[-1]) - top + 1)
    around = around[:, rows - top]
    if not around[LAND].any():
        return samples[x, y]
    near = [
        [samples[(x + i) % count, min(max(y + j, 0), count - 1)] for i in (-1, 0, 1)]
        for j in (-1, 0, 1)
    ]
    square = np.concatenate([np.concatenate(row, 1) for row in near])
    inner = slice(TILE - REACH, 2 * TILE + REACH)
    return restored(model, square[inner, inner], around)
