"""The seven numbers that tell a model where, how fine, how cloudy and when: any of them may be missing.

Longitude, latitude, ground sampling distance, cloud cover, year, month, day: DiffusionSat's order (section 3.1). A
partial date ("2021", "2021-06") leaves day or month missing. How a missing number is told to a network is the network's
business: `vector` says NaN, or 0 as the released DiffusionSat weights were trained.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from calendar import monthrange
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from terraloom.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FIELDS = ("lon", "lat", "gsd", "cloud_cover", "year", "month", "day")
Convention = Literal["terraloom", "diffusionsat"]

# field -> smallest, largest, what it is
RANGES = {
    "lon": (-180.0, 180.0, "degrees"),
    "lat": (-90.0, 90.0, "degrees"),
    "gsd": (0.1, 200_000.0, "metres per pixel"),
    "cloud_cover": (0.0, 1.0, "as a share, so 0.4 is 40 %"),
}
YEARS = (1980, 2100)
TAG = "TERRALOOM_"  # prefix of the fields' names in GeoTIFF tags
SCALE = 1000.0  # DiffusionSat's: numbers in the range of the 1000 timesteps, for the same sinusoids


@dataclass(frozen=True)
class Metadata:
    """Where, how fine, how cloudy and when. Equal values are equal objects.

    Args:
        lon: degrees east, -180 to 180.
        lat: degrees north, -90 to 90.
        gsd: ground sampling distance, metres per pixel, 0.1 to 200,000.
        cloud_cover: share of the image under cloud, 0 to 1.
        date: "2021", "2021-06", "2021-06-15" or a `datetime.date`; 1980 to 2100. Kept as text.

    Raises:
        InvalidInput: a value outside its range, NaN, or a date that does not exist.
    """

    lon: float | None = None
    lat: float | None = None
    gsd: float | None = None
    cloud_cover: float | None = None
    date: str | dt.date | None = None

    def __post_init__(self) -> None:
        """Check everything; numbers become floats, dates become text."""
        for name in RANGES:
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else _number(name, value))
        object.__setattr__(self, "date", None if self.date is None else _date(self.date))

    @property
    def year(self) -> int | None:
        """1980 to 2100."""
        return self._part(0)

    @property
    def month(self) -> int | None:
        """1 to 12."""
        return self._part(1)

    @property
    def day(self) -> int | None:
        """1 to 31."""
        return self._part(2)

    def _part(self, which: int) -> int | None:
        parts = str(self.date).split("-") if self.date else []
        return int(parts[which]) if which < len(parts) else None

    def vector(self, convention: Convention = "terraloom") -> npt.NDArray[np.float32]:
        """What a network is given, float32 (7,) in the order of `FIELDS`.

        Args:
            convention: "terraloom" maps every legal value into 0..1000, gsd by its logarithm, and says NaN where a
                value is missing. "diffusionsat" is what the released weights were trained with: 1000 times the gsd in
                metres (10 m gives 10,000) and the number 0 where a value is missing.
        """
        import numpy as np

        if convention not in ("terraloom", "diffusionsat"):
            raise InvalidInput(f"convention {convention!r} is not 'terraloom' or 'diffusionsat'")
        missing = math.nan if convention == "terraloom" else 0.0
        values = (getattr(self, name) for name in FIELDS)
        return np.array(
            [
                missing if value is None else SCALE * _share(name, value, convention)
                for name, value in zip(FIELDS, values, strict=True)
            ],
            np.float32,
        )

    def caption(self, text: str = "a satellite image") -> str:
        """The known values as words behind `text`: DiffusionSat's numbers-as-caption variant, in plain degrees.

        (Its own code wrote longitude + 180 and latitude + 90.) `text` comes back alone when nothing is known.
        """
        if self.gsd is not None:
            text += f" at a resolution of {self.gsd:g}"
        parts = [text]
        if self.lon is not None and self.lat is not None:
            parts.append(f"The longitude, latitude is {self.lon:g}, {self.lat:g}")
        if self.date is not None:
            known = (part for part in (self.year, self.month, self.day) if part is not None)
            parts.append("The date is " + ", ".join(map(str, known)))
        return ". ".join(parts)

    @classmethod
    def from_stac(cls, item: Mapping[str, Any]) -> Metadata:
        """Read a STAC item (a dictionary as in its JSON; `pystac.Item.to_dict()`).

        The place is `proj:centroid`, else the middle of `bbox`, else of the geometry. Without a `datetime` the date is
        what `start_datetime` and `end_datetime` have in common: a day, a month, a year or nothing.

        Raises:
            InvalidInput: a value outside its range, or of another type than STAC's.
        """
        try:
            properties = item.get("properties") or {}
            lon, lat = _stac_place(item, properties) or (None, None)
            cloud = properties.get("eo:cloud_cover")
            return cls(
                lon=lon,
                lat=lat,
                gsd=properties.get("gsd"),
                cloud_cover=None if cloud is None else cloud / 100,
                date=_stac_date(properties),
            )
        except (AttributeError, TypeError, KeyError, IndexError) as error:
            raise InvalidInput(f"not a STAC item: {error!r}") from error

    def to_stac(self) -> dict[str, Any]:
        """The known values as properties of a STAC item (1.1, projection 2.0, eo 1.1).

        A partial date is an interval with `datetime` null. A longitude without a latitude has no place in STAC.
        """
        found: dict[str, Any] = {}
        if self.date is not None:
            first, last = interval(str(self.date))
            if self.day is not None:
                found["datetime"] = f"{first}T00:00:00Z"
            else:
                found["datetime"] = None
                found["start_datetime"] = f"{first}T00:00:00Z"
                found["end_datetime"] = f"{last}T23:59:59Z"
        if self.gsd is not None:
            found["gsd"] = self.gsd
        if self.cloud_cover is not None:
            found["eo:cloud_cover"] = self.cloud_cover * 100
        if self.lon is not None and self.lat is not None:
            found["proj:centroid"] = {"lat": self.lat, "lon": self.lon}
        return found

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Metadata:
        """Read the tags of a GeoTIFF or PNG that Terraloom wrote; see `to_tags`.

        Raises:
            InvalidInput: a value that is no number or outside its range.
        """
        found: dict[str, Any] = {}
        for field in fields(cls):
            text = tags.get(TAG + field.name.upper())
            if text is None or field.name == "date":
                found[field.name] = text
                continue
            try:
                found[field.name] = float(text)
            except ValueError:
                raise InvalidInput(
                    f"tag {TAG}{field.name.upper()} is {text!r}, not a number"
                ) from None
        return cls(**found)

    def to_tags(self) -> dict[str, str]:
        """The known values as TERRALOOM_LON, _LAT, _GSD, _CLOUD_COVER (0 to 1) and _DATE; lossless."""
        return {
            TAG + field.name.upper(): value if isinstance(value, str) else f"{value!r}"
            for field in fields(self)
            if (value := getattr(self, field.name)) is not None
        }


def _share(name: str, value: float, convention: Convention) -> float:
    """A legal value as a share of its range: DiffusionSat's divisors, but for gsd."""
    if name == "gsd":
        low, high, _ = RANGES["gsd"]
        if convention == "diffusionsat":
            return value  # its divisor is 1
        return math.log(value / low) / math.log(high / low)
    low, high = {
        "lon": (-180, 180),
        "lat": (-90, 90),
        "cloud_cover": (0, 1),
        "year": YEARS,
        "month": (0, 12),
        "day": (0, 31),
    }[name]
    return (value - low) / (high - low)


