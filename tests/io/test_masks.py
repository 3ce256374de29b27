"""Holes: masks in files, polygons, quality bits, clouds found by a network; and the stretch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.warp import transform_geom
from test_raster import PLACES, RGB
from tiffs import noise, real, write_tif

from terraloom.errors import InvalidInput, TerraloomError
from terraloom.io.masks import hole
from terraloom.io.raster import Raster
from terraloom.io.stretch import Stretch, stretch_of

ALL = (0, 0, 90, 70)


def scene(tmp_path: Path, place: str = "utm", **options: Any) -> Raster:
    return Raster.open(
        write_tif(tmp_path / "scene.tif", noise(70, 90), names=RGB, **PLACES[place], **options)
    )


def refusal(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        hole(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def ring(raster: Raster, corners: list[tuple[float, float]], crs: str = "EPSG:4326") -> Any:
    """Pixel corners as a ring in `crs`."""
    points = [list(raster.transform * corner) for corner in [*corners, corners[0]]]
    shape = transform_geom(raster.crs, crs, {"type": "Polygon", "coordinates": [points]})
    return shape["coordinates"][0]


BOX = [(10.0, 20.0), (40.0, 20.0), (40.0, 50.0), (10.0, 50.0)]
INNER = [(20.0, 30.0), (30.0, 30.0), (30.0, 40.0), (20.0, 40.0)]
OTHER = [(60.0, 5.0), (80.0, 5.0), (80.0, 15.0), (60.0, 15.0)]


def write_json(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


@pytest.mark.parametrize("place", PLACES)
def test_polygons_with_holes_and_several(tmp_path: Path, place: str) -> None:
    raster = scene(tmp_path, place)
    shape = {
        "type": "MultiPolygon",
        "coordinates": [[ring(raster, BOX), ring(raster, INNER)], [ring(raster, OTHER)]],
    }
    feature = {"type": "Feature", "properties": {}, "geometry": shape}
    path = write_json(tmp_path / "m.geojson", {"type": "FeatureCollection", "features": [feature]})
    expected = np.zeros((70, 90), bool)
    expected[20:50, 10:40] = True
    expected[30:40, 20:30] = False
    expected[5:15, 60:80] = True
    found = hole(raster, path).read(ALL)
    assert (found != expected).mean() < 0.005  # edges run through corners of pixels, to a rounding
    part = hole(raster, path).read((-5, 12, 50, 30))
    assert np.array_equal(part[:, 5:], found[12:42, :45]) and not part[:, :5].any()


def test_polygons_in_another_crs_and_bare_geometries(tmp_path: Path) -> None:
    raster = scene(tmp_path)
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}}
    box = {"type": "Polygon", "coordinates": [ring(raster, BOX, "EPSG:3857")], "crs": crs}
    found = hole(raster, write_json(tmp_path / "a.json", box)).read(ALL)
    assert abs(int(found.sum()) - 900) < 40 and found[25:45, 15:35].all()
    several = {"type": "GeometryCollection", "geometries": [
        {"type": "Point", "coordinates": [0, 0]},
        {"type": "Polygon", "coordinates": [ring(raster, OTHER)]},
    ]}  # fmt: skip
    assert hole(raster, write_json(tmp_path / "b.json", several)).read(ALL)[6:14, 61:79].all()


def test_what_is_no_polygon_is_refused(tmp_path: Path) -> None:
    raster = scene(tmp_path)

    def said(content: Any) -> str:
        return refusal(raster, write_json(tmp_path / "m.geojson", content))

    away = [[x + 3, y] for x, y in ring(raster, BOX)]
    assert "covers no pixel" in said({"type": "Polygon", "coordinates": [away]})
    flat = [ring(raster, BOX)[0]] * 4
    assert "covers no pixel" in said({"type": "Polygon", "coordinates": [flat]})
    assert "no polygon" in said({"type": "Point", "coordinates": [0, 0]})
    assert "no polygon" in said({"type": "FeatureCollection", "features": []})
    for broken in (
        "{", "[]", "null", '{"type": "Polygon"}', '{"type": "Feature"}',
        '{"type": "Polygon", "coordinates": [[[0, 0], [1, "x"], [1, 1], [0, 0]]]}',
        '{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}',
        '{"type": "Polygon", "coordinates": 7}',
    ):  # fmt: skip
        assert "is no GeoJSON" in said(broken), broken
    named = {"type": "name", "properties": {"name": "EPSG:nowhere"}}
    assert "CRS" in said({"type": "Polygon", "coordinates": [ring(raster, BOX)], "crs": named})
    assert "cannot read" in refusal(raster, tmp_path / "none.geojson")


def test_a_mask_in_a_file(tmp_path: Path) -> None:
    raster = scene(tmp_path)
    mask = np.zeros((1, 70, 90), np.uint8)
    mask[0, 5:9, 6:20], mask[0, 30:, 50:] = 1, 255
    path = write_tif(tmp_path / "mask.tif", mask, nodata=255)
    found = hole(raster, path).read((-2, 0, 92, 70))
    assert np.array_equal(found[:, 2:], mask[0] == 1) and not found[:, :2].any()
    empty = write_tif(tmp_path / "empty.tif", np.zeros((1, 70, 90), np.uint8))
    assert "covers no pixel" in refusal(raster, empty)
    assert "does not exist" in refusal(raster, tmp_path / "none.tif")
    (tmp_path / "text.tif").write_text("no TIFF")
    assert "cannot read" in refusal(raster, tmp_path / "text.tif")
    half = write_tif(
        tmp_path / "half.tif",
        mask[:, ::2, ::2],
        crs=raster.crs,
        transform=raster.transform * raster.transform.scale(2),
    )
    assert "--align" in refusal(raster, half)
    aligned = hole(raster, half, align=True).read(ALL)
    assert np.array_equal(aligned, np.repeat(np.repeat(mask[0, ::2, ::2] > 0, 2, 0), 2, 1))


def test_unknown_pixels_of_the_scene_itself(tmp_path: Path) -> None:
    pixels = noise(70, 90)
    pixels[:, 3:5, 7:11] = 0
    pixels[0, 60, 60] = 0
    raster = Raster.open(write_tif(tmp_path / "a.tif", pixels, names=RGB, nodata=0))
    found = hole(raster, None).read((-1, -1, 92, 72))
    assert np.array_equal(found[1:-1, 1:-1], (pixels == 0).any(0))
    assert found.sum() == 9  # beyond the scene there is nothing to fill
    assert "unknown pixels" in refusal(scene(tmp_path), None)


@pytest.mark.parametrize(
    ("name", "values", "cloudy"),
    [
        # QA_PIXEL: clear, fill, dilated, cirrus, cloud, shadow, snow, water
        ("QA_PIXEL", (64, 1, 2, 4, 8, 16, 32, 128), (0, 0, 1, 1, 1, 1, 0, 0)),
        # BQA, Collection 1: clear, fill, cloud, high shadow, low shadow, high cirrus, low cirrus, snow
        ("BQA", (2720, 1, 16, 3 << 7, 1 << 7, 3 << 11, 1 << 11, 3 << 9), (0, 0, 1, 1, 0, 1, 0, 0)),
        # BQA before: clear, cloud, maybe cloud, cirrus, water, vegetation, cloud and cirrus, snow
        (
            "BQA",
            (20480, 53248, 36864, 28672, 20512, 20992, 61440, 23552),
            (0, 1, 0, 1, 0, 0, 1, 0),
        ),
        # SCL: nothing, saturated, dark, shadow, vegetation, bare, medium, high cloud
        ("SCL_20m", (0, 1, 2, 3, 4, 5, 8, 9), (0, 0, 0, 1, 0, 0, 1, 1)),
    ],
)
def test_quality_bits(
    tmp_path: Path, name: str, values: tuple[int, ...], cloudy: tuple[int, ...]
) -> None:
    place = PLACES["utm"]
    for band in ("B2", "B3", "B4"):
        write_tif(tmp_path / f"x_{band}.tif", noise(4, 16, 1), **place)
    coarse = place["transform"] * place["transform"].scale(2)
    labels = np.array(values, np.uint16).reshape(1, 1, 8).repeat(2, 1)
    write_tif(tmp_path / f"x_{name}.tif", labels, crs=place["crs"], transform=coarse)
    raster = Raster.open(tmp_path)
    assert set(raster.bands) == set(RGB)
    expected = np.array(cloudy, bool).repeat(2)[None].repeat(4, 0)
    assert np.array_equal(hole(raster, "qa").read((0, 0, 16, 4)), expected)


def test_no_quality_band(tmp_path: Path) -> None:
    assert "no QA_PIXEL, BQA or SCL" in refusal(scene(tmp_path), "qa")


def test_real_landsat_quality(tmp_path: Path) -> None:
    raster = Raster.open(real("landsat8_multispectral", tmp_path) / "l8ms")
    cloudy = hole(raster, "qa").read((0, 0, 627, 603))
    blue, _ = raster.read((0, 0, 627, 603), ("blue",))
    assert 0.2 < cloudy.mean() < 0.5
    assert blue[0][cloudy].mean() > 1.05 * blue[0][~cloudy].mean()


def test_clouds_by_network(tmp_path: Path) -> None:
    pytest.importorskip("ukis_csmask", reason="the extra `clouds` is not installed")
    pytest.importorskip("onnxruntime", reason="the extra `clouds` is not installed")
    whole = Raster.open(real("landsat8_multispectral", tmp_path) / "l8ms")
    bands = ("blue", "green", "red", "nir", "swir16", "swir22")
    pixels, _ = whole.stored((0, 300, 256, 303), bands)
    place = {"crs": whole.crs, "transform": whole.transform * whole.transform.translation(0, 300)}
    raster = Raster.open(write_tif(tmp_path / "LC08_L1TP.tif", pixels, names=bands, **place))
    found = hole(raster, "auto")
    cloudy = found.read((0, 0, 256, 303))
    told = hole(whole, "qa").read((0, 300, 256, 303))
    assert cloudy[told].mean() > 0.95  # what the quality band calls cloud
    assert cloudy[250:].mean() < 0.2 and cloudy[:150].mean() > 0.9  # the south is clear
    assert not found.read((-10, -10, 10, 10)).any()
    with pytest.raises(InvalidInput, match="no band nir"):
        hole(scene(tmp_path), "auto")
    picture = write_tif(tmp_path / "p.tif", noise(9, 9, 4, "uint8", 255), names=(*RGB, "nir"))
    with pytest.raises(InvalidInput, match="8 bits"):
        hole(Raster.open(picture), "auto")


def test_clouds_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("terraloom.io.clouds.find_spec", lambda name: None)
    with pytest.raises(TerraloomError, match="terraloom\\[clouds\\]"):
        hole(scene(tmp_path), "auto")


def test_stretch_and_back(tmp_path: Path) -> None:
    raster = scene(tmp_path, nodata=0)
    line = stretch_of([raster], ("green", "red"))
    values, known = raster.read(ALL, ("green", "red"))
    low, high = np.percentile(values[1], (0.5, 99.5))
    assert (line.low[1], line.high[1]) == pytest.approx((low, high))
    normal = line.normal(values, known)
    assert normal.dtype == np.float32 and -1.05 < normal.min() < -0.9 < 0.9 < normal.max() < 1.05
    assert np.abs(line.units(normal) - values).max() < 0.01
    assert line[:1] == Stretch(line.low[:1], line.high[:1])
    far = np.full((2, 1, 1), 1e6, np.float32)  # a roof: not cut off
    assert np.allclose(line.units(line.normal(far, np.ones((2, 1, 1), bool))), far, rtol=1e-5)
    assert not line.normal(values, np.zeros_like(known)).any()


def test_stretch_of_pictures_flat_and_unknown_bands(tmp_path: Path) -> None:
    picture = write_tif(tmp_path / "p.tif", noise(9, 9, dtype="uint8", top=99), names=RGB)
    assert stretch_of([Raster.open(picture)], RGB) == Stretch((0.0,) * 3, (255.0,) * 3)
    flat = Raster.open(write_tif(tmp_path / "f.tif", np.full((3, 9, 9), 700, np.uint16), names=RGB))
    line = stretch_of([flat], RGB)
    assert np.isfinite(line.normal(*flat.read((0, 0, 9, 9), RGB))).all()
    blank = write_tif(tmp_path / "b.tif", np.zeros((3, 9, 9), np.uint16), names=RGB, nodata=0)
    with pytest.raises(InvalidInput, match="band red of .* has no known pixel"):
        stretch_of([Raster.open(blank)], RGB)
    with pytest.raises(InvalidInput, match="no band pan"):
        stretch_of([flat], ("pan",))
