"""The training pack: images with what is there beneath them, in one file; read into memory once.

index    uint8 bytes of JSON: {"version", "quality", "rows": [{set, gsd, place, val}, ...]}
images   uint8, WebP files one after the other;  image_ends: int64, end of each
grounds  uint8, PNG files (land cover, map bits);  ground_ends
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from terraloom.errors import BadPack

Bytes = npt.NDArray[np.uint8]
VERSION = 1


@dataclass(frozen=True)
class Sample:
    """One image of the pack."""

    set: str
    rgb: Bytes  # (h, w, 3), tone-curved; h and w multiples of 16
    cover: Bytes  # (h / 4, w / 4) IGBP class, 18 unknown
    mask: Bytes  # (h / 4, w / 4) Natural Earth bits, 0 unknown
    gsd: float  # metres per pixel
    place: str = ""  # images of one place never stand on both sides of the split


def encode(array: Bytes, form: str, **options: Any) -> bytes:
    """An image file in memory."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, form, **options)
    return file.getvalue()


def write_pack(
    path: Path, samples: Sequence[Sample], held_out: Sequence[bool], quality: int = 92
) -> None:
    """Write a pack, whole or not at all.

    Args:
        path: the file.
        samples: images whose sides are multiples of 16 px.
        held_out: whether each is on the validation side.
        quality: of the WebP files, 1 to 100.
    """
    images = [encode(s.rgb, "WEBP", quality=quality, method=4) for s in samples]
    grounds = [encode(np.stack([s.cover, s.mask], -1), "PNG", optimize=True) for s in samples]
    rows = [
        {"set": s.set, "gsd": round(s.gsd, 3), "place": s.place, "val": val}
        for s, val in zip(samples, held_out, strict=True)
    ]
    index = json.dumps({"version": VERSION, "quality": quality, "rows": rows}).encode()
    part = path.with_name(f".{path.name}.part")
    try:
        save_file(
            {
                "index": np.frombuffer(index, np.uint8),
                "images": np.frombuffer(b"".join(images), np.uint8),
                "image_ends": np.cumsum([len(b) for b in images]),
                "grounds": np.frombuffer(b"".join(grounds), np.uint8),
                "ground_ends": np.cumsum([len(b) for b in grounds]),
            },
            part,
        )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@dataclass(frozen=True)
class Pack:
    """Samples by set."""

    sets: dict[str, list[Sample]]

    @classmethod
    def load(cls, path: Path, validation: bool = False) -> Pack:
        """Decode the training side of a pack, or the held-out side.

        Raises:
            BadPack: the file is missing, damaged or of another version.
        """
        try:
            data = load_file(path)
            index = json.loads(data["index"].tobytes())
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise BadPack(
                f"cannot read training pack {path}: {error}; make it with: terraloom data pack"
            ) from error
        if index.get("version") != VERSION:
            raise BadPack(
                f"pack {path} has version {index.get('version')}, this code reads {VERSION}; make it anew"
            )
        images = _split(data["images"], data["image_ends"])
        grounds = _split(data["grounds"], data["ground_ends"])
        sets: dict[str, list[Sample]] = defaultdict(list)
        for row, image, ground in zip(index["rows"], images, grounds, strict=True):
            if row["val"] == validation:
                cells = _decode(ground)
                sample = Sample(
                    row["set"],
                    _decode(image),
                    cells[..., 0],
                    cells[..., 1],
                    float(row["gsd"]),
                    str(row["place"]),
                )
                sets[row["set"]].append(sample)
        return cls(dict(sets))


def _split(blob: Bytes, ends: npt.NDArray[np.int64]) -> list[Bytes]:
    return np.split(blob, ends[:-1])


def _decode(data: Bytes) -> Bytes:
    return np.asarray(Image.open(io.BytesIO(data.tobytes())))