def _number(name: str, value: Any) -> float:
    """A number within its range."""
    low, high, unit = RANGES[name]
    try:
        if isinstance(value, (str, bytes, bool)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidInput(f"{name} {value!r} is not a number") from None
    if not low <= number <= high:  # NaN too
        raise InvalidInput(f"{name} {number:g} is outside {low:g} to {high:.10g}, {unit}")
    return number


def _date(value: str | dt.date) -> str:
    """A date as "2021", "2021-06" or "2021-06-15"."""
    if isinstance(value, dt.date):
        text = f"{value:%Y-%m-%d}"
    else:
        text = str(value)
    match = re.fullmatch(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?", text, re.ASCII)
    if match is None:
        raise InvalidInput(f"date {text!r} is not like 2021, 2021-06 or 2021-06-15")
    year, month, day = (None if part is None else int(part) for part in match.groups())
    assert year is not None
    if not YEARS[0] <= year <= YEARS[1]:
        raise InvalidInput(f"date {text}: year {year} is outside {YEARS[0]} to {YEARS[1]}")
    if month is not None and not 1 <= month <= 12:
        raise InvalidInput(f"date {text}: month {month} is outside 1 to 12")
    if month is not None and day is not None and not 1 <= day <= monthrange(year, month)[1]:
        last = monthrange(year, month)[1]
        raise InvalidInput(f"date {text}: day {day} is outside 1 to {last}, the days of that month")
    return text


def ordinal(date: str | None) -> float:
    """Days since the year 1, of the first of July or of the month where no more is told; 0 when nothing is known."""
    if date is None:
        return 0.0
    year, month, day = ([int(part) for part in date.split("-")] + [0, 0])[:3]
    return float(dt.date(year, month or 7, day or 1).toordinal())


def interval(date: str) -> tuple[str, str]:
    """First and last day of a year, a month or a day."""
    parts = date.split("-")
    first, last = [*parts, "01", "01"][:3], [*parts, "12", "31"][:3]
    if len(parts) == 2:
        last[2] = f"{monthrange(int(parts[0]), int(parts[1]))[1]}"
    return "-".join(first), "-".join(last)


def _stac_date(properties: Mapping[str, Any]) -> str | None:
    moment = properties.get("datetime")
    if moment is not None:
        return str(moment)[:10]
    start, end = (properties.get(name) for name in ("start_datetime", "end_datetime"))
    if start is None or end is None:
        return None
    first, last = str(start)[:10], str(end)[:10]
    return next((first[:n] for n in (10, 7, 4) if first[:n] == last[:n]), None)


def _stac_place(
    item: Mapping[str, Any], properties: Mapping[str, Any]
) -> tuple[float, float] | None:
    """Longitude and latitude of the middle of an item."""
    if centroid := properties.get("proj:centroid"):
        return centroid["lon"], centroid["lat"]
    box = item.get("bbox")
    if box is not None:
        west, south, east, north = (box[i] for i in ((0, 1, 3, 4) if len(box) == 6 else range(4)))
    elif geometry := item.get("geometry"):
        lons, lats = zip(*_positions(geometry["coordinates"]), strict=True)
        west, south, east, north = min(lons), min(lats), max(lons), max(lats)
    else:
        return None
    width = east - west if west <= east else east - west + 360  # RFC 7946, section 5.2
    lon = west + width / 2
    return (lon - 360 if lon > 180 else lon), (south + north) / 2


def _positions(coordinates: Any) -> Iterator[tuple[float, float]]:
    """All positions of a GeoJSON geometry, however deep they are nested."""
    if isinstance(coordinates[0], (int, float)):
        yield coordinates[0], coordinates[1]
    else:
        for part in coordinates:
            yield from _positions(part)
