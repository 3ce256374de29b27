"""Water where the maps have it: shores and rivers, their colours, and the land cover that follows them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from terraloom.data.cover import WILD, cells
from terraloom.data.ground import ASSETS, LAYERS, MERCATOR_EDGE, Ground
from terraloom.data.ground_maps import _width
from terraloom.data.uses import CODES
from terraloom.data.waters import water
from terraloom.grid import Window, level_size, window_of
from terraloom.models.shores import MARGIN, overlaid, shored, unmixed
from terraloom.world.basemap import BaseMap

GROUND = Ground.open()
SHORES = [(-74.02, 40.68), (139.8, 35.6), (31.24, 30.05), (2.35, 48.85), (179.99, -16.8)]


def window_at(lon: float, lat: float, level: int, side: int) -> Window:
    spot = window_of((lon, lat, lon + 1e-9, lat + 1e-9), level)
    return Window(level, spot.x - side // 2, spot.y - side // 2, side, side)


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(SHORES), st.sampled_from([8, 10, 14, 18]), st.integers(0, 40),
    st.integers(0, 40), st.integers(-300, 300),
)  # fmt: skip
def test_water_depends_on_its_place_alone(
    place: tuple[float, float], level: int, right: int, down: int, off: int
) -> None:
    w = window_at(*place, level, 64)
    whole = water(GROUND, level, w.x + off, w.y, (64, 64))
    assert whole.dtype == np.float32 and whole.min() >= 0 and whole.max() <= 1
    part = water(GROUND, level, w.x + off + right, w.y + down, (64 - down, 64 - right))
    assert np.array_equal(whole[down:, right:], part)
    around = water(GROUND, level, w.x + off + level_size(level), w.y, (64, 64))
    assert np.array_equal(whole, around)


@pytest.mark.parametrize("level", [10, 14])
@pytest.mark.parametrize(
    ("lon", "lat", "wet"),
    [
        (-74.03, 40.66, 1),  # New York's bay
        (-73.966, 40.782, 0),  # Central Park
        (139.84, 35.55, 1),  # Tokyo's bay
        (13.4, 52.5, 0),
        (31.0, 28.6, 0),  # desert by the Nile
        (6.5, 46.45, 1),  # the lake of Geneva
    ],
)
def test_known_places(level: int, lon: float, lat: float, wet: int) -> None:
    w = window_at(lon, lat, level, 2)
    assert np.all(water(GROUND, level, w.x, w.y, (2, 2)) == wet)


def test_the_nile_runs_through_cairo_at_every_level() -> None:
    """From the south of the view to its north there is always water in a row."""
    for level, most in ((10, 0.12), (14, 0.12)):
        w = window_at(31.23, 30.02, level, 40 if level == 10 else 640)
        wet = water(GROUND, level, w.x, w.y, (w.height, w.width))
        rows = wet.max(1)
        assert rows.min() > 0.15, level
        assert 0 < wet.mean() < most, level
        middles = [int(np.argmax(row)) for row in wet]
        assert max(abs(b - a) for a, b in pairwise(middles)) < w.width / 4


@pytest.mark.parametrize(
    ("lon", "lat", "axis", "low", "high"),
    [
        (-57.1, -2.5, 0, 2500, 5000),  # Amazon: columns of pixels, for it runs east
        (31.2, 29.3, 1, 350, 800),  # Nile
        (1.1, 49.35, 0, 120, 300),  # Seine
        (12.48, 41.9, 1, 40, 120),  # Tiber
    ],
)
def test_rivers_are_as_wide_as_their_rank(
    lon: float, lat: float, axis: int, low: float, high: float
) -> None:
    w = window_at(lon, lat, 12, 384)
    across = water(GROUND, 12, w.x, w.y, (384, 384)).sum(axis) * w.gsd[0]
    assert low < np.median(across) < high


@pytest.mark.parametrize(
    ("place", "rank", "weight", "kind", "width"),
    [
        ((-58.6, -3.2), 1, 2.0, "River", 4),  # on the Amazon, whose cells are water
        ((4.8, 45.0), 1, 0.2, "River", 3),
        ((4.8, 45.0), 4, 1.0, "River", 3),
        ((4.8, 45.0), 6, 0.2, "River", 2),
        ((4.8, 45.0), 8, 0.4, "River", 2),
        ((4.8, 45.0), 8, None, "River", 1),
        ((4.8, 45.0), 10, 0.2, "River (Intermittent)", 0),
        ((10.0, 24.0), 6, 0.2, "River", 0),  # Sahara
        ((10.0, 24.0), 2, 0.2, "River", 3),  # as the Nile does, large ones cross it
    ],
)
def test_widths_follow_from_rank_and_land(
    place: tuple[float, float], rank: int, weight: float | None, kind: str, width: int
) -> None:
    lon, lat = place
    y = np.arcsinh(np.tan(np.radians(lat))) / np.pi * MERCATOR_EDGE
    point = [lon / 180 * MERCATOR_EDGE, y]
    shape = {"type": "MultiLineString", "coordinates": [[point, point], [point, point]]}
    about = {"scalerank": rank, "strokeweig": weight, "featurecla": kind}
    with rasterio.open(ASSETS / "landcover.tif") as file:
        assert _width(shape, about, file.read(1)) == width


def test_a_river_of_the_desert_is_dry() -> None:
    w = window_at(-115.2, 37.447, 8, 20)
    assert (GROUND.bits(w) >> LAYERS.index("river") & 1).any()
    assert not water(GROUND, 8, w.x, w.y, (20, 20)).any()


def test_levels_agree() -> None:
    for lon, lat in SHORES:
        w = window_at(lon, lat, 10, 32)
        coarse = water(GROUND, 10, w.x, w.y, (32, 32))
        fine = water(GROUND, 14, 16 * w.x, 16 * w.y, (512, 512))
        off = np.abs(fine.reshape(32, 16, 32, 16).mean((1, 3)) - coarse)
        assert off.mean() < 0.01 and off.max() < 0.45, (lon, lat)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(-0.9, 0.9), st.floats(-0.9, 0.9))
def test_mixtures_come_apart(seed: int, land: float, sea: float) -> None:
    """Of a shore between two even colours both are found again, and laid together they make the same image."""
    rng = np.random.default_rng(seed)
    walk = rng.uniform(60, 132) + np.cumsum(rng.normal(0, 1, 192))
    line = torch.from_numpy(walk.clip(48, 144))[:, None]  # both are near everywhere
    wet = (torch.arange(192) < line).float()[None, None]
    share = F.avg_pool2d(wet, 16)
    lr = (share * sea + (1 - share) * land).expand(1, 3, -1, -1).contiguous()
    dry, water_ = unmixed(lr, share)
    assert torch.allclose(dry[share.expand_as(lr) < 1], torch.tensor(land), atol=0.06)
    assert torch.allclose(water_[share.expand_as(lr) > 0.03], torch.tensor(sea), atol=0.06)
    y = overlaid(torch.full((1, 3, 192, 192), land), lr, water_, wet, torch.zeros_like(wet))
    assert torch.allclose(F.avg_pool2d(y, 16), lr, atol=0.03)


def test_water_ripples_and_land_does_not() -> None:
    lr, wet = torch.full((1, 3, 4, 4), -0.4), torch.zeros(1, 1, 64, 64)
    wet[..., :32] = 1
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    y = overlaid(torch.full((1, 3, 64, 64), -0.4), lr, lr, wet, noise)
    assert 0.005 < y[..., :32].std() < 0.0075 and y[..., 40:].std() < 1e-3


def test_a_map_gets_its_shores() -> None:
    """A blurred shore that lies a pixel off becomes sharp, and what is far from it stays as it is."""
    share = torch.zeros(1, 1, 40, 40)
    share[..., 20:] = 1
    share[..., 20] = 0.5
    at = torch.arange(40).float()
    ramp = ((at - 18) / 4).clamp(0, 1).expand(1, 3, 40, 40)
    lr = 0.4 - 0.9 * ramp
    out = shored(lr, share)
    assert torch.equal(out[..., :17], lr[..., :17]) and torch.equal(out[..., 24:], lr[..., 24:])
    assert torch.allclose(out[..., MARGIN:-MARGIN, 19], torch.tensor(0.4), atol=0.05)
    assert torch.allclose(out[..., MARGIN:-MARGIN, 20], torch.tensor(-0.05), atol=0.05)
    assert torch.allclose(out[..., MARGIN:-MARGIN, 21], torch.tensor(-0.5), atol=0.05)


def test_windows_of_the_shored_map_are_parts_of_it() -> None:
    base = BaseMap()
    w = window_at(-74.0, 40.65, 6, 96)
    whole = base.with_shores(GROUND, w.x, w.y, 96, 96)
    part = base.with_shores(GROUND, w.x + 30, w.y + 41, 50, 50)
    assert np.array_equal(whole[:, 41:91, 30:80], part)
    assert not np.array_equal(whole, base.read(w.x, w.y, 96, 96))
    assert base.with_shores(GROUND, 5, 0, 32, 32).shape == (3, 32, 32)  # by the map's edge


def test_land_cover_has_water_where_there_is_water() -> None:
    w = window_at(-74.02, 40.68, 12, 256)
    codes, layers = cells(GROUND, w)
    wet = water(GROUND, 12, w.x, w.y, (256, 256)) > 0.5
    assert layers.shape == (6, 256, 256)
    assert np.array_equal(codes == 0, wet)
    before, _ = cells(GROUND, w, shores=False)
    assert not np.array_equal(before == 0, wet)
    assert np.array_equal(before, GROUND.cells(w)[0])


@pytest.mark.parametrize(
    ("lon", "lat", "wild"), [(88.0, 31.0, True), (104.0, 46.0, True), (-8.5, 52.2, False)]
)
def test_pastures_are_where_farms_are(lon: float, lat: float, wild: bool) -> None:
    """Grassland of Tibet and Mongolia is no pasture with straight rims, that of Ireland is."""
    codes, _ = cells(GROUND, window_at(lon, lat, 12, 64))
    assert (codes == (WILD if wild else 10)).mean() > 0.4
    assert WILD == CODES["HerbaceousVegetation"]
