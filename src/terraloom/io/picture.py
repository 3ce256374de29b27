"""Pictures without a place: PNG and WebP, with their provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from terraloom.errors import InvalidInput
from terraloom.io.staging import staging, writing

SUFFIXES = (".png", ".webp")
WEBP_LIMIT = 16383  # pixels a side, by its format


def write_picture(
    path: str | Path,
    rgb: npt.NDArray[np.uint8],
    tags: Mapping[str, str],
    *,
    overwrite: bool = False,
) -> Path:
    """Write an RGB image without loss, as the ending of its name says.

    Args:
        path: the file to make, .png or .webp; its folder must exist.
        rgb: uint8 (3, height, width).
        tags: keyword (1 to 79 Latin-1 characters) to text; PNG has them as tEXt chunks (iTXt where Latin-1 does not
            suffice), WebP as one JSON object in EXIF's ImageDescription.
        overwrite: replace an existing file.

    Raises:
        InvalidInput: on another shape, dtype or ending, a path that cannot be written, or an existing file.
        TerraloomError: when writing fails, for instance because the disk is full.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[0] != 3 or rgb.size == 0:
        raise InvalidInput(f"a picture needs uint8 (3, height, width), not {rgb.dtype} {rgb.shape}")
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInput(f"cannot write {path}; the name must end in {' or '.join(SUFFIXES)}")
    if suffix == ".webp" and max(rgb.shape) > WEBP_LIMIT:
        raise InvalidInput(f"a WebP has at most {WEBP_LIMIT} pixels a side; write {path} as .png")
    image = Image.fromarray(np.moveaxis(rgb, 0, 2))
    with staging(path, overwrite) as folder, writing(path, folder):
        if suffix == ".png":
            image.save(folder / "done", format="PNG", pnginfo=_text_chunks(tags))
        else:
            image.save(folder / "done", format="WEBP", lossless=True, exif=_exif(tags))
    return Path(path)


def _text_chunks(tags: Mapping[str, str]) -> PngInfo:
    info = PngInfo()
    for key, value in tags.items():
        info.add_text(key, value)
    return info


def _exif(tags: Mapping[str, str]) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = json.dumps(dict(tags))
    return exif
