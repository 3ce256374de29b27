"""WorldReader: rio-tiler's calls on a world, and pixels that lie where they should."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rio_tiler.constants import WEB_MERCATOR_TMS
from rio_tiler.errors import (
    InvalidBandName,
    InvalidBounds,
    InvalidBufferSize,
    InvalidExpression,
    MaxArraySizeError,
    PointOutsideBounds,
    TileOutsideBounds,
)
from rio_tiler.io import Reader
from rio_tiler.models import ImageData

from terraloom.grid import level_size, window_of
from terraloom.serve.grids import Grid, draw
from terraloom.serve.reader import WorldReader
from terraloom.serve.work import Abandoned, Ticket, current
from terraloom.world import World

NILE = (30.5, 28.6, 31.0, 29.0)


@pytest.fixture(scope="module")
def world(tiny_checkpoint: Path) -> World:
    """The tiny network on the shipped base map, whose coasts show whether pixels lie right."""
    return World(7, model=tiny_checkpoint, engine="torch", block=512, halo=96)


@pytest.fixture
def reader(world: World) -> Iterator[WorldReader]:
    with WorldReader(world) as reader:
        yield reader


# ------------------------------------------------------------------ the calls of rio-tiler's documentation


def test_info(reader: WorldReader, world: World) -> None:
    info = reader.info().model_dump()
    assert info["bounds"] == reader.bounds and info["dtype"] == "uint8"
    assert [name for _, name in info["band_descriptions"]] == ["red", "green", "blue"]
    assert (info["synthetic"], info["world_id"], info["seed"]) == (True, world.id, 7)
    assert (reader.minzoom, reader.maxzoom) == (0, 18)


def test_tile_is_the_worlds_tile(reader: WorldReader, world: World) -> None:
    image = reader.tile(293, 211, 9)
    assert isinstance(image, ImageData) and image.crs == CRS.from_epsg(3857)
    assert np.array_equal(image.data, world.tile(9, 293, 211))
    assert tuple(image.bounds) == tuple(WEB_MERCATOR_TMS.xy_bounds(293, 211, 9))
    assert image.band_descriptions == ["red", "green", "blue"]
    assert image.render(img_format="PNG")[:4] == b"\x89PNG"


def test_tiles_of_other_sizes(reader: WorldReader, world: World) -> None:
    large = reader.tile(36, 26, 6, tilesize=512)
    assert np.array_equal(large.data, world.level(7, 36 * 512, 26 * 512, 512, 512))
    padded = reader.tile(9, 6, 4, buffer=2)
    assert np.array_equal(padded.data, world.level(4, 9 * 256 - 2, 6 * 256 - 2, 260, 260))
    with pytest.raises(InvalidBounds, match="300"):
        reader.tile(0, 0, 0, tilesize=300)
    with pytest.raises(InvalidBufferSize):
        reader.tile(0, 0, 0, buffer=0.3)


@pytest.mark.parametrize("tile", [(0, 0, 19), (-1, 0, 3), (8, 0, 3), (0, 8, 3), (0, 0, -1)])
def test_tiles_that_do_not_exist(reader: WorldReader, tile: tuple[int, int, int]) -> None:
    with pytest.raises(TileOutsideBounds):
        reader.tile(*tile)


def test_bands_and_expressions(reader: WorldReader) -> None:
    image = reader.tile(9, 6, 4)
    one = reader.tile(9, 6, 4, indexes=2)
    assert one.band_names == ["b2"] and np.array_equal(one.data[0], image.data[1])
    assert reader.tile(9, 6, 4, indexes=(3, 1)).count == 2
    ratio = reader.tile(9, 6, 4, expression="b1/(b2+1)")
    assert np.allclose(ratio.data[0], image.data[0] / (image.data[1].astype(float) + 1), rtol=1e-5)
    with pytest.raises(InvalidBandName, match="4"):
        reader.tile(9, 6, 4, indexes=4)
    with pytest.raises(InvalidExpression):
        reader.tile(9, 6, 4, expression="__import__('os')")


def test_part(reader: WorldReader) -> None:
    image = reader.part(NILE, max_size=100)
    assert (image.width, image.height) == (100, 80) and image.crs == CRS.from_epsg(4326)
    assert tuple(image.bounds) == NILE
    assert reader.part(NILE, width=50).height == 40
    assert reader.part(NILE, width=30, height=70).data.shape == (3, 70, 30)
    utm = reader.part(NILE, dst_crs=CRS.from_epsg(32636), max_size=64)
    assert utm.crs == CRS.from_epsg(32636) and max(utm.width, utm.height) == 64
    metres = transform_bounds("EPSG:4326", "EPSG:32636", *NILE)
    same = reader.part(metres, bounds_crs=CRS.from_epsg(32636), max_size=64)
    assert same.data.shape[1:] == (64, 64) or max(same.width, same.height) == 64


def test_preview_statistics_and_point(reader: WorldReader, world: World) -> None:
    image = reader.preview()
    assert np.array_equal(image.data, world.level(2, 0, 0, 1024, 1024))  # makes levels 6 to 2
    degrees = reader.preview(dst_crs=CRS.from_epsg(4326), max_size=200)
    assert degrees.width == 200 and np.allclose(degrees.bounds, (-180, -85.0511, 180, 85.0511))
    assert reader.statistics(max_size=64)["b1"].max <= 255
    point = reader.point(30.83, 28.72)
    window = window_of((30.83, 28.72, 30.8300001, 28.7200001), 18)
    assert np.array_equal(point.data, world.level(18, window.x, window.y, 1, 1)[:, 0, 0])
    assert reader.point(30.83, 28.72, indexes=3).data[0] == point.data[2]
    for lon, lat in ((0, 86), (181, 0), (float("nan"), 0)):
        with pytest.raises(PointOutsideBounds):
            reader.point(lon, lat)


def test_feature(reader: WorldReader) -> None:
    triangle = {"type": "Polygon", "coordinates": [[[30, 28], [31, 28], [30.5, 29], [30, 28]]]}
    image = reader.feature({"type": "Feature", "properties": {}, "geometry": triangle}, max_size=60)
    assert 0.45 < image.array.mask[0].mean() < 0.55
    assert image.array.mask[:, 0, 0].all() and not image.array.mask[:, 55, 30].any()
    assert image.statistics()["b1"].valid_percent < 60
    with pytest.raises(InvalidBounds):
        reader.feature({"type": "Polygon", "coordinates": []})


@pytest.mark.parametrize(
    "bbox",
    [(0, 0, 0, 1), (0, 5, 1, 4), (0, 0, float("nan"), 1), (0, 80, 1, 89), (0, 0, 1), "abcd"],
)
def test_boxes_that_are_none(reader: WorldReader, bbox: tuple[float, ...]) -> None:
    with pytest.raises(InvalidBounds):
        reader.part(bbox, max_size=16)


def test_large_images_are_refused_before_anything_is_drawn(reader: WorldReader) -> None:
    for size in ({"width": 5000, "height": 5000}, {"max_size": 99_999}, {"width": 10**9}):
        with pytest.raises(MaxArraySizeError):
            reader.part(NILE, **size)
    with pytest.raises(InvalidBounds, match="-4"):
        reader.part(NILE, width=-4)
    with pytest.raises(MaxArraySizeError):
        reader.part((30, 28, 30.001, 29), width=16000)  # 1000 times as high as wide


# ------------------------------------------------------------------ pixels lie where they should


def test_both_sides_of_the_antimeridian(reader: WorldReader) -> None:
    across = reader.part((170, -20, -170, 0), width=120, height=120).data.astype(int)
    west = reader.part((170, -20, 180, 0), width=60, height=120).data
    east = reader.part((-180, -20, -170, 0), width=60, height=120).data
    assert np.abs(across - np.concatenate([west, east], 2)).max() <= 1
    mercator = reader.part((170, -20, -170, 0), dst_crs=CRS.from_epsg(3857), max_size=100)
    assert mercator.width == 100 or mercator.height == 100
    assert mercator.bounds[2] > 20037508


@pytest.mark.parametrize("epsg", [4326, 32636, 3035])
def test_as_gdal_warps_an_exported_file(
    reader: WorldReader, world: World, tmp_path: Path, epsg: int
) -> None:
    """Coast of the Nile delta: what the reader gives is what GDAL makes of a COG of the same place."""
    bbox = (29.5, 30.5, 31.5, 31.8)
    file = world.export((28, 29.5, 33, 33), 611.5, tmp_path / "delta.tif")
    with Reader(str(file)) as cog:
        expected = cog.part(
            bbox,
            dst_crs=CRS.from_epsg(epsg),
            max_size=150,
            resampling_method="bilinear",
            reproject_method="bilinear",
        )
    image = reader.part(bbox, dst_crs=CRS.from_epsg(epsg), max_size=150)
    assert np.allclose(image.bounds, expected.bounds, rtol=2e-3)
    assert image.data.shape == expected.data.shape or epsg != 4326
    with (
        rasterio.open(file) as source,
        WarpedVRT(
            source,
            crs=image.crs,
            transform=image.transform,
            width=image.width,
            height=image.height,
            resampling=rasterio.enums.Resampling.bilinear,
        ) as vrt,
    ):
        reference = vrt.read()
    found, inner = image.data.astype(int), (slice(None), slice(2, -2), slice(2, -2))
    apart = {
        (dy, dx): np.abs(np.roll(found, (dy, dx), (1, 2)) - reference)[inner].mean()
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    }
    assert min(apart, key=lambda shift: apart[shift]) == (0, 0), apart
    assert apart[0, 0] < 0.6 * min(value for shift, value in apart.items() if shift != (0, 0))


def test_any_grid_is_drawn_at_its_own_resolution(world: World) -> None:
    """A grid half a pixel off the lattice is close to the mean of its neighbours, not another level's."""
    cell = 2 * 20037508.342789244 / level_size(6)
    left, top = -20037508.342789244 + 9000.5 * cell, 20037508.342789244 - 6000 * cell
    grid = Grid((left, top - 64 * cell, left + 64 * cell, top), CRS.from_epsg(3857), 64, 64)
    pixels = world.level(6, 9000, 6000, 65, 64).astype(float)
    expected = (pixels[:, :, :-1] + pixels[:, :, 1:]) / 2
    assert np.abs(draw(world, grid) - expected).max() <= 1


def test_what_nobody_waits_for_is_not_drawn_to_its_end(reader: WorldReader) -> None:
    ticket = Ticket()
    ticket.wanted = False
    token = current.set(ticket)
    try:
        with pytest.raises(Abandoned):
            reader.part(NILE, max_size=64)
    finally:
        current.reset(token)
