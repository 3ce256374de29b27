"""A cascade that draws two levels at once: 150 m from the base map, 10 m from there, and 0.6 m."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cascade_model import corner, tiny

from terraloom.errors import BadCheckpoint, InvalidInput
from terraloom.models.waves import (
    LEAP_WAVES,
    WAVES,
    WHITE,
    bounded,
    detail_of,
    faint_on_white,
    image_of,
    noise_of,
    reduce4,
    softened,
)
from terraloom.pipelines.refine import refine
from terraloom.training.ready import begin
from terraloom.weights import COARSE, SHIPPED, find, save_model
from terraloom.world import engine as engines
from terraloom.world.blocks import reduce2

BLOCK = 256


def images(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_leap_tells_means_of_cells_and_keeps_those_of_sixteen() -> None:
    hr = images(0, 2, 3, 32, 64)
    lr = reduce4(reduce4(hr))
    soft = softened(lr)
    torch.testing.assert_close(reduce4(soft), lr, atol=1e-6, rtol=0)
    detail = detail_of(hr, soft, LEAP_WAVES)
    torch.testing.assert_close(image_of(detail, soft), hr, atol=1e-5, rtol=0)
    other = image_of(images(1, 2, LEAP_WAVES, 8, 16), soft)
    torch.testing.assert_close(reduce4(reduce4(other)), lr, atol=1e-5, rtol=0)
    assert float((reduce4(other) - soft).abs().max()) > 0.05  # means of cells are drawn
    kept = bounded(3 * other, lr)
    assert float(kept.abs().max()) <= 1 + 1e-5
    torch.testing.assert_close(reduce4(reduce4(kept)), lr, atol=1e-5, rtol=0)


def test_detail_fades_on_white_alone() -> None:
    detail = images(1, 1, LEAP_WAVES, 8, 8)
    levels = torch.linspace(-1, 1, 64).view(1, 1, 8, 8).expand(1, 3, 8, 8)
    faint = faint_on_white(detail, levels)
    bright = levels[:, :1] > 1 - WHITE
    assert torch.equal(faint[~bright.expand_as(faint)], detail[~bright.expand_as(faint)])
    assert not faint[..., -1, -1].any()
    assert (faint.abs() <= detail.abs()).all() and bright.sum() == 8


@pytest.mark.parametrize("gsd", [10.0, 0.6])
def test_shipped_weights_do_not_weave_on_ice(gsd: float) -> None:
    if not (SHIPPED / "cascade").is_dir():
        pytest.skip("no shipped weights in this checkout")
    cells, halo = 96, 64
    noise = np.random.default_rng(0).standard_normal((3, 4 * cells, 4 * cells), np.float32)
    ice = (
        np.full((3, cells // 4, cells // 4), 249 / 127.5 - 1, np.float32),
        np.full((cells, cells), 15, np.uint8),
        np.zeros((22, cells, cells), np.float32),
        np.full(cells, gsd, np.float32),
        noise,
    )
    drawn = engines.start("torch", "f32", find("cascade"), 4 * cells, halo, 0)(engines.Given(*ice))
    cell = drawn.reshape(3, 64, 4, 64, 4).mean((1, 3))  # what repeats in all
    assert drawn.std() > 0.3 and abs(float(drawn.mean()) - 249) < 0.5
    assert cell.std() < 1


def test_noise_of_a_leap_is_white() -> None:
    pixels = torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    noise = noise_of(pixels, LEAP_WAVES)[0].flatten(1)
    assert float((torch.cov(noise) - torch.eye(LEAP_WAVES)).abs().max()) < 0.05


def test_a_network_that_begins_to_leap_sees_waves_as_before() -> None:
    one, leaping = tiny(0).eval(), tiny(1, leap=True).eval()
    begin(leaping, one.state_dict())
    cells = 8
    told = (
        images(2, 1, 3, cells, cells),
        torch.full((1, cells, cells), 12),
        torch.zeros(1, 6, cells, cells),
        torch.full((1, cells), 10.0),
    )
    x = images(3, 1, LEAP_WAVES, cells, cells)
    with torch.inference_mode():
        before = one(*told, x[:, :WAVES], torch.tensor([0.6]))
        after = leaping(*told, x, torch.tensor([0.6]))
    torch.testing.assert_close(after[:, :WAVES], before, atol=1e-5, rtol=0)
    assert after.shape == (1, LEAP_WAVES, cells, cells)
    begin(one, tiny(4).state_dict())  # and what does not leap just takes the weights
    torch.testing.assert_close(one.head.bias, tiny(4).head.bias)


@pytest.mark.parametrize("level", [8, 12, 16])
def test_the_level_between_is_what_the_leap_shows_on_average(
    make: Any, leaping: Path, level: int
) -> None:
    world = make(leaping)
    x, y = corner(level)
    between = world.level(level, x, y, 40, 24)
    fine = world.level(level + 2, 4 * x, 4 * y, 160, 96)
    assert fine.std() > 5 and np.array_equal(between, reduce2(reduce2(fine)))
    above_pixels = world.level(level - 2, x // 4, y // 4, 10, 6).astype(float)
    means = fine.reshape(3, 6, 16, 10, 16).mean((2, 4))
    assert np.abs(means - above_pixels).max() < 0.51
    assert {key[0] for key in world.blocks(level, x, y, 40, 24)} == {level + 2}


def test_every_second_level_is_drawn_from_two_above(leaping: Path) -> None:
    parts = find(leaping)
    assert parts.leaps and parts.coarse is not None
    assert [parts.at(level) for level in (10, 14, 18)] == [parts.coarse, parts, parts]
    drawn = {level: parts.parent(level) for level in range(7, 19)}
    assert {level: above for level, above in drawn.items() if above is not None} == {
        10: 6,
        14: 10,
        18: 14,
    }


@pytest.mark.parametrize("level", [10, 14])
def test_blocks_of_a_leap_fit_and_other_sizes_agree(make: Any, leaping: Path, level: int) -> None:
    x, y = corner(level)
    side = make(leaping).side(level)
    assert side == (engines.COARSE_LEAP if level == 10 else engines.LEAP_SIDE) > BLOCK
    x, y = x // side * side, y // side * side
    window = (level, x + side - 32, y + side - 32, 64, 64)
    whole = make(leaping).level(*window)
    alone = [make(leaping).level(level, x + side - 32 + 32 * i, window[2], 32, 64) for i in (1, 0)]
    assert np.array_equal(np.concatenate(alone[::-1], -1), whole)
    other = make(leaping, block=2048).level(*window).astype(int)
    assert np.abs(other - whole).max() <= 1


def test_networks_of_one_cascade_leap_all_or_none(leaping: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    for one, other in (({"leap": True}, {}), ({}, {"leap": True})):
        save_model(tiny(1, **one), wrong)
        save_model(tiny(2, **other), wrong / COARSE)
        with pytest.raises(BadCheckpoint, match="both must, or neither"):
            find(wrong)
    image = np.zeros((3, 16, 16), np.uint8)
    with pytest.raises(InvalidInput, match="use 'refine'"):
        refine(image, 10.0, 1, 0, model=leaping)
