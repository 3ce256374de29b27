"""Evaluation: measures against images whose answer is known, judges, and one whole report on a tiny pack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from terraloom.data.ground import Ground
from terraloom.data.packed import Pack, Sample, write_pack
from terraloom.errors import BadCheckpoint, BadPack, InvalidInput
from terraloom.evaluation import card, compare, evaluate, judges, levels, measures
from terraloom.evaluation.places import PLACES, random_land
from terraloom.evaluation.references import fits, references, shrunk
from terraloom.evaluation.rollout import LEVELS, Roller
from terraloom.grid import MAX_LATITUDE, drawn_level
from terraloom.models.cascade import CascadeConfig, CascadeUNet
from terraloom.models.waves import bicubic4, consistent, reduce4
from terraloom.weights import find, save_model
from terraloom.world import World
from terraloom.world import engine as engines

GRASS, FIELDS, CITY = 10, 12, 13  # IGBP
VIEW = 352  # pixels, just wide enough for exact halos


def blocks(rng: np.random.Generator, side: int, cell: int) -> np.ndarray:
    coarse = rng.integers(0, 255, (side // cell, side // cell, 3)).astype(np.uint8)
    return coarse.repeat(cell, 0).repeat(cell, 1)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fine chips of cities, coarse ones of fields, wider images; every second one is held out."""
    rng = np.random.default_rng(0)
    samples: list[Sample] = []

    def add(name: str, side: int, gsd: float, cover: int, cell: int, k: int) -> None:
        cells = np.full((side // 4, side // 4), cover, np.uint8)
        for _ in range(2):
            rgb = blocks(rng, side, cell)
            samples.append(Sample(name, rgb, cells, cells * 0, gsd, f"{name}/{k}"))

    for k in range(18):
        add("eurosat", 64, 10.0, (CITY, FIELDS, GRASS)[k % 3], (2, 32, 8)[k % 3], k)
    for k in range(12):
        add("landsat", 192, 38.0, (CITY, FIELDS)[k % 2], 8, k)
        add("bluemarble8", 128, 611.0, (CITY, FIELDS)[k % 2], 8, k)
    path = tmp_path_factory.mktemp("pack") / "pack.safetensors"
    write_pack(path, samples, [k % 2 == 0 for k in range(len(samples))], quality=100)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random network whose noise shows."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = CascadeUNet(CascadeConfig(widths=(8, 16), depth=1))
        torch.nn.init.normal_(net.head.weight, std=0.1)
    return save_model(net, tmp_path_factory.mktemp("eval") / "tiny").path


def test_places_are_on_the_map_and_spread() -> None:
    ground = Ground.open()
    assert len(PLACES) == 40
    assert all(abs(lat) < MAX_LATITUDE and abs(lon) <= 180 for lon, lat in PLACES.values())
    lon, lat = np.array(list(PLACES.values())).T
    groups = {measures.group_of(int(c)) for c in ground.cover_at(lon, lat)}
    assert len(groups) >= 6


def test_random_places_are_the_same_land_every_time() -> None:
    ground = Ground.open()
    places = random_land(20, ground)
    assert len(places) == 20 and places == random_land(20, ground)
    assert places != random_land(20, ground, seed=1)
    lon, lat = np.array(list(places.values())).T
    assert (lat > 0).any() and (lat < 0).any() and np.ptp(lon) > 180


def test_levels_of_common_sensors() -> None:
    known = {
        0.6: 18, 2.4: 16, 3.0: 16, 10.0: 14, 30.0: 12, 38.0: 12, 150.0: 10, 611.0: 8, 2400.0: 6,
    }  # fmt: skip
    assert {gsd: drawn_level(gsd) for gsd in known} == known


def test_contrast_of_known_images() -> None:
    flat = np.full((3, 128, 128), 90, np.uint8)
    stripes = flat.copy()
    stripes[:, ::2] = 110
    assert measures.contrast(flat) == 0
    assert measures.contrast(stripes) == pytest.approx(10)


def test_bands_of_bicubic_lack_the_top() -> None:
    real = torch.randn(8, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    low, _, top = measures.ratio_of_bands(real, bicubic4(reduce4(real)))
    assert low > 0.1 and top < 0.05
    assert measures.ratio_of_bands(real, real) == [1, 1, 1]


@settings(max_examples=20, deadline=None)
@given(st.sampled_from((4, 8, 16, 32, 64)), st.floats(0, 1), st.integers(0, 99))
def test_lattice_share_is_what_was_mixed_in(period: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tile = rng.standard_normal((period, period))
    tile = (tile - tile.mean()) / tile.std()
    noise = rng.standard_normal((256, 256))
    x = np.sqrt(share) * np.tile(tile, (256 // period,) * 2) + np.sqrt(1 - share) * noise
    assert measures.share_of_lattice(x, period) == pytest.approx(share, abs=0.06)
    other = measures.share_of_lattice(noise, period)
    assert abs(other) < 0.03  # unbiased: noise alone has none


def test_dots_show_whatever_their_sign() -> None:
    rng = np.random.default_rng(0)
    dots = np.zeros((256, 256))
    dots[1::4, 2::4] = 2 * rng.choice((-1.0, 1.0), (64, 64))
    dots += 0.2 * rng.standard_normal(dots.shape)
    assert measures.share_of_lattice(dots, 4) < 0.02
    assert measures.share_of_dots(dots) > 0.5


def test_consistent_noise_has_no_lattice() -> None:
    """The floor of both estimators: noise on a smooth image, made consistent cell by cell."""
    generator = torch.Generator().manual_seed(0)
    lr = torch.randn(1, 3, 66, 66, generator=generator) * 0.3
    y = consistent(bicubic4(lr) + 0.2 * torch.randn(1, 3, 264, 264, generator=generator), lr)
    high = measures.detail(((y[0].clamp(-1, 1) + 1) * 127.5).byte().numpy())
    assert measures.share_of_lattice(high, 4) < 0.01
    assert measures.share_of_dots(high) < 0.01


def test_lattice_needs_cells() -> None:
    with pytest.raises(ValueError, match="4 are needed"):
        measures.share_of_lattice(np.zeros((64, 64)), 64)


def test_enlarged_or_ill_fitting_images_are_no_reference() -> None:
    def sample(name: str, gsd: float, side: int) -> Sample:
        cells = np.zeros((side // 4, side // 4), np.uint8)
        return Sample(name, np.zeros((side, side, 3), np.uint8), cells, cells, gsd)

    assert fits(sample("landsat", 150, 128))
    assert not fits(sample("bluemarble8", 220, 128))  # the far north of a 500 m product
    assert not fits(sample("ucmerced", 0.3, 256)) and fits(sample("ucmerced", 0.3, 256), 2)
    assert not fits(sample("landsat", 38, 128), 4)  # only 32 px are left
    half = shrunk(sample("ucmerced", 0.3, 256), 2)
    assert half.rgb.shape == (128, 128, 3) and half.cover.shape == (32, 32) and half.gsd == 0.6


def test_references_know_each_class(pack: Path) -> None:
    real = references([Pack.load(pack, validation=v) for v in (True, False)])
    city, fields = real[14, measures.group_of(CITY)], real[14, measures.group_of(FIELDS)]
    assert city.count == fields.count == 12
    assert city.bands[2] > 10 * fields.bands[2]  # blocks of 2 px against 32 px
    assert 0 < city.contrast < 128 and 0 <= city.spread <= 1


def test_single_level_batches_cut_cells_with_pixels() -> None:
    rgb = np.zeros((192, 192, 3), np.uint8)
    cover = np.zeros((48, 48), np.uint8)
    rgb[80:84, 80:84], cover[20, 20] = 255, 7
    batch = levels.as_batch([Sample("s", rgb, cover, cover * 0, 38.0)] * 2)
    assert batch.hr.shape == (2, 3, 128, 128)
    bright = reduce4(batch.hr)[0, 0] > 0
    assert torch.equal(bright, batch.cover[0] == 7) and bright.sum() == 1


def test_judges_learn_texture_and_cannot_tell_equal_things_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(judges, "DISCRIMINATOR_STEPS", 25)
    generator = torch.Generator().manual_seed(1)

    def fine() -> torch.Tensor:
        return torch.randn(32, 3, 32, 32, generator=generator) * 0.3

    def coarse() -> torch.Tensor:
        return torch.nn.functional.interpolate(fine()[:, :, :8, :8], scale_factor=4)

    assert judges.told_apart((fine(), coarse()), (fine(), coarse())) > 0.9
    assert judges.told_apart((fine(), fine()), (fine(), fine())) < 0.75


def test_discriminator_never_learns_a_place_it_is_tested_on() -> None:
    cells = np.zeros((16, 16), np.uint8)
    samples = [
        Sample("s", np.zeros((64, 64, 3), np.uint8), cells, cells, 10.0, p) for p in "aabcccd"
    ]
    first, second = judges._halves(samples)
    assert len(first) + len(second) == 7 and first and second
    assert not {s.place for s in first} & {s.place for s in second}


def test_chain_is_the_worlds(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = engines.geometry(find(checkpoint)).exact
    monkeypatch.setattr(engines, "geometry", lambda part: engines.Geometry(exact, exact, 16))
    roller = Roller(find(checkpoint), view=64, engine="torch")
    links = roller(31.2, 30.9, seed=5, finest=12)
    world = World(5, model=checkpoint, engine="torch", block=64, cache=False)
    for link in links:
        drawn = world.level(link.level, link.x, link.y, 64, 64).astype(int)
        assert np.abs(drawn - link.rgb).max() <= 1
    assert links[-1].rgb.std() > 3  # something was drawn


def test_chain_keeps_its_parents_and_depends_on_seed_and_maps(checkpoint: Path) -> None:
    roller = Roller(find(checkpoint), view=64, engine="torch")
    links = roller(31.2, 30.9)
    assert [link.level for link in links] == list(LEVELS)
    for link in links:
        assert np.abs(measures.reduced(link.rgb) - link.parent).max() <= 1
    (other,) = roller(31.2, 30.9, seed=1, finest=8)
    (blind,) = roller(31.2, 30.9, finest=8, known=False)
    assert not np.array_equal(other.rgb, links[0].rgb)
    assert not np.array_equal(blind.rgb, links[0].rgb)
    with pytest.raises(InvalidInput, match="view 60"):
        Roller(find(checkpoint), view=60)


def test_whole_report(
    checkpoint: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    for name, steps in (("CLASSIFIER_STEPS", 3), ("DISCRIMINATOR_STEPS", 2)):
        monkeypatch.setattr(judges, name, steps)
    monkeypatch.setattr(judges, "FEWEST", 4)
    monkeypatch.setattr(judges, "ENOUGH", 1)
    monkeypatch.setattr("terraloom.evaluation.report.RANDOM", 1)
    monkeypatch.setattr("terraloom.evaluation.chain.WIDE_PLACES", ("Iowa",))
    monkeypatch.setattr("terraloom.evaluation.chain.WIDE_VIEW", 528)
    out = tmp_path / "out"
    metrics = evaluate(checkpoint, pack, out, places=2)
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert set(metrics["chain"]) == {f"z{level}" for level in LEVELS}
    assert all(row["off_max"] <= 1 for row in metrics["chain"].values())
    assert all(spread > 0 for spread in metrics["seeds"].values())
    assert {"z8 bluemarble8", "z12 landsat", "z14 eurosat"} <= set(metrics["levels"])
    assert metrics["levels"]["z14 eurosat"]["bands_bicubic"][2] < 0.5
    assert "z14 urban" in metrics["flat"] and 0 <= metrics["classifier"]["generated"] <= 1
    assert metrics["wide_lattice"]["Iowa"]["z18"]
    text = (out / "card.md").read_text()
    assert text.count("| z12 |") >= 2 and "chains.webp" in text
    assert {p.name for p in out.iterdir()} == {
        "metrics.json", "card.md", "chains.webp", "levels.webp", "random.webp",
    }  # fmt: skip
    with Image.open(out / "chains.webp") as sheet:
        assert sheet.size == (7 * 192, 2 * 210 + 18)


def test_quick_report_trains_no_judges(checkpoint: Path, pack: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    metrics = evaluate(checkpoint, pack, tmp_path, places=1, quick=True)
    assert metrics["places"] == 1 and "classifier" not in metrics
    assert "Real or not" not in (tmp_path / "card.md").read_text()


def test_compare_shows_every_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    path = compare([checkpoint, checkpoint], tmp_path / "both.png", places=1)
    sheet = np.asarray(Image.open(path))
    first, second = sheet[18:210], sheet[228:420]
    assert np.array_equal(first, second) and first.std() > 5


def test_table_is_markdown() -> None:
    text = card.table("a | b", [(1, [2, 3]), ("x", None)])
    assert text == "| a | b |\n| --- | --- |\n| 1 | 2, 3 |\n| x | - |"


def test_bad_input(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="1 to 40"):
        evaluate(checkpoint, tmp_path / "p", tmp_path, places=41)
    with pytest.raises(BadCheckpoint):
        evaluate("nothing", tmp_path / "p", tmp_path)
    with pytest.raises(BadPack):
        evaluate(checkpoint, tmp_path / "p", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_evaluation_walks_as_the_world_does(
    make: Any, leaping: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = engines.geometry(find(leaping)).exact  # of both networks
    world = make(leaping, base=None)
    monkeypatch.setattr(
        engines, "geometry", lambda checkpoint: engines.Geometry(exact, exact, 16)
    )  # the halo of `make`
    roller = Roller(find(leaping), VIEW, engine="torch")
    links = {link.level: link for link in roller(31.0, 30.0, seed=7)}
    assert list(links) == [8, 10, 12, 14, 16, 18]
    few = roller(31.0, 30.0, seed=7, finest=12)
    assert [link.level for link in few] == [8, 10, 12]
    assert np.array_equal(few[-1].rgb, links[12].rgb)
    for level, link in links.items():
        drawn = world.level(level, link.x, link.y, VIEW, VIEW).astype(int)
        assert np.abs(drawn - link.rgb).max() <= 1
        assert link.rgb.shape == (3, VIEW, VIEW) and link.parent.shape == (3, VIEW // 4, VIEW // 4)
        means = link.rgb.reshape(3, VIEW // 4, 4, VIEW // 4, 4).mean((2, 4))
        if level in (10, 14, 18):
            assert np.abs(means - link.parent).max() <= 1
    off = (links[14].x - 4 * links[12].x) // 4, (links[14].y - 4 * links[12].y) // 4
    part = links[12].rgb[:, off[1] : off[1] + VIEW // 4, off[0] : off[0] + VIEW // 4]
    assert np.array_equal(part, links[14].parent)
