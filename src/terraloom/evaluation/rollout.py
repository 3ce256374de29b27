"""A chain at one place: the base map carried down to 0.6 m in small windows, pixels as `World` has them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from terraloom.data.cover import cells
from terraloom.data.ground import Ground
from terraloom.data.uses import COVER_OF, UNKNOWN_COVER
from terraloom.data.waters import water
from terraloom.errors import InvalidInput
from terraloom.grid import BASE_LEVEL, FINEST_LEVEL, Window, window_of
from terraloom.noise import NoiseField
from terraloom.weights import Checkpoint
from terraloom.world import engine as engines
from terraloom.world.basemap import BaseMap
from terraloom.world.blocks import given, reduce2

Pixels = npt.NDArray[np.uint8]
SCALE = 4
VIEW = 192  # pixels in the middle of a place that are drawn at every level
LEVELS = tuple(range(BASE_LEVEL + 2, FINEST_LEVEL + 1, 2))


@dataclass(frozen=True)
class Link:
    """One level of a chain."""

    level: int
    x: int  # global pixel of the view's corner
    y: int
    gsd: float  # metres per pixel
    cover: int  # IGBP class most cells of the view have
    rgb: Pixels  # (3, view, view)
    parent: Pixels  # (3, view / 4, view / 4), what it was made from


class Roller:
    """Carries places down with one checkpoint, its engines started once."""

    def __init__(self, checkpoint: Checkpoint, view: int = VIEW, engine: str = "auto") -> None:
        """Start the engine for views of `view` pixels, a multiple of the network's period.

        Raises:
            InvalidInput: the view is too small for its own children, or see `terraloom.world.engine.choose`.
            BadCheckpoint: see `terraloom.weights.load_model`.
        """
        geometry = engines.geometry(checkpoint)
        self.halo, self.view, self.align = geometry.usual, view, geometry.period // SCALE
        self.cells = (view + 2 * self.halo) // SCALE
        if view < self.cells or view % geometry.period:
            raise InvalidInput(
                f"view {view} must be a multiple of {geometry.period} and at least {self.cells}"
            )
        name, precision = engines.choose(engine, checkpoint)
        self._start = partial(engines.start, name, precision, halo=self.halo, seed=0)
        self._checkpoint = checkpoint
        self._engines: dict[str, engines.Engine] = {}  # by digest
        self.base, self.ground = BaseMap(), Ground.open()

    def __call__(
        self, lon: float, lat: float, seed: int = 0, finest: int = FINEST_LEVEL, known: bool = True
    ) -> list[Link]:
        """The chain at a place, coarsest level first; `known=False` withholds the maps from the network."""
        noise = NoiseField(seed)
        spot = window_of((lon, lat, lon + 1e-9, lat + 1e-9), BASE_LEVEL)
        x, y = (self._aligned(v - self.cells // 2) for v in (spot.x, spot.y))
        rgb = self.base.with_shores(self.ground, x, y, self.cells, self.cells)
        rim, cut = self.halo // SCALE, self._aligned((self.view - self.cells) // 2)
        links: list[Link] = []
        for level in range(BASE_LEVEL + 2, FINEST_LEVEL + 1, 2):
            if links and links[-1].level >= finest:
                break
            above = self._checkpoint.parent(level)
            if above is None:
                continue  # comes with the leap
            if above == level - 2:
                window = Window(above, x, y, self.cells, self.cells)
                drawn, cover = self._draw(rgb, level, window, noise, known)
                links.append(_link(level, window, _middle(rgb, rim), drawn, _middle(cover, rim)))
            else:
                links += self._leap(rgb, level, x, y, noise, known)
            x, y, rgb = links[-1].x + cut, links[-1].y + cut, links[-1].rgb
            rgb = rgb[:, cut : cut + self.cells, cut : cut + self.cells]
        return [link for link in links if link.level <= finest]

    def _leap(
        self, rgb: Pixels, level: int, x: int, y: int, noise: NoiseField, known: bool
    ) -> list[Link]:
        """The views of the two levels that a leap from the middle of `rgb` draws at once."""
        count = (SCALE * self.view + 2 * self.halo) // SCALE**2
        cut, rim = (self.cells - count) // 2, self.halo // SCALE
        rgb = rgb[:, cut : cut + count, cut : cut + count]
        square = Window(
            level - 2, SCALE * (x + cut), SCALE * (y + cut), SCALE * count, SCALE * count
        )
        drawn, cover = self._draw(rgb, level, square, noise, known)
        between, cover = reduce2(reduce2(drawn)), _middle(cover, rim)
        above = Window(level - 4, x + cut, y + cut, count, count)
        first = _link(level - 2, above, _middle(rgb, rim // SCALE), between, cover)
        off = self._aligned((self.view - self.view // SCALE) // 2)  # cells around the finer view
        end = off + self.view // SCALE
        inner = np.s_[..., off:end, off:end]
        window = Window(level - 2, first.x + off - rim, first.y + off - rim, self.cells, self.cells)
        part = drawn[:, SCALE * off : SCALE * end, SCALE * off : SCALE * end]
        return [first, _link(level, window, between[inner], part, cover[inner])]

    def _aligned(self, cell: int) -> int:
        return cell // self.align * self.align

    def _draw(
        self, rgb: Pixels, level: int, window: Window, noise: NoiseField, known: bool
    ) -> tuple[Pixels, Pixels]:
        """What is drawn of a parent under a window of cells, without the halo, and the cells' land cover."""
        cover, layers = cells(self.ground, window)
        x, y, side = (SCALE * v for v in (window.x, window.y, window.width))
        wet = water(self.ground, level, x, y, (side, side))
        told = (cover, layers) if known else (np.full_like(cover, UNKNOWN_COVER), 0 * layers)

        def around(margin: int) -> Pixels:
            left, top = (v // SCALE - margin for v in (window.x, window.y))
            size = window.width // SCALE + 2 * margin
            return self.base.with_shores(self.ground, left, top, size, size)

        everything = given(
            noise,
            self._checkpoint.knows,
            level,
            x,
            y,
            rgb,
            *told,
            window.gsd / SCALE,
            around,
            wet if known else None,
        )
        return self._engine(level, side)(everything), COVER_OF[cover]

    def _engine(self, level: int, side: int) -> engines.Engine:
        """The engine of a level; one network draws squares of one side."""
        part = self._checkpoint.at(level)
        if part.digest not in self._engines:
            self._engines[part.digest] = self._start(part, side=side)
        return self._engines[part.digest]


def _middle(pixels: Pixels, rim: int) -> Pixels:
    """Without so many pixels at each side."""
    return pixels[..., rim : pixels.shape[-2] - rim, rim : pixels.shape[-1] - rim]


def _link(level: int, window: Window, parent: Pixels, rgb: Pixels, cover: Pixels) -> Link:
    """The view of a level, in the middle of what was drawn below a window of its parent."""
    x, y = (v + (window.width - parent.shape[-1]) // 2 for v in (window.x, window.y))
    gsd = float(window.gsd.mean() / SCALE)
    return Link(
        level, SCALE * x, SCALE * y, gsd, int(np.bincount(cover.ravel()).argmax()), rgb, parent
    )
