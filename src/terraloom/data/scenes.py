"""Imagery of your own in the packs: a folder of scenes with a list, cut into tiles.

The list is `scenes.jsonl`, one JSON object a line:

    {"path": "leiden.png", "place": "leiden", "gsd": 10, "bbox": [4.3, 52.1, 4.5, 52.2], "date": "2020-05-07",
     "caption": "fields and greenhouses", "label": "cropland", "white": [235, 240, 255], "gamma": [0.9, 0.9, 1.0]}

`path`, `place` and `gsd` (metres per pixel) must be there. Images of one `place` stay on one side of the split.
`bbox` (degrees; rows and columns are taken to run evenly through it) brings the land cover and the maps of the place,
else `label` names the land cover (terraloom.data.pack.IGBP). `use` names a land use or site (terraloom.data.uses),
which also says the land cover: of an image of a few hundred metres the maps' classes of 5 km are often wrong. `black`,
`white` and `gamma` are the curve that brings the scene to the palette of the other sets (terraloom.data.palette).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from terraloom.data.lists import Row, naming, rows_of
from terraloom.data.palette import Curve
from terraloom.data.uses import CODES
from terraloom.errors import InvalidInput

Bytes = npt.NDArray[np.uint8]
LIST = "scenes.jsonl"
SET = "scenes"
SIDE = 512  # pixels of a tile, the last ones of a scene reach back: wide enough to be reduced by 4
LEAST = 64  # pixels


def read_scenes(folder: Path) -> Iterator[tuple[Row, Bytes]]:
    """Rows with their tone-curved tiles, (h, w, 3) uint8 of at most 512 a side; their bbox is the tile's own.

    Raises:
        InvalidInput: the list or an image is missing or damaged, or a row lacks what it must have.
    """
    path = Path(folder) / LIST
    for where, row in rows_of(path):
        with naming(where):
            tone = _checked(row)
            yield from _tiles(row, tone(_read(path.parent / row["path"])))


def _checked(row: Row) -> Curve:
    """The tone curve of a row of the list that holds what it must."""
    if not all(isinstance(row.get(k), str) for k in ("path", "place")):
        raise InvalidInput('needs "path" and "place", both strings')
    gsd = row.get("gsd")
    if not isinstance(gsd, int | float) or not gsd > 0:
        raise InvalidInput(f"gsd is {gsd!r}, must be metres per pixel, more than 0")
    box = row.get("bbox")
    if box is not None and not (_numbers(box, 4) and box[0] < box[2] and box[1] < box[3]):
        raise InvalidInput(f"bbox is {box!r}, must be west, south, east, north in degrees")
    if row.get("use", "Forest") not in CODES:
        raise InvalidInput(f"use is {row['use']!r}, must be one of {', '.join(CODES)}")
    tone = {name: row[name] for name in ("black", "white", "gamma") if name in row}
    for name, value in tone.items():
        if not _numbers(value, 3):
            raise InvalidInput(f"{name} is {value!r}, must be three numbers")
    return Curve(**{name: tuple(value) for name, value in tone.items()})


def _numbers(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(v, int | float) for v in value)
    )


def _read(path: Path) -> Bytes:
    try:
        rgb = np.asarray(Image.open(path).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"cannot read the image: {error}") from error
    if min(rgb.shape[:2]) < LEAST:
        raise InvalidInput(
            f"{path} has {rgb.shape[1]} x {rgb.shape[0]} pixels, must have {LEAST} a side"
        )
    return rgb


def _tiles(row: Row, rgb: Bytes) -> Iterator[tuple[Row, Bytes]]:
    height, width = rgb.shape[:2]
    for top, bottom in _spans(height):
        for left, right in _spans(width):
            tile = dict(row)
            if box := row.get("bbox"):
                west, south, east, north = box
                x0, x1 = (west + k / width * (east - west) for k in (left, right))
                y0, y1 = (north - k / height * (north - south) for k in (bottom, top))
                tile |= {"bbox": [x0, y0, x1, y1], "lon": (x0 + x1) / 2, "lat": (y0 + y1) / 2}
            yield tile, rgb[top:bottom, left:right]


def _spans(side: int) -> list[tuple[int, int]]:
    """(first, end) of the tiles along a side."""
    whole = side // 16 * 16
    if whole <= SIDE:
        return [(0, whole)]
    starts = [*range(0, whole - SIDE, SIDE), whole - SIDE]
    return [(start, start + SIDE) for start in starts]
