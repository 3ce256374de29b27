"""`terraloom serve`: what it passes on and what it refuses; places that the page searches."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from terraloom.cli import app
from terraloom.commands import serve as command
from terraloom.data import places
from terraloom.errors import InvalidInput
from terraloom.serve.settings import Settings

DATA = Path(os.environ.get("TERRALOOM_DATA", Path(__file__).parents[2] / "shared" / "data"))


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["serve", *arguments])


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    monkeypatch.setattr(command, "run", lambda *given: calls.append(given))
    return calls


def test_listens_at_home_unless_told_otherwise(started: list[Any]) -> None:
    assert run().exit_code == 0
    settings, host, port = started[0]
    assert (host, port) == ("127.0.0.1", 8000)
    assert settings == Settings()


def test_options_reach_the_settings(started: list[Any]) -> None:
    done = run(
        *"--port 9 --seeds 1,5-6 --world mars=mars.tif --cors https://a.org,https://b.org".split(),
        *"--no-prefetch --block 512".split(),
    )
    assert done.exit_code == 0, done.output
    settings, _, port = started[0]
    assert port == 9 and settings.worlds == {"earth": None, "mars": Path("mars.tif")}
    assert [settings.allows(seed) for seed in (0, 1, 5, 6, 7)] == [False, True, True, True, False]
    assert settings.origins == ("https://a.org", "https://b.org")
    assert not settings.prefetch and settings.block == 512


@pytest.mark.parametrize(
    ("option", "said"),
    [("--seeds 5-3", "5-3"), ("--world mars", "NAME=TIF"), ("--world ../x=y.tif", "good name")],
)
def test_bad_options_are_one_sentence(started: list[Any], option: str, said: str) -> None:
    done = run(*option.split())
    assert done.exit_code == 2 and not started
    assert said in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_missing_extra_is_named(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    done = run()
    assert done.exit_code == 2 and "pip install 'terraloom[serve]'" in done.stderr


def test_places_are_packed_as_their_source_says(tmp_path: Path) -> None:
    if not (DATA / "aux" / "natural_earth").is_dir():
        pytest.skip(f"no Natural Earth in {DATA}")
    places.build(DATA, tmp_path / "places.json.gz")
    assert (tmp_path / "places.json.gz").read_bytes() == places.SHIPPED.read_bytes()


def test_places_lie_on_earth_and_the_largest_come_first() -> None:
    rows = json.loads(places.packed())
    assert len(rows) == 7343 and all(
        abs(lon) <= 180 and abs(lat) <= 90 for _, _, lon, lat, _ in rows
    )
    sizes = [row[4] for row in rows]
    assert sizes == sorted(sizes, reverse=True)


def test_places_need_their_source(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="natural_earth"):
        places.build(tmp_path, tmp_path / "x.gz")
