"""Training on frames: the energy score, holes, batches of the three tasks, packs, exact resume, fine-tuning."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from safetensors.torch import load_file

pytest.importorskip("diffusers")
pytest.importorskip("efficientnet_lite_pytorch")

from frames_model import TINY, tiny_networks  # noqa: E402

from terraloom.data.stack_pack import matched, stretches  # noqa: E402
from terraloom.data.stacks import Dated, Stacks, write_stacks  # noqa: E402
from terraloom.errors import BadPack, InvalidInput  # noqa: E402
from terraloom.io.stack import build_stack  # noqa: E402
from terraloom.metadata import Metadata  # noqa: E402
from terraloom.models.frames import BANDS, Frames, agreed, composed, draw, filled, mingled  # noqa: E402
from terraloom.models.waves import bicubic4, reduce4  # noqa: E402
from terraloom.training.frame_batches import TASKS, FrameBatches, inpaint_base, years  # noqa: E402
from terraloom.training.holes import hole  # noqa: E402
from terraloom.training.loop import run  # noqa: E402
from terraloom.training.patterns import repeated  # noqa: E402
from terraloom.training.scores import energy_score, patches  # noqa: E402
from terraloom.weights import load_frames  # noqa: E402

RGB = ("red", "green", "blue")
GREY = {"zero": (127.5,), "unit": (127.5,)}


def dated(
    place: str, date: str | None, seed: int, bands: tuple[str, ...] = RGB, side: int = 96
) -> Dated:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (len(bands), side, side), np.uint8)
    return Dated(
        "fields",
        place,
        bands,
        (1.0,) * len(bands),
        10.0,
        pixels,
        4.9,
        52.4,
        date,
        **GREY,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place of three dates, one of one date with near infrared, and one that is held out."""
    lossless = {"lossless": True}
    images = [dated("a", f"2020-0{m}-11", m) for m in (5, 3, 7)]
    entries: list[Any] = [(image, False, lossless) for image in images]
    entries += [(dated("b", None, 9, (*RGB, "nir")), False, lossless)]
    entries += [(dated("c", f"2021-0{m}", 20 + m), True, lossless) for m in (1, 2)]
    return write_stacks(tmp_path_factory.mktemp("pack") / "frames.safetensors", entries)


DATA = {"side": 48, "batch": 2, **{task: [["fields", 1, 1.0]] for task in TASKS}}
SURE = {**DATA, "field_drop": 0.0, "metadata_drop": 0.0, "band_drop": 0.0}


def test_pack_round_trip(pack: Path) -> None:
    stacks = Stacks.load(pack)
    (a, b) = sorted(stacks.places["fields"], key=len, reverse=True)
    assert [image.date for image in a] == ["2020-03-11", "2020-05-11", "2020-07-11"]
    assert (a[0].pixels == dated("a", None, 3).pixels).all()
    assert b[0].bands == (*RGB, "nir")
    assert b[0].pixels.shape == (4, 96, 96)
    assert {
        image.place for p in Stacks.load(pack, validation=True).places["fields"] for image in p
    } == {"c"}


