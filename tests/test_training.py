"""The loop, the pack reader and the cascade's training steps, on a tiny pack in the real layout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from terraloom.data.packed import Pack, Sample, write_pack
from terraloom.diffusion.flow import carried, walked
from terraloom.errors import BadCheckpoint, BadPack, InvalidInput
from terraloom.models.blur import blurred
from terraloom.models.cascade import CascadeConfig, CascadeUNet
from terraloom.models.critic import Critic, Features
from terraloom.models.waves import bicubic4, nearest4, reduce4
from terraloom.training.batches import Batch, Batches, degraded_pair, evenest, flattened
from terraloom.training.cascade import CascadeTask
from terraloom.training.contest import contest
from terraloom.training.distil import BLUR, REACH, DistilTask, straight
from terraloom.training.likeness import maps, misses
from terraloom.training.loop import run
from terraloom.training.parents import own_parents
from terraloom.training.patterns import colour_bands, dots_share, lattice_share
from terraloom.training.polish import mistold
from terraloom.training.recipe import load_recipe, pace
from terraloom.weights import find, load_model, save_model

pytest.importorskip("efficientnet_lite_pytorch")
RECIPES = Path(__file__).parent.parent / "recipes"


@pytest.fixture(scope="module")
def pack_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth random images of two levels: 256 px at 38 m and at 150 m, cropland and city."""
    rng = np.random.default_rng(5)
    samples = []
    for k in range(8):
        coarse = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        rgb = np.asarray(Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC))
        cover, mask = (
            np.full((64, 64), v, np.uint8) for v in (12 if k % 2 else 13, 1 + 2 * (k % 3))
        )
        name, gsd = ("fine", 38.0) if k < 4 else ("coarse", 150.0)
        samples.append(Sample(name, rgb, cover, mask, gsd, str(k)))
    path = tmp_path_factory.mktemp("pack") / "pack.safetensors"
    write_pack(path, samples, [k in (3, 7) for k in range(8)])
    return path


RECIPE = """
kind = "cascade"
seed = 3
[model]
widths = [8, 16]
depth = 1
sigmas = [1.0, 0.5]
[optimizer]
lr = 2e-4
critic_lr = 3e-4
ema = 0.99
[schedule]
polish = { paired = 0.5, small = 0.5, even = 0.5, chain = 0.5, drawn = 0.5 }
shares = { paired = 0.2, small = 0.2, chain = 0.3, even = 0.2, drawn = 0.1 }
middle = 0.0
[losses]
likeness = 0.15
spread = { paired = 0.5, small = 0.5, even = 1.0, chain = 1.0, drawn = 0.5 }
pixel = 0.8
texture = 1.0
perceptual = 0.5
bounds = 5.0
feature = 0.35
band = 0.05
critic = 0.35
lattice = 0.5
[data]
batch = 4
wide = 0.5
small_batch = 2
unknown_cover = 0.1
sources = [["fine", 1, 0.5], ["coarse", 1, 0.5]]
small_sources = [["fine", 2, 1.0]]
chains = [["coarse", 1, 0.5, 1], ["coarse", 4, 0.5, 2]]
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {
        k: v for shard in sorted(folder.glob("*.safetensors")) for k, v in load_file(shard).items()
    }


def weights_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Of the network alone, without its critic."""
    from safetensors.torch import load_file

    return load_file(checkpoint / "model.safetensors")


