"""Files: a COG from blocks, pictures, and that each appears whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine
from rasterio.windows import Window
from rio_cogeo.cogeo import cog_validate

from terraloom.errors import InvalidInput, TerraloomError
from terraloom.io.cog import block_windows, stream_cog
from terraloom.io.picture import write_picture

TAGS = {"SYNTHETIC": "true", "TIFFTAG_SOFTWARE": "Terraloom", "NOTE": "Zürich ∞"}
PLACE = {"transform": Affine(10, 0, 5e5, 0, -10, 4e6), "crs": "EPSG:32636", "tags": TAGS}
Pixels = npt.NDArray[np.uint8]


def picture(height: int, width: int, bands: int = 3) -> Pixels:
    return np.random.default_rng(height).integers(0, 256, (bands, height, width), np.uint8)


def blocks(image: Pixels, step: int = 512) -> Iterator[tuple[Window, Pixels]]:
    for window in block_windows(image.shape[2], image.shape[1], step):
        rows, columns = window.toslices()
        yield window, image[:, rows, columns]


def write(path: Path, image: Pixels, step: int = 512, **options: object) -> Path:
    size = {"width": image.shape[2], "height": image.shape[1]}
    names = ("red", "green", "blue")[: image.shape[0]]
    return stream_cog(path, blocks(image, step), bands=names, **size, **PLACE, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (512, 512), (1300, 700), (513, 1024)])
@pytest.mark.parametrize("step", [512, 1024])
def test_cog_is_valid_and_holds_the_pixels(
    tmp_path: Path, height: int, width: int, step: int
) -> None:
    image = picture(height, width)
    path = write(tmp_path / "a.tif", image, step)
    valid, errors, warnings = cog_validate(path, strict=True)
    assert valid, (errors, warnings)
    with rasterio.open(path) as file:
        assert np.array_equal(file.read(), image)
        assert (file.transform, file.crs.to_epsg()) == (PLACE["transform"], 32636)
        assert file.descriptions == ("red", "green", "blue")
        assert TAGS.items() <= file.tags().items()
        assert file.nodata is None
        assert len(file.overviews(1)) == (1 if max(height, width) > 512 else 0) + (
            1 if max(height, width) > 1024 else 0
        )


def test_equal_input_gives_equal_bytes_in_blocks_of_any_size(tmp_path: Path) -> None:
    image = picture(1100, 1600)
    first = write(tmp_path / "a.tif", image, 512).read_bytes()
    assert write(tmp_path / "b.tif", image, 1024).read_bytes() == first
    assert write(tmp_path / "c.tif", image, 512).read_bytes() == first


def test_overviews_are_means(tmp_path: Path) -> None:
    image = picture(1024, 1024, bands=1)
    with rasterio.open(write(tmp_path / "a.tif", image), overview_level=0) as file:
        half = file.read()
    means = image.reshape(1, 512, 2, 512, 2).mean((2, 4))
    assert np.abs(half - means).max() <= 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b[:-1], "never came"),
        (lambda b: [*b, b[0]], "written before"),
        (lambda b: [(Window(7, 0, 512, 512), b[0][1])], "off the lattice"),
        (lambda b: [(b[0][0], b[0][1][:, :5])], "does not fit"),
        (lambda b: [(b[0][0], b[0][1].astype(np.float32))], "does not fit"),
    ],
)
def test_wrong_blocks_are_refused(tmp_path: Path, change: object, words: str) -> None:
    todo = change(list(blocks(picture(600, 600))))  # type: ignore[operator]
    with pytest.raises(InvalidInput, match=words):
        stream_cog(tmp_path / "a.tif", todo, width=600, height=600, bands=("r", "g", "b"), **PLACE)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def never() -> Iterator[tuple[Window, Pixels]]:
    raise AssertionError("drawn")
    yield


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("a.tif", {"crs": "EPSG:1"}, "EPSG:1"),
        ("a.tif", {"crs": "nowhere"}, "nowhere"),
        ("a.tif", {"width": 0}, "0 x 9 pixels is empty"),
        ("old.tif", {}, "old.tif exists already"),
        ("", {"overwrite": True}, "is a folder"),
        ("no/a.tif", {}, "no does not exist; create it first"),
        ("old.tif/a.tif", {}, "old.tif does not exist"),
        ("long" * 99 + ".tif", {}, "cannot write in .*: File name too long"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_drawn(
    tmp_path: Path, name: str, change: dict[str, object], words: str
) -> None:
    old = tmp_path / "old.tif"
    old.write_bytes(b"old")
    options = {"width": 9, "height": 9, "bands": ("r",), **PLACE, **change}
    with pytest.raises(InvalidInput, match=words):
        stream_cog(tmp_path / name, never(), **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == [old] and old.read_bytes() == b"old"


LOCKED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_io import PLACE, TAGS, never, picture, stream_cog, write_picture
from terraloom.errors import InvalidInput
if os.geteuid() == 0:  # root may write anywhere
    os.seteuid(65534)
for write in (
    lambda: stream_cog(Path({path!r}), never(), width=9, height=9, bands=("r",), **PLACE),
    lambda: write_picture(Path({path!r}).with_suffix(".png"), picture(9, 9), TAGS),
):
    try:
        write()
    except InvalidInput as error:
        print(error)
"""


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_locked_folders_are_refused(mode: int) -> None:
    # Not in tmp_path: only its owner may enter that, so that another user would stumble over it first.
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o755)
        folder = Path(top) / "locked"
        folder.mkdir()
        folder.chmod(mode)
        code = LOCKED.format(tests=str(Path(__file__).parent), path=str(folder / "a.tif"))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        folder.chmod(0o755)
        assert done.returncode == 0, done.stderr
        refusal = f"cannot write in {folder}: Permission denied; choose another\n"
        assert done.stdout == 2 * refusal
        assert not list(folder.iterdir())


