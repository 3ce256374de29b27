"""From a prompt to files: where they lie, what they say of themselves, and what is refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from fingerprint import SMALL
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.crs import CRS
from rasterio.warp import transform as warp
from refusals import refused
from rio_cogeo.cogeo import cog_validate
from typer.testing import CliRunner, Result

from terraloom.cli import app
from terraloom.errors import InvalidInput
from terraloom.generate import MAX_PROMPT, Order, targets
from terraloom.io.scene import around, read_metadata, utm, write_scene
from terraloom.metadata import Metadata
from terraloom.models.satellite_unet import SatelliteUNet
from terraloom.weights import find_pipeline, save_pipeline

Run = Callable[..., Result]
AMSTERDAM = ["--lon", "4.9", "--lat", "52.4", "--gsd", "10"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text-to-image model with random weights, in which the prompt and the metadata matter."""
    shape: dict[str, Any] = {**SMALL, "block_out_channels": (32, 32, 32)}
    shape["attention_head_dim"] = (1, 1, 1)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        unet = SatelliteUNet(**shape)
        with torch.no_grad():
            for name, parameter in unet.named_parameters():  # as it begins, they hardly matter
                parameter.add_(0.03 * torch.randn_like(parameter))
                parameter.mul_(8 if "metadata" in name or "emb_proj" in name else 1)
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    save_pipeline(unet, folder)
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `terraloom generate` in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda *args: CliRunner().invoke(app, ["generate", *map(str, args)])


def small(model: Path) -> list[Any]:
    return ["--model", model, "--size", 64, "--steps", 2]


