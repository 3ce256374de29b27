"""Scenes: any grid, any number type, bands of several pixel sizes, and what is unknown."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from tiffs import UTM, noise, real, write_tif

from terraloom.errors import InvalidInput
from terraloom.io.raster import Raster, same_grid

RGB = ("red", "green", "blue")
PLACES: dict[str, dict[str, Any]] = {
    "utm": UTM,
    "degrees": {"crs": "EPSG:4326", "transform": Affine(1e-4, 0, 8.5, 0, -1e-4, 47.4)},
    "mercator": {"crs": "EPSG:3857", "transform": Affine(10, 0, 9.5e5, 0, -10, 6e6)},
    "rotated": {
        "crs": "EPSG:32632",
        "transform": Affine.translation(5e5, 5e6) * Affine.rotation(30) * Affine.scale(10, -10),
    },
}


@pytest.mark.parametrize("place", PLACES)
def test_reads_an_odd_size_anywhere(tmp_path: Path, place: str) -> None:
    pixels = noise(603, 627)
    raster = Raster.open(write_tif(tmp_path / "a.tif", pixels, names=RGB, **PLACES[place]))
    assert (raster.width, raster.height, raster.bands) == (627, 603, RGB)
    assert raster.transform.almost_equals(PLACES[place]["transform"], 1e-9)
    assert str(raster.crs) == PLACES[place]["crs"]
    values, known = raster.read((500, 590, 200, 20), ("blue", "red"))
    assert values.dtype == np.float32 and values.shape == known.shape == (2, 20, 200)
    assert known[:, :13, :127].all() and known.sum() == 2 * 13 * 127
    assert np.array_equal(values[:, :13, :127], pixels[[2, 0], 590:, 500:])
    assert not values[~known].any()
    gsd = raster.metadata.gsd
    assert gsd == pytest.approx({"degrees": 9.16, "mercator": 6.84}.get(place, 10), rel=0.02)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_every_type_comes_back_as_stored(tmp_path: Path, dtype: str) -> None:
    pixels = noise(20, 30, dtype=dtype, top=120)
    raster = Raster.open(write_tif(tmp_path / "a.tif", pixels, names=RGB))
    stored, known = raster.stored((0, 0, 30, 20), RGB)
    assert raster.dtype == stored.dtype == dtype and known.all()
    assert np.array_equal(stored, pixels)
    values, _ = raster.read((0, 0, 30, 20), RGB)
    assert np.array_equal(raster.encode(values, known), pixels)


def test_twelve_bits_are_a_limit(tmp_path: Path) -> None:
    raster = Raster.open(write_tif(tmp_path / "a.tif", noise(8, 8), names=RGB, nbits=12))
    assert raster.limits == (0, 4095)
    values = np.array([[[-5.0, 4095.4, 9e9]]])
    assert raster.encode(values, np.ones((1, 1, 3), bool)).tolist() == [[[0, 4095, 4095]]]


def hidden(tmp_path: Path, how: str) -> Path:
    """An image whose rows 2 and 3 are unknown."""
    pixels, file = noise(12, 16, dtype="float32" if how == "nan" else "uint16"), tmp_path / "a.tif"
    mask = np.full((12, 16), 255, np.uint8)
    mask[2:4] = 0
    if how == "nan":
        pixels[:, 2:4] = np.nan
        return write_tif(file, pixels, names=RGB)
    if how == "nodata":
        pixels[:, 2:4] = 7777
        return write_tif(file, pixels, names=RGB, nodata=7777)
    if how == "mask":
        return write_tif(file, pixels, names=RGB, mask=mask)
    alpha = (mask[None] > 0) * np.uint16(65535)
    return write_tif(file, np.concatenate([pixels, alpha]), photometric="rgb", alpha="yes")


@pytest.mark.parametrize("how", ["nan", "nodata", "mask", "alpha"])
def test_what_is_unknown(tmp_path: Path, how: str) -> None:
    raster = Raster.open(hidden(tmp_path, how))
    assert raster.bands == RGB
    values, known = raster.read((0, 0, 16, 12), RGB)
    assert not known[:, 2:4].any() and known[:, :2].all() and known[:, 4:].all()
    assert np.isfinite(values).all() and not values[:, 2:4].any()
    assert raster.masked == (how in ("mask", "alpha"))
    assert (raster.sample("red") > 0).all() and len(raster.sample("red")) == 10 * 16


@pytest.mark.parametrize("how", ["nan", "nodata", "mask", "alpha"])
def test_unknown_pixels_stay_out_of_resampling(tmp_path: Path, how: str) -> None:
    fine = Raster.open(hidden(tmp_path, how))
    whole = Raster.open(
        write_tif(tmp_path / "b.tif", noise(24, 32), names=RGB, **grid(5, 5e5, 4e6))
    )
    values, known = fine.on(whole).read((0, 0, 32, 24), RGB)
    assert not known[:, 5:7].any() and known[:, 9:].all()
    assert values[known].min() >= 1 and values[known].max() < 4000


def test_a_fourth_band_that_gdal_takes_for_transparency(tmp_path: Path) -> None:
    pixels = noise(20, 20, 4, "uint8", 255)
    pixels[3, :9] = 0
    for names, bands in (((*RGB, "nir"), None), ((), "nir=4")):
        file = write_tif(tmp_path / f"{len(names)}.tif", pixels, names=names)
        raster = Raster.open(file, bands=bands)
        values, known = raster.read((0, 0, 20, 20), ("red", "nir"))
        assert known.all() and np.array_equal(values, pixels[[0, 3]]) and not raster.masked
        assert len(raster.sample("red")) == 400
    hiding = Raster.open(tmp_path / "0.tif")
    assert hiding.bands == RGB and not hiding.read((0, 0, 20, 9), RGB)[1].any()


def grid(gsd: float, left: float, top: float) -> dict[str, Any]:
    return {"crs": "EPSG:32618", "transform": Affine(gsd, 0, left, 0, -gsd, top)}


def test_encoding_keeps_known_pixels_off_nodata(tmp_path: Path) -> None:
    for nodata, expected in ((0, 1), (65535, 65534)):
        raster = Raster.open(write_tif(tmp_path / "a.tif", noise(4, 4), names=RGB, nodata=nodata))
        values = np.full((1, 1, 2), float(nodata))
        known = np.array([[[True, False]]])
        assert raster.encode(values, known).tolist() == [[[expected, nodata]]]
        (tmp_path / "a.tif").unlink()
    pixels = noise(4, 4, dtype="float32")
    raster = Raster.open(write_tif(tmp_path / "a.tif", pixels, names=RGB, nodata=-9999))
    out = raster.encode(np.array([[[-9999.0, 5.0]]]), np.array([[[True, False]]]))
    assert out[0, 0, 0] != -9999 and out[0, 0, 0] == pytest.approx(-9999) and out[0, 0, 1] == -9999


def test_a_folder_of_bands_of_three_pixel_sizes(tmp_path: Path) -> None:
    """A plane in space stays that plane, whatever pixel size it is stored in, half a pixel off or not."""

    def plane(gsd: float, left: float, top: float, size: int) -> Any:
        x = left + gsd * (np.arange(size) + 0.5) - 5e5
        y = 4e6 - (top - gsd * (np.arange(size) + 0.5))
        return (10_000 + x[None] + 3 * y[:, None])[None].astype(np.float32)

    for name, gsd, left, top, size in (
        ("B04", 10, 5e5, 4e6, 60),
        ("B05", 20, 5e5 - 10, 4e6, 32),
        ("B01", 60, 5e5 - 30, 4e6 + 20, 12),
        ("B02", 2.5, 5e5, 4e6, 240),
    ):
        pixels = plane(gsd, left, top, size)
        write_tif(tmp_path / f"{name}.tif", pixels, **grid(gsd, left, top))
    (tmp_path / "readme.txt").write_text("not a band")
    raster = Raster.open(tmp_path)
    assert raster.bands == ("coastal", "blue", "red", "rededge071")
    assert raster.width == 60
    values, known = raster.read((0, 0, 60, 60), ("red", "rededge071", "coastal", "blue"))
    inner = np.s_[6:-6, 6:-6]
    assert known[(slice(None), *inner)].all()
    for other in values[1:]:
        assert np.abs(other - values[0])[inner].max() < 0.1
    part, _ = raster.read((7, 9, 20, 20), ("rededge071", "blue"))
    assert np.allclose(part, values[[1, 3], 9:29, 7:27], atol=1e-3)


def test_resolutions_of_one_band_and_two_scenes_in_one(tmp_path: Path) -> None:
    coarse = write_tif(tmp_path / "T32ULC_B04_20m.tif", noise(5, 5, 1), **grid(20, 5e5, 4e6))
    fine = write_tif(tmp_path / "T32ULC_B04_10m.tif", noise(10, 10, 1))
    write_tif(tmp_path / "T32ULC_TCI_10m.tif", noise(10, 10), photometric="rgb")
    assert Raster.open(tmp_path).source("red").path == fine
    assert Raster.open([coarse, fine]).width == 10
    other = write_tif(tmp_path / "other_B04.tif", noise(10, 10, 1))
    with pytest.raises(InvalidInput, match="band red is twice"):
        Raster.open([fine, other])


def test_bands_without_names_are_named_by_the_user(tmp_path: Path) -> None:
    file = write_tif(tmp_path / "x_2020-03.tif", noise(6, 6, 4), photometric="minisblack")
    raster = Raster.open(file)
    assert raster.bands == ("band 1", "band 2", "band 3", "band 4") and raster.date == "2020-03"
    with pytest.raises(InvalidInput, match="no band red, green, blue; it has 1 band 1, 2 band 2"):
        raster.read((0, 0, 2, 2), RGB)
    named = Raster.open(file, bands="red=3,green=2,blue=1", date="2021")
    assert named.bands == ("blue", "green", "red", "band 4") and named.date == "2021"
    with pytest.raises(InvalidInput, match="date"):
        Raster.open(file, date="yesterday")


def test_scale_and_offset_are_one_unit_for_all_dates(tmp_path: Path) -> None:
    old = write_tif(
        tmp_path / "a.tif", noise(8, 8), names=RGB, scales=(1e-4,) * 3, offsets=(0.0,) * 3
    )
    new = write_tif(
        tmp_path / "b.tif", noise(8, 8) + 1000, names=RGB, scales=(1e-4,) * 3, offsets=(-0.1,) * 3
    )
    first, second = same_grid([Raster.open(old), Raster.open(new)], align=False)
    assert first.scaling("red") == (1e-4, 0) and second.scaling("red") == (1e-4, -0.1)
    window = (0, 0, 8, 8)
    assert np.allclose(first.read(window, RGB)[0], second.read(window, RGB)[0], atol=1e-2)
    assert np.array_equal(first.stored(window, RGB)[0], second.stored(window, RGB)[0])


@pytest.mark.parametrize("place", PLACES)
def test_alignment_puts_pixels_where_they_are(tmp_path: Path, place: str) -> None:
    """A field that is smooth in space, seen from two grids, is the same field."""

    def field(transform: Affine, crs: str) -> Any:
        from rasterio.warp import transform as warp

        rows, columns = np.mgrid[:120, :140] + 0.5
        x, y = transform * (columns.ravel(), rows.ravel())
        lon, lat = warp(crs, "EPSG:32632", x, y)
        wave = 2000 + 500 * np.sin(np.array(lon) / 150) + 500 * np.cos(np.array(lat) / 200)
        return np.repeat(wave.reshape(1, 120, 140), 3, 0).astype(np.float32)

    home = {"crs": "EPSG:32632", "transform": Affine(10, 0, 5e5, 0, -10, 5.25e6)}
    away = dict(PLACES[place])
    if place == "degrees":
        away["transform"] = Affine(1.2e-4, 0, 9.0, 0, -1.2e-4, 47.404)
    if place == "mercator":
        away["transform"] = Affine(13, 0, 1001800, 0, -13, 6008400)
    if place == "rotated":
        away["transform"] = (
            Affine.translation(4.999e5, 5.25e6) * Affine.rotation(30) * Affine.scale(10, -10)
        )
    if place == "utm":
        away = {"crs": "EPSG:32632", "transform": Affine(12, 0, 5e5 - 33, 0, -12, 5.25e6 + 21)}
    paths = [
        write_tif(tmp_path / f"{i}.tif", field(p["transform"], p["crs"]), names=RGB, **p)
        for i, p in enumerate((home, away))
    ]
    rasters = [Raster.open(path) for path in paths]
    with pytest.raises(InvalidInput, match="different grids; give --align"):
        same_grid(rasters, align=False)
    first, second = same_grid(rasters, align=True)
    assert second.grid == first.grid
    (a, there), (b, known) = (r.read((0, 0, 140, 120), RGB) for r in (first, second))
    assert there.all() and known.mean() > 0.2
    assert np.abs(a - b)[known].max() < 25
    assert np.abs(a - b)[known].mean() < 3


def test_grids_apart_by_whole_pixels_are_copied_not_resampled(tmp_path: Path) -> None:
    pixels = noise(40, 40)
    a = Raster.open(write_tif(tmp_path / "a.tif", pixels, names=RGB))
    b = Raster.open(
        write_tif(tmp_path / "b.tif", pixels[:, 5:, 3:], names=RGB, **grid(10, 5e5 + 30, 4e6 - 50))
    )
    _, moved = same_grid([a, b], align=True)
    values, known = moved.read((0, 0, 40, 40), RGB)
    assert known[:, 5:, 3:].all() and known.sum() == 3 * 35 * 37
    assert np.array_equal(values[:, 5:, 3:], pixels[:, 5:, 3:])


def test_a_picture_without_a_place(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.moveaxis(noise(9, 7, dtype="uint8", top=255), 0, 2)).save(tmp_path / "a.png")
    raster = Raster.open(tmp_path / "a.png")
    assert raster.crs is None and raster.bands == RGB and raster.metadata.lon is None
    assert raster.read((0, 0, 7, 9), RGB)[1].all()
    placed = Raster.open(write_tif(tmp_path / "b.tif", noise(9, 7), names=RGB))
    with pytest.raises(InvalidInput, match="no CRS; it cannot be aligned"):
        same_grid([placed, raster], align=True)


def test_identity_follows_the_files(tmp_path: Path) -> None:
    file = write_tif(tmp_path / "a.tif", noise(9, 7), names=RGB)
    first = Raster.open(file).identity()
    assert Raster.open(file).identity() == first
    assert Raster.open(file, bands="nir=1").identity() != first
    write_tif(file, noise(9, 7, seed=1), names=RGB)
    assert Raster.open(file).identity() != first


def refusal(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        raster = Raster.open(*args, **kwargs)
        raster.read((0, 0, raster.width, raster.height), raster.bands)
    text = str(caught.value)
    assert "\n" not in text and "Error(" not in text
    return text


def test_what_is_no_scene_is_refused_in_one_sentence(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "no.tif")
    assert "holds no .tif" in refusal(tmp_path)
    assert "no file was given" in refusal([])
    (tmp_path / "text.tif").write_text("this is not a TIFF")
    assert "cannot read" in refusal(tmp_path / "text.tif")
    (tmp_path / "empty.tif").write_bytes(b"")
    assert "cannot read" in refusal(tmp_path / "empty.tif")
    whole = write_tif(tmp_path / "whole.tif", noise(400, 400), names=RGB, compress="zstd")
    data = whole.read_bytes()
    cut = tmp_path / "cut.tif"
    for length in (8, 200, len(data) // 2, len(data) - 1000):
        cut.write_bytes(data[:length])
        assert "cannot read" in refusal(cut), length
    (tmp_path / "flipped.tif").write_bytes(data[:9000] + bytes(3000) + data[12000:])
    assert "cannot read" in refusal(tmp_path / "flipped.tif")
    write_tif(tmp_path / "c.tif", noise(4, 4).astype("complex64"))
    assert "complex" in refusal(tmp_path / "c.tif")
    write_tif(tmp_path / "l_QA_PIXEL.tif", noise(4, 4, 1))
    assert "holds no image, only qa_pixel" in refusal(tmp_path / "l_QA_PIXEL.tif")


def test_windows_and_bands_that_are_none(tmp_path: Path) -> None:
    raster = Raster.open(write_tif(tmp_path / "a.tif", noise(9, 7), names=RGB))
    for window, bands in (((0, 0, 0, 5), RGB), ((0, 0, 5, -1), RGB), ((0, 0, 5, 5), ())):
        with pytest.raises(InvalidInput, match="empty"):
            raster.read(window, bands)
    values, known = raster.read((100, 100, 4, 4), RGB)
    assert not known.any() and not values.any()


def test_overviews_do_not_change_what_is_sampled(tmp_path: Path) -> None:
    import rasterio
    from rasterio.enums import Resampling

    file = write_tif(tmp_path / "a.tif", noise(512, 512), names=RGB)
    before = Raster.open(file).sample("red", 64)
    with rasterio.open(file, "r+") as target:
        target.build_overviews([2, 4, 8], Resampling.average)
    after = Raster.open(file).sample("red", 64)
    assert np.array_equal(before, after)


def test_real_sentinel2(tmp_path: Path) -> None:
    raster = Raster.open(real("sentinel2_multispectral", tmp_path) / "s2")
    assert raster.bands == tuple(
        "coastal blue green red rededge071 rededge075 rededge078 nir nir08 nir09 cirrus swir16 swir22".split()
    )
    assert (raster.width, raster.height) == (1933, 1947)
    values, known = raster.read((600, 700, 128, 128), ("red", "rededge071", "nir08", "swir16"))
    assert known.all()
    assert (
        np.corrcoef(values[2].ravel(), raster.read((600, 700, 128, 128), ("nir",))[0].ravel())[0, 1]
        > 0.95
    )
    shifted, _ = raster.read((602, 700, 128, 128), ("nir",))
    here = np.corrcoef(values[2].ravel(), raster.read((600, 700, 128, 128), ("nir",))[0].ravel())
    there = np.corrcoef(values[2].ravel(), shifted.ravel())
    assert here[0, 1] > there[0, 1]


def test_real_landsat8_and_peru(tmp_path: Path) -> None:
    raster = Raster.open(real("landsat8_multispectral", tmp_path) / "l8ms")
    assert raster.labels == ("bqa",) and {"red", "nir", "pan", "lwir12"} <= set(raster.bands)
    assert (raster.width, raster.height) == (627, 603)
    values, known = raster.read((0, 0, 627, 603), ("green", "pan"))
    assert known[1].mean() > 0.99
    assert np.corrcoef(values.reshape(2, -1))[0, 1] > 0.9
    folder = real("landsat_peru_series", tmp_path) / "peru_landsat"
    dated = [
        Raster.open(p, bands="swir16=1,nir=2,red=3,green=4") for p in sorted(folder.glob("*.tif"))
    ]
    assert [r.date for r in dated] == [str(y) for y in range(1985, 2025, 5)]
    assert len(same_grid(dated, align=False)) == 8
    assert dated[0].nodata == 0 and dated[0].dtype == np.uint8


def test_rows_that_were_decoded_once_are_kept_for_the_next_window(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", noise(256, 10_000, 1), names=("red",), compress="lzw")
    raster, took = Raster.open(path), []
    for x in (0, 3000, 6000, 9000):
        start = time.perf_counter()
        raster.read((x, 0, 256, 256), ("red",))
        took.append(time.perf_counter() - start)
    assert min(took[1:]) < took[0] / 5
