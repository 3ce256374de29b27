"""Batches of the text model, from packs, folders and shards."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file

from terraloom.errors import BadPack, InvalidInput
from terraloom.metadata import FIELDS, Metadata
from terraloom.training import folder as F
from terraloom.training.captioned import Captioned, TextBatches, TextPack
from terraloom.training.folder import folder_data, read_folder
from terraloom.training.pictures import read_picture, rgb_of
from terraloom.training.shards import FMOW, read_shards

TOKENS = 24
WHOLE = {"text_drop": 0, "metadata_drop": 0, "field_drop": 0}
LON, LAT, GSD, CLOUD, YEAR, MONTH, DAY = range(7)


def ramp(h: int, w: int) -> np.ndarray:
    """Row number in red, column number in green."""
    y, x = np.mgrid[0:h, 0:w]
    return np.stack([y, x, np.zeros_like(x)], -1).astype(np.uint8)


def pack_of(*rows: Captioned, captions: int = 4) -> TextPack:
    number = np.arange(captions, dtype=np.float16)
    tokens = np.broadcast_to(number[:, None, None], (captions, TOKENS, 384)).copy()
    pooled = np.broadcast_to(number[:, None], (captions, 384)).copy()
    return TextPack(list(rows), ["", *(f"c{k}" for k in range(1, captions))], tokens, pooled)


def row(h: int = 64, w: int = 64, **facts: Any) -> Captioned:
    given_facts = {"set": "s", "gsd": 10.0, "captions": (1, 2), **facts}
    return Captioned(rgb=ramp(h, w), **given_facts)


def batches(pack: TextPack, *sources: list[Any], **data: Any) -> TextBatches:
    return TextBatches(pack, {"sources": list(sources) or [["s", 1, 1.0]], **WHOLE, **data})


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_batch_has_the_promised_shapes_and_ranges() -> None:
    batch = batches(pack_of(row(80, 70, label="Forest"))).draw(rng(), 5, side=64)
    assert batch.images.shape == (5, 3, 64, 64) and batch.images.dtype == torch.float32
    assert batch.images.is_contiguous() and float(batch.images.abs().max()) <= 1
    assert batch.tokens.shape == (5, TOKENS, 384) and batch.tokens.dtype == torch.float32
    assert batch.pooled.shape == (5, 384) and batch.metadata.shape == (5, len(FIELDS))
    assert batch.labels == ["Forest"] * 5
    for k, text in enumerate(batch.captions):  # the vectors are those of the text
        assert set(batch.tokens[k].flatten().tolist()) == {float(text[1:])}
        assert set(batch.pooled[k].tolist()) == {float(text[1:])}


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 9), st.sampled_from([16, 32, 64]))
def test_the_same_generator_gives_the_same_batch(seed: int, n: int, side: int) -> None:
    pack = pack_of(row(90, 64, region=(-10, 36, 30, 60)), row(64, 64, lon=3.0, lat=4.0))
    drops = {"text_drop": 0.3, "metadata_drop": 0.3, "field_drop": 0.3}
    one, two = (batches(pack, **drops).draw(rng(seed), n, side) for _ in range(2))
    assert torch.equal(one.images, two.images) and torch.equal(one.tokens, two.tokens)
    assert torch.equal(one.metadata.nan_to_num(-1), two.metadata.nan_to_num(-1))
    assert one.captions == two.captions


@settings(deadline=None, max_examples=30)
@given(st.floats(0.1, 2000), st.integers(1, 4))
def test_the_gsd_told_is_that_of_the_training_pixels(gsd: float, reduction: int) -> None:
    pack = pack_of(row(64, 64, gsd=gsd))
    batch = batches(pack, ["s", reduction, 1]).draw(rng(), 2, side=16)
    told = Metadata(gsd=gsd * reduction).vector()[GSD]
    assert batch.metadata[:, GSD].tolist() == pytest.approx([told] * 2, abs=1e-3)


@given(st.integers(16, 120), st.integers(16, 120))
@settings(deadline=None, max_examples=30)
def test_fit_reduces_until_the_short_side_just_covers_the_crop(h: int, w: int) -> None:
    factor = min(h, w) // 16
    batch = batches(pack_of(row(h, w, gsd=2.0)), ["s", "fit", 1]).draw(rng(), 1, side=16)
    assert batch.metadata[0, GSD] == Metadata(gsd=2.0 * factor).vector()[GSD]
    assert min(h, w) // factor >= 16 and min(h, w) // (factor + 1) < 16


@pytest.mark.parametrize("reduction", [1, 2, 3])
def test_a_reduced_pixel_is_the_mean_of_its_box(reduction: int) -> None:
    side = 16
    batch = batches(pack_of(row(side * reduction, side * reduction)), ["s", reduction, 1])
    pixels = ((batch.draw(rng(), 1, side).images[0] + 1) * 127.5).round().numpy()
    boxes = ramp(side * reduction, side * reduction).reshape(side, reduction, side, reduction, 3)
    whole = (boxes.mean((1, 3)) + 1e-6).round().transpose(2, 0, 1)
    turned = [np.rot90(m, k, (1, 2)) for m in (whole, whole[:, :, ::-1]) for k in range(4)]
    assert min(np.abs(pixels - t).max() for t in turned) <= 1


def test_crops_come_from_everywhere_and_all_eight_ways() -> None:
    source = batches(pack_of(row(20, 20)))
    seen = {source.draw(rng(seed), 1, 16).images.numpy().tobytes() for seed in range(600)}
    assert len(seen) > 150  # of 5 x 5 places x 8 ways = 200


def test_dropped_text_is_the_empty_one_and_dropped_metadata_is_missing() -> None:
    facts = {"lon": 1.0, "lat": 2.0, "cloud_cover": 0.5, "date": "2021-06-15"}
    pack = pack_of(row(**facts))
    nothing = batches(pack, text_drop=1, metadata_drop=1).draw(rng(), 4)
    assert nothing.captions == [""] * 4 and not nothing.tokens.any()
    assert nothing.metadata.isnan().all()
    full = batches(pack).draw(rng(), 4)
    assert not full.metadata.isnan().any() and "" not in full.captions
    fields = batches(pack, field_drop=0.5).draw(rng(), 400).metadata.isnan()
    assert ((fields.float().mean(0) - 0.5).abs() < 0.1).all()
    rows = batches(pack, metadata_drop=0.5).draw(rng(), 400).metadata.isnan()
    assert torch.equal(rows.any(1), rows.all(1)) and 150 < int(rows.all(1).sum()) < 250


def test_shares_are_one_in_ten_where_the_recipe_says_nothing() -> None:
    source = TextBatches(pack_of(row()), {"sources": [["s", 1, 1]]})
    assert 0.05 < source.draw(rng(), 600, 16).captions.count("") / 600 < 0.15


def test_partial_dates_leave_the_day_missing() -> None:
    told = batches(pack_of(row(date="2004-08"))).draw(rng(), 1).metadata[0]
    assert told[[LON, LAT, CLOUD, DAY]].isnan().all() and not told[[YEAR, MONTH, GSD]].isnan().any()


def test_a_region_is_told_half_of_the_time_and_evenly() -> None:
    west, south, east, north = region = (-10.0, 36.0, 30.0, 60.0)
    told = batches(pack_of(row(region=region))).draw(rng(), 800, 16).metadata
    known = ~told[:, LON].isnan()
    assert 0.4 < float(known.float().mean()) < 0.6
    assert torch.equal(known, ~told[:, LAT].isnan())
    lon, lat = told[known, LON] * 0.36 - 180, told[known, LAT] * 0.18 - 90
    for values, low, high in ((lon, west, east), (lat, south, north)):
        assert low <= float(values.min()) < low + 2 and high - 2 < float(values.max()) <= high


def test_weights_and_even_classes() -> None:
    many = [row(16, 16, set="eurosat", label="River") for _ in range(30)]
    pack = pack_of(*many, row(16, 16, set="eurosat", label="Forest"), row(16, 16, set="t"))
    source = batches(pack, ["eurosat", 1, 3.0], ["t", 1, 1.0], ["t", 2, 0.0])
    labels = source.draw(rng(), 800, 16).labels
    assert 0.2 < labels.count("") / 800 < 0.3
    assert 0.8 < labels.count("River") / labels.count("Forest") < 1.25


def test_small_images_are_passed_over_and_none_left_is_an_error() -> None:
    pack = pack_of(row(40, 40, label="small"), row(64, 64, label="large"))
    assert set(batches(pack).draw(rng(), 20, 64).labels) == {"large"}
    with pytest.raises(InvalidInput, match="65 training pixels"):
        batches(pack).draw(rng(), 1, 65)


@pytest.mark.parametrize(
    ("sources", "more", "message"),
    [
        ([["x", 1, 1]], {}, r"\['x'\]"),
        ([["s", 0, 1]], {}, "reduction 1, 2"),
        ([["s", "half", 1]], {}, "fit"),
        ([["s", 1]], {}, "weight"),
        ([["s", 1, -1]], {}, "weight"),
        ([["s", 1, 1]], {"text_drop": 1.5}, "text_drop is 1.5"),
    ],
)
def test_bad_recipes_are_refused(sources: list[Any], more: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        TextBatches(pack_of(row()), {"sources": sources, **more})


# ---------------------------------------------------------------------------------------------- packs


def save(path: Path, version: int = 1) -> Path:
    files = []
    for _ in range(2):
        file = io.BytesIO()
        Image.fromarray(ramp(64, 64)).save(file, "WEBP", lossless=True)
        files.append(file.getvalue())
    facts = {
        "set": "s", "gsd": 10.0, "lon": None, "lat": None, "region": [0, 1, 2, 3],
        "cloud_cover": None, "date": "2021", "label": None, "captions": [1], "place": "p",
    }  # fmt: skip
    index = {
        "version": version,
        "quality": 92,
        "captions": ["", "a"],
        "rows": [{**facts, "val": False}, {**facts, "val": True, "label": "held"}],
    }
    save_file(
        {
            "index": np.frombuffer(json.dumps(index).encode(), np.uint8),
            "images": np.frombuffer(b"".join(files), np.uint8),
            "image_ends": np.cumsum([len(f) for f in files]),
            "tokens": np.zeros((2, TOKENS, 384), np.float16),
            "pooled": np.zeros((2, 384), np.float16),
        },
        path,
    )
    return path


def test_a_pack_is_read_side_by_side(tmp_path: Path) -> None:
    path = save(tmp_path / "pack")
    (train,), (held,) = (TextPack.load(path, side).rows for side in (False, True))
    assert (train.label, held.label) == ("", "held")
    assert np.array_equal(train.rgb, ramp(64, 64)) and train.region == (0, 1, 2, 3)


def test_bad_packs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadPack, match="cannot read"):
        TextPack.load(tmp_path / "none")
    with pytest.raises(BadPack, match="version 9"):
        TextPack.load(save(tmp_path / "pack", version=9))
    path = save(tmp_path / "cut")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadPack, match="cut"):
        TextPack.load(path)


# ------------------------------------------------------------------------------------------- pictures


@given(st.sampled_from([np.uint8, np.uint16, np.float32]), st.sampled_from([1, 3, 4]))
def test_arrays_of_any_order_and_depth_are_the_same_picture(dtype: Any, channels: int) -> None:
    values = np.arange(20 * 30 * channels).reshape(20, 30, channels) % 251
    last = values.astype(dtype)
    one, two = rgb_of(last), rgb_of(np.moveaxis(last, -1, 0))
    assert one.shape == (20, 30, 3) and one.dtype == np.uint8 and np.array_equal(one, two)
    if dtype == np.uint8:
        assert np.array_equal(one[..., 0], last[..., 0])
    else:
        assert one.min() == 0 and one.max() == 255


def test_missing_values_of_a_raster_are_black() -> None:
    values = np.linspace(0, 5000, 300, dtype=np.float32).reshape(10, 10, 3)
    values[0, 0] = np.nan
    assert rgb_of(values)[0, 0].tolist() == [0, 0, 0] and rgb_of(values)[9, 9].min() == 255


@pytest.mark.parametrize(
    "array", [np.zeros((5, 5, 2)), np.zeros((0, 5, 3)), np.zeros(3), np.zeros((4, 4, 3), bool)]
)
def test_other_arrays_are_no_picture(array: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match="no image"):
        rgb_of(array)


def test_sixteen_bit_greys_are_read(tmp_path: Path) -> None:
    values = (np.mgrid[0:32, 0:32][0] * 1000).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    grey = read_picture(tmp_path / "a.png")
    assert grey.shape == (32, 32, 3) and grey[0, 0, 0] == 0 and grey[-1, 0, 2] == 255


# -------------------------------------------------------------------------------------------- folders


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that needs no weights: a text's vectors hold its length."""

    class Encoder:
        def encode(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
            sizes = torch.tensor([float(len(p)) for p in prompts])
            return (
                sizes[:, None, None].expand(-1, TOKENS, 384),
                sizes[:, None].expand(-1, 384),
            )

    monkeypatch.setattr(F, "SentenceEncoder", Encoder)


def listed(folder: Path, *rows: dict[str, Any] | str, name: str = "metadata.jsonl") -> Path:
    lines = [r if isinstance(r, str) else json.dumps(r) for r in rows]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def test_a_folder_of_all_kinds_of_files_trains_like_a_pack(tmp_path: Path) -> None:
    for name in ("a.png", "b.webp", "c.jpg"):
        Image.fromarray(ramp(70, 90)).save(tmp_path / name)
    listed(
        tmp_path,
        {"file_name": "a.png", "text": ["one", "two"], "lon": 4.9, "lat": 52.4, "gsd": 10, "date": "2021-06"},
        "",
        {"path": "b.webp", "caption": "three", "cloud_cover": 0.25, "label": "x", "other": {}},
        {"file_name": "c.jpg", "text": "one"},
    )  # fmt: skip
    pack = read_folder(tmp_path)
    assert pack.captions == ["", "one", "two", "three"] and pack.sets == ["folder"]
    assert [r.captions for r in pack.rows] == [(1, 2), (3,), (1,)]
    assert np.array_equal(pack.rows[0].rgb, ramp(70, 90))
    assert (pack.rows[0].lon, pack.rows[0].gsd, pack.rows[0].date) == (4.9, 10, "2021-06")
    assert pack.rows[1].cloud_cover == 0.25 and pack.rows[2].gsd is None
    data = folder_data({"sources": [["eurosat", 1, 1.0]], **WHOLE})
    batch = TextBatches(pack, data).draw(rng(), 6)
    assert batch.images.shape == (6, 3, 64, 64)
    assert [float(batch.pooled[k, 0]) for k in range(6)] == [len(c) for c in batch.captions]


def test_a_recipe_may_say_how_a_folder_is_reduced() -> None:
    own = [["folder", 2, 0.5], ["folder", 4, 0.5]]
    assert folder_data({"sources": [["eurosat", 1, 1.0], *own]})["sources"] == own
    assert folder_data({"batch": 3}) == {"batch": 3, "sources": F.FIT}


def geotiff(path: Path, values: np.ndarray, crs: str, pixel: float, **tags: str) -> None:
    rasterio = pytest.importorskip("rasterio")
    from affine import Affine
    from rasterio.warp import transform

    (x,), (y,) = transform("EPSG:4326", crs, [4.9], [52.4])
    h, w, count = values.shape
    where = Affine(pixel, 0, x - w / 2 * pixel, 0, -pixel, y + h / 2 * pixel)
    with rasterio.open(
        path, "w", driver="GTiff", width=w, height=h, count=count, dtype=values.dtype, crs=crs,
        transform=where,
    ) as file:  # fmt: skip
        file.write(np.moveaxis(values, -1, 0))
        file.update_tags(**tags)


@pytest.mark.parametrize(
    ("crs", "pixel", "gsd"),
    [("EPSG:32631", 10.0, 10.0), ("EPSG:3857", 10.0, 6.1), ("EPSG:4326", 1e-4, 8.7)],
)
def test_a_geotiff_tells_what_its_line_leaves_out(
    tmp_path: Path, crs: str, pixel: float, gsd: float
) -> None:
    values = (np.arange(64 * 64 * 3).reshape(64, 64, 3) % 5000).astype(np.uint16)
    tags = {"TERRALOOM_DATE": "2021-06-15", "TERRALOOM_CLOUD_COVER": "0.5"}
    geotiff(tmp_path / "a.tif", values, crs, pixel, **tags)
    listed(
        tmp_path,
        {"file_name": "a.tif", "text": "one"},
        {"file_name": "a.tif", "text": "one", "lon": 1, "date": "2020"},
    )
    told, said = read_folder(tmp_path).rows
    assert (told.lon, told.lat) == pytest.approx((4.9, 52.4), abs=1e-3)
    assert told.gsd == pytest.approx(gsd, rel=0.02)
    assert (told.date, told.cloud_cover) == ("2021-06-15", 0.5)
    assert (said.lon, said.lat, said.date) == (1, told.lat, "2020")
    assert told.rgb.dtype == np.uint8 and told.rgb.max() == 255


def test_a_geotiff_is_read_without_rasterio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(ramp(64, 64)).save(tmp_path / "a.tif")
    listed(tmp_path, {"file_name": "a.tif", "text": "one"})
    monkeypatch.setitem(__import__("sys").modules, "terraloom.data.geotiff", None)
    (only,) = read_folder(tmp_path).rows
    assert np.array_equal(only.rgb, ramp(64, 64)) and only.lon is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: is not JSON"),
        ("[1]", "line 1: is not a JSON object"),
        ({"text": "one"}, "line 1: has no file_name"),
        ({"file_name": "b.png", "text": "one"}, r"line 1: there is no file .*b\.png"),
        ({"file_name": "a.png"}, "line 1: has no caption"),
        ({"file_name": "a.png", "text": "  "}, "line 1: has no caption"),
        ({"file_name": "a.png", "text": ["one", 2]}, "line 1: has no caption"),
        ({"file_name": "a.png", "text": "one", "lat": 91}, "line 1: lat 91 is outside"),
        ({"file_name": "a.png", "text": "one", "date": "yesterday"}, "line 1: date 'yesterday'"),
        ({"file_name": "bad.png", "text": "one"}, r"bad\.png: cannot read the image"),
        ({"file_name": "bad.tif", "text": "one"}, r"bad\.tif: cannot read"),
        ("", "names no images"),
    ],
)
def test_bad_lists_are_refused_by_name(tmp_path: Path, line: Any, message: str) -> None:
    Image.fromarray(ramp(64, 64)).save(tmp_path / "a.png")
    for name in ("bad.png", "bad.tif"):
        (tmp_path / name).write_bytes(b"not an image")
    with pytest.raises(InvalidInput, match=message):
        read_folder(listed(tmp_path, line))


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not a folder"):
        read_folder(tmp_path / "none")
    with pytest.raises(InvalidInput, match=r"neither metadata\.jsonl nor shards"):
        read_folder(tmp_path)
    listed(listed(tmp_path, "", name="a.jsonl"), "", name="b.jsonl")
    with pytest.raises(InvalidInput, match=r"2 lists, \['a.jsonl', 'b.jsonl'\]"):
        read_folder(tmp_path)


