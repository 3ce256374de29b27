"""Fixtures for the planet: a tiny random cascade and a tiny base map, so that tests need no shipped files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")  # compiling takes longer than any test trains


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERRALOOM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random `CascadeUNet` of widths (8, 16, 16), depth 1, one evaluation, in which every input matters."""
    from cascade_model import tiny

    from terraloom.weights import save_model

    folder = tmp_path_factory.mktemp("weights") / "tiny"
    return save_model(tiny(1), folder, card="# A random network").path


@pytest.fixture(scope="session")
def leaping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny cascade that leaps, is asked twice and told lines, and a smaller one for its coarse levels."""
    from cascade_model import tiny

    from terraloom.data.uses import WITH_SITES
    from terraloom.weights import COARSE, save_model

    folder = tmp_path_factory.mktemp("weights") / "leaping"
    root = tiny(3, sigmas=(1.0, 0.5), leap=True, cover_classes=WITH_SITES, lines=True)
    save_model(root, folder)
    save_model(tiny(4, sigmas=(1.0, 0.5), leap=True), folder / COARSE)
    return folder


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


@pytest.fixture(scope="module")
def make(tiny_base: Path) -> Any:
    """Makes worlds of a checkpoint on the tiny base map, with the halo that makes blocks exact; blocks of 256 px."""
    import torch

    from terraloom.data.ground import Ground
    from terraloom.weights import find
    from terraloom.world import World
    from terraloom.world import engine as engines

    ground, threads = Ground.open(), torch.get_num_threads()
    torch.set_num_threads(1)

    def new(model: Path, **options: Any) -> World:
        halo = engines.geometry(find(model)).exact
        given = {"base": tiny_base, "cache": False, "engine": "torch", "block": 256, "halo": halo}
        return World(7, model=model, **{**given, **options})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ground, "open", lambda cover=None: ground)
        yield new
    torch.set_num_threads(threads)
