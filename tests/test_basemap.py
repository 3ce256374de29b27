"""The base map: a user's GeoTIFF in any CRS over the shipped one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds

from terraloom.errors import InvalidInput
from terraloom.grid import Window, bbox_of, window_of
from terraloom.world.basemap import BaseMap

RED = np.array([200, 10, 20], np.uint8)


def write(path: Path, crs: Any, bounds: tuple[float, float, float, float], **profile: Any) -> Path:
    """A raster of one colour, 64 x 64."""
    count, dtype = profile.pop("count", 3), profile.pop("dtype", "uint8")
    west, south, east, north = bounds
    grid = from_origin(west, north, (east - west) / 64, (north - south) / 64)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=64,
        height=64,
        count=count,
        dtype=dtype,
        crs=crs,
        transform=grid,
        **profile,
    ) as file:
        for band in range(count):
            file.write(np.full((64, 64), RED[band % 3] if band < 3 else 255, dtype), band + 1)
    return path


def test_the_shipped_map_covers_the_planet() -> None:
    base = BaseMap()
    corner = base.read(16384 - 8, 0, 16, 16)
    assert corner.shape == (3, 16, 16)
    assert corner.dtype == np.uint8
    assert np.array_equal(
        corner, np.concatenate([base.read(16376, 0, 8, 16), base.read(0, 0, 8, 16)], 2)
    )
    assert np.array_equal(base.read(-5, 100, 10, 4), base.read(16384 - 5, 100, 10, 4))
    assert len(base.digest) == 16
    nile = window_of((31.0, 30.0, 31.5, 30.5), 6)
    sea = window_of((-30.0, 30.0, -29.5, 30.5), 6)
    green, blue = (
        base.read(nile.x, nile.y, nile.width, nile.height),
        base.read(sea.x, sea.y, sea.width, sea.height),
    )
    assert green.mean() > blue.mean() + 30
    assert blue[2].mean() > blue[0].mean()


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:32636", "EPSG:3035"])
def test_a_map_in_any_crs_lies_where_it_should(tmp_path: Path, crs: str) -> None:
    bounds = transform_bounds("EPSG:4326", crs, 29, 29, 32, 32)
    base = BaseMap(write(tmp_path / "user.tif", crs, bounds))
    inside, outside = window_of((30, 30, 31, 31), 6), window_of((36, 30, 37, 31), 6)
    assert (base.read(inside.x, inside.y, inside.width, inside.height) == RED[:, None, None]).all()
    beyond = (outside.x, outside.y, outside.width, outside.height)
    assert np.array_equal(base.read(*beyond), BaseMap().read(*beyond))
    across = base.read(inside.x - 150, inside.y, 400, 8)  # both in one read
    red = (across == RED[:, None, None]).all((0, 1))
    west, _, east, _ = bbox_of(
        Window(6, inside.x - 150 + int(red.argmax()), inside.y, int(red.sum()), 1)
    )
    assert abs(west - 29) < 0.7  # bounds in another CRS reach a little further
    assert abs(east - 32) < 0.7
    assert base.digest != BaseMap().digest


def test_holes_show_the_shipped_map(tmp_path: Path) -> None:
    path = write(tmp_path / "user.tif", "EPSG:4326", (20, 0, 30, 10), nodata=0)
    with rasterio.open(path, "r+") as file:
        pixels = file.read()
        pixels[:, :, 32:] = 0
        file.write(pixels)
    base = BaseMap(path)
    there, hole = window_of((21, 4, 24, 6), 6), window_of((26, 4, 29, 6), 6)
    assert (base.read(there.x, there.y, there.width, there.height) == RED[:, None, None]).all()
    at = (hole.x, hole.y, hole.width, hole.height)
    assert np.array_equal(base.read(*at), BaseMap().read(*at))


@pytest.mark.parametrize(("count", "expected"), [(1, [200, 200, 200]), (3, RED), (4, RED)])
def test_grey_rgb_and_rgba(tmp_path: Path, count: int, expected: Any) -> None:
    extra = {"photometric": "rgb", "alpha": "yes"} if count == 4 else {}
    base = BaseMap(write(tmp_path / "user.tif", "EPSG:4326", (20, 0, 30, 10), count=count, **extra))
    window = window_of((24, 4, 26, 6), 6)
    pixels = base.read(window.x, window.y, window.width, window.height)
    assert (pixels == np.array(expected)[:, None, None]).all()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_cannot_be_a_base_map(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot read the base map"):
        BaseMap(tmp_path / "nothing.tif")
    (tmp_path / "text.tif").write_text("not a raster")
    with pytest.raises(InvalidInput, match="cannot read the base map"):
        BaseMap(tmp_path / "text.tif")
    with pytest.raises(InvalidInput, match="has no CRS"):
        BaseMap(write(tmp_path / "a.tif", None, (0, 0, 10, 10)))
    with pytest.raises(InvalidInput, match="is uint16; it must be uint8"):
        BaseMap(write(tmp_path / "b.tif", "EPSG:4326", (0, 0, 10, 10), dtype="uint16"))
