"""Training a network that leaps: its flow, and the student of a guided one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from terraloom.data.packed import Pack, Sample, write_pack
from terraloom.data.uses import CODES, UNKNOWN_COVER, WITH_SITES
from terraloom.errors import InvalidInput
from terraloom.models.cascade import CascadeConfig, CascadeUNet
from terraloom.models.waves import LEAP_WAVES, enlarged, image_of, reduce4
from terraloom.training.batches import GROUND_LAYERS, leaping_pair
from terraloom.training.cascade import CascadeTask
from terraloom.training.distil import DistilTask, steps
from terraloom.training.recipe import load_recipe
from terraloom.weights import save_model

pytest.importorskip("efficientnet_lite_pytorch")
RECIPES = Path(__file__).parent.parent.parent / "recipes"


@pytest.fixture(scope="module")
def pack_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stripes of fields and chequers of houses, 64 and 128 px, each with its use."""
    rng = np.random.default_rng(5)
    samples = []
    for k in range(12):
        n = 64 if k < 8 else 128
        y, x = np.mgrid[:n, :n] + rng.integers(0, 16, 2)[:, None, None]
        part = (x // 8) % 2 if k % 2 else (x // 4 + y // 4) % 2
        rgb = (70 + 90 * part[..., None] + rng.integers(-8, 8, (n, n, 3))).astype(np.uint8)
        name = "AnnualCrop" if k % 2 else "Residential"
        cover = np.full((n // 4, n // 4), 12 if k % 2 else 13, np.uint8)
        use = np.full_like(cover, CODES[name])
        samples.append(
            Sample(
                "chips" if k < 8 else "wide", rgb, cover, np.zeros_like(cover), 10.0, str(k), use
            )
        )
    path = tmp_path_factory.mktemp("pack") / "pack.safetensors"
    write_pack(path, samples, [False] * len(samples))
    return path


@pytest.fixture
def settings() -> dict[str, Any]:
    """The shipped recipe, for a small network and the pack above."""
    recipe = load_recipe(RECIPES / "leap.toml")
    recipe["model"] |= {"widths": [16, 24], "depth": 1, "embed": 16}
    recipe["data"] |= {
        "sources": [["wide", 1, 1.0]], "small_sources": [["chips", 1, 1.0]], "batch": 2, "small_batch": 4, "wide": 0.0,
    }  # fmt: skip
    return recipe


def test_a_pair_of_a_leap_agrees_at_sixteen_pixels() -> None:
    hr = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5
    soft, target = leaping_pair(hr, np.random.default_rng(0))
    assert soft.shape == (3, 3, 16, 16)
    off = (reduce4(reduce4(target)) - reduce4(soft)).abs()
    assert float(off.max()) < 0.02  # rounding and noise of the degraded parent
    assert float((target - enlarged(reduce4(soft), target)).std()) > 0.1


def test_a_leap_is_told_uses_and_lines_and_learns(
    settings: dict[str, Any], pack_path: Path
) -> None:
    settings["optimizer"]["lr"] = 3e-3
    task = CascadeTask(settings, Pack.load(pack_path), torch.device("cpu"))
    assert task.model.config.cover_classes == WITH_SITES
    lesson = task.real("small", np.random.default_rng(0))
    assert lesson.truth.shape == (4, LEAP_WAVES, 16, 16)
    assert lesson.asked.ground.shape == (4, GROUND_LAYERS + 16, 16, 16)
    assert set(lesson.asked.cover.unique().tolist()) <= {
        CODES["AnnualCrop"], CODES["Residential"], UNKNOWN_COVER,
    }  # fmt: skip
    torch.testing.assert_close(
        image_of(lesson.truth, lesson.asked.hr), lesson.real.hr, atol=0.02, rtol=0
    )

    def missed() -> float:
        with torch.no_grad():
            rng = np.random.default_rng(7)
            return float(
                np.mean(
                    [float(task._flow(task.real("small", rng), rng, False)[0]) for _ in range(6)]
                )
            )

    before = missed()
    for step in range(100):
        task.step(step, np.random.default_rng([1, step]), lambda parameters: None)
    assert missed() < 0.8 * before


@pytest.mark.parametrize(
    "schedule",
    [
        {"shares": {"paired": 0.5, "drawn": 0.5}},
        {"score": {"paired": 0.5}},
        {"polish": {"small": 1.0}},
    ],
)
def test_what_a_leap_cannot_learn_from_is_refused(
    settings: dict[str, Any], pack_path: Path, schedule: dict[str, Any]
) -> None:
    settings["schedule"] |= schedule
    with pytest.raises(InvalidInput, match="leaps learns by regression alone"):
        CascadeTask(settings, Pack.load(pack_path), torch.device("cpu"))


def test_guidance_of_a_leap_leads_away_from_no_land_cover_and_no_lines(
    settings: dict[str, Any], pack_path: Path, tmp_path: Path
) -> None:
    def net(seed: int, **changed: Any) -> Path:
        torch.manual_seed(seed)
        made = CascadeUNet(replace(CascadeConfig(**settings["model"]), **changed))
        with torch.no_grad():
            for p in made.parameters():
                p.add_(0.05 * torch.randn_like(p))
        save_model(made, tmp_path / str(seed))
        return tmp_path / str(seed)

    settings["model"] |= {"sigmas": [1.0]}
    settings["teacher"] = str(net(1))

    def arrived(guidance: float, unknown: bool = False, weaker: Path | None = None) -> torch.Tensor:
        settings["schedule"] |= {"substeps": 1, "guidance": guidance}
        recipe = settings | ({} if weaker is None else {"weaker": str(weaker)})
        task = DistilTask(recipe, Pack.load(pack_path), torch.device("cpu"))
        rng = np.random.default_rng(3)
        asked = task.real("small", rng).asked
        if unknown:
            cover = torch.full_like(asked.cover, UNKNOWN_COVER)
            asked = replace(asked, cover=cover, ground=asked.ground[:, :GROUND_LAYERS])
        return task.taught(asked, task.noise(asked.hr, rng))[1][-1]

    told, untold = arrived(1), arrived(1, unknown=True)
    assert not torch.allclose(told, untold, atol=1e-3)
    torch.testing.assert_close(arrived(3), untold + 3 * (told - untold), atol=0.05, rtol=0)
    younger = arrived(3, weaker=net(2))
    assert not torch.allclose(younger, arrived(3), atol=0.05)
    with pytest.raises(InvalidInput, match="as many levels at once"):
        arrived(2, weaker=net(4, leap=False))


def test_steps_of_a_leap_are_short_where_it_is_laid_out() -> None:
    for leap in (False, True):
        path = steps(1.0, 0.0, 8, leap)
        assert len(path) == 9 and path[0] == pytest.approx(1) and path[-1] == pytest.approx(0)
        assert all(a > b for a, b in zip(path, path[1:], strict=False))
        early = path[0] - path[1] < path[-2] - path[-1]
        assert early is leap
    assert steps(0.8, 0.5, 1, True) == pytest.approx([0.8, 0.5])
