"""A chain at one place: the base map carried down to 0.6 m in small windows, pixels as `World` has them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from terraloom.data.ground import FINEST_MASKED_LEVEL, UNKNOWN_COVER, Ground
from terraloom.errors import InvalidInput
from terraloom.grid import BASE_LEVEL, FINEST_LEVEL, Window, window_of
from terraloom.noise import NoiseField
from terraloom.weights import Checkpoint
from terraloom.world import engine as engines
from terraloom.world.basemap import BaseMap

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
        side = view + 2 * self.halo
        self._start = partial(engines.start, name, precision, side=side, halo=self.halo, seed=0)
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
        rgb = self.base.read(x, y, self.cells, self.cells)
        rim, cut = self.halo // SCALE, self._aligned((self.view - self.cells) // 2)
        links = []
        for level in range(BASE_LEVEL + 2, finest + 1, 2):
            window = Window(level - 2, x, y, self.cells, self.cells)
            middle = np.s_[..., rim : self.cells - rim, rim : self.cells - rim]
            parent, (rgb, cover) = rgb[middle], self._draw(rgb, window, noise, known)
            most = int(np.bincount(cover[middle].ravel()).argmax())
            x, y = (SCALE * v + self.halo for v in (x, y))
            links.append(Link(level, x, y, float(window.gsd.mean() / SCALE), most, rgb, parent))
            rgb = rgb[:, cut : cut + self.cells, cut : cut + self.cells]
            x, y = x + cut, y + cut
        return links

    def _aligned(self, cell: int) -> int:
        return cell // self.align * self.align

    def _draw(
        self, rgb: Pixels, window: Window, noise: NoiseField, known: bool
    ) -> tuple[Pixels, Pixels]:
        """The view below a window, (3, view, view), and the window's land cover, (cells, cells)."""
        cover, layers = self.ground.cells(window)
        level, side = window.level + 2, SCALE * self.cells
        if level > FINEST_MASKED_LEVEL or not known:
            layers = np.zeros_like(layers)
        told = cover if known else np.full_like(cover, UNKNOWN_COVER)
        lr = rgb.astype(np.float32) / 127.5 - 1
        gsd = (window.gsd / SCALE).astype(np.float32)
        field = noise.window(level, SCALE * window.x, SCALE * window.y, side, side, channels=3)
        return self._engine(level)(lr, told, layers, gsd, field), cover

    def _engine(self, level: int) -> engines.Engine:
        part = self._checkpoint.at(level)
        if part.digest not in self._engines:
            self._engines[part.digest] = self._start(part)
        return self._engines[part.digest]
