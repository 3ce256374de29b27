"""Servers that are killed in the middle, and two on one cache folder: whole tiles, and the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from serving import spawned

TILES = [
    f"/tiles/WebMercatorQuad/14/{9600 + 4 * i}/{6760 + 4 * j}.png"
    for i in range(3)
    for j in range(3)
]

Start = Callable[[Path], tuple[subprocess.Popen[bytes], str]]


@pytest.fixture
def start(tiny_checkpoint: Path, tiny_base: Path) -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda cache: stack.enter_context(spawned(tiny_checkpoint, tiny_base, cache))


def fetch(address: str, path: str) -> bytes | None:
    try:
        answer = requests.get(address + path, timeout=60)
    except requests.RequestException:
        return None
    assert answer.status_code == 200
    return answer.content


@pytest.mark.slow
def test_killed_in_mid_render_then_two_on_one_folder(start: Start, tmp_path: Path) -> None:
    _, address = start(tmp_path / "reference")
    expected = [fetch(address, path) for path in TILES]
    shared = tmp_path / "shared"
    for wait in (0.1, 0.6):  # killed at different moments
        server, address = start(shared)
        with ThreadPoolExecutor(9) as pool:
            waiting = [pool.submit(fetch, address, path) for path in TILES]
            time.sleep(wait)
            os.kill(server.pid, signal.SIGKILL)
            got = [future.result() for future in waiting]
        assert all(tile in (None, right) for tile, right in zip(got, expected, strict=True))
    addresses = [start(shared)[1] for _ in range(2)]  # after the crashes, at the same time
    with ThreadPoolExecutor(18) as pool:
        for address in addresses:
            assert list(pool.map(lambda path: fetch(address, path), TILES)) == expected  # noqa: B023


def test_a_server_that_is_told_to_stop_finishes_what_it_began(start: Start, tmp_path: Path) -> None:
    server, address = start(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(fetch, address, TILES[0])
        time.sleep(0.3)
        server.send_signal(signal.SIGTERM)
        assert waiting.result() is not None
    assert server.wait(30) in (0, -signal.SIGTERM)
    assert not list(tmp_path.rglob("*.part"))
