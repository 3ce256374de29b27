"""GeoTIFFs for tests, and where the real ones may lie."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine

UTM = {"crs": "EPSG:32618", "transform": Affine(10, 0, 5e5, 0, -10, 4e6)}
DATA = Path(
    os.environ.get("TERRALOOM_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)


def write_tif(
    path: Path,
    pixels: npt.NDArray[Any],
    *,
    names: tuple[str, ...] = (),
    tags: dict[str, str] | None = None,
    mask: npt.NDArray[Any] | None = None,
    scales: tuple[float, ...] = (),
    offsets: tuple[float, ...] = (),
    **profile: Any,
) -> Path:
    """A GeoTIFF of (bands, height, width); in UTM at 10 m unless `profile` says otherwise."""
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "dtype": pixels.dtype, **UTM, **profile}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        with rasterio.open(path, "w", width=width, height=height, count=count, **profile) as file:
            file.write(pixels)
            for number, name in enumerate(names, 1):
                file.set_band_description(number, name)
            file.update_tags(**(tags or {}))
            if scales:
                file.scales, file.offsets = scales, offsets
            if mask is not None:
                file.write_mask(mask)
    return path


def noise(
    height: int, width: int, bands: int = 3, dtype: str = "uint16", top: int = 4000, seed: int = 0
) -> npt.NDArray[Any]:
    """Random pixels from 1 to `top`."""
    rng = np.random.default_rng(seed)
    return rng.integers(1, top, (bands, height, width)).astype(dtype)


def real(name: str, folder: Path) -> Path:
    """A real set unpacked into a folder; the test is skipped where it is not there."""
    tar = DATA / f"{name}.tar"
    if not tar.is_file():
        pytest.skip(f"{tar} is not there; set TERRALOOM_DATA to the folder of the real sets")
    with tarfile.open(tar) as archive:
        archive.extractall(folder, filter="data")
    return folder
