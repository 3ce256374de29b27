"""GDAL, and with it QGIS, opens the planet: WMTS, XYZ, and what the addresses give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.windows import Window
from serving import spawned

from terraloom.world import World

XYZ = """<GDAL_WMS><Service name="TMS"><ServerUrl>{}/tiles/WebMercatorQuad/${{z}}/${{x}}/${{y}}.png?seed=2</ServerUrl>
</Service><DataWindow><UpperLeftX>-20037508.342789244</UpperLeftX><UpperLeftY>20037508.342789244</UpperLeftY>
<LowerRightX>20037508.342789244</LowerRightX><LowerRightY>-20037508.342789244</LowerRightY><TileLevel>18</TileLevel>
<TileCountX>1</TileCountX><TileCountY>1</TileCountY><YOrigin>top</YOrigin></DataWindow><Projection>EPSG:3857</Projection>
<BlockSizeX>256</BlockSizeX><BlockSizeY>256</BlockSizeY><BandsCount>3</BandsCount></GDAL_WMS>"""
SIZE = 256 << 18


@pytest.fixture(scope="module")
def served(
    tiny_checkpoint: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, World]]:
    """A server of its own process: GDAL here would wait for GDAL there."""
    cache = tmp_path_factory.mktemp("blocks")
    options = {"model": tiny_checkpoint, "engine": "torch", "block": 256, "halo": 96}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the server: the torch engine rounds differently with more
    with spawned(tiny_checkpoint, tiny_base, cache) as (_, address):
        yield address, World(2, base=tiny_base, cache=False, **options)
    torch.set_num_threads(threads)


def test_wmts(served: tuple[str, World]) -> None:
    address, world = served
    with rasterio.open(f"WMTS:{address}/WMTSCapabilities.xml?seed=2") as source:
        assert (source.width, source.height, source.crs.to_epsg()) == (SIZE, SIZE, 3857)
        assert np.allclose(
            source.transform[:6],
            (0.5971642834779395, 0, -20037508.342789244)
            + (0, -0.5971642834779395, 20037508.342789244),
        )
    with rasterio.open(f"WMTS:{address}/WMTSCapabilities.xml?seed=2", OVERVIEW_LEVEL=8) as source:
        window = Window(293 * 256, 211 * 256, 256, 256)
        assert np.array_equal(source.read((1, 2, 3), window=window), world.tile(9, 293, 211))


def test_xyz(served: tuple[str, World]) -> None:
    address, world = served
    with rasterio.open(XYZ.format(address), OVERVIEW_LEVEL=8) as source:
        window = Window(293 * 256, 211 * 256, 256, 256)
        assert np.array_equal(source.read(window=window), world.tile(9, 293, 211))


def test_a_crop_by_its_address(served: tuple[str, World]) -> None:
    address, _ = served
    with rasterio.open(f"/vsicurl?use_head=no&url={address}/bbox/30,28,31,29/50x40.tif") as source:
        assert (source.width, source.height) == (50, 40)
        assert np.allclose(source.bounds, (30, 28, 31, 29))