def test_damaged_pack_is_refused(pack: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(pack.read_bytes()[:1000])
    with pytest.raises(BadPack, match="frames-pack"):
        Stacks.load(bad)


@pytest.mark.parametrize("task", TASKS)
def test_batches_are_a_function_of_the_generator(pack: Path, task: Any) -> None:
    batches = FrameBatches(Stacks.load(pack), DATA)
    one, two = (batches.draw(np.random.default_rng(5), task, 3) for _ in range(2))
    assert torch.equal(one.truth, two.truth)
    assert torch.equal(one.frames.pixels, two.frames.pixels)


def test_superres_is_told_the_reduced_image_only(pack: Path) -> None:
    batch = FrameBatches(Stacks.load(pack), SURE).draw(np.random.default_rng(0), "superres", 8)
    frames = batch.frames
    assert frames.coarse is not None
    assert torch.allclose(
        reduce4(batch.truth), frames.coarse, atol=0.02
    )  # bicubic enlargement is not exact
    assert torch.allclose(frames.pixels[:, :3, 0], bicubic4(frames.coarse))
    with_nir = frames.pixels[:, BANDS.index("nir"), 0].abs().sum((1, 2)) > 0
    assert with_nir.any() and not with_nir.all()
    fine, coarse = (Metadata(gsd=g).vector()[2] for g in (10.0, 40.0))
    assert frames.target[:, 2].unique().tolist() == [fine]
    assert frames.dated[:, 2, 0].unique().tolist() == [coarse]


def test_inpainting_never_shows_what_is_missing(pack: Path) -> None:
    """Changing the truth inside the hole changes nothing that the network is told."""
    stacks = Stacks.load(pack)
    plain = FrameBatches(stacks, SURE).draw(np.random.default_rng(2), "inpaint", 6)
    hidden = plain.frames.free.bool()
    assert 0 < hidden.float().mean() < 1
    own = plain.frames.pixels[:, -1] == 0  # (B, T, H, W)
    assert (plain.frames.pixels[:, :3].abs().sum(1)[own] == 0).all()
    assert torch.equal(
        plain.frames.base[~hidden.expand(-1, 3, -1, -1)], plain.truth[~hidden.expand(-1, 3, -1, -1)]
    )
    assert not torch.equal(plain.frames.base, plain.truth)


def test_forecast_shows_other_dates_in_order_and_not_the_target(pack: Path) -> None:
    batch = FrameBatches(Stacks.load(pack), SURE).draw(np.random.default_rng(1), "forecast", 12)
    frames = batch.frames
    for i in range(12):
        count = int(frames.present[i].sum())
        assert 1 <= count <= 2
        assert frames.present[i, :count].all()
        months = frames.dated[i, 5, :count]
        assert (months.diff() > 0).all()
        assert float(frames.target[i, 5]) not in months.tolist()
        for k in range(count):
            assert not torch.equal(frames.pixels[i, :3, k], batch.truth[i])
        shown = [frames.pixels[i, :3, k] for k in range(count)]
        guesses = [mingled([a[None], *(b[None] for b in shown if b is not a)])[0] for a in shown]
        assert any(torch.allclose(frames.base[i], guess, atol=1e-5) for guess in guesses)


def test_years_shift_together(pack: Path) -> None:
    """Absolute years are hidden, distances in time are not."""
    batches = FrameBatches(Stacks.load(pack), SURE)
    seen = set()
    for seed in range(6):
        frames = batches.draw(np.random.default_rng(seed), "forecast", 4).frames
        years_told = torch.cat([frames.dated[:, 4], frames.target[:, 4:5]], 1)
        assert (years_told.nan_to_num(nan=0).max(1).values == frames.target[:, 4]).all()
        seen |= set(frames.target[:, 4].tolist())
    assert len(seen) > 5


def test_a_task_without_places_is_refused(pack: Path) -> None:
    stacks = Stacks.load(pack)
    with pytest.raises(InvalidInput, match="holds"):
        FrameBatches(stacks, {**DATA, "forecast": [["rivers", 1, 1.0]]})
    batches = FrameBatches(stacks, {**DATA, "side": 512})
    with pytest.raises(InvalidInput, match="share 0"):
        batches.draw(np.random.default_rng(0), "superres", 1)


def test_years_of_partial_dates() -> None:
    whole, month, year = (years(dated("a", d, 0)) for d in ("2020-07-01", "2020-07", "2020"))
    assert whole == month == year
    assert years(dated("a", "2021-07-01", 0)) - whole == pytest.approx(1, abs=0.01)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), side=st.sampled_from([48, 64, 128]))
