"""`terraloom superres`, `inpaint` and `forecast`: what they write, where it lies, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from frames_model import tiny_networks
from PIL import Image
from rio_cogeo.cogeo import cog_validate
from typer.testing import CliRunner, Result

from terraloom.cli import app
from terraloom.pipelines.forecast import Forecast
from terraloom.pipelines.inpaint import Inpaint
from terraloom.pipelines.super_resolve import SuperResolve
from terraloom.weights import SHIPPED, find_frames, save_frames

Run = Callable[..., Result]
RGB = ("red", "green", "blue")
UTM = Affine(10, 0, 500_000, 0, -10, 5_800_000)
PLACES = {
    "EPSG:4326": Affine(1e-4, 0, 4.9, 0, -1e-4, 52.4),
    "EPSG:32631": UTM,
    "EPSG:3857": Affine(16, 0, 545_000, 0, -16, 6_870_000),
    "EPSG:32616": Affine.translation(4e5, 5e6) * Affine.rotation(30) * Affine.scale(30, -30),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_frames(*tiny_networks(), tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture
def run(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder, with the tiny model."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def command(*args: object) -> Result:
        more = [] if "--model" in args else ["--model", str(tiny)]
        return CliRunner().invoke(app, [*map(str, args), *more])

    return command


def values(seed: int = 0, height: int = 27, width: int = 33, dtype: str = "uint16") -> Any:
    y, x = np.mgrid[:height, :width]
    wave = np.stack([np.sin(x / (5 + b) + seed) * np.cos(y / (4 + b)) for b in range(3)])
    top = 200 if dtype == "uint8" else 4000
    return (top * (0.55 + 0.4 * wave)).astype(dtype)


def tif(
    name: str,
    pixels: Any,
    *,
    crs: str | None = "EPSG:32631",
    transform: Affine = UTM,
    names: tuple[str, ...] = RGB,
    mask: Any = None,
    **profile: Any,
) -> str:
    count, height, width = pixels.shape
    size = {"width": width, "height": height, "count": count, "dtype": pixels.dtype}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            name,
            "w",
            driver="GTiff",
            crs=crs,
            transform=transform,
            photometric="MINISBLACK",
            **size,
            **profile,
        ) as file,
    ):
        file.write(pixels)
        for i, band in enumerate(names[:count], 1):
            file.set_band_description(i, band)
        if mask is not None:
            file.write_mask(mask)
    return name


def pixels(path: str) -> Any:
    with rasterio.open(path) as file:
        return file.read()


# --- what they write


@pytest.mark.parametrize("crs", PLACES)
def test_finer_scenes_lie_where_the_coarse_ones_do(run: Run, crs: str) -> None:
    tif("in.tif", values(), crs=crs, transform=PLACES[crs], nodata=0)
    done = run("superres", "in.tif", "-o", "out.tif")
    assert (done.exit_code, done.stdout) == (0, "out.tif\n"), done.output
    assert cog_validate("out.tif", strict=True)[0]
    with rasterio.open("in.tif") as before, rasterio.open("out.tif") as after:
        assert after.crs == before.crs and after.shape == (108, 132)
        assert after.dtypes == ("uint16",) * 3 and after.nodata == 0
        assert after.transform.almost_equals(before.transform * Affine.scale(0.25), 1e-9)
        for corner in ((0, 0), (33, 27)):
            there = after.transform * (corner[0] * 4, corner[1] * 4)
            assert there == pytest.approx(before.transform * corner, abs=1e-6)
        means = after.read().reshape(3, 27, 4, 33, 4).mean((2, 4))
        assert np.abs(means - before.read()).max() <= 0.5
    assert list(Path().glob(".*")) == []


def test_files_say_what_they_are(run: Run, tiny: Path) -> None:
    tif("2021-06-01.tif", values())
    tif("2022-06-01.tif", values(1))
    tif("mask.tif", np.ones((1, 27, 33), np.uint8), names=("",))
    assert run("superres", "2021-06-01.tif", "-o", "a.tif", "--seed", 4).exit_code == 0
    assert run("inpaint", "2021-06-01.tif", "--mask", "mask.tif", "-o", "b.tif").exit_code == 0
    both = ["2021-06-01.tif", "2022-06-01.tif"]
    done = run("forecast", *both, "--date", "2023-01", "-o", "c.tif", "--num", 2)
    assert done.exit_code == 0, done.output
    page = Path(__file__).parent.parent / "docs" / "provenance.md"
    section = page.read_text("utf-8").split("\n## ")[3]
    every: set[str] = set()
    for name, task in {
        "a": "superres",
        "b": "inpaint",
        "c-1": "forecast",
        "c-std": "forecast",
    }.items():
        with rasterio.open(f"{name}.tif") as file:
            tags = file.tags()
            assert file.descriptions == RGB
        assert (tags["SYNTHETIC"], tags["TERRALOOM_TASK"]) == ("true", task)
        assert tags["TERRALOOM_MODEL"] == find_frames(tiny).digest
        every |= tags.keys() - {"AREA_OR_POINT", "OVR_RESAMPLING_ALG"}
        assert {"a": "4", "c-1": "1"}.get(name, "0") == tags["TERRALOOM_SEED"]
        assert tags["TERRALOOM_DATE"] == ("2023-01" if task == "forecast" else "2021-06-01")
    assert tags["TERRALOOM_FROM"] == "2021-06-01.tif@2021-06-01, 2022-06-01.tif@2022-06-01"
    assert tags["TERRALOOM_DEVIATION_OF"] == "2"
    assert all(f"`{tag}`" in section for tag in every), [t for t in every if t not in section]


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_several_draws_and_their_deviation(run: Run, dtype: str) -> None:
    given = values(dtype=dtype)
    given[:, 3:5] = 0
    tif("in.tif", given, nodata=0)
    done = run("superres", "in.tif", "-o", "a.tif", "--num", 3, "--seed", 5)
    assert done.stdout.split() == ["a-0.tif", "a-1.tif", "a-2.tif", "a-std.tif"], done.output
    assert run("superres", "in.tif", "-o", "b.tif", "--seed", 6).exit_code == 0
    assert np.array_equal(pixels("a-1.tif"), pixels("b.tif"))
    draws = np.stack([pixels(f"a-{i}.tif") for i in range(3)]).astype(float)
    assert not np.array_equal(draws[0], draws[1])
    with rasterio.open("a-std.tif") as file:
        assert file.dtypes == ("float32",) * 3 and np.isnan(file.nodata)
        deviation = file.read()
    unknown = np.zeros_like(deviation, bool)
    unknown[:, 12:20] = True
    assert np.array_equal(np.isnan(deviation), unknown)
    assert np.abs(deviation - draws.std(0))[~unknown].max() < 1e-4 * draws.max()


def test_a_hole_is_filled_and_nothing_else_changes(run: Run) -> None:
    given = values()
    tif("in.tif", given)
    ring = [[500_050, 5_799_950], [500_150, 5_799_950], [500_150, 5_799_850], [500_050, 5_799_850]]
    shape = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    crs = {"type": "name", "properties": {"name": "EPSG:32631"}}
    feature = {"type": "Feature", "geometry": shape, "properties": {}}
    Path("m.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": [feature], "crs": crs})
    )
    done = run("inpaint", "in.tif", "--mask", "m.geojson", "-o", "out.tif")
    assert done.exit_code == 0, done.output
    changed = (pixels("out.tif") != given).any(0)
    assert changed.any() and not changed[:5].any() and not changed[15:].any()
    assert not changed[:, :5].any() and not changed[:, 15:].any()


def test_nodata_is_what_is_filled_without_a_mask(run: Run) -> None:
    given = values()
    given[:, 8:12, 9:13] = 0
    tif("in.tif", given, nodata=0)
    tif("other.tif", values(1))
    done = run("inpaint", "in.tif", "--other", "other.tif@2020-05-01", "-o", "out.tif")
    assert done.exit_code == 0, done.output
    drawn = pixels("out.tif")
    assert (drawn != 0).all() and np.array_equal(drawn[given != 0], given[given != 0])


def test_a_mask_inside_the_file_is_kept(run: Run) -> None:
    known = np.full((27, 33), 255, np.uint8)
    known[:6, :7] = 0
    tif("in.tif", values(), mask=known)
    assert run("superres", "in.tif", "-o", "out.tif").exit_code == 0
    with rasterio.open("out.tif") as file:
        assert np.array_equal(file.dataset_mask(), known.repeat(4, 0).repeat(4, 1))


def test_several_dates_in_any_order(run: Run) -> None:
    for i in range(3):
        tif(f"{i}.tif", values(i))
    given = [f"{i}.tif@202{i}-06-15" for i in range(3)]
    ask = ["--date", "2021-01", "--date", "2024-03-01"]
    done = run("forecast", *given, *ask, "-o", "a.tif")
    assert done.stdout.split() == ["a-2021-01.tif", "a-2024-03-01.tif"], done.output
    done = run("forecast", *given[::-1], *ask[2:], "-o", "b.tif")
    assert done.stdout == "b.tif\n", done.output
    assert Path("b.tif").read_bytes() == Path("a-2024-03-01.tif").read_bytes()
    assert not np.array_equal(pixels("a-2021-01.tif"), pixels("b.tif"))


@pytest.mark.parametrize("ending", [".gif", ".zarr"])
def test_all_dates_in_one_file(run: Run, ending: str) -> None:
    for i in range(2):
        tif(f"{i}.tif", values(i), nodata=0)
    ask = ["0.tif@2020", "1.tif@2021", "--date", "2024", "--date", "2022-06", "--seed", 3]
    assert run("forecast", *ask, "-o", "a.tif").exit_code == 0
    done = run("forecast", *ask, "-o", f"b{ending}")
    assert (done.exit_code, done.stdout) == (0, f"b{ending}\n"), done.output
    expected = [pixels("a-2022-06.tif"), pixels("a-2024.tif")]
    if ending == ".gif":
        with Image.open("b.gif") as picture:
            assert picture.size == (33, 27) and picture.n_frames == 2
            comment = json.loads(picture.info["comment"])
    else:
        zarr = pytest.importorskip("zarr")
        group = zarr.open_group("b.zarr", mode="r")
        for i, band in enumerate(RGB):
            assert np.array_equal(group[band][:], [image[i] for image in expected])
        comment = dict(group.attrs)
    assert comment["dates"] == ["2022-06", "2024"]
    assert (comment["TERRALOOM_TASK"], comment["TERRALOOM_SEED"]) == ("forecast", "3")
    assert list(Path().glob(".*")) == []
    again = run("forecast", *ask, "-o", f"b{ending}")
    assert again.exit_code == 2 and "overwrit" in again.stderr
    assert run("forecast", *ask, "-o", f"b{ending}", "--overwrite").exit_code == 0
    several = run("forecast", *ask, "--num", 2, "-o", f"c{ending}")
    assert several.exit_code == 2 and "one draw" in several.stderr


def test_python_says_the_same(run: Run, tiny: Path) -> None:
    tif("a.tif", values(), nodata=0)
    tif("b.tif", values(1), nodata=0)
    tif("mask.tif", np.eye(27, 33, dtype=np.uint8)[None], names=("",))
    assert run("superres", "a.tif", "-o", "1.tif").exit_code == 0
    assert run("inpaint", "a.tif", "--mask", "mask.tif", "-o", "2.tif").exit_code == 0
    given = ["a.tif@2020", "b.tif@2021"]
    assert run("forecast", *given, "--date", "2022", "-o", "3.tif").exit_code == 0
    assert np.array_equal(SuperResolve.from_pretrained(tiny)("a.tif"), pixels("1.tif"))
    assert np.array_equal(Inpaint.from_pretrained(tiny)("a.tif", "mask.tif"), pixels("2.tif"))
    assert np.array_equal(Forecast.from_pretrained(tiny)(given, "2022"), pixels("3.tif"))


def test_a_run_that_was_cut_short_goes_on(run: Run, tiny: Path) -> None:
    tif("in.tif", values(height=80, width=20))
    task = SuperResolve.from_pretrained(tiny)
    task.run("in.tif", Path("whole.tif"))
    drawn: list[int] = []

    def stop(done: int, total: int) -> None:
        drawn.append(done)
        if len(drawn) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        task.run("in.tif", Path("out.tif"), progress=stop)
    assert not Path("out.tif").exists()
    assert [p.name for p in Path().glob(".out.tif.*.strips/*.tif")] == ["00000-0.tif"]
    counted: list[tuple[int, int]] = []
    task.run("in.tif", Path("out.tif"), progress=lambda *now: counted.append(now))
    assert Path("out.tif").read_bytes() == Path("whole.tif").read_bytes()
    assert counted[0] == (2, 2) and list(Path().glob(".*")) == []


def test_sixteen_times_finer_by_the_cascade(run: Run) -> None:
    if not (SHIPPED / "cascade").is_dir():
        pytest.skip("no shipped cascade in this checkout")
    given = values(height=9, width=11, dtype="uint8")
    given[:, 2, 3] = 0
    tif("in.tif", given, nodata=0)
    for name in ("a.tif", "b.tif"):
        done = run("superres", "in.tif", "--times", 16, "--seed", 2, "-o", name)
        assert done.exit_code == 0, done.output
    assert Path("a.tif").read_bytes() == Path("b.tif").read_bytes()
    with rasterio.open("in.tif") as before, rasterio.open("a.tif") as after:
        assert after.shape == (144, 176) and after.dtypes == ("uint8",) * 3
        assert after.transform.almost_equals(before.transform * Affine.scale(1 / 16), 1e-9)
        fine, tags = after.read(), after.tags()
    means = fine.reshape(3, 9, 16, 11, 16).mean((2, 4))
    assert np.abs(means - given).max() <= 1
    assert (fine[:, 32:48, 48:64] == 0).all()
    assert tags["TERRALOOM_FROM"] == "in.tif" and tags["TERRALOOM_CASCADE"]
    assert float(tags["TERRALOOM_GSD"]) == pytest.approx(10 / 16, rel=0.01)
    assert list(Path().glob(".*")) == []


# --- how they say no


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["superres", "nowhere.tif"], ["nowhere.tif"]),
        (["superres", "text.tif"], ["text.tif"]),
        (["superres", "cut.tif"], ["cut.tif"]),
        (["superres", "grey.tif"], ["red, green, blue", "--bands"]),
        (["superres", "a.tif", "--bands", "red=9"], ["'9'"]),
        (["superres", "a.tif", "--num", "0"], ["0 draws", "1 to 100"]),
        (["superres", "a.tif", "--seed", "-1"], ["seed -1"]),
        (["superres", "empty.tif"], ["no known pixel"]),
        (["superres", "a.tif", "--times", "8"], ["8 times", "4 or 16"]),
        (["superres", "a.tif", "--times", "16"], ["uint16", "8-bit"]),
        (["superres", "a.tif", "--times", "16", "--num", "2"], ["one draw"]),
        (["inpaint", "a.tif", "--mask", "nowhere.tif"], ["nowhere.tif"]),
        (["inpaint", "a.tif", "--mask", "nothing.tif"], ["nothing to fill"]),
        (["inpaint", "a.tif"], ["nothing to fill"]),
        (["inpaint", "a.tif", "--mask", "qa"], ["QA_PIXEL"]),
        (["inpaint", "a.tif", "--mask", "small.tif"], ["different grids", "--align"]),
        (["inpaint", "a.tif", "--mask", "all.tif", "--other", "moved.tif"], ["different grids", "--align"]),
        (["forecast", "a.tif", "--date", "2022"], ["a.tif has no date", "a.tif@2021-06-15"]),
        (["forecast", "a.tif@2021", "--date", "2022-13"], ["month 13"]),
        (["forecast", "a.tif@2021", "--date", "soon"], ["'soon'"]),
        (["forecast", "a.tif@2021", "--date", "2021"], ["already"]),
        (["forecast", "a.tif@2021", "b.tif@2021", "--date", "2022"], ["both of 2021"]),
        (["forecast", "a.tif@2021", "--date", "2022", "--date", "2022"], ["twice"]),
        (["forecast", "a.tif@2021", "moved.tif@2020", "--date", "2022"], ["different grids", "--align"]),
        (["forecast", "a.tif@2021", "--date", "2022", "--model", "nobody"], ["nobody"]),
        (["superres", "a.tif", "--model", "cascade"], ["cascade"]),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_sentence(run: Run, args: list[str], words: list[str]) -> None:
    for name, seed in (("a.tif", 0), ("b.tif", 1)):
        tif(name, values(seed))
    tif("grey.tif", values()[:1], names=("",))
    tif("empty.tif", np.zeros((3, 9, 9), np.uint16), nodata=0)
    tif("moved.tif", values(2), transform=UTM * Affine.translation(3.5, 0))
    tif("nothing.tif", np.zeros((1, 27, 33), np.uint8), names=("",))
    tif("all.tif", np.ones((1, 27, 33), np.uint8), names=("",))
    tif("small.tif", np.ones((1, 9, 9), np.uint8), names=("",))
    Path("text.tif").write_text("no raster")
    Path("cut.tif").write_bytes(Path(tif("whole.tif", values())).read_bytes()[:900])
    before = sorted(Path().iterdir())
    done = run(*args, "-o", "out.tif")
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("terraloom: ") and done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert sorted(Path().iterdir()) == before and done.stdout == ""


@pytest.mark.parametrize("output", ["a.png", "nowhere/a.tif", "in.tif"])
def test_unwritable_paths_are_refused(run: Run, output: str) -> None:
    tif("in.tif", values())
    done = run("superres", "in.tif", "-o", output)
    assert done.exit_code == 2 and done.stdout == "" and output in done.stderr
    assert [p.name for p in Path().iterdir()] == ["in.tif"] and pixels("in.tif").shape[0] == 3


def test_files_of_several_draws_or_dates_are_not_replaced(run: Run) -> None:
    tif("in.tif", values())
    Path("a-std.tif").write_bytes(b"precious")
    done = run("superres", "in.tif", "-o", "a.tif", "--num", 2)
    assert done.exit_code == 2 and "a-std.tif" in done.stderr and not Path("a-0.tif").exists()
    Path("b-2024.tif").write_bytes(b"precious")
    done = run("forecast", "in.tif@2020", "--date", "2023", "--date", "2024", "-o", "b.tif")
    assert done.exit_code == 2 and "b-2024.tif" in done.stderr and not Path("b-2023.tif").exists()
    assert Path("b-2024.tif").read_bytes() == Path("a-std.tif").read_bytes() == b"precious"


def test_another_grid_is_warped_when_asked(run: Run) -> None:
    tif("a.tif", values())
    tif("b.tif", values(1), transform=UTM * Affine.translation(3.5, 0))
    given = ["a.tif@2020", "b.tif@2021", "--date", "2022", "--align"]
    done = run("forecast", *given, "-o", "out.tif")
    assert done.exit_code == 0, done.output
    with rasterio.open("a.tif") as before, rasterio.open("out.tif") as after:
        assert before.transform == after.transform and before.shape == after.shape
