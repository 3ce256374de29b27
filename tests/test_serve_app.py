"""The server: titiler's calls, what it adds, and what it refuses."""

from __future__ import annotations

import asyncio
import io
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.io import MemoryFile
from rio_cogeo.cogeo import cog_validate
from starlette.testclient import TestClient

from terraloom.errors import InvalidInput
from terraloom.serve.app import create_app
from terraloom.serve.draws import Busy, Draws
from terraloom.serve.gate import Gate, Lanes
from terraloom.serve.metrics import Metrics
from terraloom.serve.settings import Limits, Settings, parse_seeds
from terraloom.world import World

TILES = "/tiles/WebMercatorQuad"
SETTINGS = {"engine": "torch", "block": 256, "halo": 96, "prefetch": False}


def settings_of(checkpoint: Path, base: Path, **others: Any) -> Settings:
    return Settings(
        model=checkpoint,
        worlds={"earth": base, "other": None},
        seeds=parse_seeds("0-99,500"),
        text_model="no-such-model",
        **{**SETTINGS, **others},
    )


@pytest.fixture(scope="module")
def settings(tiny_checkpoint: Path, tiny_base: Path) -> Settings:
    return settings_of(tiny_checkpoint, tiny_base)


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture(scope="module")
def world(settings: Settings) -> World:
    return World(
        0, model=settings.model, base=settings.worlds["earth"], engine="torch", block=256, halo=96
    )


def pixels_of(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).transpose(2, 0, 1)


def metric(client: TestClient, name: str) -> float:
    found = re.findall(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.M)
    return float(found[0]) if found else 0.0


# ------------------------------------------------------------------ titiler's documented calls


def test_tile(client: TestClient, world: World) -> None:
    answer = client.get(f"{TILES}/9/293/211.png")
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    assert np.array_equal(pixels_of(answer.content), world.tile(9, 293, 211))
    assert answer.headers["content-crs"].endswith("/EPSG/0/3857>")
    for kind in ("jpg", "webp", "tif", "npy", "jp2"):
        assert client.get(f"{TILES}/9/293/211.{kind}").status_code == 200
    assert client.get(f"{TILES}/9/293/211").headers["content-type"] == "image/jpeg"
    assert pixels_of(client.get(f"{TILES}/8/146/105.png?tilesize=512").content).shape[1:] == (
        512,
        512,
    )


def test_options_of_titiler(client: TestClient) -> None:
    plain = pixels_of(client.get(f"{TILES}/6/36/26.png").content)
    grey = client.get(f"{TILES}/6/36/26.png?bidx=1")
    assert np.array_equal(pixels_of(grey.content)[0], plain[0])
    for options in (
        "bidx=3&bidx=2&bidx=1",
        "rescale=0,128",
        "expression=b1/b2&rescale=0,2",
        "color_formula=gamma rgb 1.5",
        "return_mask=false",
        "buffer=1",
        "nodata=0&resampling=nearest&unscale=true",  # mean nothing here, and do no harm
    ):
        assert client.get(f"{TILES}/6/36/26.png?{options}").status_code == 200, options


def test_tilejson_leads_to_tiles(client: TestClient) -> None:
    found = client.get("/WebMercatorQuad/tilejson.json?tile_format=png&seed=5").json()
    assert (found["minzoom"], found["maxzoom"]) == (0, 18)
    assert "Synthetic" in found["attribution"] and "seed=5" in found["tiles"][0]
    for z, x, y in ((6, 36, 26), (0, 0, 0)):
        url = found["tiles"][0].format(z=z, x=x, y=y)
        if z:
            assert client.get(url).status_code == 200
    assert [round(v) for v in found["bounds"]] == [-180, -85, 180, 85]


