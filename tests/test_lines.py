"""Lines: those a planet lays out, those found in real images, and a network that is told them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cascade_model import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from terraloom.data.layout import told
from terraloom.data.lines import FIELDS, KINDS, PIXELS, lines, rows
from terraloom.data.uses import CODES, WITH_USES
from terraloom.grid import level_size
from terraloom.noise import NoiseField
from terraloom.training.lines import lines_of, told_lines
from terraloom.training.ready import begin

KNOWN = [CODES[name] for names in KINDS.values() for name in names]


def as_image(cells: np.ndarray) -> np.ndarray:
    """(16, h, w) -> (4h, 4w)."""
    _, h, w = cells.shape
    return cells.reshape(PIXELS, PIXELS, h, w).transpose(2, 0, 3, 1).reshape(PIXELS * h, -1)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**40), st.integers(-300, 2**12), st.integers(-90, 2**12),
    st.integers(0, 40), st.integers(0, 40), st.sampled_from([14, 16, 18]),
)  # fmt: skip
def test_lines_depend_on_their_place_alone(
    seed: int, x: int, y: int, right: int, down: int, level: int
) -> None:
    noise = NoiseField(seed)
    codes = np.random.default_rng(seed % 97).choice([*KNOWN, 15, 18], (6, 7)).astype(np.uint8)
    codes = codes.repeat(10, 0).repeat(10, 1)
    whole = lines(codes, noise, level, x, y)
    assert whole.dtype == np.float32 and whole.shape == (16, 60, 70)
    assert whole.min() >= 0 and whole.max() <= 1
    assert not whole[:, np.isin(codes, [15, 18])].any()
    part = lines(codes[down:, right:], noise, level, x + right, y + down)
    assert np.array_equal(whole[:, down:, right:], part)
    around = lines(codes, noise, level, x + level_size(level) // PIXELS, y)
    assert np.array_equal(whole, around)


@settings(deadline=None, max_examples=15)
@given(
    st.integers(0, 2**40), st.integers(-300, 2**16), st.integers(-90, 2**16), st.integers(0, 40),
    st.integers(0, 40),
)  # fmt: skip
def test_rows_depend_on_their_place_alone(seed: int, x: int, y: int, right: int, down: int) -> None:
    noise = NoiseField(seed)
    codes = np.random.default_rng(seed % 83).choice([*KNOWN, 15, 18], (6, 7)).astype(np.uint8)
    codes = codes.repeat(10, 0).repeat(10, 1)
    whole = rows(codes, noise, 18, x, y)
    assert whole.dtype == np.float32 and whole.shape == (4, 240, 280)
    share, least, most, _ = whole
    assert 0 <= share.min() and share.max() <= 1 and (least <= most).all()
    field = np.isin(codes, [CODES[name] for name in KINDS[FIELDS]])
    assert not share[~field.repeat(4, 0).repeat(4, 1)].any()
    part = rows(codes[down:, right:], noise, 18, x + right, y + down)
    assert np.array_equal(whole[:, 4 * down :, 4 * right :], part)
    around = rows(codes, noise, 18, x + level_size(18) // PIXELS, y)
    assert np.array_equal(whole, around)


def test_most_fields_have_rows_some_metres_apart() -> None:
    codes = np.full((600, 600), CODES["agricultural"], np.uint8)
    share, _, most, light = rows(codes, NoiseField(2), 18, 900_000, 700_000)
    assert 0.55 < share.mean() < 0.95
    assert 0.03 <= most[share > 0].min() and most.max() <= 0.09
    stripes = light[share == 1]
    assert abs(stripes.std() - 1) < 0.15 and abs(stripes.mean()) < 0.05
    # a period of 3 to 7 pixels: alike after a whole one, unlike after a half, in whatever direction rows run
    spectrum = np.abs(np.fft.fft2(light[:512, :512])) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(512), np.fft.fftfreq(512)))
    assert spectrum[(frequency > 1 / 8) & (frequency < 1 / 3)].sum() > 0.8 * spectrum.sum()


@pytest.mark.parametrize(
    ("use", "level", "least", "most"),
    [
        ("AnnualCrop", 14, 0.04, 0.1),
        ("Residential", 14, 0.02, 0.07),
        ("denseresidential", 18, 0.05, 0.11),
        ("forest", 18, 0, 0),
    ],
)
def test_uses_have_as_many_lines_as_real_ones(
    use: str, level: int, least: float, most: float
) -> None:
    codes = np.full((128, 128), CODES[use], np.uint8)
    shares = [lines(codes, NoiseField(seed), level, 7000, 5000).mean() for seed in range(4)]
    assert least <= np.mean(shares) <= most


def test_streets_go_on_where_a_use_gives_way_to_a_site() -> None:
    noise, x, y = NoiseField(0), 40_000, 30_000
    streets = np.full((96, 96), CODES["intersection"], np.uint8)
    fine = as_image(lines(streets, noise, 18, 16 * x, 16 * y))
    again = as_image(lines(streets[:24, :24], noise, 16, 4 * x, 4 * y))
    # half the width of a line is 1.2 pixels of either level, so the coarser ones are wider
    near = fine.reshape(96, 4, 96, 4).max((1, 3)) > 0.5
    assert near.any() and (again[near] > 0).all()


def test_lines_are_found_where_they_are() -> None:
    image = np.full((64, 64, 3), 90, np.uint8)
    image[:, 30:] = 160
    image[40:, :10] = 30
    rng = np.random.default_rng(0)
    found = lines_of(image, 1, rng)
    assert found[5:60, 28:32].max(1).min() > 100  # the rim, all the way
    assert not found[:, 36:].any() and not found[:36, :26].any()
    assert not lines_of(image, 0, rng).any()
    even = np.full((64, 64, 3), 90, np.uint8)
    assert not lines_of(even, 1, rng).any()
    images = torch.from_numpy(np.stack([image, even])).permute(0, 3, 1, 2) / 127.5 - 1
    cells = told_lines(images, np.random.default_rng(1))
    assert cells.shape == (2, 16, 16, 16) and float(cells.max()) <= 1 and not cells[1].any()
    assert np.array_equal(as_image(cells[0].numpy()) > 0, found > 0)


def test_a_network_learns_of_lines_and_needs_none() -> None:
    torch.manual_seed(0)
    without, net = (tiny(0, leap=True, lines=lines).eval() for lines in (False, True))
    begin(net, without.state_dict())
    given = (
        torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long), torch.rand(1, 22, 8, 8),
        torch.full((1, 8), 10.0), torch.randn(1, 48, 8, 8), torch.ones(1),
    )  # fmt: skip
    lr, cover, ground, *rest = given
    with torch.inference_mode():
        torch.testing.assert_close(net(*given), without(lr, cover, ground[:, :6], *rest))
        net.stem.weight[:, -16:] = 0.1
        torch.testing.assert_close(
            net(lr, cover, ground[:, :6], *rest), without(lr, cover, ground, *rest)
        )
        assert not torch.equal(net(*given), without(*given))


def test_cells_are_told_lines_if_the_network_knows_them() -> None:
    cover, layers = np.full((32, 32), 12, np.uint8), np.ones((6, 32, 32), np.float32)
    coarse = told(cover, layers, NoiseField(0), (10, 1500, 1250), WITH_USES, with_lines=False)
    assert coarse[1] is layers and np.array_equal(coarse[0], cover)
    at = 12, 6000, 5000
    codes, plain = told(cover, layers, NoiseField(0), at, WITH_USES, with_lines=False)
    same, more = told(cover, layers, NoiseField(0), at, WITH_USES, with_lines=True)
    assert plain.shape == layers.shape and not plain.any()  # maps know nothing of 10 m
    assert np.array_equal(codes, same) and more.shape == (22, 32, 32) and not more[:6].any()
    assert np.array_equal(more[6:], lines(codes, NoiseField(0), 14, 6000, 5000)) and more[6:].any()
