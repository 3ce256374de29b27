"""Inpaint: a hole of a scene drawn anew, from what is around it and from other dates of the place.

Known pixels come back as they are stored, bit by bit. What a mask covers is drawn even where the scene has no data;
unknown pixels outside the mask stay unknown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from terraloom.io.masks import Hole, hole
from terraloom.io.raster import Raster, same_grid
from terraloom.io.source import Pixels
from terraloom.metadata import ordinal
from terraloom.models.frames import MOST_FRAMES, Frames, composed
from terraloom.pipelines.backdrop import Backdrop, Window
from terraloom.pipelines.frames_to_image import FramesToImage
from terraloom.pipelines.scenes import (
    Scene,
    Strip,
    around,
    frame,
    put,
    read,
    sequence,
    stretches,
    triples,
    vector,
)
from terraloom.pipelines.task import Source, Task, check, opened
from terraloom.pipelines.windows import SIDE, Floats


class Filled(Scene):
    """A scene whose hole is filled.

    Args:
        raster: the scene.
        hole: what to draw.
        others: other dates on the scene's grid, of which the nearest two are shown; a date without some of the bands
            is not shown for those.
        told: what the hole is made of, for `identity`.
    """

    task = "inpaint"

    def __init__(
        self, raster: Raster, hole: Hole, others: Sequence[Raster] = (), told: str = ""
    ) -> None:
        self.raster, self.grid, self.bands = raster, raster.grid, raster.bands
        self.metadata = replace(raster.metadata, cloud_cover=None)
        self._hole, self._told = hole, told
        nearest = sorted(others, key=lambda other: (_distance(other, raster), other.identity()))
        shown = [raster, *nearest[: MOST_FRAMES - 1]]
        self._shown = sorted(shown, key=lambda s: (ordinal(s.date), s.identity()))
        self._stretches = stretches(shown, self.bands)
        size = raster.width, raster.height
        self._backdrop = Backdrop(self._known, *size)
        self._others = [
            (other, Backdrop(partial(self._difference, other), *size))
            for other in nearest[: MOST_FRAMES - 1]
        ]

    def inputs(self) -> list[Raster]:
        """All dates."""
        return self._shown

    def more(self) -> str:
        """The mask."""
        return self._told

    def window(self, pipe: FramesToImage, left: int, top: int, noise: Tensor) -> Floats:
        """See `Scene`; windows without a hole are not drawn."""
        place = (left, top, SIDE, SIDE)
        missing = self._missing(place)
        if not bool(missing.any()):
            return _flat(read(self.raster, place, self.bands, self._stretches[id(self.raster)])[0])
        guesses = self._guesses(left, top)
        told = [scene.metadata for scene in self._shown]
        drawn = torch.zeros(len(self.bands), SIDE, SIDE)
        for numbers in reversed(triples(self.bands)):  # what a triple repeats is drawn again
            pictures = [self._frame(scene, numbers, place, missing) for scene in self._shown]
            pixels, present, dated = sequence(pictures, told)
            chosen = list(numbers)
            able = [(v, k) for has, v, k in guesses if {self.bands[i] for i in chosen} <= has]
            base = composed([(values[chosen], known[chosen]) for values, known in able])[:, 0]
            frames = Frames(
                pixels=pixels,
                present=present,
                dated=dated,
                target=vector(self.metadata)[None],
                base=base[None],
                free=missing[None],
            )
            put(drawn, numbers, pipe.draw(frames, noise)[0])
        return np.asarray(drawn.numpy(), np.float32)

    def finish(self, drawn: Floats, top: int) -> Strip:
        """What was drawn in the hole, the stored numbers elsewhere."""
        window = (0, top, drawn.shape[2], drawn.shape[1])
        stored, known = self.raster.stored(window, self.bands)
        hole = self._hole.read(window)
        there = known | hole
        values = self._stretches[id(self.raster)].units(drawn)
        new = self.raster.encode(values, there)
        return np.where(hole | ~known, new, stored), there

    def _guesses(self, left: int, top: int) -> list[tuple[set[str], Tensor, Tensor]]:
        """What a window may look like, best first: bands, their values and where they are known, (bands, 1, h, w).

        Known pixels, other dates (the nearest first), what is around: as `training.frame_batches.inpaint_base` guesses,
        but the difference to another date is carried on from far away too.
        """
        place, every = (left, top, SIDE, SIDE), set(self.bands)
        values, known = self._known(place)
        found = [(every, values, known)]
        for other, difference in self._others:
            there, seen = self._seen(other, place)
            found.append((set(other.bands), there + difference.window(left, top), seen))
        return [*found, (every, self._backdrop.window(left, top), torch.ones_like(known))]

    def _difference(self, other: Raster, place: Window) -> tuple[Tensor, Tensor]:
        """What is to be added to another date, and where both are known, (bands, 1, h, w) each."""
        (values, known), (others, there) = self._known(place), self._seen(other, place)
        both = known * there
        return (values - others) * both, both

    def _seen(self, other: Raster, place: Window) -> tuple[Tensor, Tensor]:
        """Another date in the scene's bands, (bands, 1, h, w) values and 0 or 1; bands that it lacks are unknown."""
        own = [b for b in self.bands if b in other.bands]
        values = torch.zeros(len(self.bands), 1, *place[:1:-1])
        known = torch.zeros_like(values)
        if own:
            at = [self.bands.index(b) for b in own]
            values[at], known[at] = read(other, place, own, self._stretches[id(other)])
        return values * known, known

    def _missing(self, place: Window) -> Tensor:
        """The hole in a window, (1, h, w) 0 or 1."""
        (hole,) = around(self.raster, place, lambda inner: (self._hole.read(inner),))
        return torch.from_numpy(hole.astype(np.float32))[None]

    def _known(self, place: Window) -> tuple[Tensor, Tensor]:
        values, known = read(self.raster, place, self.bands, self._stretches[id(self.raster)])
        known = known * (1 - self._missing(place))
        return values * known, known

    def _frame(
        self, scene: Raster, numbers: tuple[int, ...], place: Window, missing: Tensor
    ) -> Tensor | None:
        """Three bands of a date, None where it lacks one of them."""
        bands = [self.bands[i] for i in numbers]
        if not set(bands) <= set(scene.bands):
            return None
        own = [b for b in self.bands if b in scene.bands]
        stretch = self._stretches[id(scene)]
        values, known = read(scene, place, own, stretch)
        chosen = [own.index(b) for b in bands]
        there = known[chosen, 0] * (1 - missing) if scene is self.raster else known[chosen, 0]
        return frame(values[chosen, 0], there)


