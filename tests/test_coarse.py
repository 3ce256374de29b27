"""A cascade whose coarse levels are drawn by a network of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cascade_model import corner, tiny

from terraloom.evaluation.rollout import Roller
from terraloom.models.cascade import CascadeConfig, CascadeUNet
from terraloom.pipelines.refine import engine_for, refine
from terraloom.serve.draws import _neighbours
from terraloom.weights import COARSE, COARSE_LEVEL, find, load_model, save_model
from terraloom.world import engine as engines

BLOCK = 256


@pytest.fixture(scope="module")
def duo(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny cascade with a coarse network that is asked twice."""
    folder = tmp_path_factory.mktemp("weights") / "duo"
    save_model(load_model(find(tiny_checkpoint)), folder)
    save_model(tiny(2, sigmas=(1.0, 0.4), gain=1.2), folder / COARSE)
    return folder


def test_the_digest_is_of_both(duo: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    alone, both = find(tiny_checkpoint), find(duo)
    assert alone.coarse is None and both.coarse is not None
    assert len({alone.digest, both.digest, both.coarse.digest}) == 3
    for level in range(6, 19):
        assert alone.at(level) is alone
        assert both.at(level) is (both.coarse if level <= COARSE_LEVEL else both)


def test_gain_multiplies_the_grey_detail_seen() -> None:
    torch.manual_seed(0)
    plain = CascadeUNet(CascadeConfig(widths=(8,), depth=1, embed=8)).eval()
    bold = CascadeUNet(CascadeConfig(widths=(8,), depth=1, embed=8, gain=1.5)).eval()
    bold.load_state_dict(plain.state_dict())
    inputs = (
        torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4), torch.zeros(1, 6, 4, 4),
        torch.full((1, 4), 30.0), torch.randn(1, 45, 4, 4), torch.tensor([0.5]),
    )  # fmt: skip
    one, other = plain(*inputs), bold(*inputs)
    assert torch.allclose(other[:, :15], 1.5 * one[:, :15]) and torch.equal(
        other[:, 15:], one[:, 15:]
    )


def test_every_level_is_drawn_by_its_own_network_in_its_own_blocks(
    make: Any, duo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: dict[str, int] = {}
    start = engines.start

    def watched(name: str, precision: str, part: Any, side: int, *rest: Any) -> Any:
        started[part.digest] = side
        return start(name, precision, part, side, *rest)

    monkeypatch.setattr(engines, "start", watched)
    world, both = make(duo, block=512), find(duo)
    assert both.coarse is not None
    x, y = corner(12)
    world.level(12, x, y, 8, 8)
    assert started == {both.coarse.digest: 256 + 2 * world.spec.halo}
    x, y = corner(14)
    world.level(14, x, y, 8, 8)
    assert started[both.digest] == 512 + 2 * world.spec.halo and len(started) == 2


@pytest.mark.parametrize("level", [8, 12, 14])
def test_blocks_of_any_size_are_cut_from_one_canvas(make: Any, duo: Path, level: int) -> None:
    x, y = corner(level)
    window = (level, x - 150, y - 100, 300, 200)
    reference = make(duo).level(*window).astype(int)
    assert reference.std() > 5
    for block in (128, 512):
        difference = np.abs(make(duo, block=block).level(*window) - reference)
        assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("level", [10, 12, 14])
def test_the_means_of_a_level_are_its_parent(make: Any, duo: Path, level: int) -> None:
    world, (x, y) = make(duo), corner(level)
    drawn = world.level(level, x, y, 128, 128).astype(float)
    parent = world.level(level - 2, x // 4, y // 4, 32, 32)
    assert np.abs(drawn.reshape(3, 32, 4, 32, 4).mean((2, 4)) - parent).max() <= 0.51


def test_the_coarse_network_changes_its_levels_and_what_grows_from_them(
    make: Any, duo: Path, tiny_checkpoint: Path
) -> None:
    (x, y), (fx, fy) = corner(8), corner(14)
    one, two = make(tiny_checkpoint, halo=96), make(duo)
    assert not np.array_equal(one.level(8, x, y, 64, 64), two.level(8, x, y, 64, 64))
    assert one.id != two.id
    assert not np.array_equal(one.level(14, fx, fy, 64, 64), two.level(14, fx, fy, 64, 64))


def test_chains_are_drawn_by_both(duo: Path, tiny_checkpoint: Path) -> None:
    place = (31.2, 30.9)
    one = Roller(find(tiny_checkpoint), engine="torch")(*place, finest=14)
    two = Roller(find(duo), engine="torch")(*place, finest=14)
    assert [link.level for link in one] == [link.level for link in two] == [8, 10, 12, 14]
    assert all(not np.array_equal(a.rgb, b.rgb) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(("gsd", "coarse"), [(120.0, True), (16.0, False)])
def test_single_images_are_refined_by_the_network_of_their_gsd(
    duo: Path, tiny_checkpoint: Path, gsd: float, coarse: bool
) -> None:
    image = np.random.default_rng(0).integers(60, 200, (3, 16, 16)).astype(np.uint8)
    by_both = refine(image, gsd, 1, 3, model=duo, engine="torch")
    by_one = refine(image, gsd, 1, 3, model=tiny_checkpoint, engine="torch")
    assert np.array_equal(by_both, by_one) is not coarse
    assert by_both.shape == (3, 64, 64)
    engine_for.cache_clear()


def test_neighbours_to_draw_ahead_are_of_the_levels_own_blocks(make: Any, duo: Path) -> None:
    world = make(duo, block=512)
    assert [world.side(level) for level in (6, 8, 12, 14)] == [256, 256, 256, 512]
    x, y = corner(12)
    (key,) = world.blocks(12, x, y, 8, 8)
    around = _neighbours(world, key)
    assert len(around) == 8
    assert all(max(abs(a - b) for a, b in zip(near, key, strict=True)) == 1 for near in around)
    world.level(12, x + 256, y, 8, 8)
    assert len(_neighbours(world, key)) == 7  # what is there needs no drawing
