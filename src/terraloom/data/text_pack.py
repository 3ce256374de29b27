"""The pack of the text model: every captioned image, tone-curved, with what is known of it and the texts as vectors.

    index    uint8 bytes of JSON: {"version", "quality", "rows": [...], "captions": [str, ...]}; captions[0] is ""
    images   uint8, WebP files one after the other;  image_ends: int64, end of each
    tokens   float16 (captions, TOKENS, 384);  pooled  float16 (captions, 384)

A row: {set, val, gsd, lon, lat, region, cloud_cover, date, label, captions: [numbers], place}, null where unknown.

The images are those of the cascade (terraloom.data.pack: same tone curves, same split by place), so that what the
text model draws is what the cascade refines. `region` (west, south, east, north) stands where a set has no places but
is known to lie in Europe, the contiguous United States or California: training draws a position from it, half of the
time. That is weak supervision, on purpose: no image is claimed to be at that point, but Europe's chips lie in Europe.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from terraloom.data import palette
from terraloom.data.captions import CLOUDY, captions
from terraloom.data.pack import (
    THINNED,
    Bytes,
    Row,
    fit,
    held_out,
    naip_cuts,
    place_of,
    read_set,
    thin,
    whole_cells,
)  # fmt: skip
from terraloom.data.packed import encode, write_file
from terraloom.data.scenes import SET as SCENES
from terraloom.data.scenes import read_scenes
from terraloom.data.seasons import BASE, MONTHS, YEAR, difference, in_month, month_files, read_month
from terraloom.errors import InvalidInput
from terraloom.models.text_encoder import TOKENS, WIDTH, SentenceEncoder

VERSION = 1
SETS = (
    "eurosat", "eurosat_mosaic", "sentinel2_chips", "landsat", "world_scenes", "bluemarble",
    "ucmerced", "planet3m", "ortho_chips", "naip",
)  # fmt: skip
EUROPE = (-10.0, 36.0, 30.0, 61.0)  # degrees
CONTIGUOUS_USA = (-124.5, 25.0, -67.0, 49.0)
CALIFORNIA = (-124.0, 32.6, -115.0, 41.5)
REGIONS = {
    "eurosat": EUROPE, "eurosat_mosaic": EUROPE, "ucmerced": CONTIGUOUS_USA,
    "planet3m": CALIFORNIA, "ortho_chips": CONTIGUOUS_USA,
}  # fmt: skip
MOST = {
    6: 110,
    8: 150,
}  # of Blue Marble by zoom: images of one label; water and ice would crowd out the rest
POLES = 80.0  # degrees of latitude, beyond which Blue Marble is nearly blank
FINEST_BLUEMARBLE = 450.0  # metres; far north its pixels are finer than its content
HEADER = 4096  # bytes of safetensors, and of the index around its lists, at most
RARE = 3  # Blue Marble tiles; countries on fewer of them are not named, which halves the captions
KNOWN_CLOUD = "landsat/congo"  # elsewhere in that set bright roofs were counted as cloud
WHITE = 190  # of 255, from which what is bright in a cloudy image is cloud; curves made for land turn it yellow


@dataclass(frozen=True)
class TextItem:
    """One image of the pack before it is encoded."""

    set: str
    rgb: Bytes  # (h, w, 3), tone-curved
    row: Row  # of the set's index
    place: str
    webp: bytes = b""  # when it is compressed


def build_text_pack(
    data_dir: Path,
    path: Path,
    max_mib: float = 45,
    progress: Callable[[str, int], None] = lambda name, count: None,
    months: Path | None = None,
    scenes: Path | None = None,
) -> Path:
    """Write the pack of all captioned sets in `data_dir`; to fit `max_mib`, WebP quality falls, then sets are thinned.

    `progress` is called with the name of each set and the number of its images, and with `THINNED` and what is left.
    `months` is a folder of Blue Marble's twelve months (terraloom.data.seasons): sets `seasons6` and `seasons8` of
    land in other months than August. `scenes` is a folder of other imagery (terraloom.data.scenes): the set `scenes`.

    Raises:
        InvalidInput: a set or a month is missing, or see `terraloom.data.scenes.read_scenes`.
        TerraloomError: the sentence encoder is not installed.
    """
    data_dir, path = Path(data_dir), Path(path)
    if missing := [name for name in SETS if not (data_dir / f"{name}.tar").exists()]:
        raise InvalidInput(f"{data_dir} lacks {missing}; point --data at the imagery sets")
    files = None if months is None else month_files(months)
    items: list[TextItem] = []
    for name in SETS:
        got = list(_read(data_dir, name))
        progress(name, len(got))
        items += got
    if files is not None:
        got = list(_read_seasons(data_dir, files))
        progress("seasons", len(got))
        items += got
    if scenes is not None:
        got = [
            TextItem(SCENES, rgb, row, place_of(SCENES, row)) for row, rgb in read_scenes(scenes)
        ]
        progress(SCENES, len(got))
        items += got
    texts, rows = index_rows(items)
    read = len(items)
    quality, items = _compressed(items, max_mib * 2**20 - _overhead(texts, rows))
    if len(items) < read:
        progress(THINNED, len(items))
    texts, rows = index_rows(items)
    index = {"version": VERSION, "quality": quality, "rows": rows, "captions": texts}
    tokens, pooled = SentenceEncoder().encode(texts)
    vectors = {"tokens": tokens.numpy(), "pooled": pooled.numpy()}
    halves = {name: array.astype(np.float16) for name, array in vectors.items()}
    return write_file(path, index, {"image": [item.webp for item in items]}, halves)


def _compressed(items: list[TextItem], budget: float) -> tuple[int, list[TextItem]]:
    """(WebP quality, items with their files): what fits into a budget in bytes."""
    quality, _ = fit(items, budget)
    items = [
        replace(item, webp=encode(item.rgb, "WEBP", quality=quality, method=4)) for item in items
    ]
    for percent in range(100, -1, -1):
        kept = thin(items, percent / 100)
        if (size := sum(len(item.webp) for item in kept)) <= budget:
            return quality, kept
    raise InvalidInput(
        f"the images need {size / 2**20:.1f} MiB at least, {budget / 2**20:.1f} are left; "
        "allow a larger pack"
    )


def _overhead(texts: list[str], rows: list[dict[str, Any]]) -> int:
    """Bytes of everything but the images."""
    vectors = (TOKENS + 1) * WIDTH * 2 * len(texts)
    ends = 8 * len(rows)
    return len(_compact(rows)) + len(_compact(texts)) + vectors + ends + HEADER


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def index_rows(items: Sequence[TextItem]) -> tuple[list[str], list[dict[str, Any]]]:
    """(all captions, the first of them "", and the rows that number them)."""
    numbers: dict[str, int] = {"": 0}
    rows = []
    variants = [captions(item.set, item.row) for item in items]
    tiles = [set(v) for v, item in zip(variants, items, strict=True) if "bluemarble" in item.set]
    rare = {text for text, n in Counter(chain(*tiles)).items() if n < RARE}
    for item, made in zip(items, variants, strict=True):
        row = item.row
        if "bluemarble" in item.set:
            made = [text for text in made if text not in rare]
        rows.append(
            {
                "set": item.set,
                "val": held_out(item.place),
                "gsd": row["gsd"],
                "lon": row.get("lon"),
                "lat": row.get("lat"),
                "region": REGIONS.get(item.set) if row.get("lon") is None else None,
                "cloud_cover": row.get("cloud"),
                "date": row.get("date"),
                "label": row.get("label"),
                "captions": [numbers.setdefault(text, len(numbers)) for text in made],
                "place": item.place,
            }
        )
    return list(numbers), rows


def _read(data_dir: Path, name: str) -> Iterator[TextItem]:
    """Tone-curved images of a set."""
    if name == "bluemarble":
        yield from _read_bluemarble(data_dir)
        return
    for row, raw in read_set(data_dir, name):
        rgb = palette.curve(_curve_name(name, row), name)(whole_cells(raw))
        if name == "landsat":
            row, rgb = _with_clouds(row, rgb)
        if name == "naip":
            yield from (TextItem(name, cut, row, place) for place, cut in naip_cuts(rgb))
        else:
            yield TextItem(name, rgb, row, place_of(name, row))


def _curve_name(name: str, row: Row) -> str:
    if name == "world_scenes":
        return f"world_scenes/{row['series']}"
    return str(row["path"].rsplit("/", 1)[0]) if name == "landsat" else f"{name}/{row.get('label')}"


def _with_clouds(row: Row, rgb: Bytes) -> tuple[Row, Bytes]:
    """The row without a cloud cover that is not true, the image with white clouds."""
    if not row["path"].startswith(KNOWN_CLOUD):
        return {**row, "cloud": None}, rgb
    if row["cloud"] < CLOUDY:
        return row, rgb
    bright = rgb.max(-1, keepdims=True).astype(np.float32)
    share = np.clip((bright - WHITE) / (255 - WHITE), 0, 1)
    return row, np.asarray(np.round(rgb + share * (bright - rgb)), np.uint8)


def _bluemarble_tiles(data_dir: Path) -> dict[tuple[int, str], list[str]]:
    """(zoom, label) -> paths of its tiles, evenly thinned."""
    groups: dict[tuple[int, str], list[str]] = defaultdict(list)
    for line in (data_dir / "bluemarble.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if row["z"] in MOST and abs(row["lat"]) < POLES and row["gsd"] > FINEST_BLUEMARBLE:
            groups[row["z"], row["label"]].append(row["path"])
    thinned = {}
    for (zoom, label), paths in groups.items():
        count = min(MOST[zoom], len(paths))
        thinned[zoom, label] = [paths[k * len(paths) // count] for k in range(count)]
    return thinned


def _read_bluemarble(data_dir: Path) -> Iterator[TextItem]:
    """The tiles of two zooms."""
    wanted = set(chain(*_bluemarble_tiles(data_dir).values()))
    for row, raw in read_set(data_dir, "bluemarble", lambda row: row["path"] in wanted):
        name = f"bluemarble{row['z']}"
        row["cloud"] = 0.0  # a cloudless composite
        yield TextItem(name, palette.bluemarble(raw), row, place_of("bluemarble", row))


def _read_seasons(data_dir: Path, files: Mapping[int, Path]) -> Iterator[TextItem]:
    """Every third of those tiles that is of land, each in three months, four apart."""
    tiles = _bluemarble_tiles(data_dir)
    land = sorted(chain(*(paths[::3] for (_, label), paths in tiles.items() if label != "water")))
    number = {path: k for k, path in enumerate(land)}
    raw = list(read_set(data_dir, "bluemarble", lambda row: row["path"] in number))
    base = read_month(files[BASE])
    for month in MONTHS:
        if month == BASE:
            continue
        more = difference(read_month(files[month]), base)
        for row, rgb in raw:
            if (number[row["path"]] - month) % 4 == 0:
                rgb = palette.bluemarble(in_month(rgb, row["z"], row["x"], row["y"], more))
                row = {**row, "cloud": 0.0, "date": f"{YEAR}-{month:02d}"}
                yield TextItem(f"seasons{row['z']}", rgb, row, place_of("bluemarble", row))
