"""What this installation has: for `terraloom info` and bug reports."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rasterio import __gdal_version__

from terraloom import weights
from terraloom.data.ground import ASSETS
from terraloom.world.cache import DISK_BYTES, cache_folder

PACKAGES = (
    "terraloom",
    "torch",
    "openvino",
    "diffusers",
    "transformers",
    "numpy",
    "rasterio",
    "morecantile",
    "pillow",
)
MAPS = ("basemap.tif", "landcover.tif", "ground.tif")


def installation() -> dict[str, Any]:
    """Versions, cores, device, engines, weights, maps and cache, ready for JSON; sizes in MB (10**6 bytes)."""
    cuda = torch.cuda.is_available()
    openvino = find_spec("openvino") is not None
    folder = cache_folder(None)
    return {
        "versions": {
            **{name: _version(name) for name in PACKAGES},
            "gdal": __gdal_version__,
            "python": platform.python_version(),
        },
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "engines": ["cuda"] * cuda + ["openvino"] * openvino + ["torch"],
        "weights": {c.name: f"{c.kind}, {c.digest}" for c in weights.available()},
        "maps_mb": {name: _megabytes([ASSETS / name]) for name in MAPS},
        "cache": {
            "folder": str(folder),
            "mb": _megabytes(folder.rglob("*.block")) if folder else 0,
            "limit_mb": DISK_BYTES // 10**6,
        },
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _megabytes(files: Iterable[Path]) -> float:
    return round(sum(path.stat().st_size for path in files if path.is_file()) / 1e6, 1)
