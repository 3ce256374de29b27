"""Metadata: what is legal, what a network is told, and round trips through files and catalogues."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terraloom.errors import InvalidInput
from terraloom.metadata import FIELDS, Metadata

DAYS = st.dates(dt.date(1980, 1, 1), dt.date(2100, 12, 31))
DATES = st.one_of(
    DAYS.map(str), DAYS.map(lambda day: str(day)[:7]), DAYS.map(lambda day: str(day)[:4])
)


def numbers(low: float, high: float) -> st.SearchStrategy[float | None]:
    return st.none() | st.floats(low, high)


LEGAL = st.builds(
    Metadata,
    lon=numbers(-180, 180),
    lat=numbers(-90, 90),
    gsd=numbers(0.1, 200_000),
    cloud_cover=numbers(0, 1),
    date=st.none() | DATES,
)


# --- what is legal


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lat": 91}, ["lat 91", "-90 to 90", "degrees"]),
        ({"lat": -90.001}, ["lat -90.001", "-90 to 90"]),
        ({"lon": 181}, ["lon 181", "-180 to 180"]),
        ({"gsd": 0}, ["gsd 0", "0.1 to 200000", "metres per pixel"]),
        ({"gsd": -10}, ["gsd -10"]),
        ({"gsd": 0.05}, ["gsd 0.05", "0.1 to 200000"]),
        ({"gsd": math.inf}, ["gsd inf"]),
        ({"lon": math.nan}, ["lon nan"]),
        ({"cloud_cover": math.nan}, ["cloud_cover nan"]),
        ({"cloud_cover": 1.4}, ["cloud_cover 1.4", "0 to 1", "0.4 is 40 %"]),
        ({"lat": "52"}, ["lat '52'", "not a number"]),
        ({"lat": True}, ["lat True", "not a number"]),
        ({"lat": [1]}, ["lat [1]", "not a number"]),
        ({"date": "2021-13"}, ["2021-13", "month 13", "1 to 12"]),
        ({"date": "2021-00-01"}, ["month 0"]),
        ({"date": "2021-02-30"}, ["2021-02-30", "day 30", "1 to 28"]),
        ({"date": "2021-06-00"}, ["day 0"]),
        ({"date": "1979"}, ["year 1979", "1980 to 2100"]),
        ({"date": "2101-01"}, ["year 2101"]),
        ({"date": "2021-6-5"}, ["'2021-6-5'", "2021-06-15"]),
        ({"date": "15.06.2021"}, ["'15.06.2021'"]),
        ({"date": ""}, ["''"]),
        ({"date": "2021-06-15T10:00:00Z"}, ["not like"]),
        ({"date": "2021-06-15\n"}, ["not like"]),
        ({"date": "\u0662\u0660\u0662\u0661"}, ["not like"]),
    ],
)
def test_what_is_not_legal_is_said(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InvalidInput) as error:
        Metadata(**values)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("date", "parts"),
    [
        (None, (None, None, None)),
        ("2021", (2021, None, None)),
        ("2021-06", (2021, 6, None)),
        ("2024-02-29", (2024, 2, 29)),
        (dt.date(2021, 6, 5), (2021, 6, 5)),
        (dt.datetime(2021, 6, 5, 23, 59), (2021, 6, 5)),
    ],
)
def test_dates_may_be_partial(date: str | dt.date | None, parts: tuple[int | None, ...]) -> None:
    metadata = Metadata(date=date)
    assert (metadata.year, metadata.month, metadata.day) == parts


def test_equal_values_are_equal_and_hashable() -> None:
    one = Metadata(lon=5, date=dt.date(2021, 6, 5))
    other = Metadata(lon=np.float64(5.0), date="2021-06-05")  # type: ignore[arg-type]
    assert one == other and hash(one) == hash(other) and one != Metadata(lon=5)


# --- what a network is told


def test_released_weights_convention_is_the_known_good_vector() -> None:
    """The published notebook's own: a place in Australia."""
    australia = Metadata(153.316728, -27.862002, 0.4114541, 0, "2017-02-11")
    known = [925.8798, 345.2111, 411.4541, 0, 308.3333, 166.6667, 354.8387]
    assert australia.vector("diffusionsat") == pytest.approx(known, abs=1e-3)


def test_gsd_is_not_scaled_into_range_for_released_weights() -> None:
    assert Metadata(gsd=10).vector("diffusionsat")[2] == 10_000


def test_missing_is_nan_for_ours_and_zero_for_released_weights() -> None:
    empty = Metadata()
    assert np.isnan(empty.vector()).all() and empty.vector().shape == (7,)
    assert (empty.vector("diffusionsat") == 0).all()
    part = Metadata(lat=0, date="2021-06").vector()
    assert [name for name, value in zip(FIELDS, part, strict=True) if not np.isnan(value)] == [
        "lat",
        "year",
        "month",
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"lon": -180, "lat": -90, "gsd": 0.1, "cloud_cover": 0, "date": "1980"}, [0, 0, 0, 0, 0]),
        ({"lon": 180, "lat": 90, "gsd": 2e5, "cloud_cover": 1, "date": "2100"}, [1000] * 5),
        ({"lon": 0, "lat": 0, "gsd": math.sqrt(0.1 * 2e5), "cloud_cover": 0.5, "date": "2040"},
         [500] * 5),
    ],
)  # fmt: skip
def test_our_convention_uses_the_whole_range(values: dict[str, Any], expected: list[float]) -> None:
    assert Metadata(**values).vector()[:5] == pytest.approx(expected, abs=1e-3)


