"""The three tasks on whole scenes in memory, with random weights: what must hold whatever the weights are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from frames_model import tiny_networks

from terraloom.errors import InvalidInput
from terraloom.io.masks import hole
from terraloom.io.raster import Raster
from terraloom.metadata import ordinal
from terraloom.pipelines import FramesToImage
from terraloom.pipelines.forecast import Dated, in_order
from terraloom.pipelines.inpaint import Filled
from terraloom.pipelines.scenes import Scene, slots, triples
from terraloom.pipelines.super_resolve import Finer

UTM = Affine(10, 0, 500_000, 0, -10, 5_800_000)
RGBN = ("red", "green", "blue", "nir")


@pytest.fixture(scope="module")
def pipe() -> FramesToImage:
    return FramesToImage(*tiny_networks())


def scene_values(seed: int, bands: int, height: int, width: int, dtype: str) -> Any:
    """Smooth shapes with grain, in a usual range of the dtype."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    wave = np.stack([np.sin(x / (9 + b) + seed) * np.cos(y / (7 + b)) for b in range(bands)])
    unit = 0.5 + 0.3 * wave + 0.05 * rng.standard_normal(wave.shape)
    if dtype == "float32":
        return unit.astype(np.float32)
    low, high = (20, 235) if dtype == "uint8" else (300, 9000)
    return (low + unit.clip(0, 1) * (high - low)).astype(dtype)


def write(
    path: Path,
    pixels: Any,
    bands: tuple[str, ...] = RGBN,
    nodata: float | None = 0,
    transform: Affine = UTM,
    crs: str = "EPSG:32631",
) -> Path:
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=count, dtype=pixels.dtype,
        crs=crs, transform=transform, nodata=nodata, photometric="MINISBLACK",
    ) as file:  # fmt: skip
        file.write(pixels)
        for i, name in enumerate(bands, 1):
            file.set_band_description(i, name)
    return path


def whole(scene: Scene, pipe: FramesToImage, seed: int = 0) -> Any:
    pixels = scene.whole(pipe, seed)
    for first in range(1, scene.rows):  # a run that goes on gives the same bytes
        rest = np.concatenate([strip for strip, _ in scene.strips(pipe, seed, first)], 1)
        assert np.array_equal(rest, pixels[:, -rest.shape[1] :])
    return pixels


# --- super-resolution


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_means_of_what_is_finer_are_the_input(
    pipe: FramesToImage, tmp_path: Path, dtype: str
) -> None:
    values = scene_values(1, 4, 35, 31, dtype)
    values[:, 10:14, 20:23] = 0
    raster = Raster.open(write(tmp_path / "2021-06-01.tif", values))
    fine = whole(Finer(raster), pipe)
    assert fine.dtype == values.dtype and fine.shape == (3, 140, 124)
    means = fine.reshape(3, 35, 4, 31, 4).astype(np.float64).mean((2, 4))
    known = values[:3] != 0
    limit = 0.5 if dtype != "float32" else 1e-6
    assert np.abs(means - values[:3])[known].max() <= limit
    assert (fine[:, 40:56, 80:92] == 0).all()
    assert ((fine == 0) == ~known.repeat(4, 1).repeat(4, 2)).all()
    bicubic = torch.nn.functional.interpolate(
        torch.from_numpy(values[None, :3].astype(np.float32)), scale_factor=4, mode="bicubic"
    )[0]
    assert np.abs(fine - bicubic.numpy())[:, :36].mean() > 0.002 * np.ptp(
        values
    )  # it draws something
    assert not np.array_equal(fine, Finer(raster).whole(pipe, 1))


def test_the_grid_is_the_inputs_four_times_finer(tmp_path: Path) -> None:
    turned = Affine.translation(4e5, 5e6) * Affine.rotation(30) * Affine.scale(10, -10)
    path = write(tmp_path / "a.tif", scene_values(0, 3, 9, 7, "uint8"), RGBN[:3], transform=turned)
    grid = Finer(Raster.open(path)).grid
    assert (grid.width, grid.height) == (28, 36)
    assert grid.transform.almost_equals(turned * Affine.scale(0.25))
    for corner in ((0, 0), (7, 9)):
        there = grid.transform * (corner[0] * 4, corner[1] * 4)
        assert there == pytest.approx(turned * corner)


def test_other_bands_and_their_absence_reach_the_network(
    pipe: FramesToImage, tmp_path: Path
) -> None:
    values = scene_values(1, 4, 20, 20, "uint16")
    plain = Finer(Raster.open(write(tmp_path / "a.tif", values[:3], RGBN[:3]))).whole(pipe, 0)
    with_nir = Finer(Raster.open(write(tmp_path / "b.tif", values))).whole(pipe, 0)
    dark = values.copy()
    dark[3] = dark[3, ::-1]
    other = Finer(Raster.open(write(tmp_path / "c.tif", dark))).whole(pipe, 0)
    assert not np.array_equal(plain, with_nir) and not np.array_equal(with_nir, other)


