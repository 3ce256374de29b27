"""Fields of a planet: each takes one colour of what the coarse network drew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cascade_model import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from terraloom.data.layout import FIELD_LEVEL, ROW_LEVEL, toned
from terraloom.data.lines import MIXED, edges, fields
from terraloom.data.uses import CODES, WITH_USES
from terraloom.grid import level_size
from terraloom.models.fields import PALEST, REACH, evened
from terraloom.models.waves import enlarged
from terraloom.noise import NoiseField
from terraloom.weights import COARSE, save_model
from terraloom.world import blocks

CROPLAND, FOREST = 12, 4


@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 2**40), st.integers(-9, 250), st.integers(-9, 250), st.integers(0, 3), st.integers(0, 3)
)  # fmt: skip
def test_fields_depend_on_their_place_alone(
    seed: int, x: int, y: int, right: int, down: int
) -> None:
    noise, level = NoiseField(seed), FIELD_LEVEL - 2
    cover = np.random.default_rng(seed % 89).choice([CROPLAND, FOREST], (8, 9)).astype(np.uint8)
    whole = toned(cover, noise, (level, x, y), True)
    assert whole is not None and whole.dtype == np.float32 and whole.shape == (4, 64, 72)
    assert not whole[:, (cover == FOREST).repeat(8, 0).repeat(8, 1)].any()
    part = toned(cover[down:, right:], noise, (level, x + right, y + down), True)
    assert np.array_equal(whole[:, 8 * down :, 8 * right :], part)
    assert toned(cover, noise, (level, x, y), False) is None
    assert toned(cover, noise, (level + 2, x, y), True) is None
    around = toned(cover, noise, (level, x + level_size(level), y), True)
    assert np.array_equal(whole, around)


def test_all_of_a_field_has_one_middle_within_reach() -> None:
    crops = np.full((300, 300), CODES["AnnualCrop"], np.uint8)
    middle = fields(crops, NoiseField(3), FIELD_LEVEL + 3, 80_000, 60_000)  # units of 2 pixels
    rows, columns = np.mgrid[:300, :300] * 2 + middle[:2]
    places, counts = np.unique(
        np.round(np.stack([rows, columns])).reshape(2, -1), axis=1, return_counts=True
    )
    assert 100 < places.shape[1] < 400  # fields of some hectares on 33 square kilometres
    assert np.median(counts) > 100
    assert np.abs(middle).max() / 16 < REACH - 2 * 40  # what `enlarged` reads
    inside = np.abs(middle[:2]).max(0) < 3  # near the middles
    assert np.std(middle[2:, inside]) > 60  # tones come from everywhere around


@settings(deadline=None, max_examples=15)
@given(
    st.integers(0, 2**40), st.integers(-90, 2**14), st.integers(-90, 2**14), st.integers(0, 20), st.integers(0, 20)
)  # fmt: skip
def test_colours_near_rims_depend_on_their_place_alone(
    seed: int, x: int, y: int, right: int, down: int
) -> None:
    noise, level = NoiseField(seed), ROW_LEVEL - 2
    cover = np.random.default_rng(seed % 89).choice([CROPLAND, FOREST], (48, 1)).astype(np.uint8)
    cover = cover.repeat(60, 1)
    whole = toned(cover, noise, (level, x, y), True)
    part = toned(cover[down:, right:], noise, (level, x + right, y + down), True)
    if whole is None:
        assert part is None
        return
    assert whole.dtype == np.float32 and whole.shape == (4, 192, 240)
    assert not whole[:2, (cover == FOREST).repeat(4, 0).repeat(4, 1)].any() and not whole[2:].any()
    cut = whole[:, 4 * down :, 4 * right :]
    assert not cut.any() if part is None else np.array_equal(cut, part)


def test_fields_are_parted_sharply() -> None:
    """A pixel near a rim has the colour of its own side; what lies far from all rims stays as it is."""
    crops = np.full((400, 400), CODES["AnnualCrop"], np.uint8)
    inward = edges(crops, NoiseField(3), ROW_LEVEL, 80_000, 60_000)
    away = np.hypot(*inward)
    assert away.max() < 2.2 * MIXED and 0.02 < (away > 0).mean() < 0.4
    rows, columns = np.nonzero(away > 0.6 * MIXED)
    to = np.round(16 * inward[:, rows, columns]).astype(int) + [rows, columns]
    inside = ((to >= 0) & (to < 1600)).all(0)
    there = away[to[0][inside], to[1][inside]]
    assert np.mean(there < 0.1) > 0.9  # where no further step is needed


def test_fields_have_the_tones_of_their_places_and_the_image_its_means() -> None:
    torch.manual_seed(0)
    y = 0.12 * torch.randn(1, 3, 64, 64)  # neither raised nor held back
    lr = F.avg_pool2d(y, 16)
    here = torch.zeros(4, 128, 128)
    torch.testing.assert_close(evened(y, lr, here)[0], y, atol=1e-5, rtol=0)
    there = here.clone()
    there[2] = 3  # all tones from three rows down
    low = enlarged(lr, y)
    expected = low + F.pad(y - low, (0, 0, 0, 3), mode="replicate")[..., 3:, :]
    moved, ground = evened(y, lr, there)
    torch.testing.assert_close(ground, enlarged(lr, y), atol=0.05, rtol=0)
    assert (moved - expected).abs().mean() < 0.01 < 0.1 < (moved - y).std()
    assert (
        (F.avg_pool2d(moved, 16) - lr).abs().max()
        < 0.006
        < (F.avg_pool2d(expected, 16) - lr).abs().max()
    )
    one = 31.5 - torch.stack(torch.meshgrid([torch.arange(128.0) / 2] * 2, indexing="ij"))
    assert (
        evened(y, lr, one.repeat(2, 1, 1))[0][..., 16:-16, 16:-16].std((2, 3)).max()
        < 0.25 * y.std()
    )


@pytest.mark.parametrize("told", [True, False])
def test_a_planet_has_fields_if_the_network_below_is_told_their_rims(
    make: Any, tmp_path: Path, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "weights"
    save_model(tiny(3, leap=True, cover_classes=WITH_USES, lines=told), folder)
    save_model(tiny(4, leap=True), folder / COARSE)
    with_fields = make(folder, base=None).level(10, 153_600, 107_400, 64, 64)
    monkeypatch.setattr(blocks, "toned", lambda *told: None)
    without = make(folder, base=None).level(10, 153_600, 107_400, 64, 64)
    changed = (with_fields != without).any(0).mean()
    assert changed > 0.5 if told else changed == 0


def test_pale_crops_get_the_least_contrast() -> None:
    """Where a network drew next to nothing fields still differ; what it drew boldly stays."""
    torch.manual_seed(1)
    away = torch.zeros(4, 256, 256)
    away[2] = 1  # tones from elsewhere, though near
    for drawn, low, high in ((0.05, 0.8, 1.2), (0.01, 0.3, 0.5), (0.2, 1.4, 2.1)):
        y = drawn * torch.randn(1, 3, 128, 128)
        fine = evened(y, F.avg_pool2d(y, 16), away)[0]
        assert low < fine.std() / PALEST < high
    y = 0.05 * torch.randn(1, 3, 128, 128)
    assert evened(y, F.avg_pool2d(y, 16), 0 * away)[0].std() < 0.06  # no fields, no more contrast
