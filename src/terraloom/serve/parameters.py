"""Query parameters of the tile server: titiler's names, with limits that titiler leaves open."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Query, Request
from pydantic import AfterValidator, BeforeValidator
from rasterio.crs import CRS
from titiler.core.dependencies import (
    DefaultDependency,
    HistogramParams,
    ImageRenderingParams,
    StatisticsParams,
)
from titiler.core.validation import validate_color_formula, validate_rescale

from terraloom.errors import InvalidInput
from terraloom.grid import FINEST_LEVEL

# GDAL would also take a file's name or an address, and read it.
CRS_NAME = re.compile(
    r"\[?(?:(?:EPSG|ESRI|OGC|IAU_2015|IGNF|NKG):\w{1,12}"
    r"|https?://www\.opengis\.net/def/crs/\w+/[\w.]+/\w+|urn:ogc:def:crs:\w+:[\w.]*:\w+)\]?",
    re.IGNORECASE,
)
MOST_BINS, FINEST_COVER = 1000, 20


def known_crs(text: str | None) -> str | None:
    """A CRS by its registered name.

    Raises:
        ValueError: it is none.
    """
    if text is None:
        return None
    if not CRS_NAME.fullmatch(text):
        raise ValueError("give a CRS such as EPSG:4326")
    try:
        CRS.from_user_input(text.strip("[]"))
    except ValueError as error:
        raise ValueError(f"the CRS {text} is not known; give one such as EPSG:4326") from error
    return text.strip("[]")


CrsName = Annotated[str | None, AfterValidator(known_crs)]


def _crs(text: str | None) -> CRS | None:
    return CRS.from_user_input(text) if text else None


def crs_of(crs: Annotated[CrsName, Query(description="CRS, as EPSG:4326.")] = None) -> CRS | None:
    """`crs`."""
    return _crs(crs)


def coord_crs_of(
    crs: Annotated[CrsName, Query(alias="coord_crs", description="CRS of coordinates.")] = None,
) -> CRS | None:
    """`coord_crs`, EPSG:4326 by default."""
    return _crs(crs)


def dst_crs_of(
    crs: Annotated[CrsName, Query(alias="dst_crs", description="CRS of the image.")] = None,
) -> CRS | None:
    """`dst_crs`."""
    return _crs(crs)


def check_zooms(request: Request) -> None:
    """titiler makes a list of all zooms from `minzoom` to `maxzoom`, however many.

    Raises:
        InvalidInput: a zoom that does not exist.
    """
    for name in ("minzoom", "maxzoom", "zooms"):
        for text in request.query_params.getlist(name):
            for number in re.findall(r"\d+", text):
                if len(number) > 2 or int(number) > FINEST_LEVEL:
                    raise InvalidInput(
                        f"{name} {text[:40]!r} names a zoom beyond 0 to {FINEST_LEVEL}"
                    )


def cover_scale_of(
    cover_scale: Annotated[
        int, Query(gt=0, le=FINEST_COVER, description="Parts of a pixel's side in coverage.")
    ] = 10,
) -> int:
    """`cover_scale`."""
    return cover_scale


@dataclass
class Layers(DefaultDependency):
    """Bands, or an expression of them."""

    indexes: Annotated[
        list[Annotated[int, Query(ge=1, le=3)]] | None,
        Query(alias="bidx", max_length=4, description="Bands: 1 red, 2 green, 3 blue."),
    ] = None
    expression: Annotated[
        str | None, Query(max_length=200, description="Of bands: b1/b2;b2+b3.")
    ] = None


@dataclass
class TileOptions(DefaultDependency):
    """Options of a tile."""

    buffer: Annotated[
        float | None,
        Query(gt=0, le=128, multiple_of=0.5, allow_inf_nan=False, description="Pixels around it."),
    ] = None


@dataclass
class Rendering(ImageRenderingParams):
    """How values become colours."""

    rescale: Annotated[
        list[str] | None,
        BeforeValidator(validate_rescale),
        Query(max_length=3, description="Range of values that is shown, min,max by band."),
    ] = None
    color_formula: Annotated[
        str | None,
        BeforeValidator(validate_color_formula),
        Query(max_length=200, description="Operations: gamma rgb 1.2 saturation 1.1."),
    ] = None


@dataclass
class Statistics(StatisticsParams):
    """Options of statistics."""

    categories: Annotated[
        list[Annotated[float, Query(allow_inf_nan=False)]] | None, Query(alias="c", max_length=256)
    ] = None
    percentiles: Annotated[
        list[Annotated[int, Query(ge=0, le=100)]] | None, Query(alias="p", max_length=100)
    ] = None


def bounded_bins(text: str | None) -> str | None:
    """Bins that memory has room for.

    Raises:
        ValueError: too many of them, or edges that do not rise.
    """
    if text is not None:
        edges = [int(part) for part in text.split(",") if part]
        if len(edges) == 1 and not 1 <= edges[0] <= MOST_BINS:
            raise ValueError(f"give 1 to {MOST_BINS} bins")
        if len(edges) > MOST_BINS or any(a >= b for a, b in zip(edges, edges[1:], strict=False)):
            raise ValueError(f"edges of bins must rise, and be at most {MOST_BINS}")
    return text


def rising_range(text: str | None) -> str | None:
    """A range "low,high".

    Raises:
        ValueError: it is none.
    """
    if text is not None:
        low, high = (float(part) for part in text.split(","))
        if not (abs(low) < 1e9 and abs(high) < 1e9 and low < high):
            raise ValueError("give a range as low,high")
    return text


@dataclass
class Histogram(HistogramParams):
    """Options of histograms."""

    bins: Annotated[
        str | None,
        Query(alias="histogram_bins", pattern=r"^\d{1,9}(,\d{1,9})*$", max_length=4000),
        AfterValidator(bounded_bins),
    ] = None
    range: Annotated[
        str | None,
        Query(alias="histogram_range", pattern=r"^-?\d+(\.\d+)?,-?\d+(\.\d+)?$", max_length=60),
        AfterValidator(rising_range),
    ] = None
