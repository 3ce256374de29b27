"""A chain at one place: the base map's pixels carried down to 0.6 m in small windows, cheaper than whole blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from terraloom.data.ground import FINEST_MASKED_LEVEL, UNKNOWN_COVER, Ground
from terraloom.grid import BASE_LEVEL, FINEST_LEVEL, Window, window_of
from terraloom.models.cascade import CascadeUNet
from terraloom.noise import NoiseField
from terraloom.world.basemap import BaseMap
from terraloom.world.engine import to_pixels

Pixels = npt.NDArray[np.uint8]
CELLS = 96  # side of each low-resolution window; its rim of 24 cells is thrown away
VIEW = 192  # pixels in the middle of an output that are looked at
LEVELS = tuple(range(BASE_LEVEL + 2, FINEST_LEVEL + 1, 2))


@dataclass(frozen=True)
class Link:
    """One level of a chain."""

    level: int
    gsd: float  # metres per pixel
    cover: int  # IGBP class most cells of the view have
    rgb: Pixels  # (3, VIEW, VIEW)
    parent: Pixels  # (3, VIEW / 4, VIEW / 4), what it was made from


def torus(model: nn.Module) -> None:
    """Wrap convolutions around, so that the rim of a window does not look like the end of the world."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            layer.padding_mode = "circular"


class Roller:
    """Carries places down with one model and one seed; `known=False` withholds the maps from the network."""

    def __init__(self, model: CascadeUNet, seed: int = 0, known: bool = True) -> None:
        torus(model)
        self.known = known
        self.model, self.noise = model.eval(), NoiseField(seed)
        self.base, self.ground = BaseMap(), Ground.open()

    def __call__(self, lon: float, lat: float, finest: int = FINEST_LEVEL) -> list[Link]:
        """The chain at a place, coarsest level first."""
        spot = window_of((lon, lat, lon + 1e-9, lat + 1e-9), BASE_LEVEL)
        x, y = spot.x - CELLS // 2, spot.y - CELLS // 2
        rgb = self.base.read(x, y, CELLS, CELLS)
        links = []
        for level in range(BASE_LEVEL + 2, finest + 1, 2):
            window = Window(level - 2, x, y, CELLS, CELLS)
            parent, rgb, cover = rgb, *self._draw(rgb, window)
            rim, edge = (4 * CELLS - VIEW) // 2, (CELLS - VIEW // 4) // 2
            middle = np.s_[..., edge : CELLS - edge, edge : CELLS - edge]
            links.append(
                Link(
                    level,
                    float(window.gsd.mean() / 4),
                    int(np.bincount(cover[middle].ravel()).argmax()),
                    rgb[:, rim:-rim, rim:-rim],
                    parent[middle],
                )
            )
            cut = (4 * CELLS - CELLS) // 2
            rgb = np.ascontiguousarray(rgb[:, cut : cut + CELLS, cut : cut + CELLS])
            x, y = 4 * x + cut, 4 * y + cut
        return links

    def _draw(self, rgb: Pixels, window: Window) -> tuple[Pixels, Pixels]:
        """The level below a window, (3, 4 CELLS, 4 CELLS), and the window's land cover."""
        cover, layers = self.ground.cells(window)
        level = window.level + 2
        if level > FINEST_MASKED_LEVEL or not self.known:
            layers = np.zeros_like(layers)
        told = cover if self.known else np.full_like(cover, UNKNOWN_COVER)
        noise = self.noise.window(level, 4 * window.x, 4 * window.y, 4 * CELLS, 4 * CELLS)
        arrays: tuple[Any, ...] = (told, layers, (window.gsd / 4).astype(np.float32), noise)
        lr = torch.from_numpy(rgb.astype(np.float32))[None] / 127.5 - 1
        with torch.inference_mode():
            y = self.model(lr, *(torch.from_numpy(np.ascontiguousarray(a))[None] for a in arrays))
            return to_pixels(y, lr)[0].numpy(), cover
