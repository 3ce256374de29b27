"""The pack for training on frames: dated and multispectral images with their bands, dates and places.

Multispectral sets keep two thirds of their ground for training: the left of the Sentinel-2 scene, the top of the
Landsat scene; of the series, two thirds of the Landsat places and all dates but the last ones (NAIP, Peru). NAIP's
last date is not even read. What is held out is measured by `terraloom evaluate frames`; a few crops of it go into the
pack for the contact sheet. Layout and reader: terraloom.data.stacks.
"""

from __future__ import annotations

import json
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image
from rasterio.enums import Resampling
from rasterio.io import MemoryFile

from terraloom.data.pack import Row, held_out, read_set
from terraloom.data.stacks import ENDS, LOSSLESS, UNIT, ZERO, Bytes, Dated, stored, write_stacks
from terraloom.errors import InvalidInput

Floats = npt.NDArray[np.float32]
RGB = ("red", "green", "blue")
TRAINED = 2 / 3  # of the ground of a multispectral scene
CROP = 256  # px, side of held-out crops
SHOWN = 4  # held-out places of a set in the pack
PER_CLASS = 14  # UC Merced images of a class
SINGLES = (
    "world_scenes",
    "planet3m",
    "ortho_chips",
    "sentinel2_chips",
    "eurosat_mosaic",
    "ucmerced",
)
LOSSY: dict[str, Any] = {"quality": 92, "method": 4}
SENTINEL2 = {
    "B04": "red", "B03": "green", "B02": "blue", "B08": "nir", "B05": "rededge071", "B06": "rededge075",
    "B07": "rededge078", "B8A": "nir08", "B11": "swir16", "B12": "swir22",
}  # fmt: skip
LANDSAT8 = {
    "B4": "red", "B3": "green", "B2": "blue", "B5": "nir", "B6": "swir16", "B7": "swir22", "B8": "pan",
}  # fmt: skip
PERU = ("swir16", "nir", "red", "green")

Entry = tuple[Dated, bool, dict[str, Any]]  # image, whether held out, how it is compressed


def build_stacks(
    data_dir: Path,
    path: Path,
    progress: Callable[[str, int], None] = lambda name, count: None,
) -> Path:
    """Write the pack of all sets in `data_dir`, about 40 MiB.

    `progress` is called with the name of each set and the number of its images.

    Raises:
        InvalidInput: a set is missing.
    """
    data_dir, path = Path(data_dir), Path(path)
    if missing := [name for name in READERS if not (data_dir / f"{name}.tar").exists()]:
        raise InvalidInput(f"{data_dir} lacks {missing}; point --data at the imagery sets")
    entries: list[Entry] = []
    for name, read in READERS.items():
        got = list(read(data_dir))
        progress(name, len(got))
        entries += got
    return write_stacks(path, entries)


@dataclass(frozen=True)
class Scene:
    """A multispectral scene on the grid of its red band."""

    bands: tuple[str, ...]
    coarseness: tuple[float, ...]
    values: Floats  # (bands, h, w), the files' own units
    known: npt.NDArray[np.bool_]  # (h, w)


def read_scene(data_dir: Path, name: str, roles: dict[str, str]) -> Scene:
    """The bands of a set of single-band files, coarse ones repeated, finer ones averaged.

    Args:
        data_dir: folder of the sets.
        name: of the set.
        roles: end of a file's name -> band; the first is red.
    """
    bands: dict[str, tuple[float, Floats]] = {}
    with tarfile.open(data_dir / f"{name}.tar") as tar:
        files = {Path(m.name).stem.rsplit("_", 1)[-1]: m for m in tar.getmembers()}
        grid: Any = None
        for role, band in roles.items():
            content = tar.extractfile(files[role])
            assert content is not None
            with MemoryFile(content.read()) as memory, memory.open() as file:
                grid = grid or (file.transform, file.shape, file.crs)
                bands[band] = _on_grid(file, grid)
    values = np.stack([v for _, v in bands.values()])
    known = np.asarray((values > 0).all(0), np.bool_)
    return Scene(tuple(bands), tuple(c for c, _ in bands.values()), values, known)


