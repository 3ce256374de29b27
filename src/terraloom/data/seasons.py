"""Seasons for Blue Marble: the supplied tiles know August alone, NASA publishes all twelve months of 2004.

The months come as plate carree images of about 7.4 km (`world.200401.3x5400x2700.jpg` and so on, NASA Earth
Observatory, Blue Marble Next Generation). What a month differs from August, enlarged, is added to a finer August tile:
snow lies where and when it lay, greens fade when they faded, and detail stays that of August.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from terraloom.errors import InvalidInput

Bytes = npt.NDArray[np.uint8]
Differences = npt.NDArray[np.int16]
YEAR, BASE = 2004, 8  # of the tiles
MONTHS = range(1, 13)


def month_files(folder: Path) -> dict[int, Path]:
    """Month -> its image.

    Raises:
        InvalidInput: a month has no image, or more than one.
    """
    found: dict[int, Path] = {}
    for month in MONTHS:
        files = sorted(
            p
            for p in Path(folder).glob(f"*{YEAR}{month:02d}*")
            if p.suffix.lower() in (".jpg", ".png")
        )
        if len(files) != 1:
            raise InvalidInput(
                f"{folder} holds {len(files)} images of {YEAR}-{month:02d}, must be one: "
                f"world.{YEAR}{month:02d}.3x5400x2700.jpg of Blue Marble Next Generation"
            )
        found[month] = files[0]
    return found


def read_month(path: Path) -> Bytes:
    """(h, 2 h, 3), north up, from 180 west.

    Raises:
        InvalidInput: it cannot be read, or is not twice as wide as high.
    """
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # 21,600 px and wider is usual
    try:
        image = np.asarray(Image.open(path).convert("RGB"))
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error}") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    if image.shape[1] != 2 * image.shape[0]:
        raise InvalidInput(f"{path} is {image.shape[1]} x {image.shape[0]} px, must be 2 to 1")
    return image


def difference(month: Bytes, base: Bytes) -> Differences:
    """What a month has more than the base, (h, 2 h, 3)."""
    return month.astype(np.int16) - base


def in_month(tile: Bytes, z: int, x: int, y: int, more: Differences) -> Bytes:
    """An August tile of the Web Mercator pyramid, (n, n, 3), as it is in a month."""
    side, (height, width) = tile.shape[0], more.shape[:2]
    step = (np.arange(side) + 0.5) / side
    lon = 360 * (x + step) / 2**z - 180
    lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * (y + step) / 2**z))))
    top, down = _below((90 - lat) * height / 180 - 0.5)
    left, right = _below((lon + 180) * width / 360 - 0.5)
    down, right = down[:, None, None], right[:, None]

    def at(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        band = more[rows.clip(0, height - 1)].astype(np.float32)
        mixed = band[:, left % width] * (1 - right) + band[:, (left + 1) % width] * right
        return np.asarray(mixed, np.float32)

    return np.asarray(
        np.round(tile + at(top) * (1 - down) + at(top + 1) * down).clip(0, 255), np.uint8
    )


def _below(
    position: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Whole part and fraction."""
    whole = np.floor(position)
    return whole.astype(np.int64), (position - whole).astype(np.float32)
