"""Captioned pictures from files: pixels as 8-bit RGB, words, and what is known of them.

Pillow reads everything but GeoTIFFs, which rasterio reads where it is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from terraloom.errors import InvalidInput
from terraloom.metadata import Metadata

Bytes = npt.NDArray[np.uint8]
GEOTIFF = (".tif", ".tiff")
CHANNELS = (1, 3, 4)  # grey, RGB, RGB and alpha
NAMES = ("lon", "lat", "gsd", "cloud_cover", "date")
STRETCH = (
    2,
    98,
)  # percentiles that become black and white, as DiffusionSat does with SpaceNet's 16 bits


@dataclass(frozen=True)
class Example:
    """A picture, the variants of its caption, and what is known of it."""

    rgb: Bytes  # (h, w, 3)
    captions: list[str]
    metadata: Metadata
    label: str = ""


def example_of(row: Mapping[str, Any], rgb: Bytes, told: Metadata) -> Example:
    """The picture with the words and numbers of a JSON row; `told` holds what the file says where the row says nothing.

    Raises:
        InvalidInput: no caption, or a number or date outside its range.
    """
    text = row.get("text") or row.get("caption")
    captions = [text] if isinstance(text, str) else text
    if (
        not isinstance(captions, list)
        or not captions
        or not all(isinstance(c, str) and c.strip() for c in captions)
    ):
        raise InvalidInput('has no caption; give "text", a string or a list of them')
    said = {name: row[name] for name in NAMES if row.get(name) is not None}
    metadata = Metadata(**{**{name: getattr(told, name) for name in NAMES}, **said})
    return Example(rgb, [c.strip() for c in captions], metadata, str(row.get("label") or ""))


def rgb_of(array: npt.NDArray[Any]) -> Bytes:
    """Make (h, w, 3) uint8 of (h, w), (h, w, c) or (c, h, w) with 1, 3 or 4 channels.

    Other types than uint8 are stretched channel by channel between the 2nd and the 98th percentile of their finite
    values; a fourth channel (alpha) is dropped, a single one repeated.

    Raises:
        InvalidInput: another shape, or values that are no real numbers.
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 3 and array.shape[-1] not in CHANNELS and array.shape[0] in CHANNELS:
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 3 or array.shape[-1] not in CHANNELS or not array.size:
        raise InvalidInput(
            f"an array of shape {array.shape} is no image; wanted (h, w, 3) or (3, h, w)"
        )
    if array.dtype.kind not in "uif":
        raise InvalidInput(f"an array of type {array.dtype} is no image; wanted numbers")
    array = array[..., :3]
    if array.dtype != np.uint8:
        array = _stretched(array.astype(np.float32))
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _stretched(values: npt.NDArray[np.float32]) -> Bytes:
    values = np.where(np.isfinite(values), values, np.nan)
    if np.isnan(values).all((0, 1)).any():
        raise InvalidInput("a channel has no finite value")
    low, high = np.nanpercentile(values, STRETCH, axis=(0, 1))
    unit = (np.nan_to_num(values) - low) / np.maximum(high - low, 1e-6)
    return np.asarray(np.round(255 * np.clip(unit, 0, 1)), np.uint8)


def read_picture(file: Path | IO[bytes]) -> Bytes:
    """Decode what Pillow reads (PNG, JPEG, WebP, plain TIFF, ...).

    Raises:
        InvalidInput: it is missing, damaged, no image, or too large for Pillow's guard.
    """
    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):  # 16 bits and more
                return rgb_of(np.asarray(image))
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"cannot read the image: {error}") from error


def read_georeferenced(path: Path) -> tuple[Bytes, Metadata]:
    """Decode an image file; a GeoTIFF tells its place, gsd and Terraloom's tags too where rasterio is installed.

    Raises:
        InvalidInput: it is missing, damaged or no image.
    """
    if path.suffix.lower() not in GEOTIFF:
        return read_picture(path), Metadata()
    try:
        from terraloom.data.geotiff import read_colours, read_metadata
    except ImportError:  # training machines may lack rasterio; Pillow reads 8-bit TIFFs
        return read_picture(path), Metadata()
    return rgb_of(read_colours(path)), read_metadata(path)