def pixels(path: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(path) as picture:
        return np.asarray(picture)


# --- what it writes


def test_tif_lies_in_utm_with_pixels_of_the_gsd(run: Run, tiny: Path) -> None:
    words = ["--date", "2021-06", "--cloud-cover", "40%", "--negative", "clouds", "--seed", 5]
    done = run("a river through farmland", *AMSTERDAM, *words, *small(tiny), "-o", "a.tif")
    assert (done.exit_code, done.stdout) == (0, "a.tif\n"), done.output
    valid, errors, warnings = cog_validate("a.tif", strict=True)
    assert valid, (errors, warnings)
    with rasterio.open("a.tif") as file:
        assert file.crs.to_epsg() == 32631
        assert file.res == (10, 10) and file.shape == (64, 64) and file.count == 3
        (lon,), (lat,) = warp(file.crs, 4326, *zip(file.xy(31.5, 31.5), strict=True))
        tags = file.tags()
    assert (lon, lat) == pytest.approx((4.9, 52.4), abs=1e-4)
    assert (tags["SYNTHETIC"], tags["TERRALOOM_SYNTHETIC"]) == ("true", "YES")
    assert tags["TERRALOOM_PROMPT"] == "a river through farmland"
    assert tags["TERRALOOM_NEGATIVE"] == "clouds"
    assert (tags["TERRALOOM_SEED"], tags["TERRALOOM_STEPS"]) == ("5", "2")
    assert tags["TERRALOOM_MODEL"] == find_pipeline(tiny).digest
    assert tags["TERRALOOM_MODEL_NAME"] == "tiny"
    assert "SYNTHETIC" in tags["TIFFTAG_IMAGEDESCRIPTION"] and "NASA" in tags["TIFFTAG_COPYRIGHT"]
    assert read_metadata("a.tif") == Metadata(4.9, 52.4, 10, 0.4, "2021-06")


def test_every_tag_is_in_the_provenance_page(run: Run, tiny: Path) -> None:
    everything = ["--date", "2021", "--cloud-cover", "0", "--negative", "x"]
    everything += ["--metadata-guidance", "1.5", "--guidance", "2"]
    done = run("sea", *AMSTERDAM, *everything, *small(tiny), "-o", "a.tif")
    assert done.exit_code == 0, done.output
    page = Path(__file__).parent.parent / "docs" / "provenance.md"
    section = page.read_text("utf-8").split("\n## ")[2]
    with rasterio.open("a.tif") as file:
        tags = file.tags().keys() - {"AREA_OR_POINT", "OVR_RESAMPLING_ALG"}
    assert all(f"`{tag}`" in section for tag in tags), [t for t in tags if t not in section]
    assert {part.split("`")[1] for part in section.split("\n| ")[1:] if "`" in part} <= tags


def test_web_mercator_pixels_are_the_gsd_on_the_ground(run: Run, tiny: Path) -> None:
    done = run("sea", *AMSTERDAM, "--crs", "EPSG:3857", *small(tiny), "-o", "a.tif")
    assert done.exit_code == 0, done.output
    with rasterio.open("a.tif") as file:
        assert file.crs.to_epsg() == 3857
        assert file.res[0] == pytest.approx(10 / math.cos(math.radians(52.4)))


def test_several_images_are_those_of_the_next_seeds(run: Run, tiny: Path) -> None:
    done = run("forest", "--num", 3, "--seed", 7, *small(tiny), "-o", "a.png")
    assert done.stdout == "a-0.png\na-1.png\na-2.png\n", done.output
    assert run("forest", "--seed", 9, *small(tiny), "-o", "b.webp").exit_code == 0
    images = [pixels(f"a-{i}.png") for i in range(3)]
    assert np.array_equal(images[2], pixels("b.webp"))
    assert not np.array_equal(images[0], images[1])
    with Image.open("a-2.png") as picture:
        assert picture.text["TERRALOOM_SEED"] == "9"
        assert picture.text["TERRALOOM_PROMPT"] == "forest"
        assert "TERRALOOM_LON" not in picture.text


def test_one_command_gives_equal_bytes(run: Run, tiny: Path) -> None:
    for name in ("a.tif", "b.tif"):
        assert run("forest", *AMSTERDAM, *small(tiny), "-o", name).exit_code == 0
    assert Path("a.tif").read_bytes() == Path("b.tif").read_bytes()


def test_words_and_metadata_reach_the_network(run: Run, tiny: Path) -> None:
    asked: dict[str, list[str]] = {
        "a": ["forest"],
        "b": ["sea"],
        "c": ["forest", "--lat", "60"],
        "d": ["forest", "--lat", "-60"],
        "e": ["forest", "--negative", "sea"],
        "f": ["forest", "--guidance", "15"],
    }
    for name, words in asked.items():
        done = run(*words, *small(tiny), "-o", f"{name}.png")
        assert done.exit_code == 0, done.output
    images = {name: pixels(f"{name}.png").astype(int) for name in asked}
    for one, other in itertools.combinations(asked, 2):
        assert abs(images[one] - images[other]).max() > 2, (asked[one], asked[other])


# --- how it says no


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["x", "--lat", "91"], ["lat 91", "-90 to 90"]),
        (["x", "--lon", "181"], ["lon 181"]),
        (["x", "--gsd", "0"], ["gsd 0", "0.1 to 200000"]),
        (["x", "--gsd", "nan"], ["gsd nan"]),
        (["x", "--date", "2021-13"], ["month 13", "1 to 12"]),
        (["x", "--date", "2021-02-30"], ["day 30"]),
        (["x", "--cloud-cover", "140%"], ["140%", "0% to 100%"]),
        (["x", "--cloud-cover", "1.4"], ["1.4", "0 to 1"]),
        (["x", "--cloud-cover", "lots"], ["'lots'", "40%"]),
        (["x", "--cloud-cover", "nan"], ["nan"]),
        ([""], ["prompt is empty"]),
        ([" \t"], ["prompt"]),
        (["x" * 10_000], ["10000 characters", str(MAX_PROMPT)]),
        (["a\nb"], ["prompt", "cannot be printed"]),
        (["x", "--negative", "x" * 10_000], ["negative prompt", "10000"]),
        (["x", "--num", "0"], ["0 images"]),
        (["x", "--num", "1000000000"], ["1000000000 images"]),
        (["x", "--seed", "-1"], ["seed -1"]),
        (["x", "--seed", str(2**63)], ["seed"]),
        (["x", "--crs", "EPSG:3857"], ["--crs is for .tif"]),
        (["x", "--size", "0"], ["0"]),
        (["x", "--size", "63"], ["63"]),
        (["x", "--size", "100000"], ["100000"]),
        (["x", "--steps", "0"], ["0"]),
        (["x", "--guidance", "nan"], ["guidance", "nan"]),
    ],
)  # fmt: skip
def test_bad_values_are_refused(run: Run, tiny: Path, options: list[str], words: list[str]) -> None:
    base = [] if "--size" in options else ["--size", 64]
    refused(run(*options, *base, "--model", tiny, "-o", "a.png"), *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["--lon, --lat and --gsd", ".png"]),
        (["--lon", "4", "--lat", "5"], ["--gsd"]),
        ([*AMSTERDAM, "--crs", "EPSG:1"], ["EPSG:1"]),
        ([*AMSTERDAM, "--crs", "EPSG:4326"], ["not projected"]),
        (["--lon", "4", "--lat", "89", "--gsd", "10", "--crs", "EPSG:3857"], ["not on the map"]),
    ],
)
def test_tif_without_a_place_is_refused(
    run: Run, tiny: Path, options: list[str], words: list[str]
) -> None:
    refused(run("x", *options, *small(tiny), "-o", "a.tif"), *words)


@pytest.mark.parametrize("output", ["a.jpeg", "nowhere/a.png", "."])
def test_unwritable_paths_are_refused(run: Run, tiny: Path, output: str) -> None:
    refused(run("x", *small(tiny), "-o", output), "cannot write")


def test_files_are_replaced_only_when_told(run: Run, tiny: Path) -> None:
    Path("a-1.png").write_bytes(b"precious")
    command = ["x", "--num", 2, *small(tiny), "-o", "a.png"]
    done = run(*command)
    assert done.exit_code == 2 and "a-1.png" in done.stderr and "--overwrite" in done.stderr
    assert Path("a-1.png").read_bytes() == b"precious" and not Path("a-0.png").exists()
    assert run(*command, "--overwrite").exit_code == 0
    assert pixels("a-1.png").shape == (64, 64, 3)


