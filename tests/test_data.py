"""Palette, ground maps and base map: the shipped rasters against places everybody knows."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from terraloom.data import deblock, pack, palette
from terraloom.data.clear import is_clear
from terraloom.data.deblock import cleaned
from terraloom.data.ground import ASSETS, LAYERS, Ground
from terraloom.data.packed import Sample, encode
from terraloom.errors import InvalidInput
from terraloom.grid import BASE_LEVEL, Window, level_size, window_of

URBAN, BARREN, WATER = 13, 16, 0


@pytest.fixture(scope="module")
def ground() -> Ground:
    return Ground.open()


def around(lon: float, lat: float, level: int, degrees: float = 0.05) -> Window:
    return window_of((lon - degrees, lat - degrees, lon + degrees, lat + degrees), level)


@pytest.mark.parametrize(
    ("lon", "lat", "cover"), [(139.70, 35.70, URBAN), (10.0, 24.0, BARREN), (-30.0, 40.0, WATER)]
)
def test_cover_of_known_places(ground: Ground, lon: float, lat: float, cover: int) -> None:
    classes, _ = ground.cells(around(lon, lat, 10))
    assert (classes == cover).mean() > 0.9


@pytest.mark.parametrize(
    ("lon", "lat", "layer", "there"),
    [
        (31.2, 30.05, "urban", True),  # Cairo
        (31.0, 26.9, "river", True),  # the Nile by Asyut, within the box
        (33.0, 0.0, "lake", True),  # Lake Victoria
        (-40.0, 72.0, "glacier", True),  # Greenland
        (-30.0, 40.0, "land", False),  # Atlantic
        (10.0, 24.0, "land", True),  # Sahara
        (10.0, 24.0, "river", False),
    ],
)
def test_mask_of_known_places(
    ground: Ground, lon: float, lat: float, layer: str, there: bool
) -> None:
    _, layers = ground.cells(around(lon, lat, 8, degrees=0.4))
    assert bool(layers[LAYERS.index(layer)].any()) == there
    assert layers[0].all()  # known everywhere


@given(
    x=st.integers(-2 * level_size(6), 2 * level_size(6)),
    y=st.integers(100, level_size(6) - 200),
    split=st.integers(1, 31),
)
def test_cells_depend_on_position_alone(x: int, y: int, split: int) -> None:
    ground = GROUND
    whole = ground.cells(Window(6, x, y, 32, 8))
    left, right = (
        ground.cells(Window(6, x, y, split, 8)),
        ground.cells(Window(6, x + split, y, 32 - split, 8)),
    )
    for k in (0, 1):
        assert np.array_equal(whole[k], np.concatenate([left[k], right[k]], -1))


GROUND = Ground.open()


def test_coarse_cells_keep_thin_rivers(ground: Ground) -> None:
    fine = ground.cells(Window(8, 4 * 9600, 4 * 6400, 512, 512))[1][2]
    coarse = ground.cells(Window(6, 9600, 6400, 128, 128))[1][2]
    assert np.array_equal(coarse, fine.reshape(128, 4, 128, 4).max((1, 3)))


def test_borders_of_cover_are_wavy_but_close(ground: Ground) -> None:
    window = around(11.0, 48.1, 12, degrees=0.3)  # Munich
    cover, _ = ground.cells(window)
    lon, lat = np.meshgrid(window.lon, window.lat)
    straight = ground._cover[((90 - lat) / 0.05).astype(int), ((lon + 180) / 0.05).astype(int)]
    assert 0.02 < (cover != straight).mean() < 0.5


def test_users_own_cover(tmp_path: Path) -> None:
    path = tmp_path / "city.tif"
    transform = Affine(0.02, 0, -63, 0, -0.02, -3)
    with rasterio.open(
        path, "w", driver="GTiff", width=100, height=100, count=1, dtype="uint8", nodata=255,
        crs="EPSG:4326", transform=transform,
    ) as dst:  # fmt: skip
        dst.write(np.full((1, 100, 100), URBAN, np.uint8))
    mine = Ground.open(path)
    assert (mine.cells(around(-62, -4, 10))[0] == URBAN).all()  # a city in the Amazon
    assert (mine.cells(around(10, 24, 10))[0] == BARREN).all()  # elsewhere the shipped map
    assert mine.digest != Ground.open().digest


def test_bad_cover_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.tif"
    profile = {"driver": "GTiff", "width": 10, "height": 10, "count": 1, "dtype": "uint8"}
    transform = Affine(0.1, 0, 0, 0, -0.1, 1)
    with rasterio.open(path, "w", **profile, crs="EPSG:4326", transform=transform) as dst:
        dst.write(np.full((1, 10, 10), 77, np.uint8))
    with pytest.raises(InvalidInput, match="class 77"):
        Ground.open(path)
    with rasterio.open(path, "w", **profile, transform=transform) as dst:
        dst.write(np.zeros((1, 10, 10), np.uint8))
    with pytest.raises(InvalidInput, match="no CRS"):
        Ground.open(path)
    with pytest.raises(InvalidInput, match="cannot read"):
        Ground.open(tmp_path / "none.tif")


def test_base_map_is_a_whole_mercator_level() -> None:
    with rasterio.open(ASSETS / "basemap.tif") as src:
        assert (src.width, src.height) == (level_size(BASE_LEVEL),) * 2
        assert src.crs.to_epsg() == 3857 and src.count == 3
        assert "Blue Marble" in src.tags()["TIFFTAG_COPYRIGHT"]
        sahara = src.read(window=((7100, 7200), (8600, 8700))).mean((1, 2))
    assert sahara[0] > sahara[1] > sahara[2] > 100  # bright and warm
    assert (ASSETS / "basemap.tif").stat().st_size < 16e6
    assert sum((ASSETS / n).stat().st_size for n in ("landcover.tif", "ground.tif")) < 10e6


def test_palette_lifts_dark_forests_and_calms_the_sea() -> None:
    forest = palette.bluemarble(np.array([[28, 40, 13]], np.uint8))[0]
    sea = palette.bluemarble(np.array([[27, 70, 130]], np.uint8))[0]
    assert forest[1] > 80 and forest[1] > forest[0] > forest[2]
    assert sea.max() < 90 and sea[2] > sea[1] > sea[0]


@pytest.mark.parametrize("name", sorted(palette.CURVES))
def test_curves_are_monotone(name: str) -> None:
    ramp = np.repeat(np.arange(256)[:, None], 3, 1)
    out = palette.CURVES[name](ramp).astype(int)
    assert (np.diff(out, axis=0) >= 0).all() and out[-1].min() > 150 and out[0].max() < 80


def test_european_chips_have_green_forests_and_blue_lakes() -> None:
    """Medians of EuroSAT's own colours, which lie in haze."""
    curve = palette.curve("eurosat/Forest", "eurosat")
    forest, pasture, fields = curve(
        np.array([[37, 63, 76], [59, 86, 87], [127, 117, 116]], np.uint8)
    )
    assert np.abs(forest.astype(int) - (60, 78, 50)).max() < 4
    assert pasture[1] > pasture[0] > pasture[2] and fields[0] > fields[1] > fields[2]
    lake = palette.curve("eurosat/SeaLake", "eurosat")(np.array([49, 78, 90], np.uint8))
    assert lake[2] > lake[1] > lake[0]


