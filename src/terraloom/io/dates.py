"""When a scene was taken, from what its file or its name says."""

from __future__ import annotations

import re
from collections.abc import Mapping

from terraloom.errors import InvalidInput
from terraloom.metadata import Metadata

TAKEN = (
    "TERRALOOM_DATE",
    "DATE_ACQUIRED",
    "ACQUISITION_DATE",
    "ACQUISITIONDATETIME",
    "SENSING_TIME",
    "datetime",
)
WRITTEN = "TIFFTAG_DATETIME"  # often when the file was made, so asked last
_DAY = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_.:]?)(\d\d)\2(\d\d)(?!\d)")
_MONTH = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_.](\d\d)(?![\d])")
_YEAR = re.compile(r"(?<!\d)(19[89]\d|20[0-3]\d)(?!\d)")  # not 2048, which is a number of pixels


def date_in(text: str) -> str | None:
    """The first date in a text: 2021-06-15, 20210615T103021, 2021:06:15, 2021_06, 1985; 1980 to 2100, else None."""
    for day in _DAY.finditer(text):
        if found := _valid(f"{day[1]}-{day[3]}-{day[4]}"):
            return found
    for month in _MONTH.finditer(text):
        if found := _valid(f"{month[1]}-{month[2]}"):
            return found
    for year in _YEAR.finditer(text):
        if found := _valid(year[1]):
            return found
    return None


def date_of(tags: Mapping[str, str], names: list[str]) -> str | None:
    """The date of a scene, None where nothing tells: tags on its acquisition, then names, then TIFF's DateTime.

    Args:
        tags: of the file.
        names: the file's, then those of the folders it may be called after.
    """
    lower = {key.lower(): value for key, value in tags.items()}
    told = [lower.get(key.lower(), "") for key in TAKEN]
    for text in (*told, *names, tags.get(WRITTEN, "")):
        if found := date_in(text):
            return found
    return None


def _valid(text: str) -> str | None:
    try:
        return str(Metadata(date=text).date)
    except InvalidInput:
        return None
