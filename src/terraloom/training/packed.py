"""Reader of the training pack (layout: terraloom.data.pack): everything decoded into memory once."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file

from terraloom.errors import BadPack

Bytes = npt.NDArray[np.uint8]
VERSION = 1


@dataclass(frozen=True)
class Sample:
    """One image of the pack."""

    set: str
    rgb: Bytes  # (h, w, 3)
    cover: Bytes  # (h / 4, w / 4) IGBP class, 18 unknown
    mask: Bytes  # (h / 4, w / 4) Natural Earth bits, 0 unknown
    gsd: float  # metres per pixel
    place: str = ""  # images of one place never stand on both sides of the split


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
