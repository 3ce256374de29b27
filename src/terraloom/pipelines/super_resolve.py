"""SuperResolve: a multispectral scene in, its colours four times finer out.

The 4 x 4 means of the result are the input's red, green and blue, to the rounding of its numbers. Bands that the
network knows beside them (near and short-wave infrared, red edge, panchromatic) tell it what it looks at; one with
finer pixels than the colours, as Landsat's panchromatic band, is shown as fine as it is.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from affine import Affine
from torch import Tensor

from terraloom.io.raster import Raster
from terraloom.io.source import Grid, Pixels
from terraloom.io.stretch import stretch_of
from terraloom.metadata import RANGES
from terraloom.models.cascade import SCALE, bicubic4, bounded
from terraloom.models.frames import BANDS, CHANNELS, COLOURS, Frames, filled
from terraloom.pipelines.frames_to_image import FramesToImage
from terraloom.pipelines.scenes import RGB, Scene, Strip, read, slots, units, vector
from terraloom.pipelines.task import Source, Task, check, opened
from terraloom.pipelines.windows import SIDE, Floats

CELLS = SIDE // SCALE
MARGIN = 2  # input pixels that bicubic enlargement reads around a window


class Finer(Scene):
    """A scene's colours, four times finer.

    Args:
        raster: has red, green and blue.

    Raises:
        InvalidInput: a colour is missing, or nothing of it is known.
    """

    task, bands = "superres", RGB

    def __init__(self, raster: Raster) -> None:
        raster.require(*RGB)
        self.raster, g = raster, raster.grid
        self.grid = Grid(
            g.crs, g.transform * Affine.scale(1 / SCALE), SCALE * g.width, SCALE * g.height
        )
        self._slots = slots(raster)
        others = [band for band in self._slots if band not in RGB]
        self._sharp = [band for band in others if _finer(raster, band)]
        self._coarse = [*RGB, *(band for band in others if band not in self._sharp)]
        self._stretch = {b: stretch_of([raster], [b]) for b in self._sharp}
        self._stretches = stretch_of([raster], self._coarse)
        self._enlarged = copy.copy(raster)
        self._enlarged.grid = self.grid
        gsd = raster.metadata.gsd
        finer = None if gsd is None else max(gsd / SCALE, RANGES["gsd"][0])
        self.metadata = replace(raster.metadata, gsd=finer)

    def inputs(self) -> list[Raster]:
        """The scene itself."""
        return [self.raster]

    def window(self, pipe: FramesToImage, left: int, top: int, noise: Tensor) -> Floats:
        """See `Scene`."""
        side = CELLS + 2 * MARGIN
        place = (left // SCALE - MARGIN, top // SCALE - MARGIN, side, side)
        values, known = read(self.raster, place, self._coarse, self._stretches)
        values = filled(values, known)
        inner = slice(MARGIN * SCALE, -MARGIN * SCALE)
        large = bicubic4(values)[:, 0, inner, inner]
        pixels = torch.zeros(1, CHANNELS, 1, SIDE, SIDE)
        for name, band, there in zip(self._coarse, large, known, strict=True):
            if bool(there.any()):  # a band that is unknown all over is missing
                pixels[0, self._slot(name), 0] = band
        for name in self._sharp:
            band, there = read(self._enlarged, (left, top, SIDE, SIDE), [name], self._stretch[name])
            if bool(there.any()):
                pixels[0, self._slot(name), 0] = filled(band, there)[0, 0]
        pixels[0, -1] = 1
        frames = Frames(
            pixels=pixels,
            present=torch.ones(1, 1, dtype=torch.bool),
            dated=vector(self.raster.metadata)[None, :, None],
            target=vector(self.metadata)[None],
            base=large[None, :COLOURS],
            free=torch.ones(1, 1, SIDE, SIDE),
            coarse=values[None, :COLOURS, 0, MARGIN:-MARGIN, MARGIN:-MARGIN],
        )
        return np.asarray(pipe.draw(frames, noise)[0].numpy(), np.float32)

    def finish(self, drawn: Floats, top: int) -> Strip:
        """Means as in the input, within what can be stored; unknown where the input is."""
        window = (0, top // SCALE, self.raster.width, drawn.shape[1] // SCALE)
        coarse, known = self.raster.read(window, RGB)
        values = units(drawn, self._stretches[:COLOURS])
        means = torch.from_numpy(coarse.astype(np.float64))[None]
        fine = bounded(torch.from_numpy(values)[None], means, *self._limits())
        there = known.repeat(SCALE, 1).repeat(SCALE, 2)
        return self.raster.encode(fine[0].numpy(), there), there

    def _limits(self) -> tuple[float, float]:
        """Smallest and largest value that is known: an end of the dtype that means nodata is not drawn."""
        low, high = self.raster.limits
        nodata, step = self.raster.nodata, int(self.raster.dtype.kind in "iu")
        return low + step * (nodata == low), high - step * (nodata == high)

    def _slot(self, band: str) -> int:
        return BANDS.index(self._slots[band])


def _finer(raster: Raster, band: str) -> bool:
    """Whether a band has smaller pixels than the colours."""
    own, grid = raster.source(band).grid, raster.grid
    smaller = abs(own.transform.determinant) < 0.9 * abs(grid.transform.determinant)
    return own.crs == grid.crs and smaller


class SuperResolve(Task):
    """Super-resolution of scenes: `SuperResolve.from_pretrained()("s2.tif", seed=0)`."""

    def __call__(self, source: Source, *, bands: str | None = None, seed: int = 0) -> Pixels:
        """The colours four times finer, in memory: (3, 4h, 4w) in the scene's dtype.

        Args:
            source: a `Raster`, a file, a folder of single-band files, or the files of one scene.
            bands: names that the files lack, such as "red=3,green=2,blue=1".
            seed: of the noise.

        Raises:
            InvalidInput: no such scene, or a colour is missing.
        """
        check(seed, 1)
        return Finer(opened(source, bands)).whole(self.pipe, seed)

    def run(
        self, source: Source, out: Path, *, bands: str | None = None, **options: Any
    ) -> list[Path]:
        """As a call, but to files; `options` are those of `Task.write`.

        Raises:
            InvalidInput: see `__call__` and `Task.write`.
        """
        return self.write(Finer(opened(source, bands)), out, **options)