def test_a_sharper_panchromatic_band_is_shown_as_sharp_as_it_is(
    pipe: FramesToImage, tmp_path: Path
) -> None:
    folder = tmp_path / "scene"
    folder.mkdir()
    values = scene_values(1, 3, 20, 20, "uint16")
    for name, band in zip(("B4", "B3", "B2"), values, strict=True):
        write(folder / f"LC08_{name}.tif", band[None], ("",))
    fine = scene_values(5, 1, 40, 40, "uint16")
    half = UTM * Affine.scale(0.5)
    write(folder / "LC08_B8.tif", fine, ("",), transform=half)
    first = Finer(Raster.open(folder)).whole(pipe, 0)
    swapped = fine.copy()  # the means of the colours' pixels stay
    swapped[:, :, 0::2], swapped[:, :, 1::2] = fine[:, :, 1::2], fine[:, :, 0::2]
    write(folder / "LC08_B8.tif", swapped, ("",), transform=half)
    assert not np.array_equal(first, Finer(Raster.open(folder)).whole(pipe, 0))


def test_a_scene_without_colours_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", scene_values(0, 2, 9, 7, "uint8"), ("nir", "red"))
    with pytest.raises(InvalidInput, match="no band green, blue"):
        Finer(Raster.open(path))


def test_landsats_narrow_infrared_stands_where_it_did_in_training(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", scene_values(0, 2, 9, 7, "uint8"), ("nir08", "red"))
    assert slots(Raster.open(path)) == {"nir08": "nir", "red": "red"}
    path = write(tmp_path / "b.tif", scene_values(0, 2, 9, 7, "uint8"), ("nir08", "nir"))
    assert slots(Raster.open(path)) == {"nir08": "nir08", "nir": "nir"}


# --- in-painting


def masked(tmp_path: Path, height: int, width: int, box: tuple[slice, slice]) -> Path:
    mask = np.zeros((1, height, width), np.uint8)
    mask[0][box] = 1
    return write(tmp_path / "mask.tif", mask, ("",), None)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_known_pixels_come_back_bit_by_bit(pipe: FramesToImage, tmp_path: Path, dtype: str) -> None:
    values = scene_values(1, 4, 150, 110, dtype)
    values[:, 50:60] = 0
    path = write(tmp_path / "2021-06-01.tif", values)
    box = np.s_[55:140, 60:100]
    raster = Raster.open(path)
    scene = Filled(raster, hole(raster, masked(tmp_path, 150, 110, box)))
    drawn = whole(scene, pipe)
    assert drawn.dtype == values.dtype and drawn.shape == values.shape
    outside = np.ones((150, 110), bool)
    outside[box] = False
    assert np.array_equal(drawn[:, outside], values[:, outside])
    assert (drawn[:, 50:55] == 0).all() and (drawn[(slice(None), *box)] != 0).all()
    inside = drawn[(slice(None), *box)].astype(float)
    assert inside.std() > 0 and not np.array_equal(drawn, scene.whole(pipe, 1))
    low, high = float(values[values != 0].min()), float(values.max())
    assert low - (high - low) < inside.mean() < high + (high - low)


def test_a_hole_wider_than_any_window_is_filled_from_the_scene_around(
    pipe: FramesToImage, tmp_path: Path
) -> None:
    values = np.full((3, 900, 1000), 200, np.uint8)
    raster = Raster.open(write(tmp_path / "a.tif", values, RGBN[:3]))
    scene = Filled(raster, hole(raster, masked(tmp_path, 900, 1000, np.s_[20:880, 20:980])))
    for left, top in ((320, 320), (512, 320), (128, 128)):
        base = scene._backdrop.window(left, top)
        assert (base - (200 / 127.5 - 1)).abs().max() < 1e-4


def test_other_dates_are_seen_and_their_order_is_not(pipe: FramesToImage, tmp_path: Path) -> None:
    values = [scene_values(i, 3, 90, 80, "uint16") for i in range(4)]
    paths = [write(tmp_path / f"202{i}-06-01.tif", v, RGBN[:3]) for i, v in enumerate(values)]
    image, *others = (Raster.open(path) for path in paths)
    where = hole(image, masked(tmp_path, 90, 80, np.s_[30:60, 30:60]))
    alone = Filled(image, where).whole(pipe, 0)
    one = Filled(image, where, [others[0]]).whole(pipe, 0)
    two = Filled(image, where, others[:2]).whole(pipe, 0)
    assert not np.array_equal(alone, one) and not np.array_equal(one, two)
    assert np.array_equal(two, Filled(image, where, others[1::-1]).whole(pipe, 0))
    # the farthest of three is not shown, so its pixels do not matter
    assert Filled(image, where, others).inputs() == [image, *others[:2]]


def test_a_date_without_a_band_is_not_shown_for_it(pipe: FramesToImage, tmp_path: Path) -> None:
    # of 8 bits, so that the other date does not change the stretch
    image = Raster.open(write(tmp_path / "2021-06-01.tif", scene_values(0, 4, 40, 40, "uint8")))
    rgb = scene_values(1, 3, 40, 40, "uint8")
    other = Raster.open(write(tmp_path / "2022-06-01.tif", rgb, RGBN[:3]))
    where = hole(image, masked(tmp_path, 40, 40, np.s_[10:30, 10:30]))
    alone, both = (Filled(image, where, more).whole(pipe, 0) for more in ([], [other]))
    assert not np.array_equal(alone[:3], both[:3])
    assert np.array_equal(alone[3], both[3])


# --- forecasting


def dates(
    tmp_path: Path, count: int, bands: tuple[str, ...] = RGBN, side: int = 70
) -> list[Raster]:
    tmp_path.mkdir(exist_ok=True)
    return [
        Raster.open(
            write(
                tmp_path / f"{2015 + i}-06-01.tif",
                scene_values(i, len(bands), side, side + 9, "uint16"),
                bands,
            )
        )
        for i in range(count)
    ]


def test_a_forecast_lies_on_the_grid_in_units_of_its_dates(
    pipe: FramesToImage, tmp_path: Path
) -> None:
    rasters = dates(tmp_path, 3, RGBN[:3], side=130)
    scene = Dated(in_order(rasters, False), "2020-01-01")
    drawn = whole(scene, pipe)
    assert drawn.dtype == np.uint16 and drawn.shape == (3, 130, 139)
    assert scene.grid == rasters[0].grid and scene.metadata.date == "2020-01-01"
    assert 300 < drawn[drawn != 0].mean() < 9000


def test_the_order_of_dates_does_not_matter_but_the_target_does(
    pipe: FramesToImage, tmp_path: Path
) -> None:
    rasters = dates(tmp_path, 3, RGBN[:3])
    one = Dated(in_order(rasters, False), "2020").whole(pipe, 0)
    assert np.array_equal(one, Dated(in_order(rasters[::-1], False), "2020").whole(pipe, 0))
    for other in ("2014-03", "2016-12-24", "2030-06-01"):
        assert not np.array_equal(one, Dated(in_order(rasters, False), other).whole(pipe, 0))
    fewer = Dated(in_order(rasters[1:], False), "2020").whole(pipe, 0)
    assert not np.array_equal(one, fewer)


def test_the_nearest_dates_are_shown(tmp_path: Path) -> None:
    rasters = in_order(dates(tmp_path, 6), False)
    assert Dated(rasters, "2013").inputs() == rasters[:3]
    assert Dated(rasters, "2017-09").inputs() == rasters[1:4]


def test_what_no_date_knows_stays_unknown(pipe: FramesToImage, tmp_path: Path) -> None:
    values = [scene_values(i, 3, 60, 60, "uint8") for i in range(2)]
    values[0][:, :30] = 0
    values[1][:, :, :20] = 0
    rasters = [
        Raster.open(write(tmp_path / f"202{i}.tif", v, RGBN[:3])) for i, v in enumerate(values)
    ]
    drawn = Dated(in_order(rasters, False), "2025").whole(pipe, 0)
    assert (drawn[:, :30, :20] == 0).all()
    assert (drawn[:, 30:] != 0).all() and (drawn[:, :, 20:] != 0).all()


def test_dates_that_cannot_be(tmp_path: Path) -> None:
    rasters = dates(tmp_path, 2)
    with pytest.raises(InvalidInput, match="is of 2016-06-01 already"):
        Dated(in_order(rasters, False), "2016-06-01")
    with pytest.raises(InvalidInput, match="month 13"):
        Dated(in_order(rasters, False), "2016-13-01")
    with pytest.raises(InvalidInput, match="both of 2015-06-01"):
        in_order([rasters[0], rasters[0]], False)
    undated = Raster.open(
        write(tmp_path / "scene.tif", scene_values(0, 3, 20, 20, "uint8"), RGBN[:3])
    )
    with pytest.raises(InvalidInput, match=r"scene.tif has no date.*scene.tif@2021-06-15"):
        in_order([undated], False)
    nir = write(tmp_path / "2019.tif", scene_values(0, 1, 70, 79, "uint8"), ("swir16",))
    with pytest.raises(InvalidInput, match="no band in common"):
        Dated(in_order([rasters[0], Raster.open(nir)], False), "2020")


# --- small things


@pytest.mark.parametrize(
    ("bands", "groups"),
    [
        (("red", "green", "blue"), [(0, 1, 2)]),
        (("blue", "green", "red", "nir"), [(2, 1, 0), (1, 0, 3)]),
        (("swir16", "nir", "red", "green"), [(0, 1, 2), (1, 2, 3)]),
        (("a",), [(0, 0, 0)]),
        (("a", "b"), [(0, 1, 1)]),
        (tuple("abcdef"), [(0, 1, 2), (3, 4, 5)]),
    ],
)
def test_bands_in_threes(bands: tuple[str, ...], groups: list[tuple[int, ...]]) -> None:
    assert triples(bands) == groups


def test_partial_dates_have_an_order() -> None:
    texts = [None, "1980", "2021-01-31", "2021", "2021-07-02", "2022-03", "2022-03-02"]
    assert sorted(texts, key=ordinal) == texts
