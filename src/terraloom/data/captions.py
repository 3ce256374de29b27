"""Captions of the training sets, in DiffusionSat's manner (Khanna et al. 2024, section 3.2 and appendix):

    a [satellite|aerial] image [of WORDS] [in COUNTRY]

Brackets left out at random there are a short fixed list of variants per image here, so that every caption can be
embedded once. Bare words ("forest", "a forest", "a highway seen from above") are among them, as people type those.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

Words = Mapping[str, tuple[str, ...]]

EUROSAT: Words = {
    "AnnualCrop": ("annual crop fields", "farmland", "crop fields", "arable fields"),
    "Forest": ("forest", "a forest", "woodland", "trees"),
    "HerbaceousVegetation": ("herbaceous vegetation", "grass and shrubs", "heath", "wild meadow"),
    "Highway": ("a highway", "highway", "a motorway", "a main road"),
    "Industrial": (
        "industrial buildings", "an industrial area", "factories", "warehouses",
    ),
    "Pasture": ("pasture", "a pasture", "green pastures", "meadows"),
    "PermanentCrop": ("permanent crops", "orchards", "vineyards", "olive groves or vineyards"),
    "Residential": ("a residential area", "houses", "a town", "a residential neighbourhood"),
    "River": ("a river", "river", "a river through farmland", "a stream and its banks"),
    "SeaLake": ("a sea or lake", "sea", "a lake", "water"),
}  # fmt: skip

UCMERCED: Words = {
    "agricultural": ("agricultural fields", "farmland", "crop rows"),
    "airplane": ("an airplane", "airplanes", "a parked aircraft"),
    "baseballdiamond": ("a baseball diamond", "baseball diamond", "a baseball field"),
    "beach": ("a beach", "beach", "a sandy beach and surf"),
    "buildings": ("buildings", "large buildings", "city blocks"),
    "chaparral": ("chaparral", "dry shrubs", "scrubland"),
    "denseresidential": (
        "a dense residential area", "dense residential area", "closely built houses",
    ),
    "forest": ("forest", "a forest", "dense trees"),
    "freeway": ("a freeway", "freeway", "a highway"),
    "golfcourse": ("a golf course", "golf course", "a golf green with bunkers"),
    "harbor": ("a harbor", "harbor", "a marina with boats"),
    "intersection": ("an intersection", "intersection", "a crossroads"),
    "mediumresidential": (
        "a medium density residential area", "medium residential area", "houses with gardens",
    ),
    "mobilehomepark": ("a mobile home park", "mobile home park", "a trailer park"),
    "overpass": ("an overpass", "overpass", "a road bridge over a freeway"),
    "parkinglot": ("a parking lot", "parking lot", "a car park"),
    "river": ("a river", "river", "a river between trees"),
    "runway": ("a runway", "runway", "an airport runway"),
    "sparseresidential": (
        "a sparse residential area", "sparse residential area", "a house among trees",
    ),
    "storagetanks": ("storage tanks", "round storage tanks", "oil tanks"),
    "tenniscourt": ("a tennis court", "tennis court", "tennis courts"),
}  # fmt: skip

COVER: Words = {  # IGBP classes (MCD12C1) and the coarse words of world_scenes
    "water": ("water", "open water"),
    "evergreen needleleaf forest": ("evergreen needleleaf forest", "conifer forest"),
    "evergreen broadleaf forest": ("evergreen broadleaf forest", "rain forest"),
    "deciduous needleleaf forest": ("deciduous needleleaf forest", "larch forest"),
    "deciduous broadleaf forest": ("deciduous broadleaf forest", "broadleaf forest"),
    "mixed forest": ("mixed forest", "forest"),
    "open shrubland": ("open shrubland", "shrubland"),
    "woody savanna": ("woody savanna", "open woodland"),
    "savanna": ("savanna", "grass and scattered trees"),
    "grassland": ("grassland", "steppe"),
    "wetland": ("wetland", "a wetland"),
    "cropland": ("cropland", "farmland"),
    "urban area": ("an urban area", "a city"),
    "cropland and natural vegetation mosaic": (
        "cropland and natural vegetation mosaic", "fields and patches of forest",
    ),
    "snow and ice": ("snow and ice", "snow"),
    "barren land": ("barren land", "desert"),
    "forest": ("forest", "a forest"),
    "mountain": ("mountains", "a mountain range"),
    "desert": ("desert", "a desert"),
    "coast": ("a coast", "sea and coast"),
    "urban": ("a city", "urban area"),
}  # fmt: skip

PLANET3M: Words = {
    "urban": ("a built-up area", "a city", "an urban area"),
    "coast": ("a shore", "a coast", "coastline"),
    "water": ("a bay", "open water", "water"),
    "airport": ("an airport", "airport", "an airport and its surroundings"),
}

ORTHO: Words = {
    "residential": ("a residential area", "city blocks", "houses"),
    "forest": ("forest", "a forest", "dense trees"),
    "lake shore": ("a lake shore", "lake shore", "the shore of a lake"),
    "farm": ("a farm", "farm buildings", "a farmyard"),
    "cropland": ("a bare field", "farmland"),
    "highway": ("a highway", "a highway through shrubland"),
}

CORINE: Words = {  # first label of the BigEarthNet patches
    "non-irrigated arable land": ("arable land", "crop fields"),
    "pastures": ("pastures", "pasture"),
    "complex cultivation patterns": ("small fields", "farmland"),
    "coniferous forest": ("coniferous forest", "conifer forest"),
}

NAIP: Words = {"cropland": ("prairie pothole wetlands and cropland", "fields and ponds")}

WORDS: Mapping[str, Words] = {
    "eurosat": EUROSAT,
    "eurosat_mosaic": EUROSAT,
    "ucmerced": UCMERCED,
    "bluemarble6": COVER,
    "bluemarble8": COVER,
    "seasons6": COVER,
    "seasons8": COVER,
    "landsat": COVER,
    "world_scenes": COVER,
    "scenes": COVER,
    "planet3m": PLANET3M,
    "ortho_chips": ORTHO,
    "sentinel2_chips": CORINE,
    "naip": NAIP,
}
AERIAL = ("ucmerced", "naip", "ortho_chips")
OWN = (
    "world_scenes",
    "scenes",
    "sentinel2_chips",
    "ortho_chips",
)  # their captions were written image by image
WHERE = {"eurosat": "Europe", "eurosat_mosaic": "Europe", "planet3m": "California"}
COUNTRIES = {  # Natural Earth's short names, and articles
    "United States of America": "the United States",
    "United States": "the United States",
    "Dem. Rep. Congo": "the Democratic Republic of the Congo",
    "Congo": "the Republic of the Congo",
    "Republic of the Congo": "the Republic of the Congo",
    "Central African Rep.": "the Central African Republic",
    "Dominican Rep.": "the Dominican Republic",
    "S. Sudan": "South Sudan",
    "Bosnia and Herz.": "Bosnia and Herzegovina",
    "United Kingdom": "the United Kingdom",
    "United Arab Emirates": "the United Arab Emirates",
    "Netherlands": "the Netherlands",
    "Philippines": "the Philippines",
    "Bahamas": "the Bahamas",
}
COUNTRY_CODES = Path(__file__).parent.parent / "assets" / "countries.txt"
CLOUDY = 0.05  # of an image, from which its captions speak of clouds
SEASONAL = 30.0  # degrees of latitude, nearer to the equator the four seasons say little
SEASONS = ("winter", "spring", "summer", "autumn")


def captions(name: str, row: Mapping[str, Any]) -> list[str]:
    """The variants for one image of set `name`; a caption that stands twice is drawn twice as often.

    `row` is the line of the set's index: `label`, `country`, `caption`, `lat`, `date` and `cloud` are read,
    each may be missing. The result has at least one caption.
    """
    kind = "an aerial image" if name in AERIAL else "a satellite image"
    words = WORDS[name].get(row.get("label") or "", ())
    where = place_words(name, row.get("country"))
    made = [kind, *words]
    if words:
        made += [f"{kind} of {word}" for word in words]
        made += [f"an image of {words[0]}", f"{words[0]} seen from above"]
        if season := season_of(row.get("lat"), row.get("date")):
            made += [f"{kind} of {words[0]} in {season}"]
        if (row.get("cloud") or 0) >= CLOUDY:
            made += [f"{kind} of {words[0]} and clouds", f"{words[0]} under scattered clouds"]
    if where and words:
        made += [f"{kind} of {words[0]} in {where}"] * 2
    if (
        name in OWN and row.get("caption") and "labels" not in row
    ):  # BigEarthNet's captions are lists of classes
        made += [row["caption"]] * 4
    return made


def place_words(name: str, country: str | None) -> str | None:
    """The words after "in", None where nothing is known."""
    return WHERE.get(name) or (COUNTRIES.get(country, country) if country else None)


def season_of(lat: float | None, date: str | None) -> str | None:
    """Season of a date ("2021-06" or longer) at a latitude; None where unknown or in the tropics."""
    if lat is None or abs(lat) < SEASONAL or not date or len(date) < 7:
        return None
    quarter = int(date[5:7]) % 12 // 3
    return SEASONS[quarter if lat > 0 else (quarter + 2) % 4]


@cache
def country_names() -> Mapping[str, str]:
    """Country by ISO 3166 code, of three letters and of two: as it stands behind "in"."""
    names = {}
    for line in COUNTRY_CODES.read_text("utf-8").splitlines():
        three, two, name = line.split(" ", 2)
        names[three] = names[two] = name
    return names
