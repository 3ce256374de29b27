"""The pyramid: agreement with morecantile and pyproj, the antimeridian, the poles, and the laws of windows."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import morecantile
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rasterio.warp import transform as reproject

from terraloom.errors import InvalidInput
from terraloom.grid import (
    EQUATOR_GSD,
    FINEST_LEVEL,
    MAX_LATITUDE,
    SNAP,
    TILE,
    BBox,
    Window,
    bbox_of,
    check_bbox,
    coarsest_gsd,
    gsd_at,
    level_for,
    level_size,
    window_of,
)

QUAD = morecantile.tms.get("WebMercatorQuad")
levels = st.integers(0, FINEST_LEVEL)


def law(*cases: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Hypothesis's `given` without a deadline: how busy the machine is proves nothing."""
    return lambda test: settings(deadline=None)(given(*cases)(test))


@st.composite
def windows(draw: st.DrawFn, wide: bool = False) -> Window:
    """Windows anywhere on any level; `wide` ones also start off the map and go round it more than once."""
    level = draw(levels)
    size = level_size(level)
    y = draw(st.integers(0, size - 1))
    height = draw(st.integers(1, min(size - y, 600)))
    if wide:
        return Window(
            level, draw(st.integers(-3 * size, 3 * size)), y, draw(st.integers(1, 900)), height
        )
    x = draw(st.integers(0, size - 1))
    return Window(level, x, y, draw(st.integers(1, min(size - 1, 600))), height)


@st.composite
def bboxes(draw: st.DrawFn) -> BBox:
    lon, lat = st.floats(-180, 180), st.floats(-MAX_LATITUDE, MAX_LATITUDE)
    west, east, south, north = draw(lon), draw(lon), draw(lat), draw(lat)
    assume(south < north and west != east and (west, east) != (180, -180))
    assume((east - west) % 360 > 0)
    return west, south, east, north


@pytest.mark.parametrize("level", range(FINEST_LEVEL + 1))
def test_corners_of_tiles_are_those_of_morecantile_to_the_last_bit(level: int) -> None:
    tiles = np.random.default_rng(level).integers(0, 2**level, (100, 2)).tolist()
    for x, y in [*tiles, (0, 0), (2**level - 1, 2**level - 1)]:
        left, bottom, right, top = QUAD.xy_bounds(morecantile.Tile(x, y, level))
        pixels = Window(level, x * TILE, y * TILE, TILE, TILE).transform
        assert pixels @ (0, 0) == (left, top)
        assert Window(level, (x + 1) * TILE, y * TILE, 1, 1).transform.c == right
        if y < 2**level - 1:
            assert Window(level, x * TILE, (y + 1) * TILE, 1, 1).transform.f == bottom
    assert pixels.a == -pixels.e == QUAD.matrix(level).cellSize == EQUATOR_GSD / 2**level


