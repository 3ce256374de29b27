"""Relief of wild land: laid out from noise, lit from where the sun stands, as strong as the base map is uneven."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from terraloom.data.erosion import HILLS, carved, slopes
from terraloom.data.patches import curved
from terraloom.data.relief import CANOPY, MARGIN, lit, relief
from terraloom.grid import level_size
from terraloom.models.fields import shaded
from terraloom.models.waves import enlarged
from terraloom.noise import NoiseField

LEVEL = 10
FOREST, SAVANNA, CROPS, BARE = 4, 9, 12, 16

ANYWHERE = given(  # seed, x, y, and a part of the window: right, down
    st.integers(0, 2**40), st.integers(-300, 2**18), st.integers(-90, 2**18), st.integers(0, 40),
    st.integers(0, 40),
)  # fmt: skip


@settings(deadline=None, max_examples=20)
@ANYWHERE
def test_light_depends_on_its_place_alone(seed: int, x: int, y: int, right: int, down: int) -> None:
    noise = NoiseField(seed)
    whole = lit(noise, LEVEL, x, y, 50, 60)
    assert whole.dtype == np.float32 and whole.shape == (50, 60)
    part = lit(noise, LEVEL, x + right, y + down, 50 - down, 60 - right)
    np.testing.assert_allclose(part, whole[down:, right:], atol=1e-5)
    around = lit(noise, LEVEL, x + level_size(LEVEL), y, 50, 60)
    np.testing.assert_allclose(around, whole, atol=1e-5)


def test_light_has_no_lattice() -> None:
    """Gullies are drawn cell by cell; the cells do not show in the mean."""
    light = lit(NoiseField(8), LEVEL, 64_000, 96_000, 1024, 1024)
    for period in (2, 4, 8, 16, 32):
        mean = light.reshape(1024 // period, period, 1024 // period, period).mean((0, 2))
        chance = period**2 / light.size * 12  # neighbours are alike over a dozen pixels
        assert mean.var() / light.var() < chance + 2e-4, period


def test_light_has_variance_one_and_comes_from_the_equator() -> None:
    middle = level_size(LEVEL) // 2
    for y in (middle - 40_000, middle, middle + 40_000):
        light = lit(NoiseField(5), LEVEL, 70_000, y, 800, 800)
        assert abs(light.std() - 1) < 0.05 and abs(light.mean()) < 0.02
    # bright and dark follow each other towards the south-east in the north, the north-east in the south
    north, south = (
        lit(NoiseField(5), LEVEL, 0, y, 300, 300) for y in (middle - 40_000, middle + 39_700)
    )
    for light, way in ((north, -1), (south, 1)):
        east, down = light[:-1, 1:] - light[:-1, :-1], light[1:, :-1] - light[:-1, :-1]
        assert np.sign(np.mean(east * down)) == way * -1


@settings(deadline=None, max_examples=20)
@ANYWHERE
def test_gullies_are_the_same_in_every_window(
    seed: int, x: int, y: int, right: int, down: int
) -> None:
    noise = NoiseField(seed)
    whole = carved(noise, LEVEL, x, y, 50, 60)
    assert whole.dtype == np.float32 and np.isfinite(whole).all()
    part = carved(noise, LEVEL, x + right, y + down, 50 - down, 60 - right)
    np.testing.assert_array_equal(part, whole[down:, right:])


def test_gullies_run_down_the_slope() -> None:
    """Where hills are steep, heights change across the slope, hardly along it."""
    where = 12_345, 70_000, 700, 700
    noise = NoiseField(4)
    hills = sum(
        tall * curved(noise, LEVEL - apart.bit_length() + 1, LEVEL, *where) for apart, tall in HILLS
    )
    (east, south), (e, s) = slopes(hills), slopes(carved(noise, LEVEL, *where))
    steep = np.hypot(east, south)
    along, across = (e * east + s * south) / steep, (e * south - s * east) / steep
    there = steep > np.percentile(steep, 75)
    assert across[there].std() > 1.5 * along[there].std()


def test_relief_shows_where_wild_land_is_uneven() -> None:
    rng = np.random.default_rng(1)
    side = 24
    even = np.full((3, side + 2 * MARGIN, side + 2 * MARGIN), 120, np.uint8)
    uneven = (even + rng.normal(0, 25, even.shape[1:])).clip(0, 255).astype(np.uint8)

    def of(base: np.ndarray, cover: int) -> np.ndarray:
        cells = np.full((4 * side, 4 * side), cover, np.uint8)
        return relief(base, cells, NoiseField(0), (8, 4096, 8192))[:, 16:-16, 16:-16]

    for base in (even, uneven):
        assert not of(base, CROPS)[0].any()
        assert of(base, BARE)[0].min() > 0.99
    assert of(even, SAVANNA)[0].max() == 0 and of(uneven, SAVANNA)[0].mean() > 0.7
    np.testing.assert_allclose(of(even, FOREST)[0], CANOPY, atol=1e-5)
    assert of(uneven, FOREST)[0].mean() > CANOPY
    assert of(even, SAVANNA)[1].max() == 0
    assert 0.01 < of(even, BARE)[1].mean() < of(uneven, BARE)[1].mean()
    plains = of(even, BARE)[1]
    assert plains.max() > 2 * plains.min() > 0  # no desert is alike everywhere


def test_an_image_is_shaded_as_strongly_as_it_was_drawn() -> None:
    torch.manual_seed(2)
    y = 0.2 * torch.randn(1, 3, 192, 192)
    low = enlarged(F.avg_pool2d(y, 16), y)
    light = torch.randn(192, 192)
    none, full = torch.zeros(192, 192), torch.ones(192, 192)
    torch.testing.assert_close(
        shaded(y, low, torch.stack([none, none, full, light])), y, atol=1e-6, rtol=0
    )
    out = shaded(y, low, torch.stack([full, none, 9 * full, light])) - low
    assert 0.95 < (out.std() / y.std()).item() < 1.1
    for channel in out[0]:
        assert np.corrcoef(channel.ravel(), light.ravel())[0, 1] > 0.9
    weak = shaded(0.01 * y, 0.01 * low, torch.stack([full, 0.1 * full, 9 * full, light]))
    assert 0.09 < weak.std() < 0.11
    held = shaded(y, low, torch.stack([full, none, 0.02 * full, light])) - low
    assert 0.05 < held.std() < 0.08  # what remained of the drawn
