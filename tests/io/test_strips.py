"""GeoTIFFs of any kind from blocks, and from strips that survive a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from filelock import FileLock
from rasterio.crs import CRS
from rio_cogeo.cogeo import cog_validate
from test_raster import PLACES
from tiffs import noise

from terraloom.errors import InvalidInput, TerraloomError
from terraloom.io.cog import block_windows, stream_cog
from terraloom.io.raster import Raster
from terraloom.io.source import Grid
from terraloom.io.strips import Strip, Target, write_strips

RGB = ("red", "green", "blue")
STRIP = 192


def target(path: Path, height: int = 1100, width: int = 627, **options: Any) -> Target:
    grid = Grid(CRS.from_epsg(32618), Affine(10, 0, 5e5, 0, -10, 4e6), width, height)
    return Target(
        path, grid, **{"bands": RGB, "dtype": np.uint16, "tags": {"NOTE": "x"}, **options}
    )


def rows(spot: Target, top: int, bottom: int) -> Strip:
    """Pixels that depend on their place alone; every seventh column of the first band is unknown."""
    columns, lines, bands = np.arange(spot.grid.width), np.arange(top, bottom), np.arange(3)
    values = columns + 7 * lines[:, None] + 1000 * bands[:, None, None] + 1
    pixels = (values[: len(spot.bands)] % 65521).astype(spot.dtype)
    known = np.ones(pixels.shape, bool)
    known[0, :, ::7] = False
    if spot.nodata is not None:
        pixels[~known] = spot.nodata
    return pixels, known


def draw(targets: Sequence[Target], first: int, height: int) -> Iterator[list[Strip]]:
    for top in range(first * STRIP, height, STRIP):
        yield [rows(spot, top, min(top + STRIP, height)) for spot in targets]


def write(*targets: Target, key: str = "abc", **options: Any) -> list[Path]:
    height = targets[0].grid.height
    return write_strips(targets, key, lambda first: draw(targets, first, height), **options)


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
def test_strips_become_one_file(tmp_path: Path, dtype: str) -> None:
    spot = target(tmp_path / "a.tif", dtype=dtype, nodata=0)
    assert write(spot) == [tmp_path / "a.tif"]
    valid, errors, warnings = cog_validate(tmp_path / "a.tif", strict=True)
    assert valid, (errors, warnings)
    with rasterio.open(tmp_path / "a.tif") as file:
        assert np.array_equal(file.read(), rows(spot, 0, 1100)[0])
        assert file.dtypes == (dtype,) * 3 and file.nodata == 0 and file.tags()["NOTE"] == "x"
        assert file.descriptions == RGB and file.shape == (1100, 627)
        assert [c.name for c in file.colorinterp] == list(RGB)
    assert not hidden(tmp_path)


@pytest.mark.parametrize("place", PLACES)
def test_place_is_kept_and_read_again(tmp_path: Path, place: str) -> None:
    grid = Grid(CRS.from_user_input(PLACES[place]["crs"]), PLACES[place]["transform"], 627, 603)
    spot = Target(tmp_path / "a.tif", grid, RGB, np.uint16, nodata=0)
    write(spot)
    back = Raster.open(tmp_path / "a.tif")
    assert back.grid.same(grid) and back.bands == RGB and back.nodata == 0
    assert back.transform.almost_equals(grid.transform, 1e-9)
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.overviews(1) == [2]


def test_a_mask_a_scale_five_bands_and_no_place(tmp_path: Path) -> None:
    scaling = ((1e-4, -0.1), (2e-4, 0.0), (1.0, 0.0))
    spot = target(tmp_path / "a.tif", masked=True, scaling=scaling)
    write(spot)
    with rasterio.open(tmp_path / "a.tif") as file:
        mask = file.dataset_mask()
        assert not mask[:, ::7].any() and (np.delete(mask, np.s_[::7], 1) == 255).all()
        assert tuple(zip(file.scales, file.offsets, strict=True)) == scaling
    assert cog_validate(tmp_path / "a.tif", strict=True)[0]
    assert not (tmp_path / "a.tif.msk").exists()
    image = noise(30, 40, 5, "uint8", 255)
    options: dict[str, Any] = {"width": 40, "height": 30, "tags": {}, "crs": None}
    stream_cog(
        tmp_path / "b.tif",
        ((window, image) for window in block_windows(40, 30)),
        bands=(*RGB, "nir", "swir16"),
        transform=Affine.identity(),
        **options,
    )
    back = Raster.open(tmp_path / "b.tif")
    assert back.crs is None and back.bands == (*RGB, "nir", "swir16")
    assert np.array_equal(back.stored((0, 0, 40, 30), back.bands)[0], image)
    assert not back.masked


def test_two_files_at_once_and_what_progress_says(tmp_path: Path) -> None:
    image = target(tmp_path / "a.tif")
    spread = target(tmp_path / "a-std.tif", bands=("std",), dtype=np.float32)
    seen: list[tuple[int, int]] = []
    write(image, spread, progress=lambda done, every: seen.append((done, every)))
    assert seen[0] == (0, 1100) and seen[-1] == (1100, 1100) and len(seen) == 7
    with rasterio.open(tmp_path / "a-std.tif") as file:
        assert np.array_equal(file.read(), rows(spread, 0, 1100)[0])
    assert len(list(tmp_path.iterdir())) == 2


PROGRAM = """
import sys, time
from pathlib import Path
sys.path[:0] = {paths!r}
from test_strips import draw, target
from terraloom.io.strips import write_strips
spot = target(Path({path!r}))
def slow(first):
    for number, strip in enumerate(draw([spot], first, 1100), first):
        print(number, flush=True)
        if number == 3:
            time.sleep(60)
        yield strip
