"""Requests that nobody planned: from the OpenAPI document and by hand. TERRALOOM_FUZZ=5000 makes that many."""

from __future__ import annotations

import os
import random
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from serving import live

from terraloom.serve.app import create_app
from terraloom.serve.settings import Limits, Settings

pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # what libraries warn of is no error of the server
REQUESTS = int(os.environ.get("TERRALOOM_FUZZ", "300"))

WORDS = (
    "nan inf -inf -1 0 1 1e999 40 18 19 99999999999999999999 ../../etc/passwd %2e%2e%2f%00 null '\"<script> "
    "EPSG:4326 EPSG:0 http://127.0.0.1:1/x file:///etc/passwd /vsicurl/http://127.0.0.1:1/ WebMercatorQuad png exe "
    "180,85,-180,-85 -180,-90,180,90 170,0,-170,1 0,0,0,0 1,2,3 true [] {} 0x10 1_000 ١٢ \U0001f600 0.5 b1/0 b9 "
    "b1**b1**b1**9 open('x') ;;;; 5,5 0,nan 3,2,1 2021-13-99 2020"
).split()
NAMES = (
    "seed world tilesize buffer bidx expression rescale color_formula return_mask coord_crs dst_crs crs max_size width "
    "height p c histogram_bins histogram_range categorical cover_scale bbox gsd format tile_format minzoom maxzoom "
    "zooms f use_epsg url"
).split()
PATHS = (
    "/tiles/{}/{}/{}/{}",
    "/tiles/WebMercatorQuad/{}/{}/{}.{}",
    "/tiles/WebMercatorQuad/4/{}/{}.png",
    "/bbox/{},{},{},{}.png",
    "/bbox/0,0,1,1/{}x{}.{}",
    "/preview/{}x{}.png",
    "/preview.{}",
    "/point/{},{}",
    "/{}/tilejson.json",
    "/cog.tif",
    "/info",
    "/info.geojson",
    "/statistics",
    "/tiles",
    "/WMTSCapabilities.xml",
    "/spec",
    "/{}",
    "/page/{}",
    "/leaflet/{}",
    "/page/../{}",
)


@pytest.fixture(scope="module")
def address(tiny_checkpoint: Path) -> Iterator[tuple[str, Any]]:
    app = create_app(
        Settings(
            model=tiny_checkpoint,
            engine="torch",
            block=512,
            halo=96,
            prefetch=False,
            text_model="no-such-model",
            limits=Limits(pixels=128 * 128, seconds=60),
        )
    )
    with live(app) as address:
        yield address, app


class Written:
    """Files that Python opens for writing while this is watching; an audit hook cannot be taken away again."""

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self.watching = True
        sys.addaudithook(self.note)

    def note(self, event: str, details: tuple[Any, ...]) -> None:
        if self.watching and event == "open" and isinstance(details[0], str):
            if isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR):
                self.paths.add(details[0])


def check(answer: Any) -> None:
    """No 5xx, except that there is no text model here; no traceback; mistakes are said in one sentence."""
    text = answer.content.decode("utf-8", "replace") if answer.status_code >= 400 else ""
    url = answer.request.url
    assert "Traceback" not in text and "site-packages" not in text, url
    if answer.status_code == 503:
        assert "no text model" in text and "/generate" in url
    else:
        assert answer.status_code < 500, f"{answer.request.method} {url}: {text[:300]}"


def alive(address: str) -> None:
    assert requests.get(f"{address}/healthz", timeout=10).json() == {"status": "ok"}


def test_by_the_openapi_document(address: tuple[str, Any]) -> None:
    base, app = address
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 20
    with requests.Session() as session:
        for operation in operations:

            @seed(8)
            @settings(
                max_examples=max(REQUESTS // 2 // len(operations), 1),
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy())
            def one(case: Any) -> None:
                try:
                    answer = case.call(base_url=base, session=session, timeout=90)
                except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL):
                    return  # the client itself refuses to send it
                check(answer)

            one()
    alive(base)


def test_by_hand(address: tuple[str, Any]) -> None:
    base, _ = address
    dice = random.Random(8)
    written = Written()
    with requests.Session() as session:
        for _ in range(REQUESTS // 2):
            path = dice.choice(PATHS)
            path = path.format(*(requests.utils.quote(dice.choice(WORDS)) for _ in range(4)))
            options = [
                (dice.choice(NAMES), dice.choice(WORDS)) for _ in range(dice.choice((0, 1, 2, 4)))
            ]
            prepared = requests.Request("GET", base + path, params=options).prepare()
            prepared.url = prepared.url.replace(f"{base}/page/%2E%2E", f"{base}/page/..")
            check(session.send(prepared, timeout=90))
        bodies = (
            b"",
            b"{",
            b"[]",
            b"null",
            b'{"type": "Feature"}',
            b"\xff" * 100,
            b"1" * 10_000_000,
        )
        for where in ("/feature.png", "/statistics", "/generate", "/tiles"):
            for body in bodies:
                check(session.post(base + where, data=body, timeout=90))
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
            check(session.request(method, f"{base}/tiles/WebMercatorQuad/0/0/0.png", timeout=90))
    alive(base)
    written.watching = False
    allowed = (os.environ["TERRALOOM_CACHE"], tempfile.gettempdir(), "/dev/null")
    assert [path for path in written.paths if not path.startswith(allowed)] == []


def test_nonsense_below_http(address: tuple[str, Any]) -> None:
    base, _ = address
    port = int(base.rsplit(":", 1)[1])
    for raw in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nshort",
        b"GET /info?seed=\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
            line.sendall(raw)
            line.shutdown(socket.SHUT_WR)
            line.settimeout(10)
            said = line.recv(4096)
            assert b" 500 " not in said.split(b"\r\n")[0]
    alive(base)
