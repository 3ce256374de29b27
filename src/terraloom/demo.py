"""The first command: one real place at 10 m, and a zoom strip from 2.4 km down to 2.4 m."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from terraloom.errors import InvalidInput
from terraloom.grid import Window, bbox_of, coarsest_gsd, gsd_at, window_of
from terraloom.io.picture import write_picture

if TYPE_CHECKING:
    from terraloom.world import World

SCENE_LEVEL = 14  # 9.6 m on the equator
SCENE_SIZE = 2048  # pixels, about 17 to 20 km
STRIP_LEVELS = (6, 8, 10, 12, 14, 16)  # 2.4 km to 2.4 m on the equator
PANEL = 320  # pixels
GAP = 8  # pixels between panels
CAPTION = 28  # pixels under them


@dataclass(frozen=True)
class Place:
    """A place worth looking at: its centre in degrees and what to call it."""

    lon: float
    lat: float
    title: str


PLACES = {
    "nile": Place(30.83, 28.72, "the lower Nile"),
    "tokyo": Place(139.75, 35.68, "Tokyo"),
    "alps": Place(7.75, 46.02, "the Alps at Zermatt"),
    "amazon": Place(-60.20, -3.25, "the Amazon near Manaus"),
    "iowa": Place(-93.60, 42.05, "farmland in Iowa"),
    "ganges": Place(88.10, 24.45, "the Ganges plain"),
    "london": Place(-0.12, 51.50, "London"),
    "sahara": Place(5.20, 27.40, "the Sahara"),
    "bangkok": Place(100.52, 13.75, "Bangkok"),
    "congo": Place(15.30, -4.30, "Kinshasa and the Congo"),
}


@dataclass(frozen=True)
class Scene:
    """What the demo wrote."""

    cog: Path
    png: Path
    strip: Path


def place_named(name: str) -> Place:
    """Look up a place of `PLACES`.

    Raises:
        InvalidInput: when there is no such place.
    """
    try:
        return PLACES[name.lower()]
    except KeyError:
        raise InvalidInput(f"no place {name!r}; there are {', '.join(PLACES)}") from None


def around(place: Place, level: int, size: int) -> Window:
    """The square of `size` pixels of a level with the place in its middle."""
    spot = window_of((place.lon, place.lat - 1e-6, place.lon + 1e-6, place.lat), level)
    return Window(level, spot.x - size // 2, spot.y - size // 2, size, size)


def draw(
    world: World, name: str, out_dir: Path, progress: Callable[[int, int], None] | None = None
) -> Scene:
    """Write `<name>_10m.tif` (COG), the same as PNG, and `<name>_zoom.png` into `out_dir`.

    Args:
        world: the planet to draw from.
        name: one of `PLACES`.
        out_dir: made if missing; files of an earlier demo are replaced.
        progress: called with (blocks done, blocks in all) of the 10 m scene.

    Raises:
        InvalidInput: when there is no such place.
        OSError: when a file cannot be written.
    """
    place = place_named(name)
    out_dir.mkdir(parents=True, exist_ok=True)
    stem = name.lower()
    scene = Scene(*(out_dir / f"{stem}_{end}" for end in ("10m.tif", "10m.png", "zoom.png")))
    window = around(place, SCENE_LEVEL, SCENE_SIZE)
    box = bbox_of(window)
    gsd = coarsest_gsd(box, SCENE_LEVEL)  # that of the level: its pixels as they are
    world.export(box, gsd, scene.cog, overwrite=True, progress=progress)
    rgb = world.level(window.level, window.x, window.y, window.width, window.height)
    write_picture(scene.png, rgb, world.tags, overwrite=True)
    write_picture(scene.strip, strip(world, place), world.tags, overwrite=True)
    return scene


def strip(world: World, place: Place) -> npt.NDArray[np.uint8]:
    """One panel per level of the cascade around a place, uint8 RGB (3, height, width).

    A white frame in each panel marks what the next one shows. The first panel is the base map itself.
    """
    count = len(STRIP_LEVELS)
    canvas = Image.new("RGB", (count * (PANEL + GAP) - GAP, PANEL + CAPTION), "black")
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=15)
    for i, level in enumerate(STRIP_LEVELS):
        window = around(place, level, PANEL)
        rgb = world.level(level, window.x, window.y, PANEL, PANEL)
        left = i * (PANEL + GAP)
        canvas.paste(Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0))), (left, 0))
        if i + 1 < count:
            near, far = PANEL * 3 // 8, PANEL * 5 // 8  # the next level is four times finer
            pen.rectangle((left + near, near, left + far - 1, far - 1), outline="white")
        kind = "base map" if i == 0 else "synthetic"
        pen.text(
            (left + 4, PANEL + 5), f"{metres(gsd_at(place.lat, level))}, {kind}", "white", font
        )
    return np.ascontiguousarray(np.asarray(canvas).transpose(2, 0, 1))


def metres(gsd: float) -> str:
    """A ground sampling distance as people say it: 2.1 km, 130 m, 2.1 m."""
    if gsd >= 1000:
        return f"{gsd / 1000:.1f} km"
    return f"{gsd:.0f} m" if gsd >= 10 else f"{gsd:.1f} m"
