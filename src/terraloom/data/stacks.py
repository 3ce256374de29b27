"""Dated, multispectral images of places in one file, for training on frames; read into memory once.

index   uint8 bytes of JSON: {"version", "rows": [{set, place, val, gsd, lon, lat, date, bands, coarseness, zero,
        unit}, ...]}
images  uint8, WebP files one after the other, for each image one per three bands (the last one repeats its last band);
        image_ends: int64, end of each

Needs numpy, pillow and safetensors alone; terraloom.data.stack_pack makes the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from terraloom.data.packed import decode, encode, read_file, write_file

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
VERSION = 1
GROUP = 3  # bands in a WebP
ENDS = (0.5, 99.5)  # percentiles of the known pixels that a stretch takes to -1 and 1
ZERO, UNIT = (
    80.0,
    64.0,
)  # stored value of 0 and steps to 1: from -1.25 to 2.73, since roofs lie far above the stretch
LOSSLESS: dict[str, Any] = {"lossless": True, "quality": 70, "method": 4}


@dataclass(frozen=True)
class Dated:
    """One image of a place, all bands on one grid."""

    set: str
    place: str  # images of one place show the same ground, pixel on pixel
    bands: tuple[str, ...]  # STAC's common names
    coarseness: tuple[
        float, ...
    ]  # true pixel of each band over the grid's; below 1 for a finer one that was averaged
    gsd: float  # metres per pixel
    pixels: Bytes  # (bands, h, w)
    lon: float | None = None
    lat: float | None = None
    date: str | None = None
    zero: tuple[float, ...] = (127.5,)  # stored value of 0 in the stretch, for each band or all
    unit: tuple[float, ...] = (127.5,)  # stored steps from 0 to 1

    def stretched(self, part: tuple[slice, slice]) -> Floats:
        """A window of all bands, (bands, h, w) float32, about [-1, 1]."""
        zero, unit = (np.array(v, np.float32)[:, None, None] for v in (self.zero, self.unit))
        raw: Floats = self.pixels[:, *part].astype(np.float32)
        return np.asarray((raw - zero) / unit, np.float32)


def stored(values: Floats) -> Bytes:
    """Stretched values as a pack holds them, about `ZERO` in steps of 1 / `UNIT`."""
    return np.asarray(np.round(values * UNIT + ZERO).clip(0, 255), np.uint8)


@dataclass(frozen=True)
class Stacks:
    """Images of a pack by set and place, in the order of their dates."""

    places: dict[str, list[list[Dated]]]  # set -> places -> dates

    @classmethod
    def load(cls, path: Path | str, validation: bool = False) -> Stacks:
        """Decode the training side of a pack, or the held-out side (of a place that is on both: other dates or parts).

        Raises:
            BadPack: the file is missing, damaged or of another version.
        """
        index, data = read_file(path, "frames", "frames-pack", VERSION)
        files = iter(data["image"])
        stacks: dict[str, dict[str, list[Dated]]] = {}
        for row in index["rows"]:
            groups = [next(files) for _ in range(-(-len(row["bands"]) // GROUP))]
            if row.pop("val") == validation:
                image = _decoded(row, groups)
                stacks.setdefault(image.set, {}).setdefault(image.place, []).append(image)
        return cls(
            {name: [_by_date(p) for p in places.values()] for name, places in stacks.items()}
        )


def _by_date(images: list[Dated]) -> list[Dated]:
    return sorted(images, key=lambda image: image.date or "")


def _decoded(row: dict[str, Any], groups: list[Bytes]) -> Dated:
    pixels = np.concatenate([decode(group) for group in groups], 2)[
        :, :, : len(row["bands"])
    ].transpose(2, 0, 1)
    known: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    return Dated(pixels=np.ascontiguousarray(pixels), **known)


def write_stacks(path: Path, images: Sequence[tuple[Dated, bool, dict[str, Any]]]) -> Path:
    """Write a pack, whole or not at all.

    Args:
        path: the file.
        images: (image, whether held out, options of Pillow's WebP writer).
    """
    rows, files = [], []
    names = [f.name for f in fields(Dated) if f.name != "pixels"]
    for image, held_out, options in images:
        rows.append({**{k: asdict(image)[k] for k in names}, "val": held_out})
        count = len(image.bands)
        for start in range(0, count, GROUP):
            numbers = [min(start + i, count - 1) for i in range(GROUP)]
            files.append(encode(image.pixels[numbers].transpose(1, 2, 0), "WEBP", **options))
    return write_file(path, {"version": VERSION, "rows": rows}, {"image": files})