def test_specific_curves_come_first() -> None:
    assert palette.curve("world_scenes/corumba") is palette.CURVES["world_scenes/corumba"]
    assert palette.curve("worldview") == palette.Curve()


def test_a_hard_stretch_is_softened_about_its_middle() -> None:
    """San Francisco's streets at 3 m: median and, below, the shade of its houses."""
    shade, street = palette.curve("planet3m")(np.array([[70, 70, 60], [165, 152, 136]], np.uint8))
    assert np.abs(street.astype(int) - (118, 116, 106)).max() < 4
    assert 0.5 * 95 < float(street[0]) - float(shade[0]) < 0.8 * 95


def test_clouds_are_left_out() -> None:
    tile = {"path": "landsat/congo/2013-07-28/2217_2096.webp", "cloud": 0.0}
    assert is_clear("landsat", tile) and not is_clear("landsat", tile | {"cloud": 0.02})
    assert not is_clear("landsat", tile | {"path": "landsat/congo/2021-12-01/2217_2096.webp"})
    roofs = {"path": "landsat/tokyo/2021-11-17/3637_1612.webp", "cloud": 0.02}
    assert is_clear("landsat", roofs)
    assert not is_clear("world_scenes", {"series": "l8_grenada"})
    assert is_clear("world_scenes", {"series": "s2_29RKH"}) and is_clear("naip", {})


