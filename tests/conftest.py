"""Fixtures for the planet: a tiny random cascade and a tiny base map, so that tests need no shipped files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERRALOOM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random `CascadeUNet` of widths (8, 16, 16), depth 1, one evaluation, in which every input matters."""
    import torch

    from terraloom.models.cascade import CascadeConfig, CascadeUNet
    from terraloom.weights import save_model

    torch.manual_seed(1)
    model = CascadeUNet(CascadeConfig(widths=(8, 16, 16), depth=1, embed=16, sigmas=(1.0,)))
    with torch.no_grad():
        for p in model.parameters():  # layers that start at zero would hide inputs from the output
            p.add_(0.1 * torch.randn_like(p))
    return save_model(
        model, tmp_path_factory.mktemp("weights") / "tiny", card="# A random network"
    ).path


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base map of the whole planet, 1 degree cells with random colours, EPSG:4326."""
    path = tmp_path_factory.mktemp("base") / "base.tif"
    rgb = np.random.default_rng(0).integers(0, 256, (3, 180, 360), np.uint8)
    grid = from_origin(-180, 90, 1, 1)
    with rasterio.open(
        path, "w", width=360, height=180, count=3, dtype="uint8", crs="EPSG:4326", transform=grid
    ) as file:
        file.write(rgb)
    return path