@pytest.fixture(scope="module")
def trained(recipe: Path, pack_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    run(recipe, pack_path, out, threads=1, steps=6)
    return out


@pytest.mark.parametrize("wide", [0.0, 1.0])
@pytest.mark.parametrize("how", ["flow", "polish", "score"])
@pytest.mark.parametrize("kind", ["paired", "small", "chain", "even", "drawn"])
def test_every_kind_of_step_learns(
    kind: str, how: str, wide: float, recipe: Path, pack_path: Path
) -> None:
    settings = load_recipe(recipe)
    settings["schedule"] |= {
        "shares": {kind: 1.0},
        "polish": {kind: float(how == "polish")},
        "score": {kind: float(how == "score")},
    }
    settings["data"]["wide"] = wide
    torch.set_num_threads(1)
    task = CascadeTask(settings, Pack.load(pack_path), torch.device("cpu"))
    before = task.model.head.weight.detach().clone()
    logs = task.step(0, np.random.default_rng(4), lambda parameters: None)
    named = {"flow": kind, "polish": f"{kind}_hinge", "score": f"{kind} perceptual"}[how]
    assert logs["images"] >= 1 and named in logs and np.isfinite(list(logs.values())).all()
    assert not torch.equal(before, task.model.head.weight)


@pytest.mark.parametrize("bad", [0.3, {"paired": 1.5}, {"paired": "half"}])
def test_shares_that_are_no_table_are_one_clear_error(
    bad: object, recipe: Path, pack_path: Path
) -> None:
    settings = load_recipe(recipe)
    settings["schedule"]["polish"] = bad
    with pytest.raises(InvalidInput, match="schedule.polish of the recipe is .*must be a table"):
        CascadeTask(settings, Pack.load(pack_path), torch.device("cpu"))


def test_a_kind_of_step_that_there_is_not_is_named(recipe: Path, pack_path: Path) -> None:
    settings = load_recipe(recipe)
    settings["schedule"]["shares"] = {"paired": 0.5, "flat": 0.5}
    with pytest.raises(InvalidInput, match="flat.*known kinds of steps are paired"):
        CascadeTask(settings, Pack.load(pack_path), torch.device("cpu"))


def test_a_critic_learns_what_it_is_told_from_real_images_under_wrong_covers() -> None:
    """Generated images are as good as real ones here: only what is told of them can be judged."""
    features = Features()
    kinds = torch.tensor([1, 13]).repeat(4)  # forest, city
    cover = kinds[:, None, None].expand(-1, 16, 16)
    gsd = torch.full((8,), 10.0)

    def images() -> torch.Tensor:
        smooth = torch.nn.functional.interpolate(torch.randn(8, 3, 8, 8), size=64) * 0.3
        rough = torch.randn(8, 3, 64, 64) * 0.3
        return torch.where((kinds == 13)[:, None, None, None], rough, smooth)

    def shown(x: torch.Tensor, cover: torch.Tensor = cover) -> Batch:
        return Batch(x, cover, torch.zeros(8, 6, 16, 16), gsd)

    def preference(wrong_ones: bool) -> float:
        """What a critic gives for a true cover, less what it gives for a wrong one."""
        torch.manual_seed(0)
        critic = Critic()
        optimizer = torch.optim.Adam(critic.parameters(), 1e-3, betas=(0.0, 0.99))
        for _ in range(40):
            real, fake = images(), images()
            seen, true = (maps(features, x) for x in (fake, real))
            contest(
                critic,
                optimizer,
                (true, real, real, cover, gsd),
                (seen, fake, fake, cover, gsd),
                lambda parameters: None,
                mistold(true, shown(real), real) if wrong_ones else None,
            )
        x = images()
        seen = maps(features, x)
        with torch.no_grad():
            right, wrong = (
                torch.stack([s.mean() for s in critic(seen, x, x, c, gsd)]).mean()
                for c in (cover, cover.roll(1, 0))
            )
        return float(right - wrong)

    assert preference(True) > 0.15 > 0.05 > preference(False)
    x = images()
    assert mistold(maps(features, x), shown(x, torch.ones_like(cover)), x) is None
    half_unknown = torch.where(torch.arange(8)[:, None, None] % 2 == 0, 18, cover)
    assert mistold(maps(features, x), shown(x, half_unknown), x) is None  # unknown is never wrong


def test_coarse_levels_of_chains_are_drawn_by_another_network(
    trained: Path, recipe: Path, pack_path: Path, tmp_path: Path
) -> None:
    settings = load_recipe(recipe) | {"coarse": str(trained / "checkpoint")}
    settings["schedule"] |= {"shares": {"chain": 1.0}, "polish": {}, "score": {}}
    settings["data"] |= {"chains": [["coarse", 4, 1.0, 2]], "wide": 0.0}
    task = CascadeTask(settings, Pack.load(pack_path), torch.device("cpu"))
    assert task.coarse is not None
    before, calls = weights_of(trained / "checkpoint"), list[int]()
    task.coarse.register_forward_hook(lambda *_: calls.append(1))
    task.step(0, np.random.default_rng(4), lambda parameters: None)
    assert len(calls) == len(task.coarse.config.sigmas)  # of two levels, 150 and 38 m, the first
    task.export(tmp_path, {})
    inner = weights_of(tmp_path / "coarse")
    assert before.keys() == inner.keys() and all(torch.equal(inner[k], before[k]) for k in before)
    settings["coarse"] = str(tmp_path / "none")
    with pytest.raises(BadCheckpoint, match="none"):
        CascadeTask(settings, Pack.load(pack_path), torch.device("cpu"))


def test_straight_is_what_carries_there() -> None:
    x, end = torch.randn(2, 1, 45, 3, 3, generator=torch.Generator().manual_seed(0))
    for now, later in ((1.0, 0.6), (0.6, 0.2), (0.2, 0.0)):
        assert torch.allclose(carried(x, straight(x, end, now, later), now, later), end, atol=1e-5)


def test_a_student_walks_in_few_steps_where_its_teacher_arrives(
    recipe: Path, pack_path: Path, tmp_path: Path
) -> None:
    settings = load_recipe(recipe) | {"teacher": str(tmp_path / "teacher")}
    settings["schedule"] |= {"shares": {"paired": 1.0}, "substeps": 4}
    settings["optimizer"] |= {"lr": 5e-3}
    settings["data"] |= {"wide": 0.0}
    torch.manual_seed(1)
    teacher = CascadeUNet(replace(CascadeConfig(**settings["model"]), gain=1.2))
    with torch.no_grad():
        for p in teacher.parameters():
            p.add_(0.03 * torch.randn_like(p))
    save_model(teacher, tmp_path / "teacher")
    task = DistilTask(settings, Pack.load(pack_path), torch.device("cpu"))
    task.warm_start(tmp_path / "teacher")
    assert task.teacher.config.gain == 1.2 and task.model.config.gain == 1.0

    def off() -> float:
        rng = np.random.default_rng(9)
        asked = task.real("paired", rng).asked
        eps = task.noise(asked.hr, rng)
        _, ends = task.taught(asked, eps)

        def see(x: torch.Tensor, sigma: float) -> torch.Tensor:
            return task.see(asked, x, x.new_full((len(x),), sigma))

        with torch.no_grad():
            return float((walked(see, eps, task.model.config.sigmas) - ends[-1]).abs().mean())

    before = off()
    for step in range(60):
        logs = task.step(step, np.random.default_rng([2, step]), lambda parameters: None)
    assert {"at 1", "at 0.5", "likeness", "images"} == set(logs)
    assert (
        off() < 0.9 * before
    )  # so small a network, with random weights to follow, comes no nearer soon


def test_guidance_leads_away_from_a_blurred_parent(
    recipe: Path, pack_path: Path, tmp_path: Path
) -> None:
    flat = torch.full((1, 3, 16, 16), 0.3)
    edge = torch.cat([-flat, flat], -1)
    soft = blurred(edge, BLUR, REACH)
    assert torch.allclose(blurred(flat, BLUR, REACH), flat, atol=1e-6)
    assert torch.allclose(soft.mean(), edge.mean(), atol=1e-6)
    assert 0 < float(soft[0, 0, 8, 16]) < 0.2 and float(soft[0, 0, 8, -1]) > 0.29

    settings = load_recipe(recipe) | {"teacher": str(tmp_path / "teacher")}
    torch.manual_seed(1)
    teacher = CascadeUNet(CascadeConfig(**settings["model"]))
    with torch.no_grad():
        for p in teacher.parameters():
            p.add_(0.03 * torch.randn_like(p))
    save_model(teacher, tmp_path / "teacher")

    def ends(guidance: Any, soft: bool = False) -> torch.Tensor:
        settings["schedule"] |= {"shares": {"paired": 1.0}, "substeps": 1, "guidance": guidance}
        settings["model"] |= {"sigmas": [1.0]}
        settings["data"] |= {"wide": 0.0}
        task = DistilTask(settings, Pack.load(pack_path), torch.device("cpu"))
        rng = np.random.default_rng(3)
        asked = task.real("paired", rng).asked
        if soft:
            asked = replace(asked, hr=blurred(asked.hr, BLUR, REACH))
        return task.taught(asked, task.noise(asked.hr, rng))[1][-1]

    plain, other = ends(1), ends(1, soft=True)
    assert not torch.allclose(plain, other)
    guided = ends(3)
    assert torch.allclose(guided, other + 3 * (plain - other), atol=0.05)
    by_level = ends([[0, 1], [100, 3]])  # the images are of 38 and of 150 m
    changed = (by_level - plain).abs().amax((1, 2, 3)) > 1e-3
    assert 0 < int(changed.sum()) < len(changed)
    assert torch.allclose(by_level[changed], guided[changed], atol=0.05)


@pytest.mark.parametrize(
    "schedule, named",
    [
        ({"substeps": 0}, "schedule.substeps"),
        ({"substeps": 2, "guidance": 0.5}, "schedule.guidance of the recipe is 0.5"),
        ({"substeps": 2, "guidance": "much"}, "from 1 \\(none\\) to 10"),
        ({"substeps": 2, "guidance": [[30, 2, 1]]}, "list of"),
        ({"substeps": 2, "guidance": [[-1, 2]]}, "list of"),
        ({"substeps": 2, "shares": {"paired": 0.5, "chain": 0.5}}, "has chains"),
    ],
)
def test_a_teacher_asks_for_steps_and_no_chains(
    recipe: Path, pack_path: Path, schedule: dict[str, Any], named: str
) -> None:
    settings = load_recipe(recipe) | {"teacher": "cascade"}
    settings["schedule"] |= {"shares": {"paired": 1.0}} | schedule
    with pytest.raises(InvalidInput, match=named):
        DistilTask(settings, Pack.load(pack_path), torch.device("cpu"))


def test_a_recipe_with_a_teacher_is_distilled(
    trained: Path, recipe: Path, pack_path: Path, tmp_path: Path
) -> None:
    settings = recipe.read_text().replace("[schedule]", "[schedule]\nsubsteps = 2")
    settings = settings.replace("chain = 0.3, ", "")
    taught = tmp_path / "taught.toml"
    taught.write_text(f'teacher = "{trained / "checkpoint"}"\n{settings}')
    run(taught, pack_path, tmp_path / "out", threads=1, steps=2, start=trained / "checkpoint")
    assert find(tmp_path / "out" / "checkpoint").config["training"]["step"] == 2
    taught.write_text(f'teacher = "{tmp_path / "none"}"\n{settings}')
    with pytest.raises(BadCheckpoint, match="none"):
        run(taught, pack_path, tmp_path / "other", threads=1, steps=1)


def test_resume_is_exact(trained: Path, recipe: Path, pack_path: Path, tmp_path: Path) -> None:
    run(recipe, pack_path, tmp_path, threads=1, steps=3)
    run(recipe, pack_path, tmp_path, threads=1, steps=6)
    whole, halves = tensors(trained / "state"), tensors(tmp_path / "state")
    assert whole.keys() == halves.keys()
    assert all(torch.equal(whole[k], halves[k]) for k in whole)


def test_training_changes_every_part_and_exports_a_checkpoint(trained: Path, recipe: Path) -> None:
    state = tensors(trained / "state")
    assert all(bool(torch.isfinite(v).all()) for v in state.values())
    moved = [
        not torch.equal(state[f"module/model/{k}"], state[f"module/ema/{k}"])
        for k in ("head.weight", "stem.weight", "down.0.0.film.weight")
    ]
    assert all(moved)
    checkpoint = find(trained / "checkpoint")
    assert checkpoint.config["training"]["step"] == 6
    model = load_model(checkpoint)
    average = state["module/ema/head.weight"]
    torch.testing.assert_close(model.state_dict()["head.weight"], average, rtol=0.01, atol=1e-4)
    assert (trained / "checkpoint" / "critic.safetensors").exists()


def test_start_from_a_checkpoint(
    trained: Path, recipe: Path, pack_path: Path, tmp_path: Path
) -> None:
    run(recipe, pack_path, tmp_path, threads=1, steps=1, start=trained / "checkpoint")
    before = tensors(trained / "state")["module/ema/head.weight"]
    after = tensors(tmp_path / "state")["module/ema/head.weight"]
    assert float((before - after).abs().max()) < 1e-3  # one step and bf16 rounding away


def test_damaged_state_is_one_clear_error(
    trained: Path, recipe: Path, pack_path: Path, tmp_path: Path
) -> None:
    run(recipe, pack_path, tmp_path, threads=1, steps=1)
    shard = tmp_path / "state" / "000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(BadCheckpoint, match="cannot resume"):
        run(recipe, pack_path, tmp_path, threads=1, steps=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind = 'nothing'", "must be one of cascade, metaearth, text"),
        ("kind = 'cascade'\nspeed = 3", "unknown keys"),
        ("kind = ", "not valid TOML"),
    ],
)
def test_bad_recipes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        load_recipe(path)