def test_the_rest_of_titiler(client: TestClient) -> None:
    assert client.get("/info").json()["synthetic"] is True
    assert client.get("/info.geojson").json()["properties"]["dtype"] == "uint8"
    assert client.get("/tiles").json()["tilesets"]
    assert client.get("/tiles/WebMercatorQuad").json()["dataType"] == "map"
    point = client.get("/point/31,30").json()
    assert len(point["values"]) == 3 and point["coordinates"] == [31, 30]
    box = client.get("/bbox/30,28,31,29/60x50.tif")
    with MemoryFile(box.content) as file, file.open() as source:
        assert (source.width, source.height, source.crs.to_epsg()) == (60, 50, 4326)
        assert np.allclose(source.bounds, (30, 28, 31, 29))
    assert client.get("/bbox/30,28,31,29.png?max_size=64&dst_crs=EPSG:3857").status_code == 200
    shape = {"type": "Polygon", "coordinates": [[[30, 28], [31, 28], [30.5, 29], [30, 28]]]}
    feature = {"type": "Feature", "properties": {}, "geometry": shape}
    cut = client.post("/feature.png?max_size=40", json=feature)
    assert cut.status_code == 200 and Image.open(io.BytesIO(cut.content)).mode == "RGBA"
    counted = client.post("/statistics?max_size=40", json=feature).json()
    assert counted["properties"]["statistics"]["b1"]["valid_percent"] > 10


# ------------------------------------------------------------------ what titiler lacks


def test_health_spec_and_places(client: TestClient, world: World) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    spec = client.get("/spec").json()
    assert spec["id"] == world.id and spec["seeds"] == [[0, 99], [500, 500]]
    assert spec["worlds"] == ["earth", "other"] and "no-such-model" in spec["text_model"]
    places = client.get("/places.json")
    assert places.headers["content-encoding"] == "gzip" and len(places.json()) == 7343
    assert ["Tokyo", "Japan"] == places.json()[0][:2]


def test_worlds_and_seeds_are_on_a_list(client: TestClient) -> None:
    tiles = {client.get(f"{TILES}/8/146/105.png{q}").content for q in ("", "?seed=1", "?seed=2")}
    assert len(tiles) == 3
    base = [client.get(f"{TILES}/6/36/26.png?world={w}").content for w in ("earth", "other")]
    assert base[0] != base[1]
    for bad in ("seed=100", "world=mars", "world=../../etc/passwd"):
        answer = client.get(f"{TILES}/6/36/26.png?{bad}")
        assert answer.status_code == 400 and bad.split("=")[1][:10] in answer.json()["detail"]
    for bad in ("seed=-1", "seed=1.5", "seed=nan", "seed=99999999999999999999", "seed="):
        assert client.get(f"{TILES}/6/36/26.png?{bad}").status_code == 422, bad


def test_etag(client: TestClient) -> None:
    first = client.get(f"{TILES}/6/37/26.png")
    tag = first.headers["etag"]
    assert "max-age" in first.headers["cache-control"]
    for given in (tag, f"W/{tag}", f'"other", {tag}'):
        again = client.get(f"{TILES}/6/37/26.png", headers={"If-None-Match": given})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    tags = {
        client.get(f"{TILES}/6/37/26.{end}").headers["etag"]
        for end in ("png", "jpg", "png?seed=1", "png?world=other", "png?bidx=1")
    }
    assert len(tags) == 5 and tag in tags
    head = client.head(f"{TILES}/6/37/26.png")
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", tag)
    missing = client.get(f"{TILES}/19/0/0.png", headers={"If-None-Match": "*"})
    assert missing.status_code == 404 and "etag" not in missing.headers


