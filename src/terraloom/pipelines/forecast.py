"""Forecast: a place on another date, before, between or after the dates that are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from terraloom.errors import InvalidInput
from terraloom.io.raster import Raster, same_grid
from terraloom.metadata import Metadata
from terraloom.models.frames import Frames, composed
from terraloom.pipelines.backdrop import CONTEXT
from terraloom.pipelines.dates import ordinal
from terraloom.pipelines.frames_to_image import FramesToImage
from terraloom.pipelines.scenes import (
    MOST_FRAMES,
    Scene,
    Strip,
    frame,
    put,
    read,
    sequence,
    stretches,
    triples,
    units,
    vector,
)
from terraloom.pipelines.windows import SIDE, Floats


class Dated(Scene):
    """A place on a date.

    Args:
        rasters: dates of the place on one grid, see `in_order`; the three nearest are shown.
        date: "2021", "2021-06" or "2021-06-15".

    Raises:
        InvalidInput: no band in common, or a date that is no date or one of those given.
    """

    task = "forecast"

    def __init__(self, rasters: Sequence[Raster], date: str) -> None:
        when = ordinal(str(Metadata(date=date).date))
        same = next((r for r in rasters if ordinal(r.date) == when), None)
        if same is not None:
            raise InvalidInput(
                f"{same.paths[0]} is of {date} already; leave it out to have that date drawn from the others"
            )
        nearest = sorted(rasters, key=lambda r: (abs(ordinal(r.date) - when), ordinal(r.date)))
        self._nearest = nearest[:MOST_FRAMES]
        self._shown = sorted(self._nearest, key=lambda r: ordinal(r.date))
        self.raster = self._nearest[0]
        self.grid = self.raster.grid
        self.bands = tuple(b for b in self.raster.bands if all(b in r.bands for r in rasters))
        if not self.bands:
            raise InvalidInput("the dates have no band in common; name them, e.g. --bands red=3")
        self._stretches = stretches(rasters, self.bands)
        self.metadata = replace(self.raster.metadata, date=date)

    def inputs(self) -> list[Raster]:
        """The dates that are shown."""
        return self._shown

    def window(self, pipe: FramesToImage, left: int, top: int, noise: Tensor) -> Floats:
        """See `Scene`."""
        side = SIDE + 2 * CONTEXT
        place, inner = (left - CONTEXT, top - CONTEXT, side, side), slice(CONTEXT, CONTEXT + SIDE)
        seen = {id(r): read(r, place, self.bands, self._stretches[id(r)]) for r in self._shown}
        base = composed([seen[id(r)] for r in self._nearest])[:, 0, inner, inner]
        drawn = torch.zeros_like(base)
        for numbers in reversed(triples(self.bands)):  # what a triple repeats is drawn again
            chosen = list(numbers)
            pictures = [
                frame(values[chosen, 0, inner, inner], known[chosen, 0, inner, inner])
                for values, known in (seen[id(r)] for r in self._shown)
            ]
            pixels, present, dated = sequence(pictures, [r.metadata for r in self._shown])
            frames = Frames(
                pixels=pixels,
                present=present,
                dated=dated,
                target=vector(self.metadata)[None],
                base=base[chosen][None],
                free=torch.ones(1, 1, SIDE, SIDE),
            )
            put(drawn, numbers, pipe.draw(frames, noise)[0])
        return np.asarray(drawn.numpy(), np.float32)

    def finish(self, drawn: Floats, top: int) -> Strip:
        """Known wherever one of the shown dates is."""
        window = (0, top, drawn.shape[2], drawn.shape[1])
        known = np.logical_or.reduce([r.read(window, self.bands)[1] for r in self._shown])
        values = units(drawn, self._stretches[id(self.raster)])
        return self.raster.encode(values, known), known


def in_order(rasters: Sequence[Raster], align: bool) -> list[Raster]:
    """Scenes by date, on the grid of the first of them.

    Raises:
        InvalidInput: a date is unknown or there twice, or grids differ and are not to be aligned.
    """
    for raster in rasters:
        if raster.date is None:
            path = raster.paths[0]
            raise InvalidInput(
                f"{path} has no date; say it behind its name: {path.name}@2021-06-15"
            )
    ordered = sorted(rasters, key=lambda r: ordinal(r.date))
    for a, b in zip(ordered, ordered[1:], strict=False):
        if ordinal(a.date) == ordinal(b.date):
            raise InvalidInput(
                f"{a.paths[0]} and {b.paths[0]} are both of {b.date}; give one image of each date"
            )
    return same_grid(ordered, align)
