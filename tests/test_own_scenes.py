"""Other imagery in the packs: a folder of scenes with a list."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from test_captions import sets  # noqa: E402, F401

from terraloom.data.ground import Ground  # noqa: E402
from terraloom.data.pack import _scenes, held_out  # noqa: E402
from terraloom.data.scenes import LIST, SIDE, _spans, read_scenes  # noqa: E402
from terraloom.data.text_pack import build_text_pack  # noqa: E402
from terraloom.data.uses import CODES  # noqa: E402
from terraloom.errors import InvalidInput  # noqa: E402
from terraloom.training.captioned import TextPack  # noqa: E402

NILE = [31.0, 30.0, 31.6, 30.4]


def write(folder: Path, height: int = 64, width: int = 80, **row: Any) -> Path:
    """A scene whose red counts columns and whose green counts rows, and its list."""
    folder.mkdir(exist_ok=True)
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 0] = np.arange(width) * 255 // width
    rgb[..., 1] = (np.arange(height) * 255 // height)[:, None]
    Image.fromarray(rgb).save(folder / "a.png")
    told = {"path": "a.png", "place": "nile", "gsd": 30, **row}
    (folder / LIST).write_text(json.dumps({k: v for k, v in told.items() if v is not None}) + "\n")
    return folder


@given(st.integers(64, 5000))
def test_tiles_cover_a_side_and_are_cells(side: int) -> None:
    spans = _spans(side)
    whole = side // 16 * 16
    assert spans[0][0] == 0 and spans[-1][1] == whole
    assert all(0 < b - a <= SIDE and (b - a) % 16 == 0 for a, b in spans)
    assert all(later <= end for (_, end), (later, _) in pairwise(spans))


def test_every_tile_knows_its_own_place(tmp_path: Path) -> None:
    tiles = list(read_scenes(write(tmp_path / "s", 1040, 1040, bbox=NILE)))
    assert len(tiles) == 9
    for row, rgb in tiles:
        assert rgb.shape == (512, 512, 3)
        west, south, east, north = row["bbox"]
        left, top = rgb[0, 0, 0] / 255, rgb[0, 0, 1] / 255  # of the scene
        assert abs((west - 31.0) / 0.6 - left) < 0.01 and abs((30.4 - north) / 0.4 - top) < 0.01
        assert west < row["lon"] < east and south < row["lat"] < north


def test_curves_are_applied(tmp_path: Path) -> None:
    plain = next(read_scenes(write(tmp_path / "s")))[1]
    dark = next(read_scenes(write(tmp_path / "s", gamma=[2, 2, 2])))[1]
    assert (dark <= plain).all() and dark.mean() < plain.mean()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"place": None}, "place"),
        ({"gsd": 0}, "gsd is 0"),
        ({"gsd": None}, "gsd is None"),
        ({"bbox": [3, 2, 1]}, "bbox is"),
        ({"bbox": [31.6, 30.0, 31.0, 30.4]}, "bbox is"),
        ({"white": "bright"}, "white is 'bright'"),
        ({"path": "b.png"}, "cannot read the image"),
        ({"use": "meadow"}, "use is 'meadow', must be one of AnnualCrop"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=f"line 1: .*{message}"):
        list(read_scenes(write(tmp_path / "s", **row)))


def test_small_images_and_missing_lists_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="has 80 x 48 pixels, must have 64"):
        list(read_scenes(write(tmp_path / "s", 48)))
    with pytest.raises(InvalidInput, match=LIST):
        list(read_scenes(tmp_path))


def test_the_cascade_is_told_what_is_there(tmp_path: Path) -> None:
    ground = Ground.open()
    (known,) = _scenes(write(tmp_path / "s", bbox=NILE), ground)
    assert known.cover.shape == (16, 20) and 12 in known.cover  # the delta is cropland
    (told,) = _scenes(write(tmp_path / "s", label="urban"), ground)
    assert (told.cover == 13).all() and told.place == "scenes/nile" and told.set == "scenes"
    assert told.use is None
    (used,) = _scenes(write(tmp_path / "s", bbox=NILE, use="denseresidential"), ground)
    assert (
        used.set == "scenes"
        and used.use is not None
        and (used.use == CODES["denseresidential"]).all()
    )
    (near,) = _scenes(write(tmp_path / "s", gsd=0.6), ground)
    assert near.place == "scenes/nile" and near.set == "scenes_fine"
    (town,) = _scenes(write(tmp_path / "s", gsd=0.6, use="buildings"), ground)
    assert town.set == "scenes_town"


def test_the_text_pack_holds_scenes_with_their_captions(sets: Path) -> None:  # noqa: F811
    folder = write(sets / "own", 256, 256, bbox=NILE, caption="small fields", label="cropland")
    path = build_text_pack(sets, sets / "pack", 500, scenes=folder)
    pack = TextPack.load(path, held_out("scenes/nile"))
    (row,) = [row for row in pack.rows if row.set == "scenes"]
    texts = [pack.captions[k] for k in row.captions]
    assert "small fields" in texts and "a satellite image of farmland" in texts
    assert row.gsd == 30 and row.lon is not None and 31.2 < row.lon < 31.4