def test_gzip_where_it_pays_and_cors(client: TestClient) -> None:
    assert "content-encoding" not in client.get(f"{TILES}/6/36/26.png").headers
    assert client.get("/leaflet/leaflet.js").headers["content-encoding"] == "gzip"
    answer = client.get(f"{TILES}/6/36/26.png", headers={"Origin": "https://example.org"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "ETag" in answer.headers["access-control-expose-headers"]


def test_cog_of_a_box(client: TestClient, world: World, tmp_path: Path) -> None:
    answer = client.get("/cog.tif?bbox=30,28,30.5,28.4&gsd=600")
    assert "synthetic-0-" in answer.headers["content-disposition"]
    path = tmp_path / "box.tif"
    path.write_bytes(answer.content)
    assert cog_validate(path)[0]
    expected = world.read((30, 28, 30.5, 28.4), 600)
    with rasterio.open(path) as file:
        assert np.array_equal(file.read(), expected.data)
        assert file.tags()["SYNTHETIC"] == "true" and file.transform == expected.transform
    large = client.get("/cog.tif?bbox=0,0,90,80&gsd=1")
    assert large.status_code == 413 and "megapixels" in large.json()["detail"]
    for bad in ("bbox=1,2,3&gsd=5", "bbox=a,b,c,d&gsd=5", "bbox=0,0,1,89&gsd=500"):
        assert client.get(f"/cog.tif?{bad}").status_code == 400
    for bad in ("bbox=0,0,1,1&gsd=nan", "bbox=0,0,1,1&gsd=0", "bbox=0,0,1,1"):
        assert client.get(f"/cog.tif?{bad}").status_code == 422


def test_generate_says_what_it_lacks(client: TestClient) -> None:
    wish = {"prompt": "a river", "lon": 4.9, "lat": 52.4, "gsd": 10}
    answer = client.post("/generate", json=wish)
    assert answer.status_code == 503 and "no text model" in answer.json()["detail"]
    for bad in ({"prompt": ""}, {"lat": 91}, {"date": "soon"}, {"seed": -1}, {"size": 100}):
        assert client.post("/generate", json={**wish, **bad}).status_code == 422, bad


@pytest.mark.weights
def test_generate_with_the_shipped_model(settings: Settings) -> None:
    pytest.importorskip("diffusers")
    app = create_app(replace(settings, text_model="terraloom/small"))
    wish = {"prompt": "a river", "lon": 4.9, "lat": 52.4, "gsd": 10, "size": 64, "steps": 2}
    with TestClient(app) as client:
        missing = client.get("/spec").json()["text_model"]
        if missing is not True:
            pytest.skip(missing)
        answers = [client.post("/generate?format=tif", json={**wish, "seed": s}) for s in (1, 1, 2)]
        assert client.post("/generate", json={**wish, "prompt": "  "}).status_code == 400
    assert answers[0].content == answers[1].content != answers[2].content
    west, south, east, north = map(float, answers[0].headers["content-bbox"].split(","))
    assert west < 4.9 < east and south < 52.4 < north
    with MemoryFile(answers[0].content) as file, file.open() as source:
        tags = source.tags()
        assert (source.width, source.height, source.crs.to_epsg()) == (64, 64, 3857)
    assert tags["TERRALOOM_SYNTHETIC"] == "YES" and tags["TERRALOOM_PROMPT"] == "a river"


def test_metrics(client: TestClient) -> None:
    assert client.get(f"{TILES}/8/155/107.png").status_code == 200  # of drawn blocks
    text = client.get("/metrics").text
    for name in ("terraloom_requests_total", "terraloom_blocks_drawn_total", "terraloom_queue"):
        assert f"\n{name}" in text
    before = metric(client, 'terraloom_answers_total{source="kept"}')
    for _ in range(3):
        client.get(f"{TILES}/6/38/26.png")
    assert metric(client, 'terraloom_answers_total{source="kept"}') == before + 2


def test_page_asks_nobody_else(client: TestClient) -> None:
    page = client.get("/")
    assert (
        page.status_code == 200 and "default-src 'self'" in page.headers["content-security-policy"]
    )
    texts = [page.text]
    for name in re.findall(r'(?:src|href)="((?:page|leaflet)/[^"#]+)', page.text):
        answer = client.get(f"/{name}")
        assert answer.status_code == 200, name
        if name.startswith("page/") and not name.endswith(".svg"):
            texts.append(answer.text)
    for text in texts:
        assert "://" not in text.replace("http://www.w3.org", ""), "an address of somewhere else"
    assert client.get("/page/../app.py").status_code == 404
    assert client.get("/page/%2e%2e/app.py").status_code == 404


# ------------------------------------------------------------------ limits


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{TILES}/40/0/0.png", 404),
        (f"{TILES}/3/-1/0.png", 404),
        (f"{TILES}/3/8/0.png", 404),
        (f"{TILES}/99999999999999999999/0/0.png", 404),
        (f"{TILES}/nan/0/0.png", 422),
        (f"{TILES}/3/0/0.exe", 422),
        (f"{TILES}/3/0/0.png?tilesize=99999", 400),
        ("/tiles/WorldCRS84Quad/3/0/0.png", 422),
        ("/bbox/0,0,nan,1.png", 400),
        ("/bbox/0,0,1,inf.png", 400),
        ("/bbox/10,0,0,1/99999x99999.png", 413),
        ("/bbox/0,0,1,1.png?coord_crs=/etc/passwd", 422),
        ("/bbox/0,0,1,1.png?dst_crs=http://127.0.0.1/x", 422),
        ("/bbox/0,0,1,1.png?dst_crs=EPSG:99999999", 422),
        ("/preview.png?max_size=-5", 400),
        ("/preview.png?expression=import%20os", 400),
        ("/point/0,99", 404),
        ("/statistics?max_size=32&histogram_bins=999999999", 422),
        ("/statistics?max_size=32&p=101", 422),
        ("/tiles/WebMercatorQuad?maxzoom=180", 400),
        ("/WMTSCapabilities.xml?zooms=*::0,999999999", 400),
        ("/no/such/thing", 404),
    ],
)
def test_refusals_are_one_sentence(client: TestClient, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert isinstance(detail, str) and "Traceback" not in detail and len(detail) < 500


def test_bodies_have_a_limit(client: TestClient) -> None:
    large = b'{"prompt": "' + b"a" * 10_000_000 + b'"}'
    for path in ("/generate", "/feature.png", "/statistics"):
        assert client.post(path, content=large).status_code == 413
    assert client.post("/generate", content=b"\xff\xfe{").status_code == 422


def test_settings_refuse_nonsense() -> None:
    with pytest.raises(InvalidInput, match=r"\.\./x"):
        Settings(worlds={"../x": None})
    for bad in ("", "a", "5-3", "1--2", "-1", "99999999999999999999"):
        with pytest.raises(InvalidInput):
            parse_seeds(bad)


# ------------------------------------------------------------------ queue, single flight, cancelling


class SlowWorld:
    """A world whose blocks take until they are let go."""

    id = "slow"

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.go = threading.Event()
        self.started = threading.Event()

    def prepare(self, key: Any) -> None:
        self.started.set()
        assert self.go.wait(10)
        self.made.append(key)


async def until(condition: Any) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came")


def with_draws(limit: int, play: Any) -> None:
    async def main() -> None:
        draws = Draws(limit, False, Metrics())
        work = asyncio.create_task(draws.run())
        try:
            await play(draws)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    asyncio.run(main())


def test_one_block_is_drawn_once_for_all_who_wait() -> None:
    world = SlowWorld()

    async def play(draws: Draws) -> None:
        tasks = [asyncio.create_task(draws.make(world, (8, 1, 1))) for _ in range(20)]
        await until(world.started.is_set)
        world.go.set()
        await asyncio.gather(*tasks)
        assert world.made == [(8, 1, 1)]

    with_draws(4, play)


def test_who_goes_away_frees_the_place_and_a_full_queue_says_so() -> None:
    world = SlowWorld()

    async def play(draws: Draws) -> None:
        first = asyncio.create_task(draws.make(world, (8, 0, 0)))
        await until(world.started.is_set)
        waiting = [asyncio.create_task(draws.make(world, (8, n, 0))) for n in (1, 2)]
        await asyncio.sleep(0.02)
        with pytest.raises(Busy, match="2 blocks"):
            await draws.make(world, (8, 3, 0))
        waiting[0].cancel()
        await asyncio.sleep(0.02)
        late = asyncio.create_task(draws.make(world, (8, 4, 0)))
        await asyncio.sleep(0.02)
        world.go.set()
        await asyncio.gather(first, waiting[1], late)
        assert world.made == [(8, 0, 0), (8, 2, 0), (8, 4, 0)]

    with_draws(2, play)


def gate_of(app: Any, limits: Limits, world: Any = None) -> Gate:
    lanes = Lanes(limits, False, Metrics())
    return Gate(app, lambda *_: world or SlowWorld(), lambda: lanes, limits, Metrics())


async def ask(gate: Gate, path: str, gone: asyncio.Event | None = None) -> tuple[int, bytes]:
    sent: list[Any] = []

    async def receive() -> Any:
        await (gone or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    await gate(scope, receive, send)
    return (sent[0]["status"], sent[1]["body"]) if sent else (0, b"")


class SlowApp:
    """An application that answers when it is let go."""

    def __init__(self) -> None:
        self.calls, self.ended = 0, 0
        self.go = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        try:
            await self.go.wait()
        finally:
            self.ended += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})