# --------------------------------------------------------------------------------------------- shards


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def shard(path: Path, samples: dict[str, dict[str, Any]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for key, fields in samples.items():
            for field, value in fields.items():
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                info = tarfile.TarInfo(f"{key}.{field}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


TOLD = {
    "gsd": 0.5, "cloud_cover": 40, "timestamp": "2016-02-11T10:00:00Z", "country_code": "FRA",
    "raw_location": "POLYGON ((2.0 48.0, 2.2 48.0, 2.2 48.4, 2.0 48.4, 2.0 48.0))",
}  # fmt: skip


def test_fmow_samples(tmp_path: Path) -> None:
    path = shard(
        tmp_path / "a.tar",
        {
            "fmow-train-1": {"input.npy": npy(ramp(70, 80)), "output.cls": 0, "metadata.json": TOLD},
            "fmow-train-2": {
                "input.npy": npy(ramp(70, 80)), "category.txt": b"golf_course", "metadata.json": {},
            },
        },
    )  # fmt: skip
    one, two = read_shards([path])
    assert np.array_equal(one.rgb, ramp(70, 80)) and (one.label, two.label) == (
        FMOW[0],
        "golf_course",
    )
    assert "a satellite image of an airport in France" in one.captions
    assert one.metadata == Metadata(2.1, 48.2, 0.5, 0.4, "2016-02-11")
    assert "a satellite image of a golf course" in two.captions and two.metadata == Metadata()


def test_fmow_classes_are_all_there() -> None:
    assert len(FMOW) == 62 and sorted(FMOW) == FMOW


def test_satlas_tiles_lie_where_they_are_and_pickles_stay_shut(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    n = (
        2**17
    )  # a tile at longitude -101, latitude 33: the case that DiffusionSat's reader misplaces
    x = int((-101.0 + 180) / 360 * n)
    y = int((1 - np.arcsinh(np.tan(np.radians(33.0))) / np.pi) / 2 * n)
    frames = np.stack([np.zeros((64, 64, 3), np.uint8), ramp(64, 64)])
    info = {"task_name": "wind_turbine", "image_names": ["m_2014-01-02", "anchor_2016-07-09"]}
    path = shard(
        tmp_path / "a.tar",
        {f"satlas_{x}_{y}_0": {"rgb.npy": npy(frames), "info.json": info, "targets.pyd": pickle.dumps(Attack())}},
    )  # fmt: skip
    (only,) = read_shards([path])
    assert (only.metadata.lon, only.metadata.lat) == pytest.approx((-101, 33), abs=0.003)
    assert only.metadata.date == "2016-07-09" and only.metadata.gsd == 1
    assert np.array_equal(only.rgb, ramp(64, 64)) and not (tmp_path / "ran").exists()


def square(x: float, y: float, size: float) -> dict[str, Any]:
    corners = [[x, y], [x + size, y], [x + size, y + size], [x, y + size], [x, y]]
    return {"geometry": {"type": "Polygon", "coordinates": [corners]}}


def test_spacenet_samples(tmp_path: Path) -> None:
    wide = (ramp(64, 64).astype(np.uint16) * 30).transpose(2, 0, 1)
    road = {"geometry": {"type": "LineString", "coordinates": [[37.0, 55.0], [37.0, 55.001]]}}
    path = shard(
        tmp_path / "a.tar",
        {
            "spacenet_AOI_2_Vegas_img1": {
                "rgb.npy": npy(wide), "metadata.json": {"features": [square(-115.2, 36.1, 1e-4)] * 2},
            },
            "spacenet_AOI_7_Moscow_img2": {"rgb.npy": npy(wide), "metadata.json": {"features": [road]}},
            "spacenet_AOI_7_Moscow_img3": {"rgb.npy": npy(wide), "metadata.json": {"features": []}},
            "spacenet_AOI_1_Rio_img4": {"rgb.npy": npy(wide), "metadata.json": {}},
            "spacenet_AOI_1_Rotterdam_img5": {
                "rgb.npy": npy(wide), "metadata.json": {"features": [square(6e5, 5.75e6, 10)]},
            },
        },
    )  # fmt: skip
    vegas, moscow, empty, rio, rotterdam = read_shards([path])
    assert vegas.rgb.shape == (64, 64, 3) and vegas.rgb.max() == 255
    area = 2 * 11.132**2 * np.cos(np.radians(36.1))
    assert (
        f"a satellite image of 2 buildings covering {area:.0f} square metres in Vegas"
        in vegas.captions
    )
    assert (vegas.metadata.lon, vegas.metadata.lat) == pytest.approx((-115.2, 36.1), abs=1e-3)
    assert "a satellite image of 111 metres of roads in Moscow" in moscow.captions
    assert "a satellite image of no roads" in empty.captions
    assert rio.captions == ["a satellite image", "a satellite image in Rio"]
    assert rio.metadata.date is None and rio.metadata.gsd == 0.5  # unknown is not 1980
    assert "1 buildings covering 100 square metres" in rotterdam.captions[2]
    assert rotterdam.metadata.lat == pytest.approx(51.9, abs=0.1)


def test_plain_shards_and_folders_of_them(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(ramp(64, 64)).save(file, "PNG")
    one = {"png": file.getvalue(), "json": {"text": "one", "gsd": 2.0}}
    two = {"txt": b"two\n", "png": file.getvalue()}
    shard(tmp_path / "b.tar", {"x/1": two})
    shard(tmp_path / "a.tar", {"x/1": one, "y/1": two})
    pack = read_folder(tmp_path)
    assert pack.captions == ["", "one", "two"]
    assert [r.captions for r in pack.rows] == [(1,), (2,), (2,)]
    assert [r.gsd for r in pack.rows] == [2.0, None, None]


@pytest.mark.parametrize(
    ("key", "fields", "message"),
    [
        ("x", {"txt": b"no image"}, r"has \['txt'\]"),
        ("x", {"jpg": b"no image", "txt": b"one"}, "cannot read the image"),
        ("x", {"rgb.npy": npy(ramp(64, 64))}, "no city in its key"),
        ("fmow-1", {"output.cls": 62, "input.npy": npy(ramp(64, 64))}, "output.cls is '62'"),
        ("fmow-1", {"output.cls": 1, "metadata.json": b"{"}, "metadata.json is not JSON"),
        ("fmow-1", {"output.cls": 1, "metadata.json": [1]}, "metadata.json holds no JSON object"),
        ("fmow-1", {"output.cls": 1}, "has no input.npy or rgb.npy"),
        ("fmow-1", {"output.cls": 1, "metadata.json": {"cloud_cover": "x"}}, "not as expected"),
        ("fmow-1", {"output.cls": 1, "metadata.json": {"gsd": 0}}, "gsd 0 is outside"),
        ("satlas_1_1", {"info.json": {}, "rgb.npy": npy(ramp(64, 64)[None])}, "image_names"),
        (
            "fmow-1",
            {"output.cls": 1, "input.npy": npy(np.array([{}], dtype=object))},
            "without running code",
        ),
        ("fmow-1", {"output.cls": 1, "input.npy": npy(ramp(64, 64))[:-9]}, "cannot read input.npy"),
    ],
)
def test_bad_samples_are_refused_by_name(
    tmp_path: Path, key: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=rf"a\.tar, sample {key}: .*{message}"):
        list(read_shards([shard(tmp_path / "a.tar", {key: fields})]))


def test_a_shard_that_is_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no tar")
    with pytest.raises(InvalidInput, match=r"cannot read shard .*a\.tar"):
        read_folder(tmp_path)


def test_moving_a_batch_keeps_its_words() -> None:
    batch = batches(pack_of(row())).draw(rng(), 2)
    assert batch.to(torch.device("cpu")).captions == batch.captions
    assert batch.to(torch.device("meta")).images.device.type == "meta"
