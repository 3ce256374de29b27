"""Your own captioned images as a pack in memory, for fine-tuning: a folder with a list, or WebDataset shards.

The list is `metadata.jsonl`, or the folder's only *.jsonl: one JSON object a line,

    {"file_name": "a.tif", "text": "a field of rape", "lon": 10.2, "lat": 54.1, "gsd": 10, "date": "2021-05"}

`path` for `file_name` and `caption` for `text` do as well; `text` may be a list of variants. The rest may be missing,
and `cloud_cover` (0 to 1) and `label` may be there too.
What a line leaves out a GeoTIFF tells itself (its place and gsd, and Terraloom's own tags) where rasterio is installed.
Files are GeoTIFF, PNG, JPEG, WebP or whatever else Pillow reads. Everything is held in memory, at full size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from terraloom.data.lists import naming, rows_of
from terraloom.errors import InvalidInput
from terraloom.models.text_encoder import SentenceEncoder
from terraloom.training.captioned import Captioned, TextPack
from terraloom.training.pictures import Example, example_of, read_georeferenced
from terraloom.training.shards import read_shards

SET = "folder"
LIST = "metadata.jsonl"
FIT = [[SET, "fit", 1.0]]  # sources: every image reduced until its short side just covers the crop


def read_folder(folder: Path | str) -> TextPack:
    """Read a folder; all its images are the set "folder".

    Raises:
        InvalidInput: the folder, its list, an image or a caption is missing or cannot be read; the message names it.
        TerraloomError: the sentence encoder is not installed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is not a folder")
    lists = [folder / LIST] if (folder / LIST).exists() else sorted(folder.glob("*.jsonl"))
    shards = sorted(folder.glob("*.tar"))
    if len(lists) > 1:
        names = [path.name for path in lists]
        raise InvalidInput(f"{folder} has {len(lists)} lists, {names}; call the right one {LIST}")
    if not lists and not shards:
        raise InvalidInput(f"{folder} has neither {LIST} nor shards (*.tar)")
    examples = _listed(lists[0]) if lists else read_shards(shards)
    return _pack(examples, lists[0] if lists else folder)


def folder_data(data: dict[str, Any]) -> dict[str, Any]:
    """A recipe's data section for a folder: its own sources of the set "folder", else `FIT`."""
    own = [source for source in data.get("sources", []) if source[0] == SET]
    return {**data, "sources": own or FIT}


def _listed(path: Path) -> Iterator[Example]:
    """The images that a list names."""
    for where, row in rows_of(path):
        with naming(where):
            name = row.get("file_name") or row.get("path")
            if not isinstance(name, str):
                raise InvalidInput("has no file_name")
            file = path.parent / name
            if not file.is_file():
                raise InvalidInput(f"there is no file {file}")
            with naming(str(file)):
                rgb, told = read_georeferenced(file)
            yield example_of(row, rgb, told)


def _pack(examples: Iterable[Example], source: Path) -> TextPack:
    numbers: dict[str, int] = {"": 0}
    rows = []
    for example in examples:
        told = example.metadata
        rows.append(
            Captioned(
                set=SET,
                rgb=example.rgb,
                gsd=told.gsd,
                captions=tuple(numbers.setdefault(c, len(numbers)) for c in example.captions),
                lon=told.lon,
                lat=told.lat,
                cloud_cover=told.cloud_cover,
                date=None if told.date is None else str(told.date),
                label=example.label,
            )
        )
    if not rows:
        raise InvalidInput(f"{source} names no images")
    captions = list(numbers)
    tokens, pooled = (v.numpy().astype(np.float16) for v in SentenceEncoder().encode(captions))
    return TextPack(rows, captions, tokens, pooled)