def test_holes_are_neither_nothing_nor_everything(seed: int, side: int) -> None:
    mask = hole(np.random.default_rng(seed), side)
    assert mask.shape == (side, side)
    assert set(np.unique(mask)) == {0, 1}


def test_energy_score_is_smallest_for_draws_spread_like_the_truth() -> None:
    """Proper: drawing with the wrong spread or mean costs more, on average."""
    torch.manual_seed(0)
    truth = torch.randn(4000, 8, 1, 1)

    def score(mean: float, spread: float) -> float:
        one, two = (mean + spread * torch.randn_like(truth) for _ in range(2))
        return float(energy_score(one, two, truth).mean())

    right = score(0, 1)
    assert right < min(score(0, 0.5), score(0, 1.6), score(0.7, 1), score(0, 0)) - 0.01


def test_patches_measure_root_mean_squares() -> None:
    x = torch.randn(2, 3, 16, 16)
    assert patches(x).square().sum(1).mean() == pytest.approx(float(x.square().mean()), rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 37), width=st.integers(1, 37))
def test_filled_keeps_what_is_known_and_stays_within_it(seed: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(2, 3, height, width, generator=generator)
    known = (torch.rand(2, 1, height, width, generator=generator) < 0.3).float()
    out = filled(torch.where(known > 0, image, torch.nan), known)
    assert torch.isfinite(out).all()
    assert torch.equal(out * known, image * known)
    for i in range(2):
        if known[i].any():
            there = image[i][:, known[i, 0] > 0]
            assert (out[i] >= there.min() - 1e-4).all() and (out[i] <= there.max() + 1e-4).all()
        else:
            assert (out[i] == 0).all()


def test_composed_takes_the_first_that_is_known() -> None:
    a, b = torch.full((1, 3, 2, 2), 1.0), torch.full((1, 3, 2, 2), 2.0)
    knows_a = torch.tensor([[[[1.0, 0], [0, 0]]]])
    knows_b = torch.tensor([[[[1.0, 1], [0, 1]]]])
    out = composed([(a, knows_a), (b, knows_b)])[0, 0]
    assert out[0, 0] == 1 and out[0, 1] == 2 and out[1, 1] == 2
    assert 1 <= out[1, 0] <= 2


def test_another_date_agrees_where_both_are_known_and_meets_the_hole_without_a_step() -> None:
    generator = torch.Generator().manual_seed(0)
    place = torch.randn(1, 3, 48, 48, generator=generator)
    image, other = place + 0.5, 1.0 * place  # another light on the same ground
    known = torch.ones(1, 1, 48, 48)
    known[..., 16:32, 16:32] = 0
    out = agreed(other, image, known)
    torch.testing.assert_close(out, image, atol=1e-4, rtol=0)
    assert torch.equal(agreed(other, image, torch.zeros_like(known)), other)


def test_a_hole_is_guessed_from_the_nearest_date_that_knows_it() -> None:
    image = torch.zeros(3, 32, 32)
    near, far = torch.full((3, 32, 32), 0.25), torch.full((3, 32, 32), 0.75)
    near[:, 14] = 0.5  # a road
    known, cloud = torch.ones(1, 32, 32), torch.ones(1, 32, 32)
    known[:, 8:24, 8:24] = 0
    cloud[:, 8:12, 8:24] = 0
    base = inpaint_base(image, known, [(near, cloud), (far, torch.ones_like(known))])
    assert torch.equal(base * known, image * known)
    assert float((base[:, 14, 10:22] - 0.25).abs().max()) < 0.02  # 0.25 more than its surroundings
    assert float(base[:, 9:11, 10:22].abs().max()) < 0.02  # the far date, its light taken off
    alone = inpaint_base(image, known, [])
    assert float(alone.abs().max()) == 0


def test_mingled_has_the_first_dates_detail_and_the_means_colours() -> None:
    generator = torch.Generator().manual_seed(0)
    ground = torch.randn(1, 3, 96, 96, generator=generator)
    torch.testing.assert_close(
        mingled([ground + 0.5, ground - 0.5]), ground
    )  # other light: the mean of both
    torch.testing.assert_close(mingled([ground]), ground)
    out = mingled([ground, torch.zeros_like(ground)])  # a mean of dates has half of the detail
    assert float((out - ground).std()) < 0.05 < float(ground.std())


def test_draw_keeps_the_base_where_nothing_is_free_and_the_coarse_means() -> None:
    unet, control = tiny_networks()
    torch.manual_seed(0)
    free = torch.zeros(1, 1, 32, 32)
    free[..., 8:20, 8:20] = 1
    frames = Frames(
        torch.randn(1, len(BANDS) + 1, 1, 32, 32), torch.ones(1, 1, dtype=torch.bool), torch.full((1, 7, 1), torch.nan),
        torch.full((1, 7), torch.nan), torch.randn(1, 3, 32, 32), free,
    )  # fmt: skip
    with torch.no_grad():
        out = draw(unet, control, frames, torch.randn(1, 3, 32, 32))
        other = draw(unet, control, frames, torch.randn(1, 3, 32, 32))
    outside = free.expand(-1, 3, -1, -1) == 0
    assert torch.equal(out[outside], frames.base[outside])
    assert (out != frames.base)[~outside].float().mean() > 0.9
    assert (out != other)[~outside].float().mean() > 0.9  # noise counts
    coarse = torch.randn(1, 3, 8, 8)
    whole = replace(frames, free=torch.ones_like(free), coarse=coarse)
    with torch.no_grad():
        out = draw(unet, control, whole, torch.randn(1, 3, 32, 32))
    assert torch.allclose(reduce4(out), coarse, atol=1e-5)


def test_matched_dates_have_one_mean_and_spread() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(120, 20, (3, 5000))
    dates = [
        np.round(truth * g + o).clip(0, 255).astype(np.uint8) for g, o in ((1.0, 0.0), (0.6, 60.0))
    ]
    units = matched(dates)
    normal = [
        (d - np.array(z)[:, None]) / np.array(u)[:, None]
        for d, (z, u) in zip(dates, units, strict=True)
    ]
    assert np.abs(normal[0].mean(1) - normal[1].mean(1)).max() < 1e-3
    assert np.abs(normal[0].std(1) / normal[1].std(1) - 1).max() < 1e-3


def test_stretches_of_percentiles() -> None:
    values = np.arange(1001, dtype=np.float32).reshape(1, 7, 143)
    ((middle, half),) = stretches(values, np.ones((7, 143), bool))
    assert middle == pytest.approx(500)
    assert half == pytest.approx(495)


RECIPE: dict[str, Any] = {
    "kind": "frames",
    "seed": 3,
    "model": {**TINY},
    "optimizer": {"lr": 1e-3, "warmup": 2, "ema": 0.9},
    "losses": {
        "draws": 2,
        "spread": [0.5, 0.5, 0.2],
        "pixel": 2.0,
        "texture": 1.0,
        "perceptual": [1.0, 0.0, 1.0],
        "lattice": 1.0,
    },
    "data": {**DATA, "shares": [1, 1, 1]},
}


def recipe(folder: Path, **changes: Any) -> Path:
    """A TOML file of it."""
    content = {**RECIPE, **changes}
    lines = [f'kind = "{content["kind"]}"', f"seed = {content['seed']}"]
    for section in ("model", "optimizer", "losses", "data"):
        lines.append(f"[{section}]")
        for k, v in content[section].items():
            lines.append(f"{k} = {json.dumps(list(v) if isinstance(v, tuple) else v)}")
    path = folder / "frames.toml"
    path.write_text("\n".join(lines))
    return path


def test_cells_that_show_are_found_and_those_of_the_truth_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4, 3, 128, 128, generator=generator)
    cells = torch.randn(1, 3, 4, 4, generator=generator).repeat(4, 1, 32, 32)
    assert float(repeated(noise[:2], noise[2:])) < 0.05
    assert float(repeated(noise + cells, noise)) > 0.5
    assert float(repeated(noise + cells, noise + cells)) == 0


