"""Several dates as an animation or a Zarr group."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rasterio.crs import CRS
from test_raster import PLACES, RGB
from tiffs import noise, real, write_tif

from terraloom.errors import InvalidInput, TerraloomError
from terraloom.io.raster import Raster
from terraloom.io.sequence import write_sequence

TAGS = {"TERRALOOM_SYNTHETIC": "YES"}
DATES = ("2021-06-15", "2019", "2020-02")  # in no order


def scenes(folder: Path, place: str = "utm", **options: Any) -> list[Raster]:
    found = []
    for seed, day in enumerate(DATES):
        pixels = noise(70, 90, 4, options.pop("dtype", "uint16"), seed=seed)
        pixels[:, 3:5] = options.get("nodata") or 7
        path = write_tif(
            folder / f"{place}_{day}.tif",
            pixels,
            names=(*RGB, "band 4"),
            photometric="minisblack",
            **{**PLACES[place], **options},
        )
        found.append(Raster.open(path))
    return found


def test_animation_shows_the_dates_in_order(tmp_path: Path) -> None:
    given = scenes(tmp_path, nodata=9)
    path = write_sequence(tmp_path / "a.gif", given, TAGS)
    with Image.open(path) as file:
        assert (file.size, file.n_frames, file.info["loop"]) == ((90, 70), 3, 0)  # type: ignore[attr-defined]
        said = json.loads(file.info["comment"])
        assert said["dates"] == ["2019", "2020-02", "2021-06-15"]
        assert said["TERRALOOM_SYNTHETIC"] == "YES"
        assert file.info["duration"] == 1000
        for number, scene in enumerate((given[1], given[2], given[0])):
            file.seek(number)
            shown = np.asarray(file.convert("RGB"), float)
            truth = scene.read((0, 0, 90, 70), RGB)[0].transpose(1, 2, 0)
            assert not shown[3:5].any()
            assert np.corrcoef(shown[6:].ravel(), truth[6:].ravel())[0, 1] > 0.9
    again = write_sequence(tmp_path / "b.gif", given, TAGS)
    assert again.read_bytes() == path.read_bytes()


def test_large_scenes_are_made_smaller(tmp_path: Path) -> None:
    pixels = np.zeros((1, 40, 2100), np.uint8)
    pixels[:, :, 1050:] = 200
    path = write_tif(tmp_path / "2020.tif", pixels, names=("pan",))
    with Image.open(write_sequence(tmp_path / "a.gif", [Raster.open(path)], {})) as file:
        assert file.size == (700, 14)
        shown = np.asarray(file.convert("RGB"))
        assert not shown[:, :349].any() and (shown[:, 351:] == 200).all()


@pytest.mark.parametrize("place", PLACES)
def test_zarr_holds_pixels_time_and_place(tmp_path: Path, place: str) -> None:
    zarr = pytest.importorskip("zarr", reason="the extra `zarr` is not installed")
    given = scenes(tmp_path, place, nodata=9)
    path = write_sequence(tmp_path / "a.zarr", given, TAGS)
    group = zarr.open_group(path, mode="r")
    assert group.attrs["TERRALOOM_SYNTHETIC"] == "YES" and group.attrs["Conventions"] == "CF-1.11"
    for band in (*RGB, "band_4"):
        array = group[band]
        assert array.shape == (3, 70, 90) and array.dtype == np.uint16
        assert array.metadata.dimension_names == ("time", "y", "x")
        assert array.attrs["_FillValue"] == array.fill_value == 9
        for time, scene in enumerate((given[1], given[2], given[0])):
            truth = scene.stored((0, 0, 90, 70), [band.replace("_", " ")])[0][0]
            assert np.array_equal(array[time], truth)
    epoch = date(1970, 1, 1)
    starts = [str(epoch + timedelta(int(day))) for day in group["time"][:]]
    assert starts == ["2019-01-01", "2020-02-01", "2021-06-15"]
    assert np.diff(group["time_bnds"][:], axis=1)[:, 0].tolist() == [365, 29, 1]
    about = group["spatial_ref"].attrs
    t = PLACES[place]["transform"]
    numbers = [float(v) for v in about["GeoTransform"].split()]
    assert numbers == pytest.approx([t.c, t.a, t.b, t.f, t.d, t.e])
    assert CRS.from_wkt(about["crs_wkt"]) == given[0].crs
    if place == "rotated":
        assert "x" not in group
    else:
        assert group["x"][0] == pytest.approx(t.c + t.a / 2)
        assert group["y"][-1] == pytest.approx(t.f + 69.5 * t.e)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_zarr_of_floats_scales_and_masks(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", reason="the extra `zarr` is not installed")
    pixels = noise(600, 20, dtype="float32")
    pixels[:, 550] = -9999
    file = write_tif(tmp_path / "2020.tif", pixels, names=RGB, nodata=-9999)
    group = zarr.open_group(write_sequence(tmp_path / "f.zarr", [Raster.open(file)], {}), mode="r")
    found = group["green"][0]
    assert np.isnan(found[550]).all() and np.array_equal(found[551:], pixels[1, 551:])
    mask = np.full((70, 90), 255, np.uint8)
    mask[5] = 0
    file = write_tif(
        tmp_path / "2021.tif",
        noise(70, 90),
        names=RGB,
        mask=mask,
        scales=(1e-4,) * 3,
        offsets=(-0.1,) * 3,
    )
    group = zarr.open_group(write_sequence(tmp_path / "m.zarr", [Raster.open(file)], {}), mode="r")
    assert np.array_equal(group["known"][0], mask > 0)
    assert group["red"].attrs["scale_factor"] == 1e-4 and group["red"].attrs["add_offset"] == -0.1


def test_replacing(tmp_path: Path) -> None:
    pytest.importorskip("zarr", reason="the extra `zarr` is not installed")
    given = scenes(tmp_path)
    for name in ("a.zarr", "a.gif"):
        write_sequence(tmp_path / name, given, {})
        with pytest.raises(InvalidInput, match="exists already"):
            write_sequence(tmp_path / name, given, {})
        write_sequence(tmp_path / name, given[:1], {}, overwrite=True)
    (tmp_path / "precious.zarr").mkdir()
    (tmp_path / "precious.zarr" / "thesis.txt").write_text("years of work")
    with pytest.raises(InvalidInput, match="no Zarr group"):
        write_sequence(tmp_path / "precious.zarr", given, {}, overwrite=True)
    assert (tmp_path / "precious.zarr" / "thesis.txt").is_file()


def test_what_is_no_sequence_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = scenes(tmp_path)

    def said(*args: Any) -> str:
        with pytest.raises(InvalidInput) as caught:
            write_sequence(*args, {})
        return str(caught.value)

    assert "must end in .gif or .zarr" in said(tmp_path / "a.mp4", given)
    assert "at least one" in said(tmp_path / "a.gif", [])
    assert "folder" in said(tmp_path / "no" / "a.gif", given)
    assert "folder" in said(tmp_path / "no" / "a.zarr", given)
    undated = Raster.open(write_tif(tmp_path / "x.tif", noise(70, 90, 4), names=RGB))
    assert "has no date" in said(tmp_path / "a.gif", [*given, undated])
    other = write_tif(tmp_path / "2018.tif", noise(7, 9, 4), names=(*RGB, "band 4"))
    assert "differ in grid" in said(tmp_path / "a.gif", [*given, Raster.open(other)])
    assert "2019 is twice" in said(tmp_path / "a.gif", [*given, given[1]])
    assert not list(tmp_path.glob("*.gif")) and not list(tmp_path.glob("*.zarr"))
    monkeypatch.setattr("terraloom.io.sequence.find_spec", lambda name: None)
    with pytest.raises(TerraloomError, match="terraloom\\[zarr\\]"):
        write_sequence(tmp_path / "a.zarr", given, {})


def test_real_river(tmp_path: Path) -> None:
    folder = real("landsat_peru_series", tmp_path) / "peru_landsat"
    dated = [Raster.open(p, "swir16=1,nir=2,red=3,green=4") for p in folder.glob("*.tif")]
    with Image.open(write_sequence(tmp_path / "river.gif", dated, TAGS)) as file:
        assert file.n_frames == 8  # type: ignore[attr-defined]
        assert json.loads(file.info["comment"])["dates"][0] == "1985"
