"""Names to search for on the map: Natural Earth's populated places, packed into a small file.

The file is gzipped JSON, one row a place: name, country, longitude, latitude, largest population; largest first.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from terraloom.errors import InvalidInput

SHIPPED = Path(__file__).parent.parent / "assets" / "places.json.gz"
SOURCE = "natural_earth/10m_populated_places_simple.geojson.gz"

Place = tuple[str, str, float, float, int]


def build(data_dir: Path, path: Path = SHIPPED) -> None:
    """Pack the places of `data_dir/aux/natural_earth`; the same source gives the same bytes.

    Raises:
        InvalidInput: the source is missing.
    """
    source = data_dir / "aux" / SOURCE
    try:
        features = json.loads(gzip.decompress(source.read_bytes()))["features"]
    except OSError as error:
        raise InvalidInput(f"cannot read {source}: {error.strerror}") from error
    rows: list[Place] = []
    for feature in features:
        facts, (lon, lat) = feature["properties"], feature["geometry"]["coordinates"][:2]
        rows.append(
            (facts["name"], facts["adm0name"], round(lon, 4), round(lat, 4), int(facts["pop_max"]))
        )
    rows.sort(key=lambda row: (-row[4], row[:2]))
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def packed() -> bytes:
    """The shipped rows as JSON text, UTF-8."""
    return gzip.decompress(SHIPPED.read_bytes())
