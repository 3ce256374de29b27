"""JPEG images without the edges of their 8 x 8 blocks.

Blue Marble comes as JPEG tiles; a network that sees their blocks draws them. Compressing the image again on shifted
block grids, with the tables of its own file, and averaging the results keeps what all grids agree on, and no grid is
left (Nosratinia 2001, "Enhancement of JPEG-compressed images by re-application of JPEG").
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin

BLOCK = 8
# (rows, columns) of 16 grids, spread evenly: every row and every column shift occurs twice
SHIFTS = tuple(((5 * k) % BLOCK, (3 * k + 4 * (k // BLOCK)) % BLOCK) for k in range(16))


def deblocked(jpeg: bytes) -> npt.NDArray[np.uint8]:
    """Decode a JPEG file to RGB uint8 (h, w, 3), its block edges averaged out."""
    with Image.open(io.BytesIO(jpeg)) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        tables, sampling = image.quantization, JpegImagePlugin.get_sampling(image)
        pixels = np.asarray(image.convert("RGB"))
    h, w, _ = pixels.shape
    padded = np.pad(pixels, ((BLOCK, BLOCK), (BLOCK, BLOCK), (0, 0)), "reflect")
    total = np.zeros(pixels.shape, np.uint16)
    for y, x in SHIFTS:
        again = io.BytesIO()
        shifted = Image.fromarray(padded[y : y + h + BLOCK, x : x + w + BLOCK])
        shifted.save(again, "JPEG", qtables=tables, subsampling=sampling)
        seen = np.asarray(Image.open(again).convert("RGB"))
        total += seen[BLOCK - y : BLOCK - y + h, BLOCK - x : BLOCK - x + w]
    return ((total + len(SHIFTS) // 2) // len(SHIFTS)).astype(np.uint8)
