"""WebDataset shards in DiffusionSat's layout (its data_util; Khanna et al. 2024, section 3) and in the plain one.

A shard is a tar; members whose names agree up to the first dot of the base name are one sample, and stand together:

    fMoW      input.npy or rgb.npy, output.cls (number of the class) or category.txt, metadata.json
    Satlas    rgb.npy (times, h, w, 3), info.json; the tile is in the key: satlas_X_Y
    SpaceNet  rgb.npy, metadata.json (GeoJSON of buildings or roads); the city is the fourth word of the key
    plain     one of jpg, jpeg, png, webp, tif and a json like a line of metadata.jsonl and/or a txt with the caption

Arrays are read without pickles, and pickled members (Satlas's targets.pyd) are never opened: a pickle runs the code of
whoever made it. So what Satlas counts there is missing in its captions. Positions are those of the tiles and outlines;
DiffusionSat's own reader divides tile numbers by the resolution, and says 0 where something is unknown.
"""

from __future__ import annotations

import io
import json
import math
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from terraloom.data.captions import country_names
from terraloom.data.lists import naming
from terraloom.errors import InvalidInput
from terraloom.metadata import Metadata
from terraloom.training.pictures import Example, example_of, read_picture, rgb_of

Sample = dict[str, bytes]
PLAIN = ("jpg", "jpeg", "png", "webp", "tif", "tiff")
READ = (*PLAIN, "npy", "cls", "txt", "json")  # endings; nothing else is opened
SATLAS_ZOOM = 17  # of the tiles that name its high-resolution samples
SATLAS_GSD = 1.0
DEGREE = 111_319.49  # metres
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
NUMBER = re.compile(r"-?\d+\.?\d*(?:[eE][-+]?\d+)?")
KIND = "a satellite image"
CITIES = {  # SpaceNet: gsd, date, and a point of the city where the labels give none
    "Vegas": (0.3, "2015-10-22", -115.176, 36.188),
    "Paris": (0.3, "2016-02-29", 2.349, 48.865),
    "Shanghai": (0.3, "2015-06-06", 121.469, 31.224),
    "Khartoum": (0.3, "2015-04-13", 32.523, 15.509),
    "Moscow": (0.3, "2018-02-13", 37.618, 55.751),
    "Mumbai": (0.3, "2018-01-06", 72.877, 19.076),
    "Rio": (0.5, None, -43.196, -22.908),
    "Rotterdam": (0.5, "2019-08-31", 4.462, 51.927),
}
FMOW = (  # Functional Map of the World (Christie et al. 2018): its classes in the order of their numbers
    "airport airport_hangar airport_terminal amusement_park aquaculture archaeological_site barn border_checkpoint "
    "burial_site car_dealership construction_site crop_field dam debris_or_rubble educational_institution "
    "electric_substation factory_or_powerplant fire_station flooded_road fountain gas_station golf_course "
    "ground_transportation_station helipad hospital impoverished_settlement interchange lake_or_pond lighthouse "
    "military_facility multi-unit_residential nuclear_powerplant office_building oil_or_gas_facility park "
    "parking_lot_or_garage place_of_worship police_station port prison race_track railway_bridge recreational_facility "
    "road_bridge runway shipyard shopping_mall single-unit_residential smokestack solar_farm space_facility stadium "
    "storage_tank surface_mine swimming_pool toll_booth tower tunnel_opening waste_disposal water_treatment_facility "
    "wind_farm zoo"
).split()


def read_shards(paths: list[Path]) -> Iterator[Example]:
    """Every sample of the shards, in order.

    Raises:
        InvalidInput: a file that is no tar, or a sample that cannot be read; the message names it.
    """
    for path in paths:
        for key, sample in _samples(path):
            with naming(f"{path}, sample {key}"):
                try:
                    example = _example(key, sample)
                except (KeyError, TypeError, IndexError, AttributeError) as error:
                    raise InvalidInput(f"its JSON is not as expected: {error!r}") from error
            yield example


def _samples(path: Path) -> Iterator[tuple[str, Sample]]:
    """Keys with the fields that may be opened."""
    try:
        with tarfile.open(path) as tar:
            key, sample = "", Sample()
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                stem, _, field = name.partition(".")
                if not member.isfile() or not stem:
                    continue
                if (its := f"{folder}/{stem}" if folder else stem) != key and sample:
                    yield key, sample
                    sample = {}
                key = its
                if field.rpartition(".")[2].lower() in READ:
                    file = tar.extractfile(member)
                    assert file is not None
                    sample[field.lower()] = file.read()
            if sample:
                yield key, sample
    except (OSError, EOFError, tarfile.TarError) as error:
        raise InvalidInput(f"cannot read shard {path}: {error}") from error


def _example(key: str, sample: Sample) -> Example:
    name = key.rpartition("/")[2]
    if "info.json" in sample:
        return _satlas(name, sample)
    if "output.cls" in sample or "category.txt" in sample:
        return _fmow(sample)
    if "rgb.npy" in sample:
        return _spacenet(name, sample)
    picture = next((field for field in PLAIN if field in sample), None)
    if picture is None:
        raise InvalidInput(
            f"has {sorted(sample)}; wanted an image and json or txt, or DiffusionSat's fields"
        )
    row = _json(sample, "json") if "json" in sample else {}
    if "txt" in sample:
        row = {**row, "text": _text(sample, "txt")}
    return example_of(row, read_picture(io.BytesIO(sample[picture])), Metadata())


