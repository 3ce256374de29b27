"""Captions of the training sets, and the pack that carries them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file

from terraloom.data import captions as C
from terraloom.data import text_pack
from terraloom.data.captions import captions, country_names, season_of
from terraloom.data.pack import THINNED, held_out, place_of
from terraloom.data.text_pack import SETS, TextItem, build_text_pack, index_rows
from terraloom.errors import InvalidInput, TerraloomError
from terraloom.models.text_encoder import TOKENS

LABELS = [(name, label) for name, words in C.WORDS.items() for label in words]


@pytest.mark.parametrize(("name", "label"), LABELS)
def test_every_class_has_plain_words_and_sentences(name: str, label: str) -> None:
    made = captions(name, {"label": label, "caption": "own", "country": "Congo"})
    kind = made[0]
    assert kind in ("a satellite image", "an aerial image")
    words = C.WORDS[name][label]
    assert {*words, *(f"{kind} of {w}" for w in words)} <= set(made)
    assert any(" in " in text for text in made)
    assert all(text.isascii() and text == text.strip() and "  " not in text for text in made)


def test_classes_of_the_benchmarks_are_all_there_and_told_apart() -> None:
    assert len(C.EUROSAT) == 10 and len(C.UCMERCED) == 21
    for words in (C.EUROSAT, C.UCMERCED):
        firsts = [w[0] for w in words.values()]
        assert len(set(firsts)) == len(firsts)
        assert all(len(set(w)) == len(w) >= 3 for w in words.values())


def test_rows_without_anything_still_have_a_caption() -> None:
    assert captions("landsat", {}) == ["a satellite image"]


def test_clouds_and_seasons_are_told_when_they_are_known() -> None:
    row = {"label": "savanna", "lat": 45.0, "date": "2021-01-05", "cloud": 0.3}
    made = captions("landsat", row)
    assert "a satellite image of savanna in winter" in made
    assert any("clouds" in text for text in made)
    clear = captions("landsat", {**row, "cloud": 0.0, "date": "2021"})
    assert not any("cloud" in text or "winter" in text for text in clear)


@given(st.floats(30, 90), st.integers(1, 12))
def test_seasons_are_opposite_across_the_equator(lat: float, month: int) -> None:
    north, south = (season_of(side, f"2020-{month:02d}") for side in (lat, -lat))
    assert north and south and {north, south} in ({"summer", "winter"}, {"spring", "autumn"})
    assert season_of(lat, f"{2020 + (month == 12)}-{month % 12 + 1:02d}-01") is not None


@given(st.floats(-29.9, 29.9))
def test_the_tropics_have_none(lat: float) -> None:
    assert season_of(lat, "2020-07-01") is None


def test_countries_by_either_code() -> None:
    names = country_names()
    assert names["FRA"] == names["FR"] == "France"
    assert names["COD"] == C.COUNTRIES["Dem. Rep. Congo"] and len(names) == 500


def item(name: str, place: str, **row: Any) -> TextItem:
    rgb = np.zeros((64, 64, 3), np.uint8)
    return TextItem(name, rgb, {"gsd": 10.0, "country": None, **row}, place)


def test_index_numbers_captions_once_and_splits_by_place() -> None:
    items = [item("eurosat", f"p{k}", label="Forest") for k in range(40)]
    texts, rows = index_rows(items)
    assert texts[0] == "" and len(set(texts)) == len(texts)
    assert [texts[c] for c in rows[0]["captions"]] == captions("eurosat", items[0].row)
    assert all(row["val"] == held_out(i.place) for row, i in zip(rows, items, strict=True))
    assert rows[0]["region"] == text_pack.EUROPE and rows[0]["lon"] is None


def test_a_known_place_needs_no_region() -> None:
    rows = index_rows([item("ortho_chips", "p", lon=8.5, lat=47.4, label="forest")])[1]
    assert rows[0]["region"] is None and rows[0]["lon"] == 8.5


def test_countries_on_few_blue_marble_tiles_are_not_named() -> None:
    tiles = [item("bluemarble6", f"{k}", label="savanna", country="Chad") for k in range(3)]
    tiles.append(item("bluemarble6", "x", label="savanna", country="Mali"))
    texts, _ = index_rows(tiles)
    assert any("Chad" in t for t in texts) and not any("Mali" in t for t in texts)


def test_ucmerced_brings_its_own_split() -> None:
    for number in range(70, 80):
        assert held_out(place_of("ucmerced", {"path": f"ucmerced/river{number}.webp"}))


def test_clouds_are_white_and_bright_roofs_are_none() -> None:
    rgb = np.full((4, 4, 3), (60, 90, 50), np.uint8)
    rgb[0, 0] = 255, 255, 150
    roofs = {"path": "landsat/tokyo/2021-12-28/1_1.webp", "cloud": 0.1}
    row, same = text_pack._with_clouds(roofs, rgb)
    assert row["cloud"] is None and np.array_equal(same, rgb)
    congo = {"path": "landsat/congo/2021-12-01/1_1.webp", "cloud": 0.1}
    row, white = text_pack._with_clouds(congo, rgb)
    assert row["cloud"] == 0.1 and white[0, 0].tolist() == [255, 255, 255]
    assert np.array_equal(white[1:], rgb[1:])


def write_sets(folder: Path, count: int) -> None:
    """Every set with a few flat images, EuroSAT with noise."""
    rng = np.random.default_rng(0)
    labels = {name: next(iter(words)) for name, words in C.WORDS.items()}
    for name in SETS:
        lines = []
        form, side = ("JPEG", 64) if name == "bluemarble" else ("WEBP", 64)
        size = (720, 928) if name == "naip" else (side, side)
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for k in range(1 if name == "naip" else count if name == "eurosat" else 3):
                file = io.BytesIO()
                top = 255 if name == "eurosat" else 1
                Image.fromarray(rng.integers(0, top, (*size, 3), np.uint8)).save(file, form)
                folders = {"landsat": "landsat/congo/2021-12-01", "bluemarble": "bluemarble/6/1"}
                end = "jpg" if form == "JPEG" else "webp"
                path = f"{folders.get(name, name)}/x{k:02d}.{end}"
                info = tarfile.TarInfo(path)
                info.size = len(file.getvalue())
                tar.addfile(info, io.BytesIO(file.getvalue()))
                row: dict[str, Any] = {
                    "path": path, "gsd": 10.0, "caption": "own", "cloud": 0.1,
                    "series": f"s{k}", "label": labels.get(name, "savanna"),
                }  # fmt: skip
                if name == "bluemarble":
                    row |= {"z": 6, "x": 1, "y": k, "lon": 1.0, "lat": 2.0, "gsd": 2400.0}
                lines.append(json.dumps(row))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Synthetic sets, and an encoder that needs no weights."""
    import torch

    class Encoder:
        def encode(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.ones(len(prompts), TOKENS, 384), torch.ones(len(prompts), 384)

    monkeypatch.setattr(text_pack, "SentenceEncoder", Encoder)
    write_sets(tmp_path, 240)
    return tmp_path


def test_pack_holds_every_set_and_keeps_to_its_size(sets: Path) -> None:
    from terraloom.training.captioned import TextPack

    seen: dict[str, int] = {}
    path = build_text_pack(sets, sets / "large", progress=seen.__setitem__)
    sides = [TextPack.load(path, validation) for validation in (False, True)]
    assert seen["naip"] == 12 and seen["eurosat"] == 240
    assert sum(len(side.rows) for side in sides) == sum(seen.values())
    known = {row.set for side in sides for row in side.rows}
    assert known == {*SETS, "bluemarble6"} - {"bluemarble"}
    limit = (path.stat().st_size - 0.5 * load_file(path)["images"].size) / 2**20
    told: dict[str, int] = {}
    small = build_text_pack(sets, sets / "small", limit, told.__setitem__)
    assert small.stat().st_size <= limit * 2**20
    kept = [row.set for v in (False, True) for row in TextPack.load(small, v).rows]
    assert 150 <= kept.count("eurosat") < 240 and kept.count("naip") == 12
    assert told[THINNED] == len(kept) and THINNED not in seen


def test_pack_that_cannot_fit_says_so_and_leaves_nothing(sets: Path) -> None:
    before = set(sets.iterdir())
    with pytest.raises(InvalidInput, match=r"need [0-9.]+ MiB at least"):
        build_text_pack(sets, sets / "pack", 0.5)
    assert set(sets.iterdir()) == before


def test_a_missing_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(TerraloomError, match="eurosat"):
        build_text_pack(tmp_path, tmp_path / "pack")