def test_missing_files_and_budget(recipe: Path, pack_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot read recipe"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(BadPack, match="terraloom data pack"):
        Pack.load(tmp_path / "none.safetensors")
    with pytest.raises(InvalidInput, match="budget"):
        run(recipe, pack_path, tmp_path)


def test_pack_keeps_the_sides_apart(pack_path: Path) -> None:
    train, held = Pack.load(pack_path), Pack.load(pack_path, validation=True)
    assert {k: len(v) for k, v in train.sets.items()} == {"fine": 3, "coarse": 3}
    assert {k: len(v) for k, v in held.sets.items()} == {"fine": 1, "coarse": 1}


def test_pace_falls_over_the_last_third() -> None:
    planned: dict[str, Any] = {"schedule": {"total_steps": 300}}
    found = [pace(planned, step) for step in (0, 200, 250, 300, 400)]
    assert found == pytest.approx([1, 1, 0.5, 0, 0])
    assert pace({}, 10**6) == 1


def test_shipped_recipes_load() -> None:
    recipe = load_recipe(RECIPES / "cascade.toml")
    config = CascadeConfig(**recipe["model"])
    assert sum(p.numel() for p in CascadeUNet(config).parameters()) == 4_715_973


def test_an_unknown_set_is_named(pack_path: Path) -> None:
    data = {"sources": [["moon", 1, 1.0]], "small_sources": [], "chains": [], "unknown_cover": 0.0}
    with pytest.raises(InvalidInput, match="moon"):
        Batches(Pack.load(pack_path), data)


def test_targets_stay_consistent_with_their_inputs() -> None:
    rng = np.random.default_rng(0)
    hr = torch.rand(4, 3, 64, 64) * 1.6 - 0.8
    lr, target = degraded_pair(hr, rng)
    # away from the rim: bicubic enlargement keeps the 4 x 4 means of a smooth correction closely
    assert float((reduce4(target) - lr)[..., 2:-2, 2:-2].abs().mean()) < 0.02
    flat, _ = flattened(target, lr, rng)
    assert bool((flat.std((2, 3)) < 0.2 * lr.std((2, 3))).all())
    faint, fainter = flattened(target, lr, rng, 0.3, 0.9)
    assert bool((faint.std((2, 3)) > 0.2 * lr.std((2, 3))).all())
    assert torch.allclose(fainter - bicubic4(faint), target - bicubic4(lr), atol=1e-5)


def test_own_parents_keep_what_their_own_parents_show(recipe: Path, pack_path: Path) -> None:
    """And the base map is never drawn: images of 611 m keep their true parents."""
    torch.set_num_threads(1)
    task = CascadeTask(load_recipe(recipe), Pack.load(pack_path), torch.device("cpu"))
    rng = np.random.default_rng(0)
    hr = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)) - 0.5
    cover, ground = torch.zeros(2, 32, 32, dtype=torch.long), torch.zeros(2, 6, 32, 32)
    batch = Batch(hr, cover, ground, torch.tensor([10.0, 611.0]))
    near = task._drawer(task.ema, rng)
    drawn, kept = own_parents(batch, near, near)
    true = reduce4(hr)
    assert float((kept - true[1]).abs().max()) < 0.01 < float((drawn - true[0]).abs().max())
    assert float((reduce4(drawn[None]) - reduce4(true[:1])).abs().max()) < 0.02


