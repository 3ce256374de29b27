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

from terraloom.data.uses import COVER_OF
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
    use: Bytes | None = None  # as `cover`, land use where known (terraloom.data.uses)

    def told(self, codes: int) -> Bytes:
        """What a network is told that knows so many codes: of other uses their land cover."""
        return self.cover if self.use is None else np.where(self.use < codes, self.use, self.cover)


def encode(array: Bytes, form: str, **options: Any) -> bytes:
    """An image file in memory."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, form, **options)
    return file.getvalue()


def write_file(
    path: Path,
    index: dict[str, Any],
    images: dict[str, Sequence[bytes]],
    arrays: dict[str, npt.NDArray[Any]] | None = None,
) -> Path:
    """Write any pack, whole or not at all.

    Args:
        path: the file.
        index: becomes JSON.
        images: files in memory by what they are called, "image" for images and image_ends.
        arrays: whatever else it holds.
    """
    text = json.dumps(index, separators=(",", ":")).encode()
    content: dict[str, npt.NDArray[Any]] = {
        "index": np.frombuffer(text, np.uint8),
        **(arrays or {}),
    }
    for name, files in images.items():
        content[f"{name}s"] = np.frombuffer(b"".join(files), np.uint8)
        content[f"{name}_ends"] = np.cumsum([len(file) for file in files])
    part = path.with_name(f".{path.name}.part")
    try:
        save_file(content, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def read_file(
    path: Path | str, kind: str, command: str, version: int, images: Sequence[str] = ("image",)
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Index of a pack and what else it holds, the files in memory one by one under their names.

    Args:
        path: the file.
        kind: for messages, such as "text".
        command: of `terraloom data` that makes it.
        version: that the caller reads.
        images: names as in `write_file`.

    Raises:
        BadPack: the file is missing, damaged or of another version.
    """
    try:
        data: dict[str, Any] = load_file(path)
        index = json.loads(data.pop("index").tobytes())
        found = index["version"]
        for name in images:
            data[name] = np.split(data.pop(f"{name}s"), data.pop(f"{name}_ends")[:-1])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise BadPack(
            f"cannot read {kind} pack {path}: {error}; make it with: terraloom data {command}"
        ) from error
    if found != version:
        raise BadPack(
            f"{kind} pack {path} has version {found}, this code reads {version}; make it anew"
        )
    return index, data


def decode(data: Bytes) -> Bytes:
    """Pixels of an image file in memory."""
    return np.asarray(Image.open(io.BytesIO(data.tobytes())))


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
    covers = [s.cover if s.use is None else s.use for s in samples]
    grounds = [
        encode(np.stack([cover, s.mask], -1), "PNG", optimize=True)
        for cover, s in zip(covers, samples, strict=True)
    ]
    rows = [
        {"set": s.set, "gsd": round(s.gsd, 3), "place": s.place, "val": val}
        for s, val in zip(samples, held_out, strict=True)
    ]
    index = {"version": VERSION, "quality": quality, "rows": rows}
    write_file(path, index, {"image": images, "ground": grounds})


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
        index, data = read_file(path, "training", "pack", VERSION, ("image", "ground"))
        sets: dict[str, list[Sample]] = defaultdict(list)
        for row, image, ground in zip(index["rows"], data["image"], data["ground"], strict=True):
            if row["val"] == validation:
                use, mask = np.moveaxis(decode(ground), -1, 0)
                sample = Sample(
                    row["set"],
                    decode(image),
                    COVER_OF[use],
                    mask,
                    float(row["gsd"]),
                    str(row["place"]),
                    use,
                )
                sets[row["set"]].append(sample)
        return cls(dict(sets))
