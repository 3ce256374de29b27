"""Blue Marble's months laid over its August tiles."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from test_captions import sets  # noqa: E402, F401

from terraloom.data.seasons import MONTHS, difference, in_month, month_files, read_month  # noqa: E402
from terraloom.data.text_pack import build_text_pack  # noqa: E402
from terraloom.errors import InvalidInput  # noqa: E402
from terraloom.training.captioned import TextPack  # noqa: E402

HEIGHT = 90  # px of a plate carree, 2 degrees each


def grey(side: int = 16) -> np.ndarray:
    return np.full((side, side, 3), 100, np.uint8)


@given(st.integers(1, 6), st.data(), st.integers(-300, 300))
def test_an_even_difference_is_added_and_cut_at_white_and_black(
    z: int, data: st.DataObject, more: int
) -> None:
    x, y = (data.draw(st.integers(0, 2**z - 1)) for _ in range(2))
    seen = in_month(grey(), z, x, y, np.full((HEIGHT, 2 * HEIGHT, 3), more, np.int16))
    assert (seen == min(max(100 + more, 0), 255)).all()


def test_snow_lies_at_its_own_longitude_and_latitude() -> None:
    lat = 89 - 2.0 * np.arange(HEIGHT)[:, None]
    lon = 2.0 * np.arange(2 * HEIGHT)[None] - 179
    more = np.stack([lon + 0 * lat, lat + 0 * lon, 0 * lat * lon], -1).astype(np.int16)
    tile = in_month(grey(64), 3, 5, 2, more)  # 45 to 90 east, 40.98 to 66.51 north
    east, north = (tile[..., k].astype(int) - 100 for k in (0, 1))
    assert np.abs(east - (45 + 45 * (np.arange(64) + 0.5) / 64)).max() <= 1
    true = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * (2 + (np.arange(64) + 0.5) / 64) / 8))))
    assert np.abs(north - true[:, None]).max() <= 1
    assert (tile[..., 2] == 100).all()


def test_the_antimeridian_has_no_seam() -> None:
    more = np.zeros((HEIGHT, 2 * HEIGHT, 3), np.int16)
    more[:, [0, -1]] = 60  # 2 degrees on either side
    west, east = (in_month(grey(256), 6, x, 30, more) for x in (63, 0))
    assert west[:, -1].min() == east[:, 0].min() == 160
    assert west[:, 0].max() < 160


def write_months(folder: Path, end: str = "png") -> Path:
    folder.mkdir()
    for month in MONTHS:
        image = np.full((HEIGHT, 2 * HEIGHT, 3), 10 * month, np.uint8)
        Image.fromarray(image).save(folder / f"world.2004{month:02d}.3x5400x2700.{end}")
    return folder


def test_months_are_read_and_missing_ones_named(tmp_path: Path) -> None:
    files = month_files(write_months(tmp_path / "months"))
    assert sorted(files) == list(MONTHS)
    assert (difference(read_month(files[12]), read_month(files[8])) == 40).all()
    files[3].unlink()
    with pytest.raises(InvalidInput, match="0 images of 2004-03"):
        month_files(tmp_path / "months")


def test_a_month_that_is_no_plate_carree_is_refused(tmp_path: Path) -> None:
    Image.fromarray(grey()).save(tmp_path / "square.png")
    with pytest.raises(InvalidInput, match="16 x 16 px, must be 2 to 1"):
        read_month(tmp_path / "square.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(InvalidInput, match="cannot read"):
        read_month(tmp_path / "broken.jpg")


def test_a_pack_with_months_has_land_in_other_seasons(sets: Path, tmp_path: Path) -> None:  # noqa: F811
    path = build_text_pack(sets, tmp_path / "pack", months=write_months(tmp_path / "months"))
    rows = [row for v in (False, True) for row in TextPack.load(path, v).rows]
    seasons = [row for row in rows if row.set == "seasons6"]
    dates = {row.date for row in seasons}
    assert len(seasons) >= 2 and "2004-08" not in dates
    assert all(row.cloud_cover == 0 and row.lat == 2.0 for row in seasons)
    by_date = {row.date: float(row.rgb.mean()) for row in seasons}
    bright = [by_date[date] for date in sorted(by_date, key=str)]
    assert bright == sorted(bright) and bright[-1] > bright[0]