def test_even_places_are_those_whose_detail_is_whole_within_a_cell() -> None:
    """Gravel among large fields: the fields would leave their edges alone on an even parent."""
    generator = torch.Generator().manual_seed(0)
    gravel = torch.rand(2, 3, 128, 128, generator=generator) - 0.5
    fields = nearest4(nearest4(torch.rand(2, 3, 8, 8, generator=generator) - 0.5))
    hr = torch.cat([fields, gravel])[[0, 2, 1, 3]]
    batch = Batch(hr, torch.arange(4)[:, None, None], torch.zeros(4, 6, 1, 1), torch.ones(4))
    assert sorted(evenest(batch, 2).cover.flatten().tolist()) == [1, 3]


def test_a_miss_counts_by_what_the_parent_shows_and_not_by_the_truth() -> None:
    generator = torch.Generator().manual_seed(0)
    faint, bold, off = torch.randn(3, 2, 45, 16, 16, generator=generator) * torch.tensor(
        [0.1, 3.0, 0.5]
    ).reshape(3, 1, 1, 1, 1)
    parents = (
        torch.rand(2, 3, 16, 16, generator=generator)
        * torch.tensor([0.01, 1.0])[:, None, None, None]
    )
    sigma, weight = torch.full((2,), 0.5), torch.ones(1, 1, 1, 1)
    one, two = (misses(truth + off, truth, sigma, weight, parents) for truth in (faint, bold))
    assert torch.allclose(one, two, rtol=1e-4)
    even, busy = misses(off, torch.zeros_like(off), sigma, weight, parents)
    assert even > 2 * busy