@pytest.mark.parametrize("x", [0, 3])
def test_blocks_of_former_jpegs_are_gone(x: int) -> None:
    """Soft noise, compressed and cut so that its blocks begin at any column; other sets pass as they are."""
    rng = np.random.default_rng(5)
    soft = Image.fromarray(rng.integers(90, 160, (29, 29, 3), np.uint8)).resize((136, 136))
    pressed = io.BytesIO()
    soft.save(pressed, "JPEG", quality=40)
    image = np.asarray(Image.open(pressed))[:128, x : x + 128]

    def step(rgb: np.ndarray) -> float:
        steps = np.abs(np.diff(rgb.astype(float).mean(-1), axis=1))
        each = [steps[:, k::8].mean() for k in range(8)]
        return float(max(each) / np.median(each))

    clean = cleaned(image, "planet3m/planet_ship_1")
    assert step(image) > 1.3 > 1.15 > step(clean)
    assert np.abs(clean.astype(int) - image).mean() < 4
    assert cleaned(image, "ucmerced") is image and cleaned(image, "eurosatellite") is image


def items(name: str, count: int, rng: np.random.Generator) -> list[Sample]:
    cells = np.zeros((16, 16), np.uint8)
    return [
        Sample(name, rng.integers(0, 255, (64, 64, 3), np.uint8), cells, cells, 10.0, f"{name}/{k}")
        for k in range(count)
    ]


def test_pack_thins_large_sets_only_when_quality_does_not_suffice() -> None:
    rng = np.random.default_rng(0)
    images = items("large", 600, rng) + items("small", 40, rng)
    assert pack.fit(images, 1e9) == (92, 1.0)
    quality, share = pack.fit(images, 1e6)
    kept = pack.thin(images, share)
    assert quality == 80 and share < 1
    assert sum(i.set == "small" for i in kept) == 40
    assert len({i.place for i in kept}) == len(kept) < len(images)
    assert sum(len(encode(i.rgb, "WEBP", quality=80, method=4)) for i in kept) < 1.3e6


def test_pack_needs_its_sets(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="bluemarble"):
        pack.build_pack(tmp_path, tmp_path / "pack")


def test_deblocked_has_no_block_edges_and_the_same_image() -> None:
    y, x = np.mgrid[0:64, 0:96] / 20
    smooth = 90 + 30 * np.sin(x + y) + 20 * np.cos(2 * x - y)
    file = io.BytesIO()
    rgb = np.repeat(smooth[..., None], 3, 2).astype(np.uint8)
    Image.fromarray(rgb).save(file, "JPEG", quality=12)
    plain = np.asarray(Image.open(file).convert("RGB"))
    better = deblock.deblocked(file.getvalue())

    def edges(image: np.ndarray) -> float:
        steps = np.abs(np.diff(image.astype(float).mean(2), axis=1))
        return float(steps[:, 7::8].mean() / np.delete(steps, np.s_[7::8], 1).mean())

    assert better.shape == rgb.shape and better.dtype == np.uint8
    assert edges(plain) > 1.3 and 0.8 < edges(better) < 1.15
    assert np.abs(better - smooth[..., None]).mean() < np.abs(plain - smooth[..., None]).mean()
