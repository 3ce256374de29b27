"""SuperResolve: a multispectral scene in, its colours four times finer out.

The 4 x 4 means of the result are the input's red, green and blue, to the rounding of its numbers. Bands that the
network knows beside them (near and short-wave infrared, red edge, panchromatic) tell it what it looks at; one with
finer pixels than the colours, as Landsat's panchromatic band, is shown as fine as it is.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from terraloom.errors import InvalidInput
from terraloom.io.raster import Raster
from terraloom.io.source import Pixels
from terraloom.io.staging import refuse
from terraloom.io.stretch import stretch_of
from terraloom.models.frames import BANDS, CHANNELS, COLOURS, RGB, Frames, filled
from terraloom.models.waves import SCALE, bicubic4
from terraloom.pipelines.cascaded import Cascaded, eight_bits
from terraloom.pipelines.frames_to_image import FramesToImage
from terraloom.pipelines.scenes import (
    Scene,
    Strip,
    finer,
    fitted,
    known_limits,
    read,
    slots,
    vector,
)
from terraloom.pipelines.task import Source, Task, between, check, opened
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
        self.raster = raster
        self.grid, self.metadata = finer(raster)
        self._slots = slots(raster)
        others = [band for band in self._slots if band not in RGB]
        self._sharp = [band for band in others if _sharper(raster, band)]
        self._coarse = [*RGB, *(band for band in others if band not in self._sharp)]
        self._stretch = {b: stretch_of([raster], [b]) for b in self._sharp}
        self._stretches = stretch_of([raster], self._coarse)
        self._enlarged = copy.copy(raster)
        self._enlarged.grid = self.grid

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
        values = self._stretches[:COLOURS].units(drawn)
        return fitted(self.raster, values, top, known_limits(self.raster))

    def _slot(self, band: str) -> int:
        return BANDS.index(self._slots[band])


def _sharper(raster: Raster, band: str) -> bool:
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
        self,
        source: Source,
        out: Path,
        *,
        bands: str | None = None,
        times: int = SCALE,
        **options: Any,
    ) -> list[Path]:
        """As a call, but to files; `options` are those of `Task.write`.

        Args:
            source: see `__call__`; likewise bands.
            out: the file, or what several are called after.
            times: 4, or 16 for one draw of 8-bit colours that the cascade makes finer once more.
            options: those of `Task.write`.

        Raises:
            InvalidInput: see `__call__` and `Task.write`.
        """
        scene = Finer(opened(source, bands))
        if times == SCALE:
            return self.write(scene, out, **options)
        if times != SCALE**2:
            raise InvalidInput(f"{times} times finer is not possible; ask for 4 or 16")
        return self._twice(scene, out, **options)

    def _twice(self, scene: Finer, out: Path, **options: Any) -> list[Path]:
        """By way of a hidden file four times finer, which a run that was killed goes on with."""
        seed, overwrite = options.get("seed", 0), options.pop("overwrite", False)
        if options.get("num", 1) != 1:
            raise InvalidInput("sixteen times finer is for one draw; ask for one, or for 4 times")
        check(seed, 1)
        eight_bits(scene.raster)
        refuse(out, overwrite)
        with between(out, scene.identity(self.pipe, seed)) as folder:
            first = folder / "4.tif"
            if not first.exists():
                self.write(scene, first, **options)
            with Raster.open(first, date=scene.raster.date) as raster:
                fine = Cascaded(raster, scene.raster)
                return self.write(fine, out, overwrite=overwrite, **options)
