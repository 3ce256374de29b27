"""Fields of a planet: each takes one colour of what the coarse network drew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cascade_model import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from terraloom.data.layout import FIELD_LEVEL, fields
from terraloom.data.lines import to_middles
from terraloom.data.uses import CODES, WITH_USES
from terraloom.grid import level_size
from terraloom.models.fields import REACH, gathered
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
    whole = fields(cover, noise, (level, x, y))
    assert whole.dtype == np.float32 and whole.shape == (2, 64, 72)
    assert not whole[:, (cover == FOREST).repeat(8, 0).repeat(8, 1)].any()
    part = fields(cover[down:, right:], noise, (level, x + right, y + down))
    assert np.array_equal(whole[:, 8 * down :, 8 * right :], part)
    around = fields(cover, noise, (level, x + level_size(level), y))
    assert np.array_equal(whole, around)


def test_all_of_a_field_has_one_middle_within_reach() -> None:
    crops = np.full((300, 300), CODES["AnnualCrop"], np.uint8)
    away = to_middles(crops, NoiseField(3), FIELD_LEVEL + 3, 80_000, 60_000)  # units of 2 pixels
    rows, columns = np.mgrid[:300, :300] * 2 + away
    places, counts = np.unique(
        np.round(np.stack([rows, columns])).reshape(2, -1), axis=1, return_counts=True
    )
    assert 100 < places.shape[1] < 400  # fields of some hectares on 33 square kilometres
    assert np.median(counts) > 100
    assert np.abs(away).max() / 16 < REACH - 40  # what `enlarged` asks for


def test_a_gathered_image_shows_the_places_and_keeps_its_means() -> None:
    torch.manual_seed(0)
    y = torch.randn(1, 3, 64, 64)
    lr = torch.nn.functional.avg_pool2d(y, 16)
    here = torch.zeros(2, 128, 128)
    torch.testing.assert_close(gathered(y, lr, here), y, atol=1e-5, rtol=0)
    there = here.clone()
    there[0], there[1, :, :64] = 3, -2  # three rows down, and on the left two columns back
    moved = gathered(y, lr, there)
    change = moved - torch.cat([y[..., 3:, :], y[..., -1:, :].expand(-1, -1, 3, -1)], 2)
    assert change[..., 32:].std() < 0.1 < change[..., 8:24].std()
    left = torch.nn.functional.avg_pool2d(moved, 16) - lr
    assert left.abs().max() < 0.1


@pytest.mark.parametrize("told", [True, False])
def test_a_planet_has_fields_if_the_network_below_is_told_their_rims(
    make: Any, tmp_path: Path, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "weights"
    save_model(tiny(3, leap=True, cover_classes=WITH_USES, lines=told), folder)
    save_model(tiny(4, leap=True), folder / COARSE)
    with_fields = make(folder, base=None).level(10, 153_600, 107_400, 64, 64)
    monkeypatch.setattr(blocks, "fields", lambda cover, noise, at: None)
    without = make(folder, base=None).level(10, 153_600, 107_400, 64, 64)
    changed = (with_fields != without).any(0).mean()
    assert changed > 0.5 if told else changed == 0
