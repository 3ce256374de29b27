"""Evaluation: measures against images whose answer is known, judges, and one whole report on a tiny pack."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from terraloom.errors import BadCheckpoint, InvalidInput
from terraloom.evaluation import evaluate, judges, measures
from terraloom.evaluation.places import PLACES
from terraloom.evaluation.rollout import LEVELS, Roller
from terraloom.grid import MAX_LATITUDE
from terraloom.models.cascade import CascadeConfig, CascadeUNet, bicubic4, reduce4
from terraloom.training.packed import Pack, Sample
from terraloom.weights import save_model


def smooth(rng: np.random.Generator, side: int, cell: int) -> np.ndarray:
    coarse = rng.integers(0, 255, (side // cell, side // cell, 3)).astype(np.uint8)
    return coarse.repeat(cell, 0).repeat(cell, 1)


def tiny_pack(seed: int) -> Pack:
    rng = np.random.default_rng(seed)

    def sample(name: str, side: int, gsd: float, cover: int, cell: int) -> Sample:
        cells = np.full((side // 4, side // 4), cover, np.uint8)
        return Sample(name, smooth(rng, side, cell), cells, cells * 0, gsd)

    chips = [sample("eurosat", 64, 10.0, c, 4 if c == 13 else 32) for c in (13, 12) * 8]
    wide = [sample("landsat", 128, g, c, 8) for g in (38.0, 600.0) for c in (13, 12, 5) * 6]
    return Pack({"eurosat": chips, "landsat": wide})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = CascadeUNet(CascadeConfig(widths=(8, 16), depth=1))
    return save_model(net, tmp_path_factory.mktemp("eval") / "tiny").path


def test_places_are_on_the_map_and_spread() -> None:
    assert len(PLACES) == 40
    assert all(abs(lat) < MAX_LATITUDE and abs(lon) <= 180 for lon, lat in PLACES.values())


def test_levels_of_common_sensors() -> None:
    known = {
        0.6: 18,
        2.4: 16,
        3.0: 16,
        10.0: 14,
        30.0: 12,
        38.0: 12,
        150.0: 10,
        611.0: 8,
        2400.0: 6,
    }
    assert {gsd: measures.level_of(gsd) for gsd in known} == known


def test_contrast_of_known_images() -> None:
    flat = np.full((3, 128, 128), 90, np.uint8)
    stripes = flat.copy()
    stripes[:, ::2] = 110
    assert measures.contrast(flat) == 0
    assert measures.contrast(stripes) == pytest.approx(10)


def test_bands_of_bicubic_lack_the_top() -> None:
    real = torch.randn(8, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    low, _, top = measures.bands_against(real, bicubic4(reduce4(real)))
    assert low > 0.1 and top < 0.05
    assert measures.bands_against(real, real) == [1, 1, 1]


def test_judges_learn_texture_and_cannot_tell_equal_things_apart() -> None:
    generator = torch.Generator().manual_seed(1)
    fine = torch.randn(64, 3, 32, 32, generator=generator) * 0.3
    coarse = torch.nn.functional.interpolate(fine[:, :, :8, :8], scale_factor=4)
    assert judges.told_apart(fine, coarse, steps=40) > 0.9
    same = torch.randn(64, 3, 32, 32, generator=generator) * 0.3
    assert judges.told_apart(fine, same, steps=40) < 0.75


def test_rollout_keeps_its_parents_and_depends_on_the_seed(checkpoint: Path) -> None:
    from terraloom.weights import find, load_model

    net = load_model(find(checkpoint))
    assert isinstance(net, CascadeUNet)
    links = Roller(net, 0)(31.2, 30.9)
    assert [link.level for link in links] == list(LEVELS)
    for link in links:
        reduced = link.rgb.reshape(3, 48, 4, 48, 4).mean((2, 4))
        assert np.abs(reduced - link.parent).max() <= 1
    other = Roller(net, 1)(31.2, 30.9, finest=8)
    assert not np.array_equal(other[0].rgb, links[0].rgb)


def test_whole_report(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packs = {True: tiny_pack(1), False: tiny_pack(2)}
    monkeypatch.setattr(Pack, "load", lambda path, validation=False: packs[validation])
    monkeypatch.setattr("terraloom.evaluation.report.CLASSIFIER_STEPS", 5)
    monkeypatch.setattr("terraloom.evaluation.report.DISCRIMINATOR_STEPS", 5)
    metrics = evaluate(checkpoint, tmp_path / "pack", tmp_path / "out", places=4)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == metrics
    assert set(metrics["chain"]) == {f"z{level}" for level in LEVELS}
    assert all(row["consistency_max"] <= 1 for row in metrics["chain"].values())
    assert 0 <= metrics["classifier"]["generated"] <= 1 and metrics["seed_difference"] > 0
    card = (tmp_path / "out" / "card.md").read_text()
    assert card.count("| z12 |") == 3  # chain, single level, discriminator
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "metrics.json", "card.md", "chains.webp", "levels.webp",
    }  # fmt: skip


def test_bad_input(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="1 to 40"):
        evaluate(checkpoint, tmp_path / "p", tmp_path, places=41)
    with pytest.raises(BadCheckpoint):
        evaluate("nothing", tmp_path / "p", tmp_path)
