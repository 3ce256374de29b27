"""Evaluation of models for dated images, on made-up scenes and with draws whose quality is known."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from frames_model import tiny_networks
from PIL import Image
from refusals import refused
from torch import Tensor
from typer.testing import CliRunner

from terraloom.cli import app
from terraloom.data import stack_pack
from terraloom.data.stacks import Dated
from terraloom.errors import InvalidInput
from terraloom.evaluation import frame_card, frame_cases, held_out
from terraloom.evaluation.frame_answers import OURS, Rivals, draws
from terraloom.evaluation.frame_rivals import mean_of
from terraloom.evaluation.frame_scores import Figures, Row, by_change, by_group, summary
from terraloom.evaluation.frames import measure
from terraloom.evaluation.held_out import HeldOut
from terraloom.models.frames import BANDS, Frames, mingled
from terraloom.models.waves import reduce4
from terraloom.weights import save_frames

RGB = ("red", "green", "blue")
S2 = (*RGB, "nir", "swir16")


def smooth(rng: np.random.Generator, bands: int, h: int, w: int) -> np.ndarray:
    field = torch.from_numpy(rng.random((1, bands, h // 8, w // 8)).astype(np.float32))
    wide = torch.nn.functional.interpolate(field, size=(h, w), mode="bicubic")[0]
    return (wide.clamp(0, 1) * 255).byte().numpy()


def dated(name: str, date: str | None, bands: tuple[str, ...], h: int, w: int) -> Dated:
    rng = np.random.default_rng(sum(map(ord, f"{name}{date}")))
    coarseness = tuple(2.0 if b == "swir16" else 1.0 for b in bands)
    return Dated(name, name, bands, coarseness, 10.0, smooth(rng, len(bands), h, w), 1.0, 2.0, date)


@pytest.fixture(scope="module")
def held() -> HeldOut:
    congo = [dated("congo_1", d, RGB, 256, 256) for d in ("2013-07-28", "2015-09-04", "2021-12-01")]
    tokyo = [dated("tokyo_1", d, RGB, 256, 256) for d in ("2021-11-17", "2021-12-28")]
    years = ("2014-07-01", "2015-07-01", "2016-07-01", "2017-07-01", "2018-07-01")
    peru = ("swir16", "nir", "red", "green")
    return HeldOut(
        dated("sentinel2", None, S2, 200, 400),
        dated("landsat8", None, (*S2[:3], "pan"), 201, 200),
        [dated("naip", d, (*RGB, "nir"), 256, 256) for d in years],
        [congo, tokyo],
        [dated("peru", d, peru, 256, 256) for d in ("2015", "2020")],
    )


def only(frames: Frames) -> Tensor:
    """Pixels of the frames of one row that are there, (CHANNELS, T, h, w)."""
    return frames.pixels[0, :, frames.present[0]]


def test_superres_tells_the_bands_reduced_by_four(held: HeldOut) -> None:
    cases = list(frame_cases.superres_cases(held, False))
    assert {c.group for c in cases} == {"Sentinel-2, land", "Landsat 8", "NAIP"}
    case = cases[0]
    told = case.asked[""]
    assert told.coarse is not None
    assert torch.allclose(
        frame_cases.shown(told.coarse[0]), reduce4(case.truth[None])[0], atol=1e-6
    )
    assert (told.free == 1).all() and told.present.all()
    seen = {band for i, band in enumerate(BANDS) if only(told)[i].any()}
    assert seen == set(S2)
    fine = only(told)[BANDS.index("swir16"), 0]
    truth = held.sentinel2.stretched(next(held_out.windows(held.sentinel2, 192)))[4]
    cells = torch.from_numpy(truth).reshape(24, 8, 24, 8).mean((1, 3))  # 80 m
    assert torch.allclose(
        fine,
        torch.nn.functional.interpolate(cells[None, None], 192, mode="bicubic")[0, 0],
        atol=1e-5,
    )
    ours, target = told.dated[0, :, 0], told.target[0]
    same = torch.isclose(ours, target, equal_nan=True)
    assert (~same).nonzero().flatten().tolist() == [2]  # the gsd


def test_a_hole_shows_nothing_of_the_truth(held: HeldOut) -> None:
    for case in frame_cases.inpaint_cases(held, False):
        assert case.hole is not None
        assert 0.04 < case.hole.mean() < 0.26
        for words, told in case.asked.items():
            frame = [t for t in range(only(told).shape[1]) if not only(told)[-1, t].all()]
            assert len(frame) == 1  # the image itself, the only one with a hole
            inside = only(told)[:, frame[0]] * case.hole
            assert not inside.any()
            assert torch.equal(told.free[0], case.hole)
            assert only(told).shape[1] == (2 if words else 1)
        assert not (case.given * case.hole).any()


def test_forecasts_are_told_other_dates_alone(held: HeldOut) -> None:
    cases = {case.name: case for case in frame_cases.forecast_cases(held, False)}
    for case in cases.values():
        (told,) = case.asked.values()
        for t in range(only(told).shape[1]):
            assert not torch.allclose(frame_cases.shown(only(told)[:3, t]), case.truth)
        assert told.present.shape == (1, frame_cases.MOST_FRAMES)
        year = (told.dated[0, 4] + told.dated[0, 5] / 1e4)[told.present[0]]
        assert (year.diff() > 0).all()  # in the order of dates
        dates = [only(told)[None, :3, t] for t in torch.nonzero(told.present[0])[:, 0]]
        dates.sort(key=lambda date: not torch.equal(frame_cases.shown(date[0]), case.given))
        assert torch.equal(frame_cases.shown(dates[0][0]), case.given)  # the nearest
        torch.testing.assert_close(told.base, mingled(dates), atol=1e-5, rtol=0)
    naip = cases["NAIP, 1"]
    assert only(naip.asked[""]).shape[1] == frame_cases.MOST_FRAMES
    before = held_out.colours(held.naip[-2], next(held_out.windows(held.naip[-1], 256)))
    assert torch.equal(naip.given, frame_cases.shown(before))
    middle = cases["congo_1, 2015-09-04"]
    assert middle.between is not None and middle.between[2] == pytest.approx(0.252, abs=0.002)
    assert cases["congo_1, 2013-07-28"].between is None
    assert "Peru, 1" in cases  # false colours: the first three bands


def test_draws_repeat_with_their_seed(held: HeldOut) -> None:
    case = next(frame_cases.superres_cases(held, True))

    def noisy(frames: Frames, noise: Tensor) -> Tensor:
        return frames.base + 0.1 * noise

    one, two = (draws(noisy, case.asked[""], 3, seed) for seed in (5, 5))
    assert torch.equal(one, two) and not torch.equal(one[0], one[1])
    assert not torch.equal(one, draws(noisy, case.asked[""], 3, 6))


def figures(psnr: float, distance: float, power: float = 1.0) -> Figures:
    return Figures(psnr, 0.5, distance, distance / 2, (power,) * 4, 0.2 * power, 0.1 * power)


def test_summaries() -> None:
    rows = [
        Row(group, change, ways, error=0.04, variance=0.016, draws=4)
        for group, change, ways in (
            (
                "a",
                0.1,
                {"truth": figures(99, 0), "bicubic": figures(20, 0.3), OURS: figures(24, 0.2, 0.5)},
            ),
            (
                "a",
                0.5,
                {"truth": figures(99, 0), "bicubic": figures(30, 0.1), OURS: figures(26, 0.2, 1.5)},
            ),
            ("b", 0.2, {"truth": figures(99, 0), OURS: figures(10, 0.5)}),
        )
    ]
    a = summary(rows[:2])
    assert a["questions"] == 2
    assert a["ways"]["bicubic"]["psnr"] == 25 and a["ways"]["bicubic"]["better"] == 1
    assert a["ways"][OURS]["octaves"] == [1.0] * 4 and "better" not in a["ways"][OURS]
    assert a["ways"][OURS]["edge"] == 1 and a["ways"][OURS]["inside"] == 1
    assert a["spread"] == pytest.approx((1.25 * 0.016 / 0.04) ** 0.5, abs=0.005)
    assert list(by_group(rows)) == ["a", "b"]
    assert list(summary(rows)["ways"]) == [OURS]  # the only way that all three have
    halves = by_change(rows)
    assert halves["most changed half"]["questions"] == 1
    assert halves["most changed half"]["ways"]["bicubic"]["psnr"] == 30


class Plain:
    """Instead of the perceptual distance: root mean squares."""

    def __call__(self, images: Tensor, truth: Tensor) -> Tensor:
        return (images - truth).square().mean((1, 2, 3)).sqrt()


def test_measure_ranks_ways_and_writes_a_sheet(held: HeldOut, tmp_path: Path) -> None:
    cases = list(frame_cases.forecast_cases(held, True))[:5]
    known = {id(case.asked[""]): case for case in cases}

    def nearly(frames: Frames, noise: Tensor) -> Tensor:
        return 2 * known[id(frames)].truth[None] - 1 + 0.02 * noise

    plain = Rivals(None, {}, lambda a, b, share: mean_of([a, b]))
    metrics = measure("forecast", cases, nearly, plain, (Plain(), Plain()), tmp_path)  # type: ignore[arg-type]
    between = metrics["Landsat, congo, between"]["ways"]
    assert list(between) == [
        "nearest date", "mean of dates", "RIFE", OURS, "ours, mean of 4 draws",
    ]  # fmt: skip
    assert between["nearest date"]["better"] == metrics["Landsat, congo, between"]["questions"]
    assert between["ours, mean of 4 draws"]["psnr"] > between[OURS]["psnr"] > 35
    halves = metrics["most changed half"], metrics["least changed half"]
    assert sum(h["questions"] for h in halves) == len(cases)
    with Image.open(tmp_path / "forecast.webp") as sheet:
        assert sheet.width == 256 * 7 and sheet.height > 256
    text = frame_card.body(
        {
            "model": "m",
            "seed": 0,
            "left_out": ["ncnn"],
            **{task: metrics for task in frame_card.TITLES},
        }
    )
    assert "Not installed: ncnn" in text and "| RIFE |" in text and "](forecast.webp)" in text


def test_rivals_fill_without_looking_into_the_hole(held: HeldOut) -> None:
    pytest.importorskip("cv2")
    case = next(c for c in frame_cases.inpaint_cases(held, True) if c.others)
    rivals = Rivals.load()
    found = rivals("inpaint", case)
    assert list(found) == ["Telea", "Navier-Stokes", "other date", "other date, matched"]
    assert case.hole is not None
    blind = replace(case, truth=case.truth * (1 - case.hole))
    for name, image in rivals("inpaint", blind).items():
        assert torch.equal(image * case.hole, found[name] * case.hole), name


def test_the_reserved_date_is_never_read(tmp_path: Path) -> None:
    rows = []
    with tarfile.open(tmp_path / "naip.tar", "w") as tar:
        for date in ("2017-08-27", "2016-08-16", "2019-09-04"):
            row = {"path": f"naip/{date}_rgb.webp", "nir": f"naip/{date}_nir.webp", "date": date}
            rows.append({**row, "gsd": 5.0, "lon": -99.155, "lat": 47.0204, "series": "naip_x"})
            if date.startswith("2019"):
                continue  # the last one: not even there
            for key, mode in (("path", "RGB"), ("nir", "L")):
                content = io.BytesIO()
                Image.new(mode, (32, 16), "white").save(content, "WEBP")
                member = tarfile.TarInfo(row[key])
                member.size = content.tell()
                content.seek(0)
                tar.addfile(member, content)
    (tmp_path / "naip.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    found = stack_pack.read_naip(tmp_path)
    assert [image.date for image in found] == ["2016-08-16", "2017-08-27"]
    assert found[0].pixels.shape == (4, 16, 32)


def test_missing_sets_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="sentinel2_multispectral.*--data"):
        HeldOut.read(tmp_path)


def test_windows_fit_and_are_in_the_middle() -> None:
    image = dated("x", None, RGB, 208, 400)
    found = list(held_out.windows(image, 192))
    assert [(y.start, x.start) for y, x in found] == [(8, 8), (8, 200)]
    assert not list(held_out.windows(image, 256))
    assert held_out.evenly(list(range(10)), 4) == [0, 2, 5, 7]
    assert held_out.evenly([1, 2], 4) == [1, 2]


def test_ways_and_pools_of_superres_and_inpainting(held: HeldOut, tmp_path: Path) -> None:
    def base(frames: Frames, noise: Tensor) -> Tensor:
        return frames.base + frames.free * 0.1 * noise

    plain = Rivals(None, {}, None, regression=lambda frames, noise: frames.base)
    some = list(frame_cases.superres_cases(held, True))[:2]
    found = measure("superres", some, base, plain, (Plain(), Plain()), tmp_path)  # type: ignore[arg-type]
    ways = found["all but sea"]["ways"]
    assert list(ways) == ["bicubic", "regression", OURS, "ours, mean of 4 draws"]
    assert ways["regression"]["psnr"] == pytest.approx(ways["bicubic"]["psnr"], abs=0.3)  # the rim
    assert ways["ours, mean of 4 draws"]["psnr"] > ways[OURS]["psnr"]
    some = [
        c for c in frame_cases.inpaint_cases(held, True) if c.group.startswith(("Sent", "NAIP"))
    ]
    found = measure("inpaint", some[::2], base, plain, (Plain(), Plain()), tmp_path)  # type: ignore[arg-type]
    assert list(found["all"]["ways"]) == [OURS]
    assert list(found["all with another date"]["ways"]) == [
        "other date", "other date, matched", OURS, "ours, with another date",
        "ours, with another date, mean of 4 draws",
    ]  # fmt: skip
    assert found["all"]["ways"][OURS]["edge"] > 0


def test_the_command_refuses_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TERRALOOM_DATA", raising=False)
    here, empty = tmp_path / "here", tmp_path / "empty"
    here.mkdir()
    empty.mkdir()
    monkeypatch.chdir(here)
    tiny = str(save_frames(*tiny_networks(), tmp_path / "tiny"))

    def run(*words: str) -> None:
        refused(CliRunner().invoke(app, ["evaluate", *words[1:], "-o", "out"]), words[0])

    run("--data", tiny)
    run("--data", tiny, "--pack", "some.safetensors")
    run("--pack", "cascade")
    run("no model for dated images", "nothing", "--data", str(empty))
    run("no model for dated images", "cascade", "--data", str(empty))
    run("sentinel2_multispectral", tiny, "--data", str(empty))