write_strips([spot], "abc", slow)
"""


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole = write(target(tmp_path / "whole.tif"))[0].read_bytes()
    path = tmp_path / "a.tif"
    code = PROGRAM.format(paths=[str(Path(__file__).parent)], path=str(path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "3":
            break
    with pytest.raises(TerraloomError, match="another run is drawing"):
        write(target(path))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not path.exists() and len(hidden(tmp_path)) == 1
    begun: list[int] = []

    def counting(first: int) -> Iterator[list[Strip]]:
        begun.append(first)
        return draw([target(path)], first, 1100)

    write_strips([target(path)], "abc", counting)
    assert begun == [3]
    assert path.read_bytes() == whole
    assert not hidden(tmp_path)


def broken(spot: Target, height: int, stop: BaseException, at: int) -> Any:
    def begin(first: int) -> Iterator[list[Strip]]:
        for number, strip in enumerate(draw([spot], first, height), first):
            if number == at:
                raise stop
            yield strip

    return begin


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), InvalidInput("no")])
def test_what_was_finished_stays_and_damage_is_drawn_again(
    tmp_path: Path, stop: BaseException
) -> None:
    whole = write(target(tmp_path / "whole.tif"))[0].read_bytes()
    spot = target(tmp_path / "a.tif")
    with pytest.raises(type(stop)):
        write_strips([spot], "abc", broken(spot, 1100, stop, 4))
    (folder,) = hidden(tmp_path)
    strips = sorted(folder.glob("*.tif"))
    assert len(strips) == 4 and not spot.path.exists()
    strips[2].write_bytes(strips[2].read_bytes()[:-200])
    begun: list[int] = []

    def counting(first: int) -> Iterator[list[Strip]]:
        begun.append(first)
        return draw([spot], first, 1100)

    write_strips([spot], "abc", counting)
    assert begun == [2] and spot.path.read_bytes() == whole and not hidden(tmp_path)


def test_another_key_begins_anew_and_old_folders_go_in_the_end(tmp_path: Path) -> None:
    spot = target(tmp_path / "a.tif")
    with pytest.raises(InvalidInput):
        write_strips([spot], "old", broken(spot, 1100, InvalidInput("no"), 2))
    used = tmp_path / ".a.tif.busy.strips"
    used.mkdir()
    with FileLock(used / "lock"):
        write(spot, key="new")
        assert hidden(tmp_path) == [used]


def test_nothing_is_left_where_nothing_was_finished(tmp_path: Path) -> None:
    spot = target(tmp_path / "a.tif")
    with pytest.raises(InvalidInput, match="^no$"):
        write_strips([spot], "abc", broken(spot, 1100, InvalidInput("no"), 0))
    assert not list(tmp_path.iterdir())


def never(first: int) -> Iterator[list[Strip]]:
    raise AssertionError("drawn in vain")


def test_targets_are_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    spot = target(tmp_path / "a.tif")
    spot.path.write_bytes(b"old")
    with pytest.raises(InvalidInput, match="exists already"):
        write_strips([target(tmp_path / "b.tif"), spot], "abc", never)
    with pytest.raises(InvalidInput, match="folder .* does not exist"):
        write_strips([target(tmp_path / "no" / "a.tif")], "abc", never)
    assert spot.path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
    write(spot, overwrite=True)
    assert cog_validate(spot.path)[0]


def test_strips_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    spot = target(tmp_path / "a.tif", height=400)
    good = rows(spot, 0, 192)
    for strip in (
        (good[0].astype(np.float32), good[1]),
        (good[0][:, :, 1:], good[1][:, :, 1:]),
        (good[0][:2], good[1][:2]),
        rows(spot, 0, 500),
    ):
        with pytest.raises(InvalidInput, match="strip 0 of"):
            write_strips([spot], "abc", lambda first, strip=strip: iter([[strip]]))
    with pytest.raises(InvalidInput, match="192 of 400 rows"):
        write_strips([spot], "abc", lambda first: iter([[good]]))


@pytest.mark.slow
def test_memory_holds_a_strip_not_the_image(tmp_path: Path) -> None:
    """4000 x 9000 px of three 16-bit bands are 216 MB; what is held stays far below."""
    code = f"""
import resource, sys
sys.path[:0] = [{str(Path(__file__).parent)!r}]
from pathlib import Path
from test_strips import draw, target
from terraloom.io.strips import write_strips
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
spot = target(Path({str(tmp_path / "a.tif")!r}), height=9000, width=4000)
write_strips([spot], "abc", lambda first: draw([spot], first, 9000))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 180, f"{done.stdout} MB in {time.monotonic() - started:.0f} s"