def test_equal_requests_are_answered_by_one() -> None:
    async def main() -> None:
        app = SlowApp()
        gate = gate_of(app, Limits())
        tasks = [asyncio.create_task(ask(gate, "/preview.png")) for _ in range(10)]
        await until(lambda: app.calls)
        app.go.set()
        assert set(await asyncio.gather(*tasks)) == {(200, b"/preview.png")}
        assert app.calls == 1
        assert await ask(gate, "/preview.png") == (200, b"/preview.png") and app.calls == 1

    asyncio.run(main())


def test_a_client_that_goes_away_frees_its_thread_and_one_that_stays_is_served() -> None:
    async def main() -> None:
        app = SlowApp()
        gate = gate_of(app, Limits(queue=1))
        gone = asyncio.Event()
        leaving = [asyncio.create_task(ask(gate, f"/preview/{n}", gone)) for n in (1, 2)]
        await until(lambda: app.calls == 2)
        staying = asyncio.create_task(ask(gate, "/preview/3"))  # the one that may wait
        await asyncio.sleep(0.02)
        assert (await ask(gate, "/preview/4"))[0] == 503
        gone.set()
        assert await asyncio.gather(*leaving) == [(0, b""), (0, b"")]
        await until(lambda: app.calls == 3 and app.ended == 2)
        app.go.set()
        assert await staying == (200, b"/preview/3")

    asyncio.run(main())