def test_lattice_share_finds_a_repeated_cell_and_not_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 3, 128, 128, generator=generator)
    assert torch.allclose(lattice_share(noise), torch.tensor([1 / 64, 1 / 64, 1 / 16]), rtol=0.3)
    cell = torch.randn(2, 3, 4, 4, generator=generator).repeat(1, 1, 32, 32)
    assert bool((lattice_share(cell) > 0.99).all())
    assert float(lattice_share(noise + cell)[0]) > 0.4


def test_dots_share_finds_strokes_of_any_sign_and_not_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 3, 128, 128, generator=generator)
    assert bool((dots_share(noise) < torch.tensor([0.03, 0.03, 0.12])).all())
    place = torch.zeros(1, 1, 4, 4)
    place[..., 1, 2] = 3.0
    signs = torch.randn(2, 1, 32, 32, generator=generator).sign()
    strokes = noise + place.repeat(1, 1, 32, 32) * signs.repeat_interleave(4, 2).repeat_interleave(
        4, 3
    )
    assert float(lattice_share(strokes)[0]) < 0.05 < 0.2 < float(dots_share(strokes)[0])


def test_colour_bands_tell_grey_from_colour() -> None:
    x = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    grey = colour_bands(x)
    assert bool((grey[:, :3] > 1e-3).all()) and bool((grey[:, 3:] < 1e-6).all())