@law(levels, st.floats(-179.99, 179.99), st.floats(-85.05, 85.05))
def test_tiles_of_a_place_are_those_of_morecantile(level: int, lon: float, lat: float) -> None:
    window = window_of((lon, lat - 1e-9, lon + 1e-9, lat), level)
    tile = QUAD.tile(lon, lat, level)
    # Within a hundredth of a pixel of an edge both answers are right.
    assert abs(window.x // TILE - tile.x) <= ((window.x + 1) % TILE <= 1)
    assert abs(window.y // TILE - tile.y) <= ((window.y + 1) % TILE <= 1)


@law(windows())
def test_longitude_and_latitude_are_those_of_proj(window: Window) -> None:
    assume(window.x + window.width <= level_size(window.level))
    rows, columns = np.arange(window.height) + 0.5, np.arange(window.width) + 0.5
    place = window.transform
    lon, _ = reproject("EPSG:3857", "EPSG:4326", place.c + place.a * columns, 0 * columns)
    _, lat = reproject("EPSG:3857", "EPSG:4326", 0 * rows, place.f + place.e * rows)
    assert np.abs(np.array(lon) - window.lon).max() < 1e-9
    assert np.abs(np.array(lat) - window.lat).max() < 1e-9


@law(windows(wide=True))
def test_longitudes_wrap_and_latitudes_fall(window: Window) -> None:
    size = level_size(window.level)
    lon, lat = window.lon, window.lat
    assert lon.dtype == lat.dtype == np.float64
    assert lon.shape == (window.width,) and lat.shape == (window.height,)
    assert (lon >= -180).all() and (lon < 180).all()
    steps = np.diff(lon) % 360
    assert np.allclose(steps, 360 / size, rtol=1e-6, atol=1e-9)
    assert (np.diff(lat) < 0).all() and (np.abs(lat) < MAX_LATITUDE).all()
    round_the_map = Window(window.level, window.x - 2 * size, window.y, window.width, window.height)
    assert np.array_equal(round_the_map.lon, lon)
    mirrored = Window(window.level, 0, size - window.y - window.height, 1, window.height)
    assert np.allclose(mirrored.lat[::-1], -lat, atol=1e-12)


@law(windows())
def test_a_window_comes_back_from_its_bbox(window: Window) -> None:
    assert window_of(bbox_of(window), window.level) == window


@law(bboxes(), levels)
def test_a_window_covers_its_bbox_and_no_more(bbox: BBox, level: int) -> None:
    west, south, east, north = bbox
    window, size = window_of(bbox, level), level_size(level)
    assert 0 <= window.x < size and window.width <= size
    left = (west + 180) / 360 * size
    right = left + (east - west) % 360 / 360 * size if west > east else (east + 180) / 360 * size
    start = window.x if left < size - 2 * SNAP else window.x + size
    assert start <= left + 2 * SNAP < start + 1 + 3 * SNAP
    assert window.width == size or right - 2 * SNAP <= start + window.width < right + 1 + 2 * SNAP
    _, lower, _, upper = bbox_of(window)
    slack = 360 / size * 2 * SNAP  # a row is never taller in degrees than a column is wide
    assert lower <= south + slack and upper >= north - slack
    top, last = (Window(level, 0, y, 1, 1).lat[0] for y in (window.y, window.y + window.height - 1))
    assert (
        top < north + 180 / size + slack
    )  # the centre of the first row, so at most half a row off
    assert last > south - 180 / size - slack


def test_the_antimeridian() -> None:
    window = window_of((170, -10, -170, 10), 3)
    assert window == Window(3, 1991, 966, 114, 116)
    assert window.lon[0] > 169.9 and window.lon[-1] < -169.9
    west, _, east, _ = bbox_of(window)
    assert west > east and window.transform.c + 114 * window.transform.a > QUAD.xy_bbox.right
    assert window_of((180, 0, -170, 1), 4).x == 0
    assert window_of((170, 0, -180, 1), 4) == window_of((170, 0, 180, 1), 4)
    assert bbox_of(Window(2, 1000, 0, 24, 1))[2] == 180
    assert bbox_of(Window(2, 1024, 0, 24, 1))[0] == -180


def test_the_whole_map_and_its_rim() -> None:
    for level in (0, 9, FINEST_LEVEL):
        size = level_size(level)
        everything = window_of((-180, -MAX_LATITUDE, 180, MAX_LATITUDE), level)
        assert everything == Window(level, 0, 0, size, size)
        assert bbox_of(everything) == (-180, -MAX_LATITUDE, 180, MAX_LATITUDE)
        assert window_of((10, 0, 10 - 1e-9, 1), level).width == size
    assert bbox_of(Window(0, 77, 0, 300, 1))[::2] == (-180, 180)
    assert window_of((0, 85.0511287798, 1, MAX_LATITUDE), 18).y == 0
    assert window_of((0, -MAX_LATITUDE, 1, -85.0511287798), 18).y == level_size(18) - 1


@law(windows(), st.integers(0, 300), st.integers(0, 300))
def test_padding_adds_up_and_stops_at_the_poles(window: Window, a: int, b: int) -> None:
    padded = window.pad(a)
    assert padded.pad(b) == window.pad(a + b)
    assert (padded.x, padded.width) == (window.x - a, window.width + 2 * a)
    assert padded.y == max(window.y - a, 0)
    assert padded.y + padded.height == min(window.y + window.height + a, level_size(window.level))


@law(windows(wide=True).filter(lambda w: w.level <= 14))
def test_coarser_is_the_same_ground(small: Window) -> None:
    fine = Window(small.level + 4, *(16 * n for n in (small.x, small.y, small.width, small.height)))
    assert fine.coarser(4).coarser(4) == fine.coarser(16) == small
    assert fine.coarser(2).coarser(8) == small and fine.coarser(1) == fine
    assert bbox_of(fine) == bbox_of(small)
    assert fine.transform @ (0, 0) == small.transform @ (0, 0)
    means = fine.lon[:16].mean() if (np.diff(fine.lon[:16]) > 0).all() else small.lon[0]
    assert means == pytest.approx(small.lon[0], abs=1e-9)
    assert fine.pad(16).coarser(16) == small.pad(1)


@pytest.mark.parametrize(
    ("window", "factor", "words"),
    [
        (Window(8, 2, 4, 4, 4), 4, "multiples of 4"),
        (Window(8, 4, 4, 4, 6), 4, "multiples of 4"),
        (Window(8, 6, 6, 6, 6), 3, "power of two"),
        (Window(8, 0, 0, 4, 4), 0, "power of two"),
        (Window(1, 0, 0, 4, 4), 4, "level -1"),
    ],
)
def test_coarser_refuses(window: Window, factor: int, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        window.coarser(factor)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((19, 0, 0, 1, 1), "level 19"),
        ((-1, 0, 0, 1, 1), "level -1"),
        ((2.0, 0, 0, 1, 1), "not an integer"),
        ((2, 0.5, 0, 1, 1), "x 0.5"),
        ((2, 0, 0, 0, 1), "empty"),
        ((2, 0, 0, 1, -5), "empty"),
        ((2, 0, -1, 1, 1), "rows -1 to 0"),
        ((2, 0, 1000, 1, 25), "rows 1000 to 1025"),
    ],
)
def test_windows_off_the_map_are_refused(numbers: tuple[int, ...], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Window(*numbers)


def test_padding_is_not_negative() -> None:
    with pytest.raises(InvalidInput, match="pad by -1"):
        Window(3, 0, 0, 1, 1).pad(-1)


def test_numbers_of_numpy_do_not_overflow() -> None:
    z, edge, one = np.uint8(18), np.int32(2**26 - 1), np.int32(1)
    window, plain = Window(*(z, edge, edge, one, one)), Window(18, 2**26 - 1, 2**26 - 1, 1, 1)  # type: ignore[arg-type]
    assert window == plain and hash(window) == hash(plain) and type(window.x) is int
    assert window.transform == plain.transform and window.pad(99) == plain.pad(99)
    assert gsd_at(10.0, int(z)) == gsd_at(10.0, z)  # type: ignore[call-overload]
    assert pickle.loads(pickle.dumps(plain)) == plain


@pytest.mark.parametrize(
    ("bbox", "words"),
    [
        ((0, 0, 1), "four numbers"),
        ((0, 0, 1, 1, 1), "four numbers"),
        (("west", 0, 1, 1), "four numbers"),
        (None, "four numbers"),
        ((math.nan, 0, 1, 1), "not finite"),
        ((0, 0, 1, math.inf), "not finite"),
        ((0, 0, 190, 1), "longitude"),
        ((-180.001, 0, 0, 1), "longitude"),
        ((0, 0, 1, 85.06), "85.0511"),
        ((0, -90, 1, 0), "85.0511"),
        ((0, 1, 1, 1), "south 1.0 >= north 1.0"),
        ((0, 2, 1, 1), "south 2.0 >= north 1.0"),
        ((5, 0, 5, 1), "no width"),
        ((180, 0, -180, 1), "no width"),
    ],
)
def test_bad_bboxes_are_refused(bbox: tuple[float, ...], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        check_bbox(bbox)
    with pytest.raises(InvalidInput, match=words):
        window_of(bbox, 6)


def test_good_bboxes_come_back_as_floats() -> None:
    box = check_bbox(np.array([170, -10, -170, 85.0511], np.float64))  # type: ignore[arg-type]
    assert box == (170, -10, -170, 85.0511) and {type(value) for value in box} == {float}


@law(levels, st.floats(-85, 85))
def test_gsd_is_the_size_of_a_pixel_on_the_sphere(level: int, lat: float) -> None:
    radius = 6378137.0
    size = level_size(level)
    assert gsd_at(lat, level) == pytest.approx(
        2 * math.pi * radius * math.cos(math.radians(lat)) / size, rel=1e-12
    )


@law(windows())
def test_gsd_of_rows(window: Window) -> None:
    assert window.gsd.shape == (window.height,) and window.gsd.dtype == np.float64
    assert np.array_equal(window.gsd, gsd_at(window.lat, window.level))
    assert np.allclose(
        window.gsd, [gsd_at(float(lat), window.level) for lat in window.lat], rtol=1e-12
    )
    # Northern and southern edge of a row, in metres along a meridian of the sphere, are one gsd apart.
    _, south, _, north = bbox_of(Window(window.level, 0, window.y, 1, 1))
    tall = math.radians(north - south) * 6378137.0
    assert tall == pytest.approx(window.gsd[0], rel=1e-3 if window.level > 3 else 0.2)


@law(bboxes(), levels)
def test_coarsest_gsd_is_the_largest_in_the_bbox(bbox: BBox, level: int) -> None:
    lats = np.linspace(bbox[1], bbox[3], 50).clip(-MAX_LATITUDE, MAX_LATITUDE)
    coarsest = coarsest_gsd(bbox, level)
    assert coarsest >= gsd_at(lats, level).max() * (1 - 1e-12)
    assert coarsest <= gsd_at(0.0, level)


@law(st.floats(0.6, 3e5), st.floats(-85, 85))
def test_level_for_is_the_coarsest_that_is_fine_enough(gsd: float, lat: float) -> None:
    level = level_for(gsd, lat)
    assert gsd_at(lat, level) <= gsd * (1 + 1e-9)
    assert level == 0 or gsd_at(lat, level - 1) > gsd


@law(levels, st.floats(-85, 85))
def test_level_for_its_own_gsd(level: int, lat: float) -> None:
    assert level_for(gsd_at(lat, level), lat) == level
    assert level_for(gsd_at(lat, level) * (1 - 1e-12), lat) == level


@law(st.floats(-85, 85))
def test_the_advice_on_a_gsd_that_is_too_fine_can_be_followed(lat: float) -> None:
    with pytest.raises(InvalidInput, match="finer than the finest level") as caught:
        level_for(0.04, lat)
    advised = float(str(caught.value).split(" ask for ")[1].split(" m ")[0])
    assert level_for(advised, lat) == FINEST_LEVEL


@pytest.mark.parametrize("gsd", [0, -1, math.nan, math.inf, -math.inf])
def test_level_for_refuses_what_is_no_distance(gsd: float) -> None:
    with pytest.raises(InvalidInput, match="above 0"):
        level_for(gsd, 0)


@pytest.mark.parametrize("lat", [85.06, -90, math.nan, np.array([0, 86.0, 1])])
def test_gsd_off_the_map_is_refused(lat: float) -> None:
    with pytest.raises(InvalidInput, match=r"latitude (85.06|-90|nan|86.0) is off"):
        gsd_at(lat, 3)