def test_resume_is_exact_and_exports(pack: Path, tmp_path: Path) -> None:
    toml = recipe(tmp_path)
    straight = run(toml, pack, tmp_path / "a", steps=3, threads=1)
    run(toml, pack, tmp_path / "b", steps=2, threads=1)
    resumed = run(toml, pack, tmp_path / "b", steps=3, threads=1)
    for name in ("unet", "controlnet"):
        one, two = (
            load_file(f / name / "diffusion_pytorch_model.safetensors") for f in (straight, resumed)
        )
        assert one.keys() == two.keys()
        assert all(torch.equal(one[k], two[k]) for k in one)
    unet, control = load_frames(straight)
    assert unet.config.block_out_channels == control.config.block_out_channels == [32, 32, 32]
    assert (straight / "samples.png").exists()
    assert json.loads((straight / "training.json").read_text())["step"] == 3


def test_regression_ignores_noise_less_and_less(pack: Path, tmp_path: Path) -> None:
    """`draws = 1` is trained by the squared error and exports the same kind of model."""
    toml = recipe(tmp_path, losses={"draws": 1})
    out = run(toml, pack, tmp_path / "a", steps=2, threads=1)
    log = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert any("mse" in key for key in log[-1])
    assert load_frames(out)


def scene(path: Path, seed: int, nodata: int = 0) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(100, 4000, (4, 300, 520), np.uint16)
    pixels[:, 5, 7] = nodata
    with rasterio.open(
        path, "w", width=520, height=300, count=4, dtype="uint16", crs="EPSG:32631", nodata=nodata,
        transform=from_origin(500000, 5800000, 10, 10),
    ) as file:  # fmt: skip
        file.write(pixels)
        for i, name in enumerate((*RGB, "nir"), 1):
            file.set_band_description(i, name)


