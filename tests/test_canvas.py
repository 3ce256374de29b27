"""Canvases: where pixels lie, that they are area means, and that parts do not matter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.warp import transform

from terraloom.errors import InvalidInput
from terraloom.grid import EDGE, bbox_of, coarsest_gsd, gsd_at, level_size, window_of
from terraloom.world.canvas import Canvas, canvas
from terraloom.world.mercator import MERCATOR, MercatorCanvas, Taps

TOKYO = (139.70, 35.60, 139.85, 35.72)


class Chart:
    """Stands in for the pyramid: red tells longitude, green latitude, blue is noise; all from position alone."""

    def __init__(self, pixel: float = 0.001) -> None:
        """`pixel` in degrees: red and green change by up to 10 levels over it."""
        turns = round(
            10 / 120 / pixel * 360 / (2 * np.pi)
        )  # whole, so that the antimeridian has no edge
        self.rate = turns * 2 * np.pi / 360

    def wave(self, degrees: Any) -> Any:
        return 127.5 + 120 * np.sin(degrees * self.rate)

    def region(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        size = level_size(level)
        columns, rows = (x + np.arange(width)) % size, np.clip(y + np.arange(height), 0, size - 1)
        lon = (columns + 0.5) * 360 / size - 180
        lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * (rows + 0.5) / size))))
        red = np.broadcast_to(self.wave(lon), (height, width))
        green = np.broadcast_to(self.wave(lat)[:, None], (height, width))
        blue = ((columns * 7919 + rows[:, None] * 104729) % 251).astype(float)
        return np.rint(np.stack([red, green, blue])).astype(np.uint8)


def the_canvas(bbox: Any, gsd: float, crs: Any = None, chart: Chart | None = None) -> Canvas:
    return canvas(chart or Chart(), bbox, gsd, crs)  # type: ignore[arg-type]


def whole(grid: Canvas) -> np.ndarray:
    return grid.draw(0, 0, grid.width, grid.height)


def misplaced(grid: Canvas, chart: Chart) -> np.ndarray:
    """How far red and green are from what the georeference says, levels of 255."""
    columns, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    a = grid.transform
    x, y = (a.c + a.a * columns).ravel(), (a.f + a.e * rows).ravel()
    if grid.crs == MERCATOR:  # it runs on past the antimeridian, where PROJ has no place
        lon, lat = x / EDGE * 180, np.degrees(np.arctan(np.sinh(y / EDGE * np.pi)))
    else:
        lon, lat = transform(grid.crs, "EPSG:4326", x, y)
    lon = (np.asarray(lon) + 180) % 360 - 180
    expected = np.stack([chart.wave(lon), chart.wave(np.asarray(lat))]).reshape(
        2, grid.height, grid.width
    )
    return np.abs(whole(grid)[:2] - expected)


@pytest.mark.parametrize("level", [6, 8, 13, 18])
def test_the_gsd_of_a_level_gives_its_pixels(level: int) -> None:
    box = bbox_of(window_of((10, 50, 10.001, 50.001), level).pad(100))
    grid = the_canvas(box, coarsest_gsd(box, level))
    window = window_of(box, level)
    assert isinstance(grid, MercatorCanvas)
    assert (grid.level, grid.ratio) == (level, 1)
    assert (grid.left, grid.top, grid.width, grid.height) == (
        window.x,
        window.y,
        window.width,
        window.height,
    )
    assert grid.transform.almost_equals(window.transform, 1e-6)
    assert np.array_equal(
        whole(grid), Chart().region(level, window.x, window.y, window.width, window.height)
    )


@settings(deadline=None, max_examples=40)
@given(lat=st.floats(-80, 80), lon=st.floats(-179, 178), gsd=st.floats(1, 30000))
def test_no_pixel_is_coarser_than_asked(lat: float, lon: float, gsd: float) -> None:
    box = (lon, lat, lon + 1, lat + 0.5)
    grid = the_canvas(box, gsd)
    assert isinstance(grid, MercatorCanvas)
    nearest = 0.0 if lat <= 0 <= lat + 0.5 else min(abs(lat), abs(lat + 0.5))
    assert grid.transform.a * math.cos(math.radians(nearest)) == pytest.approx(gsd, rel=1e-9)
    assert gsd_at(nearest, grid.level) <= gsd * (1 + 1e-9)
    west, north = grid.transform.c, grid.transform.f
    (x0, x1), (y0, y1) = transform("EPSG:4326", MERCATOR, [lon, lon + 1], [lat, lat + 0.5])
    assert west <= x0 + 1e-3
    assert north >= y1 - 1e-3
    assert west + grid.width * grid.transform.a >= x1 - 1e-3
    assert north - grid.height * grid.transform.a <= y0 + 1e-3


@pytest.mark.parametrize(
    ("bbox", "gsd", "crs"),
    [
        (TOKYO, 25, None),
        (TOKYO, 25, "EPSG:32654"),
        (TOKYO, 25, "EPSG:4326"),
        (TOKYO, 25, "EPSG:6677"),  # a national grid on another datum
        ((4.2, 52.0, 4.3, 52.1), 25, "EPSG:28992"),  # one on an ellipsoid of its own
        ((-77.1, 38.8, -77.0, 38.9), 30, "EPSG:2248"),  # feet
        ((179.9, -17, -179.9, -16.8), 40, None),
        ((179.9, -17, -179.9, -16.8), 40, "EPSG:32760"),
        ((179.9, -17, -179.9, -16.8), 40, "EPSG:4326"),
        ((-52, 68, -50, 69), 200, "EPSG:3413"),
        ((-57, -75, -53, -74), 500, "EPSG:3031"),
        ((10, 84.9, 11, 85.05), 30, None),
    ],
)
def test_colours_lie_where_the_georeference_says(bbox: Any, gsd: float, crs: Any) -> None:
    chart = Chart(gsd / 111320)
    error = misplaced(the_canvas(bbox, gsd, crs, chart), chart)
    # 10 levels are a pixel in latitude; one in longitude is wider by 1 / cos(latitude), and means flatten the waves
    assert np.percentile(error[1], 99.9) < 4
    assert (
        np.percentile(error[0], 99.9)
        < 4 / math.cos(math.radians(max(abs(bbox[1]), abs(bbox[3])))) ** 1.5
    )


@pytest.mark.parametrize("crs", [None, "EPSG:32654", "EPSG:4326"])
def test_parts_do_not_matter(crs: Any) -> None:
    grid = the_canvas(TOKYO, 17.3, crs)
    together = whole(grid)
    assert together[2].std() > 10
    for column, row, width, height in (
        (0, 0, 100, 100),
        (100, 37, 111, 64),
        (grid.width - 5, 7, 5, 90),
    ):
        part = grid.draw(column, row, width, height)
        assert np.array_equal(part, together[:, row : row + height, column : column + width])


@settings(deadline=None, max_examples=100)
@given(start=st.integers(0, 10**8), count=st.integers(1, 50), ratio=st.floats(1, 9))
def test_taps_are_area_means(start: int, count: int, ratio: float) -> None:
    taps = Taps.of(start, count, ratio)
    assert np.allclose(taps.weights.sum(0), 1, atol=1e-5)
    assert taps.indices.min() >= 0
    assert taps.indices.max() < taps.count
    pixels = np.random.default_rng(start).uniform(0, 255, taps.count).astype(np.float32)
    integral = np.concatenate([[0], np.cumsum(pixels, dtype=np.float64)])
    edges = np.clip(np.arange(start, start + count + 1) * ratio - taps.first, 0, taps.count)
    expected = np.diff(np.interp(edges, np.arange(taps.count + 1), integral)) / ratio
    assert np.allclose(taps.average(pixels), expected, rtol=0, atol=0.01)


def test_averaging_keeps_the_mean() -> None:
    grid = the_canvas(TOKYO, 33.3)
    assert isinstance(grid, MercatorCanvas)
    assert 1 < grid.ratio < 2
    x, y = round(grid.left * grid.ratio), round(grid.top * grid.ratio)
    source = Chart().region(
        grid.level, x, y, round(grid.width * grid.ratio), round(grid.height * grid.ratio)
    )
    assert np.abs(whole(grid).mean((1, 2)) - source.mean((1, 2))).max() < 0.5
    assert whole(grid)[2].std() < 0.9 * source[2].std()  # noise is averaged, not picked


@pytest.mark.parametrize(
    ("bbox", "gsd", "crs", "complaint"),
    [
        ((10, 50, 11, 49), 10, None, "south"),
        ((10, 50, 11, 89), 10, None, "85.05"),
        (TOKYO, 0, None, "gsd 0"),
        (TOKYO, -1, "EPSG:32654", "gsd -1"),
        (TOKYO, float("nan"), None, "gsd nan"),
        (TOKYO, 0.01, None, "finest level"),
        (TOKYO, 0.01, "EPSG:32654", "finest level"),
        (TOKYO, 0.5, "EPSG:4326", "finest level"),
        (TOKYO, 10, "EPSG:99999", "not known"),
        (TOKYO, 10, "nonsense", "not known"),
        (TOKYO, 10, "EPSG:4978", "neither projected nor in degrees"),
        ((-180, -60, 180, 84), 50000, "EPSG:3413", "leaves the map"),
        ((10, 50, 11, 51), 10000, "+proj=gnom +lat_0=-60 +lon_0=0", "no place for"),
        ((179, 0, -179, 1), 100, "EPSG:3395", "crosses the edge"),
    ],
)
def test_bad_requests(bbox: Any, gsd: float, crs: Any, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        the_canvas(bbox, gsd, crs)


def test_web_mercator_by_any_name() -> None:
    assert the_canvas(TOKYO, 25, "EPSG:3857") == the_canvas(TOKYO, 25) or isinstance(
        the_canvas(TOKYO, 25, "EPSG:3857"), MercatorCanvas
    )
