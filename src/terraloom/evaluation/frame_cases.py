"""Questions to a model for dated images about held-out places: what it is told, and what was really there.

Super-resolution: every band reduced by four. In-painting: smooth blobs missing, alone and with another date.
Forecasting: a date from up to three others. What is told is made as in training (terraloom.training.frame_batches).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from terraloom.data import stack_pack
from terraloom.data.stacks import Dated
from terraloom.evaluation.held_out import (
    HeldOut,
    Window,
    colours,
    evenly,
    land_share,
    nearest,
    places,
    windows,
)
from terraloom.metadata import Metadata
from terraloom.models.frames import BANDS, MOST_FRAMES, Frames, mingled
from terraloom.models.waves import SCALE, bicubic4, reduce4
from terraloom.pipelines.scenes import frame, sequence, vector
from terraloom.training.frame_batches import coarsened, inpaint_base, years
from terraloom.training.holes import blobs

SIDE, SMALL_SIDE = 256, 192  # px; the held-out third of the Landsat scene is 201 px high
HOLES = (0.05, 0.25)  # share of a window
LAND = 0.05  # share of a window above which it is not called sea


@dataclass(frozen=True)
class Case:
    """One question; images are (3, h, w) in [0, 1] except inside `Frames`."""

    group: str
    name: str
    truth: Tensor
    given: Tensor  # the small image; the image without its hole; the nearest date
    asked: dict[str, Frames]  # words added to a model's name -> what it is told, one row
    others: list[Tensor] = field(default_factory=list)  # other dates told, the nearest first
    hole: Tensor | None = None  # (1, h, w), 1 where pixels are missing
    # dates before and after, share of the time between them that has passed
    between: tuple[Tensor, Tensor, float] | None = None


def shown(x: Tensor) -> Tensor:
    """From the stretch to [0, 1], cut off there."""
    return ((x + 1) / 2).clamp(0, 1)


def told(image: Dated, gsd: float) -> Metadata:
    """Metadata of an image at that gsd."""
    return Metadata(image.lon, image.lat, gsd, None, image.date)


def drawn_from(
    dates: Sequence[tuple[Dated, Tensor, Tensor]], image: Dated, base: Tensor, free: Tensor
) -> Frames:
    """What is told of an image from (date, colours, 1 where they are known) of others, in any order."""
    ordered = sorted(dates, key=lambda d: years(d[0]))
    pictures = [frame(colours, known.expand_as(colours)) for _, colours, known in ordered]
    pixels, present, dated = sequence(pictures, [told(d, d.gsd) for d, *_ in ordered])
    target = vector(told(image, image.gsd))[None]
    return Frames(pixels, present, dated, target, base[None], free[None])


def superres_cases(held: HeldOut, quick: bool) -> Iterator[Case]:
    """Windows of the Sentinel-2 third (land, and sea apart), the Landsat third and NAIP."""
    side = SMALL_SIDE
    land: list[Window] = []
    sea: list[Window] = []
    for window in windows(held.sentinel2, side):
        (land if land_share(held.sentinel2, window) > LAND else sea).append(window)
    sets = [
        ("Sentinel-2, land", held.sentinel2, land),
        ("Sentinel-2, sea", held.sentinel2, evenly(sea, 2 if quick else 6)),
        ("Landsat 8", held.landsat8, list(windows(held.landsat8, side))),
        ("NAIP", held.naip[-1], evenly(list(windows(held.naip[-1], side)), 4 if quick else 12)),
    ]
    for group, image, some in sets:
        for k, window in enumerate(some):
            yield _superres(group, f"{group}, {k + 1}", image, window)


def _superres(group: str, name: str, image: Dated, window: Window) -> Case:
    values = torch.from_numpy(image.stretched(window))
    truth = values[[image.bands.index(c) for c in stack_pack.RGB]]
    coarse = reduce4(truth[None])
    base = bicubic4(coarse)[0]
    pixels = frame(base, torch.ones_like(base))
    for i, band in enumerate(image.bands):
        if band not in stack_pack.RGB:
            pixels[BANDS.index(band)] = coarsened(
                values[i], max(1, round(SCALE * image.coarseness[i]))
            )
    asked = Frames(
        pixels[None, :, None],
        torch.ones(1, 1, dtype=torch.bool),
        vector(told(image, SCALE * image.gsd))[None, :, None],
        vector(told(image, image.gsd))[None],
        base[None],
        torch.ones(1, 1, *base.shape[1:]),
        coarse,
    )
    return Case(group, name, shown(truth), shown(coarse[0]), {"": asked})


def inpaint_cases(held: HeldOut, quick: bool) -> Iterator[Case]:
    """Windows with a tenth or so missing, alone and, where there is one, with another date."""
    rng = np.random.default_rng(0)
    s2, naip = held.sentinel2, held.naip
    land = [w for w in windows(s2, SMALL_SIDE) if land_share(s2, w) > LAND]
    for k, window in enumerate(evenly(land, 4 if quick else 8)):
        yield _inpaint("Sentinel-2, land", f"Sentinel-2, {k + 1}", s2, None, window, rng)
    for k, window in enumerate(evenly(list(windows(naip[-1], SIDE)), 3 if quick else 6)):
        yield _inpaint("NAIP", f"NAIP, {k + 1}", naip[-1], naip[-2], window, rng)
    for region in ("congo", "tokyo"):
        for k, place in enumerate(places(held, region, 4 if quick else 8)):
            target = k % len(place)
            other = nearest(place, target)[0]
            window = next(windows(place[target], SIDE))
            yield _inpaint(
                f"Landsat, {region}", place[target].place, place[target], other, window, rng
            )


def _inpaint(
    group: str,
    name: str,
    image: Dated,
    other: Dated | None,
    window: Window,
    rng: np.random.Generator,
) -> Case:
    truth = colours(image, window)
    side = truth.shape[-1]
    hole = torch.from_numpy(blobs(rng, side, float(rng.uniform(*HOLES))))[None]
    base = inpaint_base(truth, 1 - hole, [])
    own = image, truth, 1 - hole
    asked = {"": drawn_from([own], image, base, hole)}
    others = []
    if other is not None:
        there = colours(other, window)
        others.append(shown(there))
        whole = torch.ones_like(hole)
        pasted = inpaint_base(truth, 1 - hole, [(there, whole)])
        both = [own, (other, there, whole)]
        asked[", with another date"] = drawn_from(both, image, pasted, hole)
    seen = shown(truth)
    return Case(group, name, seen, seen * (1 - hole), asked, others, hole)


def forecast_cases(held: HeldOut, quick: bool) -> Iterator[Case]:
    """A date of a place from other dates of it."""
    naip, peru = held.naip, held.peru
    for k, window in enumerate(evenly(list(windows(naip[-1], SIDE)), 3 if quick else 6)):
        yield _forecast("NAIP, after", f"NAIP, {k + 1}", naip, len(naip) - 1, window)
    for region in ("congo", "tokyo"):
        for place in places(held, region, 3 if quick else 8):
            for target, image in enumerate(place):
                where = "before" if target == 0 else "between"
                where = "after" if target == len(place) - 1 else where
                window = next(windows(image, SIDE))
                group = f"Landsat, {region}, {where}"
                yield _forecast(group, f"{image.place}, {image.date}", place, target, window)
    for k, window in enumerate(windows(peru[-1], SIDE)):
        yield _forecast("Peru, after", f"Peru, {k + 1}", peru, len(peru) - 1, window)


def _forecast(group: str, name: str, place: list[Dated], target: int, window: Window) -> Case:
    image, others = place[target], nearest(place, target)[:MOST_FRAMES]
    truth = colours(image, window)
    there = [colours(other, window) for other in others]
    whole = torch.ones(1, *truth.shape[1:])
    dates = [(other, c, whole) for other, c in zip(others, there, strict=True)]
    base = mingled([c[None] for c in there])[0]
    asked = drawn_from(dates, image, base, whole)
    seen = [shown(c) for c in there]
    between = None
    if 0 < target < len(place) - 1:
        before, after = place[target - 1], place[target + 1]
        share = (years(image) - years(before)) / (years(after) - years(before))
        between = shown(colours(before, window)), shown(colours(after, window)), share
    return Case(group, name, shown(truth), seen[0], {"": asked}, seen, between=between)