def test_own_scenes_are_packed_and_fine_tuned(tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "field").mkdir(parents=True)
    for i, date in enumerate(("2021-05-02", "2021-06-11")):
        scene(own / "field" / f"{date}.tif", i)
    scene(own / "harbour.tif", 5)
    told: list[tuple[str, int]] = []
    pack = build_stack(own, tmp_path / "own.safetensors", progress=lambda *row: told.append(row))
    assert told == [("field", 2), ("harbour", 2)]
    places = Stacks.load(pack).places["stack"]
    assert sorted(len(p) for p in places) == [1, 1, 2, 2]
    (first, second) = next(p for p in places if len(p) == 2)
    assert (first.date, second.date) == ("2021-05-02", "2021-06-11")
    assert first.bands == (*RGB, "nir") and first.gsd == pytest.approx(10, rel=0.01)
    data = {"side": 48, "batch": 2, "shares": [1, 1, 1], **{t: [["stack", 1, 1.0]] for t in TASKS}}
    start = run(recipe(tmp_path, data=data), pack, tmp_path / "a", steps=1, threads=1)
    tuned = run(recipe(tmp_path, data=data), pack, tmp_path / "b", steps=1, threads=1, start=start)
    assert not (tuned / "samples.png").exists()  # nothing is held out of four squares
    before, after = (load_frames(f)[0].state_dict() for f in (start, tuned))
    assert any(not torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["field/a.tif", "field/b.tif"], "has no date"),
        ([], "holds no scenes"),
    ],
)
def test_own_scenes_that_cannot_be_packed(tmp_path: Path, names: list[str], words: str) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for i, name in enumerate(names):
        (own / name).parent.mkdir(exist_ok=True)
        scene(own / name, i)
    with pytest.raises(InvalidInput, match=words):
        build_stack(own, tmp_path / "own.safetensors")
    assert not (tmp_path / "own.safetensors").exists()
