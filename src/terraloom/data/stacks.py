"""Dated, multispectral images of places in one file, for training on frames; read into memory once.

index   uint8 bytes of JSON: {"version", "rows": [{set, place, val, gsd, lon, lat, date, bands, coarseness, zero,
        unit}, ...]}
images  uint8, WebP files one after the other, for each image one per three bands (the last one repeats its last band);
        image_ends: int64, end of each

Needs numpy, pillow and safetensors alone; terraloom.data.stack_pack makes the file.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from terraloom.data.packed import encode
from terraloom.errors import BadPack

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
VERSION = 1
GROUP = 3  # bands in a WebP


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
        try:
            data = load_file(path)
            index = json.loads(data["index"].tobytes())
            version = index["version"]
            files = iter(np.split(data["images"], data["image_ends"][:-1]))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise BadPack(
                f"cannot read frames pack {path}: {error}; make it with: terraloom data frames-pack"
            ) from error
        if version != VERSION:
            raise BadPack(
                f"frames pack {path} has version {version}, this code reads {VERSION}; make it anew"
            )
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
    layers = [np.asarray(Image.open(io.BytesIO(g.tobytes())).convert("RGB")) for g in groups]
    pixels = np.concatenate(layers, 2)[:, :, : len(row["bands"])].transpose(2, 0, 1)
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
    index = json.dumps({"version": VERSION, "rows": rows}, separators=(",", ":")).encode()
    part = path.with_name(f".{path.name}.part")
    try:
        save_file(
            {
                "index": np.frombuffer(index, np.uint8),
                "images": np.frombuffer(b"".join(files), np.uint8),
                "image_ends": np.cumsum([len(f) for f in files]),
            },
            part,
        )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