@given(LEGAL)
def test_every_legal_value_lies_in_0_to_1000(metadata: Metadata) -> None:
    vector = metadata.vector()
    assert vector.dtype == np.float32
    for name, value in zip(FIELDS, vector, strict=True):
        if getattr(metadata, name) is None:
            assert np.isnan(value)
        else:
            assert 0 <= value <= 1000


@given(LEGAL, LEGAL)
def test_our_convention_keeps_the_order_of_values(one: Metadata, other: Metadata) -> None:
    for name, a, b in zip(FIELDS, one.vector(), other.vector(), strict=True):
        first, second = getattr(one, name), getattr(other, name)
        if None not in (first, second) and first < second:
            assert a <= b


def test_unknown_convention_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'other'"):
        Metadata().vector("other")  # type: ignore[arg-type]


# --- words


def test_caption_has_real_degrees() -> None:
    metadata = Metadata(lon=-4.9, lat=52.4, gsd=10, date="2021-06-15")
    assert metadata.caption("a river") == (
        "a river at a resolution of 10. The longitude, latitude is -4.9, 52.4. "
        "The date is 2021, 6, 15"
    )


def test_caption_leaves_out_what_is_missing() -> None:
    assert Metadata().caption("a river") == "a river"
    assert Metadata(lat=1).caption("a river") == "a river"
    assert Metadata(date="2021-06").caption() == "a satellite image. The date is 2021, 6"


# --- catalogues and files


def same_place(one: Metadata) -> Metadata:
    """What of a place STAC can hold: both coordinates or none."""
    if None in (one.lon, one.lat):
        return Metadata(None, None, one.gsd, one.cloud_cover, one.date)
    return one


@given(LEGAL)
def test_stac_round_trip(metadata: Metadata) -> None:
    back, kept = Metadata.from_stac({"properties": metadata.to_stac()}), same_place(metadata)
    assert (back.lon, back.lat, back.gsd, back.date) == (kept.lon, kept.lat, kept.gsd, kept.date)
    assert back.cloud_cover == (
        None if kept.cloud_cover is None else pytest.approx(kept.cloud_cover, rel=1e-12)
    )


def test_stac_interval_of_a_partial_date() -> None:
    found = Metadata(date="2024-02").to_stac()
    assert found == {
        "datetime": None,
        "start_datetime": "2024-02-01T00:00:00Z",
        "end_datetime": "2024-02-29T23:59:59Z",
    }


@pytest.mark.parametrize(
    ("item", "place"),
    [
        ({"bbox": [4, 52, 5, 53]}, (4.5, 52.5)),
        ({"bbox": [4, 52, -10, 5, 53, 90]}, (4.5, 52.5)),
        ({"bbox": [179, -18, -178, -16]}, (-179.5, -17)),
        ({"bbox": [177, -18, -179, -16]}, (179, -17)),
        ({"geometry": {"type": "Point", "coordinates": [4.9, 52.4]}}, (4.9, 52.4)),
        (
            {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [2, 0], [2, 4], [0, 0]]]}},
            (1, 2),
        ),
        (
            {"bbox": [0, 0, 1, 1], "properties": {"proj:centroid": {"lon": 0.7, "lat": 0.2}}},
            (0.7, 0.2),
        ),
        ({"geometry": None}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_place_of_a_stac_item(item: dict[str, Any], place: tuple[float | None, ...]) -> None:
    found = Metadata.from_stac(item)
    assert (found.lon, found.lat) == place


def test_stac_cloud_cover_is_percent() -> None:
    assert Metadata.from_stac({"properties": {"eo:cloud_cover": 40}}).cloud_cover == 0.4
    with pytest.raises(InvalidInput, match="cloud_cover 1.4"):
        Metadata.from_stac({"properties": {"eo:cloud_cover": 140}})


def test_stac_interval_over_years_is_no_date() -> None:
    interval = {"datetime": None, "start_datetime": "2019-05-01T00:00:00Z"}
    interval["end_datetime"] = "2021-05-01T00:00:00Z"
    assert Metadata.from_stac({"properties": interval}).date is None


@pytest.mark.parametrize(
    "item",
    [
        {"bbox": [1, 2]},
        {"bbox": "here"},
        {"geometry": {"type": "Point"}},
        {"geometry": {"coordinates": []}},
        {"properties": {"proj:centroid": {"lat": 3}}},
        {"properties": {"eo:cloud_cover": "40"}},
        {"properties": {"datetime": "yesterday"}},
        {"properties": [1]},
        [],
    ],
)
def test_what_is_no_stac_item_is_said(item: Any) -> None:
    with pytest.raises(InvalidInput):
        Metadata.from_stac(item)


@given(LEGAL)
def test_tags_round_trip(metadata: Metadata) -> None:
    tags = metadata.to_tags()
    assert all(isinstance(text, str) for text in tags.values())
    assert Metadata.from_tags({"OTHER": "x", **tags}) == metadata


def test_tag_that_is_no_number_is_said() -> None:
    with pytest.raises(InvalidInput, match="TERRALOOM_LON is 'east'"):
        Metadata.from_tags({"TERRALOOM_LON": "east"})