def test_what_takes_too_long_is_given_up() -> None:
    async def main() -> None:
        app = SlowApp()
        gate = gate_of(app, Limits(seconds=0.05))
        status, body = await ask(gate, "/preview.png")
        assert status == 504 and "0.05 s" in json.loads(body)["detail"]
        await until(lambda: app.ended == 1)

    asyncio.run(main())


def test_an_error_is_one_sentence_and_a_log_entry(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings)

    def broken(*_: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(World, "level", broken)
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.get("/bbox/30,28,31,29.png?max_size=33")
    assert answer.status_code == 500 and "secret" not in answer.text
    assert "its log says what" in answer.json()["detail"]
    assert "secret" in caplog.text


def test_neighbours_are_drawn_when_idle(tiny_checkpoint: Path, tiny_base: Path) -> None:
    app = create_app(settings_of(tiny_checkpoint, tiny_base, prefetch=True))
    with TestClient(app) as client:
        client.get(f"{TILES}/8/20/40.png")
        for _ in range(200):
            if metric(client, "terraloom_prefetched_total") >= 8:
                break
            threading.Event().wait(0.05)
        drawn = metric(client, "terraloom_blocks_drawn_total")
        client.get(f"{TILES}/8/21/40.png")
        assert metric(client, "terraloom_blocks_drawn_total") in (drawn, drawn + 1)
        assert metric(client, "terraloom_prefetched_total") >= 8