def test_same_step_same_randomness(pack_path: Path) -> None:
    recipe = {
        "sources": [["fine", 1, 1.0]], "small_sources": [["fine", 2, 1.0]],
        "chains": [["coarse", 1, 1.0, 1]], "unknown_cover": 0.1,
    }  # fmt: skip
    batches = Batches(Pack.load(pack_path), recipe)
    a, b = (batches.paired(np.random.default_rng([1, 7]), 3, 128, False) for _ in range(2))
    assert torch.equal(a.hr, b.hr) and torch.equal(a.cover, b.cover)
    like = batches.like(
        np.random.default_rng(0), torch.full((2, 8, 8), 13), torch.full((2,), 38.0), 128
    )
    assert like is not None and bool((like.gsd < 80).all())


WATCH = """
import os
import sys
from dataclasses import replace
from pathlib import Path
import terraloom.training.loop as loop

made, make = [], loop.make_task
loop.make_task = lambda *args: made.append(make(*args)) or made[0]
recipe, pack, out = map(Path, sys.argv[1:])
loop.run(recipe, pack, out, steps=4, threads=1)
total = sum(float(p.detach().double().abs().sum()) for m in made[0].modules.values() for p in m.parameters())
rank = int(os.environ["RANK"])
(out / f"rank{rank}.txt").write_text(repr(total))
"""


def test_two_processes_learn_as_one(
    recipe: Path, trained: Path, pack_path: Path, tmp_path: Path
) -> None:
    script, out = tmp_path / "watch.py", tmp_path / "run"
    script.write_text(WATCH)
    # torchrun is what `accelerate launch` calls where there are several GPUs
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
    ]
    command = [*launch, str(script), str(recipe), str(pack_path), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    weights = [float((out / f"rank{k}.txt").read_text()) for k in (0, 1)]
    assert weights[0] == weights[1]  # both drew other batches, and took the same steps
    state = json.loads((out / "state" / "done.json").read_text())
    assert state["step"] == 4
    assert (
        state["images"]
        > json.loads((trained / "state" / "done.json").read_text())["images"] * 4 / 6
    )
