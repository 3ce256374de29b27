"""The command line: what it prints, what it writes, and how it says no."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.transform import from_bounds
from refusals import refused
from rio_cogeo.cogeo import cog_validate
from typer.testing import CliRunner, Result

from terraloom import demo
from terraloom.cli import app
from terraloom.grid import level_size
from terraloom.models.cascade import CascadeConfig, CascadeUNet
from terraloom.weights import save_model
from terraloom.world import World

REPO = Path(__file__).resolve().parent.parent
NILE = "30.0,29.0,32.0,31.0"  # about 200 km
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small network with random weights: fast, and as good as any to a command."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = CascadeUNet(CascadeConfig(widths=(8, 16), depth=1))
    return save_model(model, tmp_path_factory.mktemp("weights") / "tiny").path


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Blocks drawn once for all tests here, and nothing in the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERRALOOM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda *args: CliRunner().invoke(app, [str(arg) for arg in args])


def tiny_world(tiny: Path) -> list[str]:
    return ["--model", str(tiny), "--engine", "torch"]


# --- what it draws


def test_zoom_writes_a_tagged_cog_and_prints_only_its_name(run: Run, tiny: Path) -> None:
    done = run("zoom", "--bbox", NILE, "--gsd", "300", "-o", "a.tif", *tiny_world(tiny))
    assert (done.exit_code, done.stdout) == (0, "a.tif\n"), done.output
    valid, errors, warnings = cog_validate("a.tif", strict=True)
    assert valid, (errors, warnings)
    with rasterio.open("a.tif") as file:
        assert file.crs.to_epsg() == 3857
        assert (file.count, file.dtypes[0]) == (3, "uint8")
        left, bottom, right, top = rasterio.warp.transform_bounds(file.crs, 4326, *file.bounds)
        tags = file.tags()
    assert left <= 30 and bottom <= 29 and right >= 32 and top >= 31
    assert right - left < 2.02 and top - bottom < 2.02
    world = World(model=tiny, engine="torch")
    assert (tags["SYNTHETIC"], tags["TERRALOOM_WORLD_ID"]) == ("true", world.id)
    assert tags["TERRALOOM_SEED"] == "0" and tags["TERRALOOM_MODEL"] == world.spec.model
    assert "Blue Marble" in tags["TIFFTAG_COPYRIGHT"]
    page = (REPO / "docs" / "provenance.md").read_text("utf-8").split("\n## ")[1]
    assert set(re.findall(r"^\| `(\w+)`", page, re.M)) == tags.keys() - {
        "AREA_OR_POINT",
        "OVR_RESAMPLING_ALG",
    }


def test_png_has_the_pixels_and_the_tags_of_the_cog(run: Run, tiny: Path) -> None:
    for name in ("a.tif", "a.png"):
        options = ["--bbox", NILE, "--gsd", "600", "--seed", "5", "-o", name]
        assert run("zoom", *options, *tiny_world(tiny)).exit_code == 0
    with rasterio.open("a.tif") as file:
        pixels, tags = file.read(), file.tags()
    with Image.open("a.png") as picture:
        assert np.array_equal(np.moveaxis(np.asarray(picture), 2, 0), pixels)
        assert picture.text["TERRALOOM_WORLD_ID"] == tags["TERRALOOM_WORLD_ID"]
        assert picture.text["SYNTHETIC"] == "true"


def test_crs_is_that_of_the_output(run: Run, tiny: Path) -> None:
    options = ["--bbox", NILE, "--gsd", "600", "--crs", "EPSG:32636", "-o", "a.tif"]
    assert run("zoom", *options, *tiny_world(tiny)).exit_code == 0
    with rasterio.open("a.tif") as file:
        assert file.crs.to_epsg() == 32636
        assert file.res == (600, 600)


@pytest.mark.parametrize("bbox", [NILE, "179,-18,-178,-17", "10,59,10.1,60"])
@pytest.mark.parametrize("size", [64, 333])
def test_size_is_the_longest_side(run: Run, tiny: Path, bbox: str, size: int) -> None:
    done = run("zoom", "--bbox", bbox, "--size", size, "-o", "a.png", *tiny_world(tiny))
    assert done.exit_code == 0, done.output
    with Image.open("a.png") as picture:
        assert max(picture.size) in (size, size - 1)


@pytest.mark.parametrize(("z", "x", "y"), [(3, 4, 3), (6, 37, 26), (9, 0, 511), (8, 255, 110)])
def test_tile_is_the_tile_of_the_world(run: Run, tiny: Path, z: int, x: int, y: int) -> None:
    for name in ("a.png", "a.tif"):
        done = run("tile", z, x, y, "-o", name, *tiny_world(tiny))
        assert done.exit_code == 0, done.output
    expected = World(model=tiny, engine="torch").tile(z, x, y)
    with Image.open("a.png") as picture:
        assert np.array_equal(np.moveaxis(np.asarray(picture), 2, 0), expected)
    with rasterio.open("a.tif") as file:
        assert np.array_equal(file.read(), expected)
        assert file.bounds.left == pytest.approx(-20037508.342789244 + x * file.res[0] * 256)


def test_demo_draws_scene_and_strip(run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SCENE_LEVEL", 10)
    monkeypatch.setattr(demo, "SCENE_SIZE", 300)
    monkeypatch.setattr(demo, "STRIP_LEVELS", (6, 8, 10))
    monkeypatch.setattr(demo, "PANEL", 64)
    world = World(model=tiny, engine="torch")
    seen: list[tuple[int, int]] = []
    scene = demo.draw(world, "Tokyo", Path("pictures"), lambda *step: seen.append(step))
    assert seen and seen[-1][0] == seen[-1][1]
    with rasterio.open(scene.cog) as file, Image.open(scene.png) as picture:
        assert np.array_equal(np.moveaxis(np.asarray(picture), 2, 0), file.read())
        assert file.shape == (300, 300)
        (lon,), (lat,) = rasterio.warp.transform(
            file.crs, 4326, *zip(file.xy(150, 150), strict=True)
        )
    assert (lon, lat) == pytest.approx((139.75, 35.68), abs=1e-2)
    with Image.open(scene.strip) as picture:
        assert picture.size == (3 * (64 + demo.GAP) - demo.GAP, 64 + demo.CAPTION)
        first = np.asarray(picture)[:20, :64]
        assert "SYNTHETIC" in picture.text
    window = demo.around(demo.PLACES["tokyo"], 6, 64)
    assert np.array_equal(first, np.moveaxis(world.level(6, window.x, window.y, 64, 20), 0, 2))


def test_every_demo_place_lies_on_the_map() -> None:
    for place in demo.PLACES.values():
        for level in demo.STRIP_LEVELS:
            window = demo.around(place, level, demo.PANEL)
            middle = window.lon[demo.PANEL // 2], window.lat[demo.PANEL // 2]
            assert middle == pytest.approx((place.lon, place.lat), abs=400 / level_size(level))


# --- what it says


def test_info_is_one_json_document(run: Run) -> None:
    found = json.loads(run("info", "--json").stdout)
    assert found["versions"]["torch"] == torch.__version__
    assert found["cores"] == os.cpu_count()
    assert "torch" in found["engines"]
    assert found["maps_mb"]["basemap.tif"] > 1
    assert found["cache"]["folder"] == os.environ["TERRALOOM_CACHE"]
    plain = run("info").stdout
    assert all(line.split()[0] in found for line in plain.splitlines())


def test_version(run: Run) -> None:
    assert run("--version").stdout == "terraloom 0.1.0\n"


def test_weights_are_listed_with_their_digest(run: Run) -> None:
    listed = run("weights").stdout
    assert listed and listed == run("weights", "list").stdout
    for line in listed.splitlines():
        name, kind, digest, path = line.split(maxsplit=3)
        assert kind in ("cascade", "frames", "metaearth", "pipeline") and len(digest) == 16
        assert Path(path).name == name


def test_help_is_fast_and_needs_no_torch() -> None:
    code = (
        "import sys, time; from terraloom.cli import app\n"
        "try: app(['zoom', '--help'])\n"
        "finally:\n"
        "  assert not {'torch', 'rasterio', 'numpy', 'PIL'} & set(sys.modules)\n"
        "  print(time.process_time(), file=sys.stderr)"  # not the clock: the machine may be busy
    )
    took = []
    for _ in range(3):  # the best: a busy machine slows processor time as well
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "--bbox" in done.stdout
        took.append(float(done.stderr))
    assert min(took) < 0.5


# --- how it says no


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--bbox 31,30,32,29 --gsd 10", ["south 30.0 >= north 29.0"]),
        ("--bbox 31,29,31,30 --gsd 10", ["no width"]),
        ("--bbox 31,84,32,85.2 --gsd 100", ["85.0511"]),
        ("--bbox 31,29,181,30 --gsd 100", ["-180 to 180"]),
        ("--bbox nan,29,31,30 --gsd 100", ["finite"]),
        ("--bbox 31,29,32 --gsd 10", ["four numbers"]),
        ("--bbox here --gsd 10", ["four numbers", "'here'"]),
        (f"--bbox {NILE} --gsd 0", ["gsd 0.0", "above 0"]),
        (f"--bbox {NILE} --gsd -3", ["gsd -3.0", "above 0"]),
        (f"--bbox {NILE} --gsd nan", ["gsd nan"]),
        (f"--bbox {NILE} --gsd 0.1", ["finer than the finest level"]),
        (f"--bbox {NILE} --gsd 0.1 --crs EPSG:32636", ["finer than the finest level"]),
        (f"--bbox {NILE}", ["--gsd", "--size"]),
        (f"--bbox {NILE} --gsd 10 --size 100", ["--gsd", "--size", "one of them"]),
        (f"--bbox {NILE} --size 1", ["size 1", "at least 2"]),
        (f"--bbox {NILE} --size 100 --crs EPSG:32636", ["--gsd with --crs"]),
        (f"--bbox {NILE} --size 50000000", ["finer than the finest level"]),
        (f"--bbox {NILE} --gsd 600 --crs EPSG:1", ["CRS", "EPSG:1"]),
        (f"--bbox {NILE} --gsd 600 --engine steam", ["steam", "openvino"]),
        (f"--bbox {NILE} --gsd 600 --seed -1", ["seed", "-1"]),
        (f"--bbox {NILE} --gsd 600 --base none.tif", ["none.tif"]),
        (f"--bbox {NILE} --gsd 600 --cover none.tif", ["none.tif"]),
    ],
)
def test_bad_values_are_refused(run: Run, tiny: Path, options: str, words: list[str]) -> None:
    refused(run("zoom", *tiny_world(tiny), *options.split(), "-o", "a.tif"), *words)


@pytest.mark.parametrize(("name", "limit"), [("a.tif", "1048576"), ("a.png", "16384")])
def test_canvas_beyond_the_limit_is_refused_at_once(
    run: Run, tiny: Path, name: str, limit: str
) -> None:
    start = time.perf_counter()
    options = ["--bbox", "-180,-85,180,85", "--gsd", "0.6", "-o", name]
    refused(run("zoom", *options, *tiny_world(tiny)), limit, "too large")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("nowhere/a.tif", ["nowhere", "does not exist"]),
        ("/dev/null/a.tif", ["/dev/null", "does not exist"]),
        ("/proc/a.tif", ["/proc"]),
        ("a.jpeg", [".tif or .png or .webp"]),
        (".", [".tif or .png or .webp"]),
    ],
)
def test_unwritable_paths_are_refused(run: Run, tiny: Path, output: str, words: list[str]) -> None:
    refused(run("zoom", "--bbox", NILE, "--gsd", "600", "-o", output, *tiny_world(tiny)), *words)


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_files_are_replaced_only_when_told(run: Run, tiny: Path, name: str) -> None:
    Path(name).write_bytes(b"precious")
    command = ["zoom", "--bbox", NILE, "--gsd", "600", "-o", name, *tiny_world(tiny)]
    done = run(*command)
    assert done.exit_code == 2 and "--overwrite" in done.stderr
    assert Path(name).read_bytes() == b"precious"
    assert run(*command, "--overwrite").exit_code == 0
    assert Path(name).stat().st_size > 1000
    assert [path.name for path in Path.cwd().iterdir()] == [name]


@pytest.mark.parametrize(
    ("tile", "words"),
    [
        ("19 0 0", ["level 19", "0 to 18"]),
        ("3 0 8", ["85.0511"]),
        ("3 0 -1", ["85.0511"]),
        ("3 9 1", ["column 9", "0 to 7"]),
        ("3 -1 1", ["column -1"]),
    ],
)
def test_tiles_off_the_map_are_refused(run: Run, tiny: Path, tile: str, words: list[str]) -> None:
    refused(run("tile", "-o", "a.png", *tiny_world(tiny), "--", *tile.split()), *words)


def test_base_map_without_crs_is_refused(run: Run, tiny: Path, tmp_path: Path) -> None:
    base = tmp_path / "base.tif"
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        with rasterio.open(
            base, "w", driver="GTiff", width=8, height=8, count=3, dtype="uint8"
        ) as file:
            file.write(np.zeros((3, 8, 8), np.uint8))
    options = ["--bbox", NILE, "--gsd", "600", "--base", base, "-o", "a.tif"]
    refused(run("zoom", *options, *tiny_world(tiny)), "base.tif", "no CRS")


def test_own_base_map_is_used(run: Run, tiny: Path, tmp_path: Path) -> None:
    base = tmp_path / "base.tif"
    red = np.zeros((3, 64, 64), np.uint8)
    red[0] = 200
    place = from_bounds(25, 25, 36, 36, 64, 64)
    with rasterio.open(
        base, "w", driver="GTiff", width=64, height=64, count=3, dtype="uint8",
        crs="EPSG:4326", transform=place,
    ) as file:  # fmt: skip
        file.write(red)
    options = ["--bbox", NILE, "--gsd", "600", "--base", base, "-o", "a.png"]
    assert run("zoom", *options, *tiny_world(tiny)).exit_code == 0
    with Image.open("a.png") as picture:
        mean = np.asarray(picture).mean((0, 1))
    assert mean == pytest.approx([200, 0, 0], abs=2)


@pytest.mark.parametrize(
    "damage", ["cut", "altered", "no file", "no config", "not JSON", "other kind"]
)
def test_damaged_weights_are_refused(
    run: Run, tiny: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERRALOOM_CACHE", str(tmp_path / "cache"))  # nothing is drawn yet
    folder = tmp_path / "weights"
    folder.mkdir()
    for path in tiny.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors, config = folder / "model.safetensors", folder / "config.json"
    raw = bytearray(tensors.read_bytes())
    if damage == "cut":
        tensors.write_bytes(raw[: len(raw) // 2])
    elif damage == "altered":
        raw[-100] ^= 1
        tensors.write_bytes(raw)
    elif damage == "no file":
        tensors.unlink()
    elif damage == "no config":
        config.unlink()
    elif damage == "not JSON":
        config.write_text("widths = 8")
    else:
        config.write_text(config.read_text().replace("[\n      8,", "[\n      12,"))
        assert "12" in config.read_text()
    options = [
        "--bbox",
        NILE,
        "--gsd",
        "600",
        "--engine",
        "torch",
        "--model",
        folder,
        "-o",
        "a.tif",
    ]
    refused(run("zoom", *options), str(folder))


@pytest.mark.parametrize(
    "command",
    [
        "demo --place atlantis",
        "train missing.toml --pack p --out o --minutes 1",
        "train missing.toml --out o --minutes 1",
        "train missing.toml --pack p --data d --out o --minutes 1",
        "evaluate nothing --pack p --out o",
        "weights convert nowhere target",
        "data text-pack --data nowhere -o p",
        "data pack --data nowhere -o p",
        "data basemap --data nowhere -o b.tif",
        "data ground --data nowhere -o g",
    ],
)
def test_other_commands_refuse_alike(run: Run, command: str) -> None:
    refused(run(*command.split()))


def test_train_does_not_overwrite_a_run(run: Run) -> None:
    (Path("o") / "state").mkdir(parents=True)
    done = run(
        "train", REPO / "recipes/cascade.toml", "--pack", "p", "--out", "o", "--minutes", "1"
    )
    assert done.exit_code == 2 and "--resume" in done.stderr


def test_debug_shows_where_it_happened(run: Run) -> None:
    done = run("--debug", "tile", "19", "0", "0", "-o", "a.png")
    assert type(done.exception).__name__ == "InvalidInput"


# --- when the machine gives up, or the person does


def start(
    tiny: Path, folder: Path, *options: str, limit: int | None = None
) -> subprocess.Popen[str]:
    """The command in a process of its own; `limit` is the most bytes a file may get, as on a full disk."""
    folder.mkdir()

    def prepare() -> None:
        import resource

        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background ignores it
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-m", "terraloom", "zoom", *options, *tiny_world(tiny)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    )


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_full_disk_leaves_nothing(tiny: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "here"
    process = start(tiny, folder, "--bbox", NILE, "--gsd", "300", "-o", name, limit=100_000)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, ""), err
    lines = [line for line in err.splitlines() if not line.startswith("terraloom: warning: ")]
    assert len(lines) == 1 and lines[0].startswith(f"terraloom: cannot write {name}")
    assert not list(folder.iterdir())


def test_ctrl_c_stops_at_once_and_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    process = start(tiny, folder, "--bbox", "-60,-60,60,60", "--gsd", "500", "-o", "a.tif")
    deadline = time.monotonic() + 60
    while not list(folder.rglob("raw.tif")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)  # well into the drawing
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, ""), err
    assert err == "Stopped by Ctrl-C; no unfinished file is left.\n"
    assert not list(folder.iterdir())
