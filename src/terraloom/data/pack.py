"""The training pack: one safetensors file that holds every set, tone-curved, with what is really there.

Training machines may have torch, numpy, pillow and safetensors alone, so everything geographic happens here; the layout
and its reader are terraloom.data.packed's.

Every image's land cover and mask lie on its 4 x 4 cells, the low-resolution pixels of the cascade.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image

from terraloom.data import palette
from terraloom.data.clear import is_clear
from terraloom.data.deblock import cleaned, deblocked
from terraloom.data.ground import Ground
from terraloom.data.packed import Sample, encode, write_pack
from terraloom.data.scenes import SET as SCENES
from terraloom.data.scenes import read_scenes
from terraloom.data.uses import CODES, COVER_OF, UNKNOWN_COVER
from terraloom.errors import InvalidInput
from terraloom.grid import TILE, Window

Bytes = npt.NDArray[np.uint8]
Row = dict[str, Any]
MIN_STD = 3.0  # flatter images teach nothing; a tenth of them is kept
QUALITIES = (92, 88, 84, 80)  # of WebP; lower ones would teach its artefacts
MARGIN = 1.08  # what an estimate from 400 images may be off by
SMALL = 150  # images; smaller sets are kept whole
FINE = 5.0  # metres; scenes below it are a set of their own, for recipes to draw from
GROUND_MIB = 5  # of land cover and masks
IGBP = {
    "water": 0, "forest": 5, "shrubland": 7, "savanna": 9, "grassland": 10, "wetland": 11,
    "cropland": 12, "urban": 13, "snow and ice": 15, "desert": 16, "mountain": 16,
    "evergreen broadleaf forest": 2, "mixed forest": 5, "barren land": 16,
    "airport": 13,  # planet3m
    # EuroSAT
    "AnnualCrop": 12, "PermanentCrop": 12, "Forest": 5, "HerbaceousVegetation": 10, "Highway": 13,
    "Industrial": 13, "Residential": 13, "Pasture": 10, "River": 0, "SeaLake": 0,
    # UC Merced
    "agricultural": 12, "beach": 0, "chaparral": 7, "river": 0, "golfcourse": 10, "harbor": 13,
    **dict.fromkeys(
        "airplane baseballdiamond buildings denseresidential freeway intersection mediumresidential "
        "mobilehomepark overpass parkinglot runway sparseresidential storagetanks tenniscourt".split(),
        13,
    ),
}  # fmt: skip


class Picture(Protocol):
    """What has to fit into a pack."""

    @property
    def set(self) -> str:
        """Name of its set."""

    @property
    def rgb(self) -> Bytes:
        """(h, w, 3), tone-curved."""


THINNED = "kept to fit"  # instead of a set's name
P = TypeVar("P", bound=Picture)


def build_pack(
    data_dir: Path,
    out: Path,
    max_mib: float = 45,
    progress: Callable[[str, int], None] = lambda name, count: None,
    scenes: Path | None = None,
) -> Path:
    """Write the pack of all sets in `data_dir`; to fit `max_mib`, WebP quality falls, then large sets are thinned.

    `progress` is called with the name of each set and the number of its images, and with `THINNED` and what is left.
    `scenes` is a folder of other imagery (terraloom.data.scenes): the set `scenes`, and below 5 m `scenes_town`, tiles
    that are mostly urban, and `scenes_fine`.

    Raises:
        InvalidInput: `data_dir` lacks the sets, or see `terraloom.data.scenes.read_scenes`.
    """
    data_dir, out = Path(data_dir), Path(out)
    if not (data_dir / "bluemarble.tar").exists():
        raise InvalidInput(f"{data_dir} holds no bluemarble.tar; point --data at the imagery sets")
    items = []
    ground = Ground.open()
    readers = dict(SETS)
    if scenes is not None:
        readers = {SCENES: lambda _, ground: _scenes(scenes, ground), **readers}
    for name, reader in readers.items():
        got = [item for item in reader(data_dir, ground) if _keep(item)]
        progress(name, len(got))
        items += got
    quality, share = fit(items, (max_mib - GROUND_MIB) * 2**20)
    read, items = len(items), thin(items, share)
    if len(items) < read:
        progress(THINNED, len(items))
    write_pack(out, items, [held_out(item.place) for item in items], quality)
    return out


def place_of(name: str, row: Row) -> str:
    """The place that an image of a set shows; images of one place never stand on both sides of the split."""
    if name == "bluemarble":
        shift = max(0, row["z"] - 6)
        return f"bluemarble/{row['x'] >> shift}/{row['y'] >> shift}"
    if name == "landsat":  # the same tile on all dates
        return str(row["path"].rsplit("/", 1)[1])
    if name == "world_scenes":
        return f"world/{row['series']}"
    if name == SCENES:
        return f"{SCENES}/{row['place']}"
    place = f"{name}/{row.get('series') or row['path']}"
    if name == "ucmerced" and int(Path(row["path"]).stem[-2:]) >= 70:  # it brings its own split
        return next(p for n in range(1000) if held_out(p := f"{place}#{n}"))
    return place


def held_out(place: str, one_in: int = 10) -> bool:
    """Whether a place is on the validation side: one in ten of all, or in so many."""
    return zlib.crc32(place.encode()) % one_in == 0


def fit(items: Sequence[Picture], budget: float) -> tuple[int, float]:
    """(WebP quality, share of images to keep) for a budget in bytes, from a sample of the images."""
    sample = items[:: max(1, len(items) // 400)]
    for quality in QUALITIES:
        each = sum(len(encode(i.rgb, "WEBP", quality=quality, method=4)) for i in sample)
        total = each / len(sample) * len(items) * MARGIN
        if total < budget:
            return quality, 1.0
    return quality, budget / total


def thin(items: Sequence[P], share: float) -> list[P]:
    """Keep a share of every set that has more than `SMALL` images, evenly spread."""
    sets: dict[str, list[P]] = {}
    for item in items:
        sets.setdefault(item.set, []).append(item)
    kept: list[P] = []
    for members in sets.values():
        count = len(members) if len(members) <= SMALL else max(SMALL, int(share * len(members)))
        kept += [members[k * len(members) // count] for k in range(count)]
    return kept


def _keep(item: Sample) -> bool:
    flat = item.rgb.std((0, 1)).mean() < MIN_STD
    return not flat or zlib.crc32(item.place.encode() + b"flat") % 10 == 0


def read_set(
    data_dir: Path, name: str, wanted: Callable[[Row], bool] = lambda row: True
) -> Iterator[tuple[Row, Bytes]]:
    """Wanted rows of an index with their images, raw colours (h, w, 3); JPEGs (Blue Marble) without block edges."""
    with tarfile.open(data_dir / f"{name}.tar") as tar:
        for line in (data_dir / f"{name}.jsonl").read_text("utf-8").splitlines():
            row = json.loads(line)
            if not wanted(row):
                continue
            member = tar.extractfile(row["path"])
            assert member is not None
            data = member.read()
            if row["path"].endswith(".jpg"):
                yield row, deblocked(data)
            else:
                yield row, np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def whole_cells(rgb: Bytes) -> Bytes:
    """Cut to multiples of 16 pixels."""
    h, w = (n // 16 * 16 for n in rgb.shape[:2])
    return rgb[:h, :w]


def _cells_of(ground: Ground, window: Window) -> tuple[Bytes, Bytes]:
    """Land cover and mask bits at the pixels of a window: the cells of the image two zooms finer."""
    cover, layers = ground.cells(window)
    bits = (layers.astype(np.uint8) << np.arange(len(layers), dtype=np.uint8)[:, None, None]).sum(0)
    return cover, bits.astype(np.uint8)


def _tile_cells(z: int, x: int, y: int) -> Window:
    """The 64 x 64 cells of a 256 px tile."""
    return Window(z - 2, x * TILE // 4, y * TILE // 4, TILE // 4, TILE // 4)


def _box_ground(ground: Ground, bbox: list[float], h: int, w: int) -> tuple[Bytes, Bytes]:
    """The same on the h x w cells of a box in degrees."""
    west, south, east, north = bbox
    lon = west + (np.arange(w) + 0.5) / w * (east - west)
    lat = north - (np.arange(h) + 0.5) / h * (north - south)
    grid = np.meshgrid(lon, lat)
    return ground.cover_at(*grid), ground.mask_at(*grid)


def _label_ground(label: str | None, rgb: Bytes) -> tuple[Bytes, Bytes]:
    """One class everywhere, no mask: images whose place is not known."""
    h, w = rgb.shape[0] // 4, rgb.shape[1] // 4
    cover = IGBP.get(label or "", UNKNOWN_COVER)
    return np.full((h, w), cover, np.uint8), np.zeros((h, w), np.uint8)


def _bluemarble(zoom: int) -> Callable[[Path, Ground], Iterator[Sample]]:
    def read(data_dir: Path, ground: Ground) -> Iterator[Sample]:
        for row, raw in read_set(data_dir, "bluemarble", lambda row: row["z"] == zoom):
            place = place_of("bluemarble", row)
            cover, mask = _cells_of(ground, _tile_cells(zoom, row["x"], row["y"]))
            if (cover == 0).mean() > 0.97:  # open sea: modelled, flat, and half of the planet
                continue
            yield Sample(
                f"bluemarble{zoom}", palette.bluemarble(raw), cover, mask, row["gsd"], place
            )

    return read


def _landsat(data_dir: Path, ground: Ground) -> Iterator[Sample]:
    tiles: dict[tuple[str, int, int], tuple[Row, Bytes]] = {}
    for row, raw in read_set(data_dir, "landsat", partial(is_clear, "landsat")):
        date = row["path"].rsplit("/", 1)[0]
        rgb = palette.curve(date)(cleaned(raw, date))
        tiles[date, row["x"], row["y"]] = row, rgb
        cover, mask = _cells_of(ground, _tile_cells(12, row["x"], row["y"]))
        yield Sample("landsat", rgb, cover, mask, row["gsd"], place_of("landsat", row))
    for (date, x, y), (row, _) in tiles.items():  # zoom 10: 2 x 2 tiles joined and reduced by 4
        quad = [tiles.get((date, x + i, y + j)) for j in (0, 1) for i in (0, 1)]
        if all(quad):
            a, b, c, d = (tile[1] for tile in quad if tile)
            joined = np.concatenate([np.concatenate([a, b], 1), np.concatenate([c, d], 1)], 0)
            reduced = joined.reshape(128, 4, 128, 4, 3).mean((1, 3)).round().astype(np.uint8)
            cover, mask = _cells_of(ground, Window(8, x * 16, y * 16, 32, 32))
            yield Sample("landsat_z10", reduced, cover, mask, row["gsd"] * 4, f"{x}_{y}.webp")


def _row_ground(ground: Ground, row: Row, rgb: Bytes) -> tuple[Bytes, Bytes]:
    """Of a row's bbox, where it has one, else of its label."""
    if row.get("bbox"):
        return _box_ground(ground, row["bbox"], rgb.shape[0] // 4, rgb.shape[1] // 4)
    return _label_ground(row.get("label"), rgb)


def _world_scenes(data_dir: Path, ground: Ground) -> Iterator[Sample]:
    for row, raw in read_set(data_dir, "world_scenes", partial(is_clear, "world_scenes")):
        name = f"world_scenes/{row['series']}"
        rgb = palette.curve(name)(whole_cells(cleaned(raw, name)))
        cover, mask = _row_ground(ground, row, rgb)
        yield Sample("world_scenes", rgb, cover, mask, row["gsd"], place_of("world_scenes", row))


def _scenes(folder: Path, ground: Ground) -> Iterator[Sample]:
    for row, rgb in read_scenes(folder):
        cover, mask = _row_ground(ground, row, rgb)
        use = np.full_like(cover, CODES[row["use"]]) if "use" in row else None
        cover = cover if use is None else COVER_OF[use]
        name = SCENES
        if row["gsd"] < FINE:
            name += "_town" if (cover == IGBP["urban"]).mean() > 0.5 else "_fine"
        yield Sample(name, rgb, cover, mask, row["gsd"], place_of(SCENES, row), use)


def _labelled(name: str) -> Callable[[Path, Ground], Iterator[Sample]]:
    """Sets whose images have one label each."""

    def read(data_dir: Path, ground: Ground) -> Iterator[Sample]:
        for row, raw in read_set(data_dir, name):
            part = f"{name}/{row['series']}" if name == "planet3m" else name
            tone = palette.curve(f"{name}/{row.get('label')}", name)
            rgb = tone(whole_cells(cleaned(raw, part)))
            label = str(row.get("label"))
            cover, mask = _label_ground("urban" if "city" in label else label, rgb)
            use = np.full_like(cover, CODES[label]) if label in CODES else None
            yield Sample(name, rgb, cover, mask, row["gsd"], place_of(name, row), use)

    return read


def _naip(data_dir: Path, ground: Ground) -> Iterator[Sample]:
    for row, raw in read_set(data_dir, "naip"):
        for place, cut in naip_cuts(palette.curve("naip")(cleaned(raw, "naip"))):
            cover, mask = _label_ground("cropland", cut)
            yield Sample("naip", cut, cover, mask, row["gsd"], place)


def naip_cuts(rgb: Bytes) -> Iterator[tuple[str, Bytes]]:
    """(place, 256 px tile) of the one large scene, overlapping; a place is one column of it on all dates."""
    for y in range(0, rgb.shape[0] - TILE + 1, 232):
        for x in range(0, rgb.shape[1] - TILE + 1, 224):
            yield f"naip/{x}", rgb[y : y + TILE, x : x + TILE]


def _sentinel2_scene(data_dir: Path, ground: Ground) -> Iterator[Sample]:
    """RGB of the Virginia coast scene; its right third is kept for super-resolution tests."""
    bands = []
    with (
        tarfile.open(data_dir / "sentinel2_multispectral.tar") as tar,
        tempfile.TemporaryDirectory() as tmp,
    ):
        for name in ("B04", "B03", "B02"):
            tar.extract(f"s2/{name}.tif", tmp, filter="data")
            with rasterio.open(Path(tmp) / "s2" / f"{name}.tif") as src:
                bands.append(src.read(1).astype(np.float32))
    scene = np.stack(bands, -1)
    low, high = np.percentile(scene[::4, ::4], (0.2, 99.7), axis=(0, 1))
    rgb = palette.curve("sentinel2")(255 * np.clip((scene - low) / (high - low), 0, 1))
    for y in range(0, rgb.shape[0] - TILE + 1, TILE):
        for x in range(0, rgb.shape[1] * 2 // 3 - TILE + 1, TILE):
            cut = rgb[y : y + TILE, x : x + TILE]
            cover, mask = _label_ground(None, cut)
            yield Sample("sentinel2", cut, cover, mask, 10.0, f"s2scene/{x // TILE}")


SETS: dict[str, Callable[[Path, Ground], Iterator[Sample]]] = {
    "bluemarble z6": _bluemarble(6),
    "bluemarble z8": _bluemarble(8),
    "landsat": _landsat,
    "world_scenes": _world_scenes,
    "sentinel2": _sentinel2_scene,
    "sentinel2_chips": _labelled("sentinel2_chips"),
    "eurosat_mosaic": _labelled("eurosat_mosaic"),
    "eurosat": _labelled("eurosat"),
    "planet3m": _labelled("planet3m"),
    "naip": _naip,
    "ortho_chips": _labelled("ortho_chips"),
    "ucmerced": _labelled("ucmerced"),
}
