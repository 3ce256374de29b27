"""JPEG images without the edges of their 8 x 8 blocks.

Blue Marble comes as JPEG tiles; a network that sees their blocks draws them. Compressing the image again on shifted
block grids, with the tables of its own file, and averaging the results keeps what all grids agree on, and no grid is
left (Nosratinia 2001, "Enhancement of JPEG-compressed images by re-application of JPEG").
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin

BLOCK = 8
# (rows, columns) of 16 grids, spread evenly: every row and every column shift occurs twice
SHIFTS = tuple(((5 * k) % BLOCK, (3 * k + 4 * (k // BLOCK)) % BLOCK) for k in range(16))
# JPEG quality of sets (or their parts) that were JPEG before they became WebP: the mildest that brings the step between
# two columns or rows of pixels to at most 1.2 of the median one (before: 1.2 to 1.6 every eighth)
BEFORE = {
    "planet3m/planet_ship": 70,
    "planet3m/planet_plane": 88,
    "landsat/congo/2013-07-28": 88,
    "eurosat": 88,  # and its mosaics
    "naip": 88,
    "world_scenes/s2": 88,
}


def deblocked(jpeg: bytes) -> npt.NDArray[np.uint8]:
    """Decode a JPEG file to RGB uint8 (h, w, 3), its block edges averaged out."""
    with Image.open(io.BytesIO(jpeg)) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        tables, sampling = image.quantization, JpegImagePlugin.get_sampling(image)
        pixels = np.asarray(image.convert("RGB"))
    return _averaged(pixels, qtables=tables, subsampling=sampling)


def cleaned(rgb: npt.NDArray[np.uint8], name: str) -> npt.NDArray[np.uint8]:
    """RGB uint8 (h, w, 3) of a set (or `set/part`) without the edges of its former JPEG blocks; unknown sets pass."""
    quality = next((q for start, q in BEFORE.items() if f"{name}_".startswith(f"{start}_")), None)
    return rgb if quality is None else _averaged(rgb, quality=quality, subsampling=0)


def _averaged(pixels: npt.NDArray[np.uint8], **saving: Any) -> npt.NDArray[np.uint8]:
    """The mean of the image compressed on all shifted grids."""
    h, w, _ = pixels.shape
    padded = np.pad(pixels, ((BLOCK, BLOCK), (BLOCK, BLOCK), (0, 0)), "reflect")
    total = np.zeros(pixels.shape, np.uint16)
    for y, x in SHIFTS:
        again = io.BytesIO()
        shifted = Image.fromarray(padded[y : y + h + BLOCK, x : x + w + BLOCK])
        shifted.save(again, "JPEG", **saving)
        seen = np.asarray(Image.open(again).convert("RGB"))
        total += seen[BLOCK - y : BLOCK - y + h, BLOCK - x : BLOCK - x + w]
    return ((total + len(SHIFTS) // 2) // len(SHIFTS)).astype(np.uint8)
