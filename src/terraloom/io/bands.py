"""What the bands of a scene are called: STAC's common names, from whatever a file or its name says.

Sources: the band tables of Sentinel-2 (ESA), Landsat 4 to 9 (USGS) and STAC's `eo:common_name`. A code such as B5 means
another band on each satellite, so the satellite is found first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from terraloom.errors import InvalidInput

COLOURS = ("red", "green", "blue")
SENTINEL2 = {
    "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "rededge071", "6": "rededge075", "7": "rededge078",
    "8": "nir", "8A": "nir08", "9": "nir09", "10": "cirrus", "11": "swir16", "12": "swir22",
}  # fmt: skip
LANDSAT8 = {  # STAC calls B5 nir08; being the only near infrared it is nir here, as on Landsat 4 to 7
    "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "nir", "6": "swir16", "7": "swir22",
    "8": "pan", "9": "cirrus", "10": "lwir11", "11": "lwir12",
}  # fmt: skip
LANDSAT4 = {
    "1": "blue", "2": "green", "3": "red", "4": "nir", "5": "swir16", "6": "lwir", "7": "swir22", "8": "pan",
}  # fmt: skip
COMMON = tuple(
    dict.fromkeys([*COLOURS, *SENTINEL2.values(), *LANDSAT8.values(), *LANDSAT4.values(), "yellow"])
)
ALPHA = "alpha"
LABELS = ("qa_pixel", "bqa", "scl")  # whole numbers with a meaning; never averaged, never drawn
ASIDE = ("tci", "aot", "wvp", "qaradsat", "qaaerosol", "sraerosol", "radsatqa", "qa60")

_SAME = {name.replace("_", ""): name for name in (*COMMON, *LABELS)} | {
    "r": "red", "g": "green", "b": "blue", "nearinfrared": "nir", "infrared": "nir", "nirbroad": "nir",
    "nirnarrow": "nir08", "nir8a": "nir08", "panchromatic": "pan", "coastalaerosol": "coastal", "aerosol": "coastal",
    "rededge1": "rededge071", "rededge2": "rededge075", "rededge3": "rededge078", "swir1": "swir16", "swir2": "swir22",
    "watervapor": "nir09", "qa": "qa_pixel", "pixelqa": "qa_pixel", "sceneclassification": "scl",
}  # fmt: skip
_CODE = re.compile(r"(?<![A-Za-z0-9])B(?:and)?[ _]?(\d{1,2}A?)(?![A-Za-z0-9])", re.IGNORECASE)
_PLAIN = re.compile(r"band[ _]?\d+", re.IGNORECASE)  # GDAL's own "Band 1" counts, it names nothing
_RESOLUTION = re.compile(r"[_ ]?\d+m$", re.IGNORECASE)


def common(text: str) -> str | None:
    """The common name that a text is, in any spelling ("Red", "red-edge 1", "SWIR_1", "QA_PIXEL"), else None."""
    return _SAME.get(re.sub(r"[^a-z0-9]", "", text.lower()))


def code(text: str) -> str | None:
    """The number of a band in a text such as B04, SR_B4, T32ULC_20210615T103021_B8A_20m: "4", "4", "8A"."""
    if _PLAIN.fullmatch(text.strip()):
        return None
    found = _CODE.findall(text.replace("_", " "))
    return found[-1].upper().lstrip("0") if found else None


def ending(stem: str) -> str | None:
    """The common name at the end of a file's name (`scene_red`, `LC08_..._QA_PIXEL`, `T32ULC_SCL_20m`), else None."""
    parts = re.split(r"[_.\- ]+", _RESOLUTION.sub("", stem))
    for size in (2, 1):
        if name := common("".join(parts[-size:])):
            return name
    return None


def is_aside(stem: str) -> bool:
    """Whether a file's name says that it lies beside the bands: a quick look, aerosol, vapour, saturation."""
    parts = re.split(r"[_.\- ]+", _RESOLUTION.sub("", stem).lower())
    return any("".join(parts[-size:]) in ASIDE for size in (1, 2))


