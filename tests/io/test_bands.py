"""Names of bands and dates, as satellites, tools and people write them."""

from __future__ import annotations

import pytest

from terraloom.errors import InvalidInput
from terraloom.io.bands import code, common, ending, is_aside, named, overridden
from terraloom.io.dates import date_in, date_of

GRAY = "gray"


def of_files(*stems: str, gsd: float | None = None) -> list[str]:
    return named([None] * len(stems), stems, [GRAY] * len(stems), gsd)


def of_descriptions(*said: str | None, gsd: float | None = None) -> list[str]:
    return named(said, [""] * len(said), ["undefined"] * len(said), gsd)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Red", "red"),
        ("RED-EDGE 1", "rededge071"),
        ("swir_2", "swir22"),
        ("QA_PIXEL", "qa_pixel"),
        ("NIR narrow", "nir08"),
        ("redd", None),
        ("", None),
    ],
)
def test_spellings(text: str, name: str | None) -> None:
    assert common(text) == name


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("B04", "4"),
        ("l8_B10", "10"),
        ("T32ULC_20210615T103021_B8A_20m", "8A"),
        ("SR_B4", "4"),
        ("B4, red (665 nm)", "4"),
        ("Band 3", None),
        ("band 3", None),
        ("LC08_L1TP_B", None),
        ("AB4", None),
    ],
)
def test_codes(text: str, number: str | None) -> None:
    assert code(text) == number


def test_endings_and_what_lies_beside() -> None:
    assert ending("scene_2021_red") == "red"
    assert ending("LC08_L2SP_T1_QA_PIXEL") == "qa_pixel"
    assert ending("T32ULC_20210615T103021_SCL_20m") == "scl"
    assert ending("B04") is None
    assert is_aside("T32ULC_20210615T103021_TCI_10m") and is_aside("LC08_T1_QA_RADSAT")
    assert not is_aside("T32ULC_20210615T103021_B04_10m")


@pytest.mark.parametrize(
    ("stems", "gsd", "expected"),
    [
        (("B02", "B05", "B08", "B8A", "B11"), None, "blue rededge071 nir nir08 swir16"),
        (("l8_B2", "l8_B5", "l8_B8", "l8_B11", "l8_BQA"), 30, "blue nir pan lwir11 bqa"),
        (("LC09_X_SR_B4", "LC09_X_SR_B6"), 30, "red swir16"),
        (("LE07_X_B3", "LE07_X_B4", "LE07_X_B5"), 30, "red nir swir16"),
        (("LT05_X_B1", "LT05_X_B7"), 30, "blue swir22"),
        (("HLS.L30.T17SLU.2021.B05", "HLS.L30.T17SLU.2021.B06"), 30, "nir swir16"),
        (("HLS.S30.T17SLU.2021.B05", "HLS.S30.T17SLU.2021.B8A"), 30, "rededge071 nir08"),
        (("x_B4", "x_B8"), 10, "red nir"),
        (("x_B4", "x_B8"), 30, "red pan"),
        (("a_red", "a_nir", "a_dem"), None, "red nir a_dem"),
    ],
)
def test_names_from_files(stems: tuple[str, ...], gsd: float | None, expected: str) -> None:
    if "lwir11" in expected:
        expected = expected.replace("lwir11", "lwir12")  # B11 of Landsat 8, not of Sentinel-2
    assert of_files(*stems, gsd=gsd) == expected.split()


def test_names_from_descriptions_and_colours() -> None:
    assert of_descriptions("B4", "B3", "B8A") == ["red", "green", "nir08"]
    assert of_descriptions("Red", None, "temperature", "Band 4") == [
        "red", "band 2", "temperature", "band 4",
    ]  # fmt: skip
    assert named([None] * 3, [""] * 3, ["red", "green", "blue"], None) == ["red", "green", "blue"]
    assert named(["nir", "red", "green"], [""] * 3, ["red", "green", "blue"], None) == [
        "nir", "red", "green",
    ]  # fmt: skip


def test_override_by_number_and_by_name() -> None:
    names = ["band 1", "band 2", "band 3", "band 4"]
    wanted = "red=3, green=2,blue=1,nir=4"
    assert overridden(names, wanted) == ["blue", "green", "red", "nir"]
    assert overridden(["red", "green", "blue"], "red=3") == ["band 1", "green", "red"]
    assert overridden(["swir16", "b", "c"], "swir=swir16".replace("swir=", "nir=")) == [
        "nir",
        "b",
        "c",
    ]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("red=9", "no band '9'"),
        ("red=0", "no band '0'"),
        ("gren=2", "'gren=2' is not like red=3"),
        ("red", "'red' is not like red=3"),
        ("", "not like red=3"),
        ("scl=1", "'scl=1' is not like"),
        ("red=1,red=2", "twice"),
        ("red=1,blue=1", "twice"),
    ],
)
def test_override_refuses(wanted: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        overridden(["band 1", "band 2", "band 3"], wanted)


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("S2A_MSIL1C_20210615T103021_N0300_R108_T32ULC_20210616T000000", "2021-06-15"),
        ("LC08_L1TP_021039_20160101_20170101_01_T1", "2016-01-01"),
        ("2019:09:18 10:20:30", "2019-09-18"),
        ("ndvi_2021_06", "2021-06"),
        ("1985", "1985"),
        ("tile_2048", None),
        ("20211399", None),
        ("1820", None),
        ("image", None),
    ],
)
def test_dates_in_names(text: str, date: str | None) -> None:
    assert date_in(text) == date


def test_dates_of_acquisition_come_before_dates_of_writing() -> None:
    tags = {"TIFFTAG_DATETIME": "2024:01:02 03:04:05"}
    assert date_of(tags, ["image"]) == "2024-01-02"
    assert date_of(tags, ["image_2020-05-06"]) == "2020-05-06"
    assert date_of(tags | {"date_acquired": "2019-01-01"}, ["x_2020-05-06"]) == "2019-01-01"
    assert date_of({}, ["image"]) is None