def _distance(a: Raster, b: Raster) -> float:
    """Days between two dates; 0 where one is unknown."""
    return abs(ordinal(a.date) - ordinal(b.date)) if a.date and b.date else 0.0


def _flat(values: Tensor) -> Floats:
    return np.asarray(values[:, 0].numpy(), np.float32)


class Inpaint(Task):
    """In-painting of scenes: `Inpaint.from_pretrained()("scene.tif", "clouds.tif", seed=0)`."""

    def scene(
        self,
        source: Source,
        mask: str | Path | None,
        others: Sequence[Source] = (),
        *,
        bands: str | None = None,
        align: bool = False,
    ) -> Filled:
        """What is to be drawn.

        Args:
            source: a `Raster`, a file, a folder of single-band files, or the files of one scene.
            mask: a raster or GeoJSON file, "qa" or "auto", see `terraloom.io.masks.hole`; None is the scene's nodata.
            others: other dates of the place.
            bands: names that the files lack, the same for all.
            align: warp what lies on another grid.

        Raises:
            InvalidInput: no such scene or mask, nothing to fill, or another grid without `align`.
        """
        rasters = same_grid([opened(one, bands) for one in (source, *others)], align)
        told = str(mask)
        if mask is not None and Path(mask).is_file():
            told = hashlib.sha256(Path(mask).read_bytes()).hexdigest()
        return Filled(rasters[0], hole(rasters[0], mask, align), rasters[1:], told)

    def __call__(
        self,
        source: Source,
        mask: str | Path | None,
        others: Sequence[Source] = (),
        *,
        bands: str | None = None,
        align: bool = False,
        seed: int = 0,
    ) -> Pixels:
        """The scene without its hole, in memory: (bands, h, w) in its dtype.

        Args:
            source: see `scene`; likewise mask, others, bands and align.
            seed: of the noise.

        Raises:
            InvalidInput: see `scene`.
        """
        check(seed, 1)
        scene = self.scene(source, mask, others, bands=bands, align=align)
        return scene.whole(self.pipe, seed)

    def run(
        self,
        source: Source,
        mask: str | Path | None,
        out: Path,
        others: Sequence[Source] = (),
        *,
        bands: str | None = None,
        align: bool = False,
        **options: Any,
    ) -> list[Path]:
        """As a call, but to files; `options` are those of `Task.write`.

        Raises:
            InvalidInput: see `scene` and `Task.write`.
        """
        scene = self.scene(source, mask, others, bands=bands, align=align)
        return self.write(scene, out, **options)