def _on_grid(file: rasterio.DatasetReader, grid: Any) -> tuple[float, Floats]:
    transform, shape, crs = grid
    coarseness = file.transform.a / transform.a
    out = np.zeros(shape, np.float32)
    rasterio.warp.reproject(
        rasterio.band(file, 1),
        out,
        dst_transform=transform,
        dst_crs=crs,
        resampling=Resampling.average if coarseness < 1 else Resampling.nearest,
    )
    return coarseness, out


def stretches(values: Floats, known: npt.NDArray[np.bool_]) -> list[tuple[float, float]]:
    """(middle, half range) of each band, by the 0.5 and 99.5 percentiles of its known pixels."""
    ends = [np.percentile(v[known], ENDS) for v in values]
    return [((low + high) / 2, max(high - low, 1e-6) / 2) for low, high in ends]


def _eight_bits(scene: Scene) -> Bytes:
    pairs = np.array(stretches(scene.values, scene.known), np.float32)[:, :, None, None]
    return stored((scene.values - pairs[:, 0]) / pairs[:, 1])


def _multispectral(data_dir: Path, name: str, roles: dict[str, str], axis: int) -> Iterator[Entry]:
    scene = read_scene(data_dir, name, roles)
    pixels = _eight_bits(scene)
    metres = 10.0 if name.startswith("sentinel2") else 30.0
    whole = Dated(
        name, name, scene.bands, scene.coarseness, metres, pixels, zero=(ZERO,), unit=(UNIT,)
    )
    edge = int(pixels.shape[axis] * TRAINED)
    train = pixels[:, :, :edge] if axis == 2 else pixels[:, :edge]
    yield replace(whole, pixels=train), False, LOSSLESS
    rest = pixels[:, :, edge:] if axis == 2 else pixels[:, edge:]
    for i in range(SHOWN):
        y, x = (n * (i + 1) // (SHOWN + 2) for n in (rest.shape[1] - CROP, rest.shape[2] - CROP))
        crop = rest[:, max(y, 0) : y + CROP, max(x, 0) : x + CROP]
        yield replace(whole, place=f"{name}/{i}", pixels=crop), True, LOSSLESS


def _sentinel2(data_dir: Path) -> Iterator[Entry]:
    return _multispectral(data_dir, "sentinel2_multispectral", SENTINEL2, 2)


def _landsat8(data_dir: Path) -> Iterator[Entry]:
    return _multispectral(data_dir, "landsat8_multispectral", LANDSAT8, 1)


def read_naip(data_dir: Path) -> list[Dated]:
    """Red, green, blue and near infrared of all dates but the last, which is reserved and not opened; oldest first."""
    index = (data_dir / "naip.jsonl").read_text("utf-8").splitlines()
    reserved = max(str(json.loads(line)["date"]) for line in index)
    images = []
    with tarfile.open(data_dir / "naip.tar") as tar:
        for row, rgb in read_set(data_dir, "naip", lambda row: row["date"] != reserved):
            file = tar.extractfile(row["nir"])
            assert file is not None
            nir = np.asarray(Image.open(file).convert("L"))
            pixels = np.concatenate([rgb, nir[:, :, None]], 2).transpose(2, 0, 1)
            images.append(_dated("naip", row, pixels, (*RGB, "nir")))
    return sorted(images, key=lambda image: str(image.date))


def _naip(data_dir: Path) -> Iterator[Entry]:
    """The last but one date is held out; the sheet shows what came before too."""
    images = read_naip(data_dir)
    for image in images:
        if image is not images[-1]:
            yield image, False, LOSSY
        for k in range(SHOWN):
            part = image.pixels[:, 100:356, 200 * k : 200 * k + CROP]
            yield replace(image, place=f"naip/{k}", pixels=part), True, LOSSY


def held_out_series(series: str) -> bool:
    """Whether a Landsat place is on the held-out side: a third of them."""
    return held_out(series, one_in=3)


def matched(dates: Sequence[Bytes]) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """(zero, unit) of every date of a region that give all of them one mean and spread per band.

    The dates of the Landsat tiles were stretched one by one, so that their colours cannot be compared as they are.

    Args:
        dates: pixels of a whole region, (bands, n), uint8.
    """
    means = np.array([d.mean(1) for d in dates])
    spreads = np.array([d.std(1) for d in dates])
    share = spreads / spreads.mean(0)  # of the usual spread
    zero = means + (127.5 - means.mean(0)) * share
    return [
        (tuple(map(float, z)), tuple(map(float, u)))
        for z, u in zip(zero, 127.5 * share, strict=True)
    ]


def read_landsat(data_dir: Path) -> list[Dated]:
    """All Landsat tiles with the stretches of a region's dates matched."""
    images = [
        _dated("landsat", row, rgb.transpose(2, 0, 1), RGB)
        for row, rgb in read_set(data_dir, "landsat")
    ]
    regions: dict[str, dict[str, list[Bytes]]] = defaultdict(lambda: defaultdict(list))
    for image in images:
        regions[_region(image)][str(image.date)].append(image.pixels[:, ::8, ::8].reshape(3, -1))
    units: dict[tuple[str, str], Any] = {}
    for region, dates in regions.items():
        pairs = matched([np.concatenate(parts, 1) for parts in dates.values()])
        units |= {(region, date): pair for date, pair in zip(dates, pairs, strict=True)}
    found = [(image, units[_region(image), str(image.date)]) for image in images]
    return [replace(image, zero=zero, unit=unit) for image, (zero, unit) in found]


def _region(image: Dated) -> str:
    return image.place.split("_")[0]


def _landsat(data_dir: Path) -> Iterator[Entry]:
    shown: set[str] = set()
    for image in read_landsat(data_dir):
        held_out = held_out_series(image.place)
        if held_out and len(shown) < SHOWN:
            shown.add(image.place)
        if not held_out or image.place in shown:
            yield image, held_out, LOSSY


def _peru(data_dir: Path) -> Iterator[Entry]:
    """A river that moves, every five years; the last date is held out."""
    images = read_peru(data_dir)
    for image in images[:-1]:
        yield image, False, LOSSY
    for image in images:
        crop = image.pixels[:, 60:316, 200:456]
        yield replace(image, place="peru/0", pixels=crop), True, LOSSY


def read_peru(data_dir: Path) -> list[Dated]:
    """The eight dates of the series, oldest first."""
    images = []
    with tarfile.open(data_dir / "landsat_peru_series.tar") as tar:
        for member in sorted(m.name for m in tar.getmembers() if m.name.endswith(".tif")):
            content = tar.extractfile(member)
            assert content is not None
            with MemoryFile(content.read()) as memory, memory.open() as file:
                pixels, (lon, lat) = file.read(), file.transform * (file.width / 2, file.height / 2)
            date = Path(member).stem
            images.append(
                Dated(
                    "landsat_peru_series",
                    "peru",
                    PERU,
                    (1.0,) * 4,
                    90.0,
                    pixels,
                    round(lon, 4),
                    round(lat, 4),
                    date,
                )
            )
    return images


def _singles(name: str) -> Callable[[Path], Iterator[Entry]]:
    """Reader of a set of single RGB images; all of it is training, since evaluation has its own places."""

    def read(data_dir: Path) -> Iterator[Entry]:
        taken: dict[str, int] = defaultdict(int)
        for row, rgb in read_set(data_dir, name):
            taken[str(row.get("label"))] += 1
            if name == "ucmerced" and taken[row["label"]] > PER_CLASS:
                continue
            yield _dated(name, row, rgb.transpose(2, 0, 1), RGB), False, LOSSY

    return read


def _dated(name: str, row: Row, pixels: Bytes, bands: tuple[str, ...]) -> Dated:
    place = row["series"] if name in ("landsat", "naip") else row["path"]
    return Dated(
        set=name,
        place=str(place),
        bands=bands,
        coarseness=(1.0,) * len(bands),
        gsd=float(row["gsd"]),
        pixels=np.ascontiguousarray(pixels),
        lon=row.get("lon"),
        lat=row.get("lat"),
        date=row.get("date"),
    )


READERS: dict[str, Callable[[Path], Iterator[Entry]]] = {
    "sentinel2_multispectral": _sentinel2,
    "landsat8_multispectral": _landsat8,
    "naip": _naip,
    "landsat": _landsat,
    "landsat_peru_series": _peru,
    **{name: _singles(name) for name in SINGLES},
}