def test_a_place_that_is_taken_meanwhile_is_one_clear_error(tmp_path: Path) -> None:
    path, image = tmp_path / "a.tif", picture(600, 600)

    def taken() -> Iterator[tuple[Window, Pixels]]:
        path.mkdir()
        yield from blocks(image)

    with pytest.raises(TerraloomError, match=r"cannot write .*a\.tif: .*directory"):
        stream_cog(path, taken(), width=600, height=600, bands=("r", "g", "b"), **PLACE)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == [path] and not list(path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_file_leaves_nothing_and_the_old_one_stays(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def interrupted() -> Iterator[tuple[Window, Pixels]]:
        yield next(blocks(picture(600, 600)))
        raise error

    path = tmp_path / "a.tif"
    path.write_bytes(b"old")
    with pytest.raises(error):
        stream_cog(
            path, interrupted(), width=600, height=600, bands=("r", "g", "b"), overwrite=True,
            **PLACE,
        )  # type: ignore[arg-type]  # fmt: skip
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]
    assert path.read_bytes() == b"old"


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_io import picture, write
from terraloom.errors import TerraloomError
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    write(Path({path!r}), picture(1500, 1500))
except TerraloomError as error:
    print(error)
"""


@pytest.mark.parametrize("share", [0.01, 0.5, 0.77, 0.99, 0.999, 0.9999])
def test_a_disk_that_fills_up_is_noticed_wherever_it_happens(tmp_path: Path, share: float) -> None:
    whole = write(tmp_path / "whole.tif", picture(1500, 1500))
    folder = tmp_path / "full"
    folder.mkdir()
    code = FULL_DISK.format(
        tests=str(Path(__file__).parent),
        limit=int(share * whole.stat().st_size),
        path=str(folder / "a.tif"),
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout
    assert not list(folder.iterdir())


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_a_disk_that_fills_up_under_a_picture_leaves_nothing(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Image.Image, file: Path, **_: object) -> None:
        file.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(TerraloomError, match="No space left on device.* MB left"):
        write_picture(tmp_path / f"a{suffix}", picture(9, 9), TAGS)
    assert not list(tmp_path.iterdir())


def test_png_and_webp_hold_pixels_and_tags(tmp_path: Path) -> None:
    image = picture(70, 90)
    for suffix in (".png", ".WEBP"):
        path = write_picture(tmp_path / f"a{suffix}", image, TAGS)
        with Image.open(path) as file:
            assert np.array_equal(np.moveaxis(np.asarray(file), 2, 0), image)
            tags = file.text if suffix == ".png" else json.loads(file.getexif()[0x010E])
        assert tags == TAGS


@pytest.mark.parametrize(
    ("name", "image", "words"),
    [
        ("a.gif", picture(4, 4), r"\.png or \.webp"),
        ("a.png", picture(4, 4, bands=1), "uint8"),
        ("a.png", picture(4, 4).astype(np.float32), "uint8"),
        ("a.webp", np.zeros((3, 1, 16384), np.uint8), "16383"),
        ("no/a.png", picture(4, 4), "does not exist"),
    ],
)
def test_wrong_pictures_are_refused(
    tmp_path: Path, name: str, image: npt.NDArray[np.uint8], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        write_picture(tmp_path / name, image, TAGS)
    assert not list(tmp_path.iterdir())


def test_existing_files_and_folders_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_picture(path, picture(4, 4), TAGS)
    before = path.read_bytes()
    with pytest.raises(InvalidInput, match="exists"):
        write_picture(path, picture(5, 5), TAGS)
    assert path.read_bytes() == before
    write_picture(path, picture(5, 5), TAGS, overwrite=True)
    assert path.read_bytes() != before
    (tmp_path / "b.png").mkdir()
    with pytest.raises(InvalidInput, match="folder"):
        write_picture(tmp_path / "b.png", picture(4, 4), TAGS)


def test_errors_are_of_one_family() -> None:
    assert issubclass(InvalidInput, TerraloomError)
