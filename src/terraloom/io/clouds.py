"""Clouds and their shadows as a network finds them: ukis-csmask (Wieland et al. 2019), the extra `clouds`.

It wants reflectance at about 30 m. Files seldom say how their numbers become reflectance, so what their names tell of
satellite and product stands in for tags that are missing.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

import numpy as np
from affine import Affine

from terraloom.errors import InvalidInput, TerraloomError
from terraloom.io.bands import SENTINEL2, satellite
from terraloom.io.raster import Raster
from terraloom.io.source import Grid, Known, Window

GSD = 30.0  # metres per pixel that the network was trained at
NEEDED = ("blue", "green", "red", "nir")
BETTER = ("swir16", "swir22")
TILE = 256  # pixels a side that the network needs at least; its tiles overlap by a fifth
BLOCK, MARGIN = 768, 64  # pixels at GSD


class Clouds:
    """A mask at about 30 m, read on the grid of the scene."""

    def __init__(self, mask: Known, step: int) -> None:
        self._mask, self._step = mask, step

    def read(self, window: Window) -> Known:
        """(height, width), True under clouds and shadows and four coarse pixels around; False beyond the scene."""
        x, y, width, height = window
        rows = np.arange(y, y + height) // self._step
        columns = np.arange(x, x + width) // self._step
        high, wide = self._mask.shape
        inside = ((rows >= 0) & (rows < high))[:, None] & (columns >= 0) & (columns < wide)
        found = self._mask[rows.clip(0, high - 1)][:, columns.clip(0, wide - 1)]
        return np.asarray(found & inside, bool)


def clouds(raster: Raster) -> Clouds:
    """Find the clouds of a whole scene.

    Raises:
        InvalidInput: bands that the network needs are missing, or numbers that are no reflectance (8-bit pictures).
        TerraloomError: the extra `clouds` is not installed.
    """
    if find_spec("ukis_csmask") is None or find_spec("onnxruntime") is None:
        raise TerraloomError("--mask auto needs more packages: pip install 'terraloom[clouds]'")
    bands = raster.require(*NEEDED) + tuple(band for band in BETTER if band in raster.bands)
    if len(bands) < len(NEEDED) + len(BETTER):
        bands = NEEDED  # its other network has these four
    scales = [_reflectance(raster, band) for band in bands]
    gsd = raster.metadata.gsd or GSD
    step = max(1, round(GSD / gsd))
    size = (-(-raster.width // step), -(-raster.height // step))
    coarse = raster.regridded(Grid(raster.crs, raster.transform * Affine.scale(step), *size))
    mask = np.zeros((size[1], size[0]), bool)
    for y in range(0, size[1], BLOCK):
        for x in range(0, size[0], BLOCK):
            left, top = max(x - MARGIN, 0), max(y - MARGIN, 0)
            right, bottom = (min(v + BLOCK + MARGIN, n) for v, n in zip((x, y), size, strict=True))
            part = (left, top, right - left, bottom - top)
            found = _cloudy(coarse, part, bands, scales, _level(raster))[y - top :, x - left :]
            mask[y : y + BLOCK, x : x + BLOCK] = found[:BLOCK, :BLOCK]
    return Clouds(mask, step)


def _cloudy(
    raster: Raster,
    window: Window,
    bands: tuple[str, ...],
    scales: list[tuple[float, float]],
    level: str,
) -> Known:
    """One block: True under clouds and shadows; unknown pixels are neither."""
    from ukis_csmask.mask import CSmask

    values, known = raster.read(window, bands)
    whole = np.asarray(known.all(0), bool)
    if not whole.any():
        return np.zeros(whole.shape, bool)
    gain, offset = np.array(scales, np.float32).T[:, :, None, None]
    image = np.where(whole, values * gain + offset, 0)
    lack = [max(TILE - side, 0) for side in whole.shape]
    image = np.pad(image, [(0, 0), (0, lack[0]), (0, lack[1])], mode="symmetric")
    result: Any = CSmask(
        np.ascontiguousarray(np.moveaxis(image, 0, 2), np.float32),
        band_order=list(bands),
        product_level=level,
        providers=["CPUExecutionProvider"],
    )
    fine = np.asarray(result.valid)[: whole.shape[0], : whole.shape[1], 0] != 0
    return np.asarray(~fine & whole, bool)


def _reflectance(raster: Raster, band: str) -> tuple[float, float]:
    """Scale and offset from stored values to reflectance."""
    told = raster.scaling(band)
    if told != (1.0, 0.0):
        return told
    source = raster.source(band)
    if source.dtype == np.uint8:
        raise InvalidInput(
            f"band {band} of {source.path} has 8 bits; --mask auto needs reflectance, so give the mask as a file"
        )
    if source.dtype.kind == "f" and np.percentile(raster.sample(band), 99) < 2:
        return 1.0, 0.0
    names = [path.stem for path in raster.paths]
    if satellite(names, raster.metadata.gsd) is SENTINEL2 or "HLS" in names[0].upper():
        shifted = re.search(r"_N0[4-9]\d\d_", " ".join(map(str, raster.paths)))
        return 1e-4, -0.1 if shifted else 0.0  # since processing baseline 04.00
    return (2.75e-5, -0.2) if _level(raster) == "l2a" else (2e-5, -0.1)  # Landsat, Collection 2; 1


def _level(raster: Raster) -> str:
    """Whether names tell of surface reflectance (l2a), else that at the top of the atmosphere (l1c)."""
    words = " ".join(str(path).upper() for path in raster.paths)
    surface = re.search(r"MSIL2A|_L2A|_SR_B|L2SP|HLS", words) or "scl" in raster.labels
    return "l2a" if surface else "l1c"
