"""Forecast: a place on another date, before, between or after the dates that are given."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from terraloom.errors import InvalidInput
from terraloom.io.raster import Raster, same_grid
from terraloom.io.sequence import SUFFIXES, write_sequence
from terraloom.io.source import Pixels
from terraloom.metadata import Metadata, ordinal
from terraloom.models.frames import MOST_FRAMES, Frames, composed, mingled
from terraloom.pipelines.backdrop import CONTEXT
from terraloom.pipelines.frames_to_image import FramesToImage
from terraloom.pipelines.scenes import (
    Scene,
    Strip,
    frame,
    put,
    read,
    sequence,
    stretches,
    triples,
    vector,
)
from terraloom.pipelines.task import (
    Source,
    Task,
    between,
    check,
    check_files,
    check_sequence,
    opened,
    tags,
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
        self.metadata = replace(self.raster.metadata, cloud_cover=None, date=date)

    def inputs(self) -> list[Raster]:
        """The dates that are shown."""
        return self._shown

    def window(self, pipe: FramesToImage, left: int, top: int, noise: Tensor) -> Floats:
        """See `Scene`."""
        side = SIDE + 2 * CONTEXT
        place, inner = (left - CONTEXT, top - CONTEXT, side, side), slice(CONTEXT, CONTEXT + SIDE)
        seen = {id(r): read(r, place, self.bands, self._stretches[id(r)]) for r in self._shown}
        dates = [seen[id(r)] for r in self._nearest]
        whole = [composed([date, *(d for d in dates if d is not date)]) for date in dates]
        base = mingled(whole)[:, 0, inner, inner]
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
        values = self._stretches[id(self.raster)].units(drawn)
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


class Forecast(Task):
    """Dates of a place: `Forecast.from_pretrained()(["a.tif", "b.tif"], "2022-05-01", seed=0)`."""

    def scenes(
        self,
        sources: Sequence[Source],
        dates: Sequence[str],
        *,
        bands: str | None = None,
        align: bool = False,
    ) -> list[Dated]:
        """What is to be drawn, a scene for each date.

        Args:
            sources: the dates that are known, in any order; each a `Raster`, a file ("A.tif@2021-06-15" where it does
                not tell its date), a folder of single-band files, or the files of one scene.
            dates: to be drawn.
            bands: names that the files lack, the same for all.
            align: warp what lies on another grid to the first date's.

        Raises:
            InvalidInput: no such scene, a date that is missing, twice there or no date, no band in common, or grids
                that differ without `align`.
        """
        if not sources or not dates:
            raise InvalidInput("give at least one dated image and one date to draw")
        wanted = [ordinal(str(Metadata(date=date).date)) for date in dates]
        if len(set(wanted)) < len(wanted):
            raise InvalidInput(f"a date is asked for twice: {', '.join(dates)}")
        rasters = in_order([opened(source, bands) for source in sources], align)
        return [Dated(rasters, date) for date in dates]

    def __call__(
        self,
        sources: Sequence[Source],
        date: str,
        *,
        bands: str | None = None,
        align: bool = False,
        seed: int = 0,
    ) -> Pixels:
        """The place on a date, in memory: (bands, h, w) in the dtype of the nearest date.

        Args:
            sources: see `scenes`; likewise bands and align.
            date: "2022", "2022-05" or "2022-05-01".
            seed: of the noise.

        Raises:
            InvalidInput: see `scenes`.
        """
        check(seed, 1)
        (scene,) = self.scenes(sources, [date], bands=bands, align=align)
        return scene.whole(self.pipe, seed)

    def run(
        self,
        sources: Sequence[Source],
        dates: Sequence[str],
        out: Path,
        *,
        bands: str | None = None,
        align: bool = False,
        **options: Any,
    ) -> list[Path]:
        """As a call for every date, but to files; those of several dates are named FILE-DATE.tif.

        Args:
            sources: see `scenes`; likewise dates, bands and align.
            out: the file, or what several are called after; .gif or .zarr: all dates in one, each drawn once.
            options: those of `Task.write`.

        Raises:
            InvalidInput: see `scenes` and `Task.write`.
        """
        scenes = self.scenes(sources, dates, bands=bands, align=align)
        num, overwrite = options.get("num", 1), options.get("overwrite", False)
        if out.suffix.lower() in SUFFIXES:
            if num > 1:
                raise InvalidInput(f"{out} holds one draw of each date; ask for one, or write .tif")
            return [self._sequence(scenes, out, **options)]
        paths = dated_files(out, dates)
        check_files(paths, num, overwrite)
        files = []
        for scene, path in zip(scenes, paths, strict=True):
            files += self.write(scene, path, **options)
        return files

    def _sequence(self, scenes: Sequence[Dated], out: Path, **options: Any) -> Path:
        """All dates in one file, by way of a hidden GeoTIFF of each, which goes on after a kill."""
        overwrite, seed = options.pop("overwrite", False), options.get("seed", 0)
        check(seed, 1)
        check_sequence(out, overwrite)
        if len({scene.raster.dtype for scene in scenes}) > 1:
            raise InvalidInput(f"{out} holds one number type, the dates have several; write .tif")
        told = [scene.identity(self.pipe, seed) for scene in scenes]
        with between(out, told) as folder, ExitStack() as stack:
            written = []
            for scene in scenes:
                path = folder / f"{scene.metadata.date}.tif"
                if not path.exists():
                    self.write(scene, path, **options)
                written.append(stack.enter_context(Raster.open(path)))
            about = tags(scenes[0], self.pipe, seed)
            about.pop("TERRALOOM_DATE")
            return write_sequence(out, written, about, overwrite=overwrite)


def dated_files(path: Path, dates: Sequence[str]) -> list[Path]:
    """The file of one date, or of several: next-2022-05.tif, next-2022-06.tif ..."""
    if len(dates) == 1:
        return [path]
    return [path.with_stem(f"{path.stem}-{date}") for date in dates]