def _fmow(sample: Sample) -> Example:
    told = _json(sample, "metadata.json")
    if "category.txt" in sample:
        label = _text(sample, "category.txt")
    else:
        number = _text(sample, "output.cls")
        if not number.isdigit() or int(number) >= len(FMOW):
            raise InvalidInput(f"output.cls is {number!r}, must be 0 to {len(FMOW) - 1}")
        label = FMOW[int(number)]
    words = label.replace("_", " ")
    one = f"{'an' if words[0] in 'aeio' else 'a'} {words}"
    where = country_names().get(told.get("country_code") or "")
    captions = [KIND, words, f"{KIND} of {one}"]
    if where:
        captions += [f"{KIND} of {one} in {where}"] * 4
    numbers = [float(v) for v in NUMBER.findall(str(told.get("raw_location") or ""))]
    lon, lat = _middle(list(zip(numbers[::2], numbers[1::2], strict=False))) or (None, None)
    cloud = told.get("cloud_cover")
    metadata = Metadata(
        lon=lon,
        lat=lat,
        gsd=told.get("gsd"),
        cloud_cover=None if cloud is None else cloud / 100,
        date=_day(told.get("timestamp")),
    )
    return Example(rgb_of(_array(sample, "input.npy", "rgb.npy")), captions, metadata, label)


def _satlas(name: str, sample: Sample) -> Example:
    names = [str(v) for v in _json(sample, "info.json").get("image_names") or []]
    frames = _array(sample, "rgb.npy")
    frame = next((i for i, v in enumerate(names) if "anchor" in v), len(names) - 1)
    if frames.ndim != 4 or not 0 <= frame < len(frames):
        raise InvalidInput(f"rgb.npy has shape {frames.shape} for {len(names)} image_names")
    lon = lat = None
    if tile := re.match(r"satlas_(\d+)_(\d+)", name):
        x, y = ((int(v) + 0.5) / 2**SATLAS_ZOOM for v in tile.groups())
        if not (x < 1 and y < 1):
            raise InvalidInput(f"there is no tile {tile[1]}, {tile[2]} at zoom {SATLAS_ZOOM}")
        lon = 360 * x - 180
        lat = math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * y))))
    captions = [_text(sample, "txt")] if "txt" in sample else [KIND]
    metadata = Metadata(lon, lat, SATLAS_GSD, date=_day(names[frame]))
    return Example(rgb_of(frames[frame]), captions, metadata)


def _spacenet(name: str, sample: Sample) -> Example:
    parts = name.split("_")
    if len(parts) < 4:
        raise InvalidInput("is no fMoW, Satlas or SpaceNet sample: no city in its key")
    city = parts[3].title()
    gsd, date, *default = CITIES.get(city, (None, None, None, None))
    features = _json(sample, "metadata.json").get("features") or []
    shapes = [_rings(f["geometry"]) for f in features]
    points = [p for rings in shapes for ring in rings for p in ring]
    degrees = all(abs(x) <= 180 and abs(y) <= 90 for x, y in points)  # Rotterdam's are metres
    lon, lat = (_middle(points) if degrees else None) or default
    captions = [KIND, f"{KIND} in {city}"]
    if "metadata.json" in sample and "features" in _json(sample, "metadata.json"):
        scale = DEGREE if degrees else 1.0
        squeeze = math.cos(math.radians(lat)) if degrees and lat is not None else 1.0
        metres = [
            [[(x * scale * squeeze, y * scale) for x, y in r] for r in rings] for rings in shapes
        ]
        polygons = bool(features) and "Polygon" in features[0]["geometry"]["type"]
        words = _buildings(metres) if polygons else _roads(metres)
        captions += [f"{KIND} of {words}", f"{KIND} of {words} in {city}"]
    return Example(rgb_of(_array(sample, "rgb.npy")), captions, Metadata(lon, lat, gsd, date=date))


Ring = list[tuple[float, float]]


def _rings(geometry: dict[str, Any]) -> list[Ring]:
    """All lines or outlines of a GeoJSON geometry."""

    def walk(part: Any) -> Iterator[Ring]:
        if part and isinstance(part[0][0], (int, float)):
            yield [(float(p[0]), float(p[1])) for p in part]
        else:
            for inner in part:
                yield from walk(inner)

    return list(walk(geometry.get("coordinates") or []))


def _buildings(shapes: list[list[Ring]]) -> str:
    area = sum(abs(_area(rings[0])) for rings in shapes if rings)
    return f"{len(shapes)} buildings covering {area:.0f} square metres"


def _area(ring: Ring) -> float:
    closed = [*ring, ring[0]]
    pairs = zip(closed, closed[1:], strict=False)
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs) / 2


def _roads(shapes: list[list[Ring]]) -> str:
    length = sum(
        math.dist(a, b) for rings in shapes for r in rings for a, b in zip(r, r[1:], strict=False)
    )
    return f"{length:.0f} metres of roads" if length else "no roads"


def _middle(points: Ring) -> tuple[float, float] | None:
    """Of the box around points."""
    if not points:
        return None
    xs, ys = zip(*points, strict=True)
    return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2


def _day(text: Any) -> str | None:
    found = DATE.search(str(text or ""))
    return found[0] if found else None


def _text(sample: Sample, field: str) -> str:
    return sample[field].decode("utf-8", "replace").strip()


def _json(sample: Sample, field: str) -> dict[str, Any]:
    try:
        found = json.loads(sample.get(field, b"{}"))
    except ValueError as error:
        raise InvalidInput(f"{field} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidInput(f"{field} holds no JSON object")
    return found


def _array(sample: Sample, *fields: str) -> npt.NDArray[Any]:
    field = next((f for f in fields if f in sample), None)
    if field is None:
        raise InvalidInput(f"has no {' or '.join(fields)}")
    try:
        array: npt.NDArray[Any] = np.load(io.BytesIO(sample[field]), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InvalidInput(f"cannot read {field} without running code in it: {error}") from error
    return array