def test_unknown_model_is_refused(run: Run) -> None:
    refused(run("x", "--model", "nobody/nothing", "-o", "a.png"), "nobody/nothing")


def test_a_cascade_is_no_model_for_prompts(run: Run) -> None:
    refused(run("x", "--model", "cascade", "-o", "a.png"), "cascade")


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model.safetensors", "unet/config.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_models_are_refused(
    run: Run, tiny: Path, tmp_path: Path, part: str, damage: str
) -> None:
    folder = copy_of(tiny, tmp_path / "model")
    file = folder / part
    raw = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(raw[: len(raw) // 2])
    refused(run("x", *small(folder), "-o", "a.png"), str(folder))


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_a_pickle_is_never_run(run: Run, tiny: Path, tmp_path: Path) -> None:
    import pickle

    sprung = tmp_path / "sprung"
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists(), "the trap does not work"
    sprung.unlink()
    folder = copy_of(tiny, tmp_path / "model")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    torch.save({"conv_in.weight": Trap(sprung)}, weights.with_suffix(".bin"))
    refused(run("x", *small(folder), "-o", "a.png"), str(folder))
    weights.with_suffix(".bin").rename(weights)
    refused(run("x", *small(folder), "-o", "a.png"), str(folder))
    assert not sprung.exists()


def copy_of(source: Path, target: Path) -> Path:
    for path in source.rglob("*"):
        if path.is_file():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return target


# --- laws of orders and places


def test_orders_name_their_files() -> None:
    assert targets(Path("out/a.b.png"), 1) == [Path("out/a.b.png")]
    assert targets(Path("out/a.b.png"), 2) == [Path("out/a.b-0.png"), Path("out/a.b-1.png")]


def test_last_seed_has_no_successor() -> None:
    Order("x", seed=2**63 - 1)
    with pytest.raises(InvalidInput, match="seed"):
        Order("x", seed=2**63 - 1, count=2)


@given(
    lon=st.floats(-180, 180),
    lat=st.floats(-90, 90),
    gsd=st.floats(0.1, 5000),
    width=st.integers(1, 1024),
    height=st.integers(1, 1024),
)
def test_the_point_is_in_the_middle(
    lon: float, lat: float, gsd: float, width: int, height: int
) -> None:
    transform, crs = around(lon, lat, gsd, width, height)
    assert (transform.a, transform.e) == (gsd, -gsd)
    (x,), (y,) = warp(CRS.from_epsg(4326), crs, [lon], [lat])
    column, row = ~transform * (x, y)
    assert abs(column - width / 2) <= 0.51 and abs(row - height / 2) <= 0.51
    assert transform.c / gsd == pytest.approx(round(transform.c / gsd), abs=1e-6)


@pytest.mark.parametrize(
    ("lon", "lat", "code"),
    [
        (4.9, 52.4, 32631),
        (-180, 10, 32601),
        (180, -10, 32760),
        (0, 0, 32631),
        (-0.1, -0.1, 32730),
        (151, -34, 32756),
        (10, 84.5, 5041),
        (10, -80.5, 5042),
    ],
)
def test_utm_zone_of_a_point(lon: float, lat: float, code: int) -> None:
    assert utm(lon, lat).to_epsg() == code


@pytest.mark.parametrize("crs", [None, "EPSG:3857", "EPSG:2249"])
def test_metadata_of_a_file_without_tags_is_where_it_lies(tmp_path: Path, crs: str | None) -> None:
    transform, found = around(-71.06, 42.36, 3, 40, 30, crs)
    path = write_scene(tmp_path / "a.tif", np.zeros((3, 30, 40), np.uint8), transform, found, {})
    metadata = read_metadata(path)
    assert (metadata.lon, metadata.lat) == pytest.approx((-71.06, 42.36), abs=1e-4)
    assert metadata.gsd == pytest.approx(3, rel=3e-3)  # sphere against ellipsoid, and UTM's scale
    assert metadata.date is None and metadata.cloud_cover is None


def test_tags_come_before_the_place(tmp_path: Path) -> None:
    transform, crs = around(4.9, 52.4, 10, 8, 8)
    tags = Metadata(lon=5, gsd=10.5, date="2021").to_tags()
    path = write_scene(tmp_path / "a.tif", np.zeros((3, 8, 8), np.uint8), transform, crs, tags)
    found = read_metadata(path)
    assert (found.lon, found.gsd, found.date) == (5, 10.5, "2021")
    assert found.lat == pytest.approx(52.4, abs=1e-3)


def test_metadata_of_what_is_no_raster_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("no")
    with pytest.raises(InvalidInput, match="a.tif"):
        read_metadata(tmp_path / "a.tif")
