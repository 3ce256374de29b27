"""The map in a real browser: Debian's Chromium, headless. Set TERRALOOM_SCREENSHOTS to a folder to keep pictures."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from serving import live

from terraloom.serve.app import create_app
from terraloom.serve.generate import Generator
from terraloom.serve.settings import Settings

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
SCREENSHOTS = os.environ.get("TERRALOOM_SCREENSHOTS")

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"no browser at {CHROMIUM}"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def address(tiny_checkpoint: Path, tiny_base: Path) -> Iterator[str]:
    """A server with the tiny network; where its text model would be, a stripe of colour."""

    def draw(self: Generator, wish: Any) -> tuple[np.ndarray, dict[str, str]]:
        if wish.prompt == "fail":
            raise MemoryError
        rgb = np.full((3, wish.size, wish.size), wish.seed % 256, np.uint8)
        return rgb, {"TERRALOOM_PROMPT": wish.prompt}

    settings = Settings(
        worlds={"earth": tiny_base},
        model=tiny_checkpoint,
        engine="torch",
        block=256,
        halo=96,
        prefetch=False,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Generator, "missing", None)
        patch.setattr(Generator, "_draw", draw)
        with live(create_app(settings)) as address:
            yield f"{address}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


Open = Callable[..., Any]


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Open]:
    """Opens the map; at the end nothing may have gone wrong in the console or left the host."""
    wrong: list[str] = []
    pages: list[Any] = []

    def visit(view: str = "z=9&lat=30&lon=31&seed=3", width: int = 1000, height: int = 700) -> Any:
        page = browser.new_page(viewport={"width": width, "height": height}, accept_downloads=True)
        page.set_default_timeout(30_000)
        page.on("console", lambda m: m.type in ("error", "warning") and wrong.append(m.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda r: r.url.startswith((address, "blob:", "data:")) or wrong.append(r.url),
        )
        page.goto(f"{address}#{view}", wait_until="commit")
        settle(page)
        pages.append(page)
        return page

    yield visit
    for page in pages:
        page.close()
    meant = ("status of 500", "ERR_FAILED")  # in the tests that provoke them
    assert not [text for text in wrong if not any(part in text for part in meant)]


TILES_ARE_THERE = """() => window.terraloom && document.getElementById('busy').hidden
  && [...document.querySelectorAll('img.leaflet-tile')].every(t => t.complete && t.naturalWidth)"""


def wait_for(page: Any, script: str) -> None:
    """Until a script says so. Playwright's own `wait_for_function` needs eval, which the page's policy forbids."""
    for _ in range(300):
        if page.evaluate(script):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never came: {script}")


def settle(page: Any) -> None:
    """Wait until all tiles are there."""
    wait_for(page, TILES_ARE_THERE)
    page.wait_for_timeout(300)  # they fade in


def keep(page: Any, name: str) -> np.ndarray:
    """A picture of the page, uint8 (h, w, 3)."""
    content = page.screenshot()
    if SCREENSHOTS:
        (Path(SCREENSHOTS) / f"{name}.png").write_bytes(content)
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def middle(picture: np.ndarray) -> np.ndarray:
    return picture[200:500, 300:600].astype(int)


def test_pan_zoom_and_permalink(visit: Open, address: str) -> None:
    page = visit()
    assert page.text_content(".badge") == "synthetic"
    assert page.text_content("#gsd") == "265 m per pixel"
    first = keep(page, "map")
    assert middle(first).std() > 10
    page.mouse.move(500, 350)
    page.mouse.down()
    page.mouse.move(300, 350, steps=5)
    page.mouse.up()
    page.wait_for_timeout(400)
    settle(page)
    assert np.abs(middle(keep(page, "panned")) - middle(first)).mean() > 5
    page.click(".leaflet-control-zoom-in")
    page.wait_for_timeout(500)
    settle(page)
    assert page.text_content("#gsd") == "132 m per pixel"
    link = page.url
    assert "z=10" in link and "seed=3" in link
    again = visit(link.split("#")[1])
    assert again.evaluate("window.terraloom.map.getZoom()") == 10
    assert again.evaluate("window.terraloom.map.getCenter().lng") == pytest.approx(
        page.evaluate("window.terraloom.map.getCenter().lng"), abs=1e-4
    )


def test_to_the_finest_level(visit: Open) -> None:
    page = visit("z=18&lat=30&lon=31&seed=3", 500, 400)
    assert page.text_content("#gsd") == "0.5 m per pixel"
    assert middle(keep(page, "finest")[:, :, :]).std() > 5


def test_another_earth(visit: Open) -> None:
    page = visit()
    first = middle(keep(page, "seed"))
    page.click("#another")
    page.wait_for_timeout(200)
    settle(page)
    seed = page.input_value("#seed")
    assert seed != "3" and f"seed={seed}" in page.url
    assert np.abs(middle(keep(page, "other-seed")) - first).mean() > 3
    page.fill("#seed", "3")
    page.press("#seed", "Enter")
    page.wait_for_timeout(200)
    settle(page)
    page.wait_for_timeout(400)
    assert np.abs(middle(keep(page, "seed-again")) - first).mean() < 1


def test_search_by_keyboard(visit: Open) -> None:
    page = visit()
    page.keyboard.press("/")
    page.keyboard.type("sao paul")
    page.wait_for_selector("#found li[role=option]")
    assert "São Paulo" in page.text_content("#found li >> nth=0")
    keep(page, "search")
    page.keyboard.press("Enter")
    page.wait_for_timeout(200)
    settle(page)
    center = page.evaluate("window.terraloom.map.getCenter()")
    assert (center["lat"], center["lng"]) == pytest.approx((-23.55, -46.63), abs=0.1)
    page.fill("#query", "xqxq")
    assert page.text_content("#found") == "No place of that name."
    page.fill("#query", "10.5, 20.25")
    page.keyboard.press("Enter")
    assert page.evaluate("window.terraloom.map.getCenter().lat") == pytest.approx(10.5)
    page.focus("#map")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(600)
    assert page.evaluate("window.terraloom.map.getCenter().lng") > 20.25


def test_swipe(visit: Open) -> None:
    page = visit()
    first = middle(keep(page, "before-swipe"))
    page.click("#compare")
    page.wait_for_timeout(300)
    settle(page)
    page.wait_for_timeout(400)
    half = middle(keep(page, "swipe"))
    same = np.abs(half - first).mean((0, 2))
    assert same[:150].max() < 1 and same[230:].mean() > 3  # the line is at x = 500
    page.hover("#divider")
    page.mouse.down()
    page.mouse.move(320, 350, steps=4)
    page.mouse.up()
    moved = np.abs(middle(keep(page, "swiped")) - first).mean((0, 2))
    assert moved[60:].mean() > 3
    page.check("[name=with][value=seed]")
    page.fill("#other-seed", "8")
    page.press("#other-seed", "Enter")
    page.wait_for_timeout(200)
    settle(page)
    assert "with=8" in page.url and page.text_content(".side >> nth=1") == "Earth 8"
    page.focus("#divider")
    before = int(page.get_attribute("#divider", "aria-valuenow"))
    page.keyboard.press("ArrowRight")
    assert int(page.get_attribute("#divider", "aria-valuenow")) == before + 2
    page.keyboard.press("Escape")
    assert page.is_hidden("#card-compare") and page.query_selector("#divider") is None
    page.wait_for_timeout(400)
    settle(page)
    page.wait_for_timeout(400)
    assert np.abs(middle(keep(page, "after-swipe")) - first).mean() < 1


def test_box_download(visit: Open, tmp_path: Path) -> None:
    page = visit()
    page.click("#box")
    page.mouse.move(200, 200)
    page.mouse.down()
    page.mouse.move(400, 350, steps=4)
    page.mouse.up()
    assert page.text_content("#box-size").startswith("200 × 150 pixels")
    keep(page, "box")
    with page.expect_download() as waiting:
        page.click("#box-get")
    file = tmp_path / "box.tif"
    waiting.value.save_as(file)
    with rasterio.open(file) as source:
        assert source.tags()["SYNTHETIC"] == "true" and source.tags()["TERRALOOM_SEED"] == "3"
        assert abs(source.width - 200) <= 2 and abs(source.height - 150) <= 2
    assert "opens in QGIS" in page.text_content("#box-state")
    page.click("#box-view")
    assert page.is_enabled("#box-get")


def test_generate(visit: Open, tmp_path: Path) -> None:
    page = visit()
    page.click("#imagine")
    page.mouse.click(300, 300)
    page.fill("#prompt", "a river through farmland")
    page.fill("#imagine-seed", "200")
    keep(page, "generate")
    page.click("#imagine-go")
    page.wait_for_selector("img.leaflet-image-layer")
    page.wait_for_selector("#imagine-save", state="visible")
    page.wait_for_timeout(1200)
    settle(page)
    assert (keep(page, "generated") == 200).all(2).sum() > 10_000
    with page.expect_download() as waiting:
        page.click("#imagine-tif")
    waiting.value.save_as(tmp_path / "image.tif")
    with rasterio.open(tmp_path / "image.tif") as source:
        assert source.crs.to_epsg() == 3857 and source.read().mean() == 200
        assert source.tags()["TERRALOOM_PROMPT"] == "a river through farmland"
    page.fill("#prompt", "fail")
    page.click("#imagine-go")
    page.wait_for_selector("#imagine-state.bad")
    assert "Not generated: something went wrong" in page.text_content("#imagine-state")
    page.click("#imagine-clear")
    assert page.query_selector("img.leaflet-image-layer") is None


def test_phone(visit: Open) -> None:
    page = visit(width=390, height=844)
    keep(page, "phone")
    for name in ("compare", "box", "imagine"):
        page.click(f"#{name}")
        page.wait_for_timeout(200)
        card = page.query_selector(f"#card-{name}").bounding_box()
        bar = page.query_selector("#status").bounding_box()
        assert card["x"] >= 0 and card["x"] + card["width"] <= 390
        assert card["y"] + card["height"] <= bar["y"]
        keep(page, f"phone-{name}")
        page.click(f"#{name}")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for button in page.query_selector_all("#tools button, #status"):
        box = button.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390


def test_errors_are_said_in_words(visit: Open) -> None:
    page = visit()
    page.route("**/tiles/**", lambda route: route.abort())
    with page.expect_event("console"):  # the browser's own note of the failed request
        page.evaluate("window.terraloom.map.setZoom(11, {animate: false})")
    page.wait_for_selector("#toast button", state="visible")
    assert "could not be drawn" in page.text_content("#toast")
    page.unroute("**/tiles/**")
    page.click("#toast button")
    settle(page)
    assert page.is_hidden("#toast")