def satellite(texts: Iterable[str], gsd: float | None) -> dict[str, str]:
    """Which table the codes in names and descriptions of one scene belong to.

    Args:
        texts: names of files and descriptions of bands.
        gsd: of most bands, metres; decides where no name does: 25 m and finer is Sentinel-2.
    """
    words = " ".join(texts).upper().replace("_", " ")
    if re.search(r"\bL[ETM]0?[457]|LANDSAT ?[457]\b", words):
        return LANDSAT4
    if re.search(r"\bL[CO]?0?[89](?!\d)|\bHLS L30\b|HLS\.L30|LANDSAT ?[89]\b|\bS[RT] B\d", words):
        return LANDSAT8
    if re.search(r"\bS2[ABC]?\b|SENTINEL ?-?2|\bT\d\d[A-Z]{3}\b|HLS\.S30", words):
        return SENTINEL2
    if re.search(r"\bB0\d\b|\bB8A\b|\bB12\b", words):
        return SENTINEL2
    if re.search(r"\bBQA\b|\bQA PIXEL\b", words):
        return LANDSAT8
    return SENTINEL2 if gsd is not None and gsd <= 25 else LANDSAT8


def named(
    descriptions: Sequence[str | None],
    stems: Sequence[str],
    colours: Sequence[str],
    gsd: float | None,
) -> list[str]:
    """A name for every band of a scene.

    Args:
        descriptions: what a file says of each band, None where it says nothing.
        stems: the name, without ending, of the file that holds only this band; empty for a band among others.
        colours: GDAL's colour interpretation ("red", "gray", "undefined").
        gsd: see `satellite`.

    Returns:
        Common names where they are known, else the file's own ("band 7", `TEMPERATURE`).
    """
    table = satellite([text for text in (*stems, *descriptions) if text], gsd)
    names = []
    for number, (said, stem, colour) in enumerate(
        zip(descriptions, stems, colours, strict=True), 1
    ):
        name = None
        if said:
            name = common(said) or table.get(code(said) or "")
        if name is None and stem:
            name = ending(stem) or table.get(code(stem) or "")
        if name is None and colour in (*COLOURS, ALPHA):
            name = colour
        if name == "nir08" and table is LANDSAT8:
            name = "nir"
        own = said if said and not _PLAIN.fullmatch(said.strip()) else stem
        names.append(name or own or f"band {number}")
    return names


def overridden(names: Sequence[str], wanted: str) -> list[str]:
    """Names after a user's "red=3,green=2,blue=1,nir=4".

    Args:
        names: what the bands are called without it.
        wanted: common name = number from 1, or what the band is called without it.

    Raises:
        InvalidInput: an unknown name, a band that is not there, one name or one band twice.
    """
    chosen: dict[int, str] = {}
    for part in wanted.split(","):
        left, equals, right = (piece.strip() for piece in part.partition("="))
        name = common(left)
        if not equals or name is None or name in LABELS:
            raise InvalidInput(
                f"bands {part.strip()!r} is not like red=3; names are {', '.join(COMMON)}"
            )
        if right.isdecimal() and 1 <= int(right) <= len(names):
            index = int(right) - 1
        elif right in names or (common(right) or "") in names:
            index = names.index(right if right in names else str(common(right)))
        else:
            raise InvalidInput(f"there is no band {right!r} for {name}; there are {counted(names)}")
        if index in chosen or name in chosen.values():
            raise InvalidInput(f"bands {wanted!r} names {name} or band {right} twice")
        chosen[index] = name
    return [
        chosen.get(i) or (f"band {i + 1}" if name in chosen.values() else name)
        for i, name in enumerate(names)
    ]


def counted(names: Sequence[str]) -> str:
    """Bands as a sentence has them: 1 red, 2 green, 3 band 3."""
    return ", ".join(f"{number} {name}" for number, name in enumerate(names, 1))
