"""Batches for training on frames: the three tasks made from one pack of dated images.

Super-resolution: bands reduced by four, in -> colours, out. In-painting: an image with a hole, and other dates where
there are some. Forecasting: other dates in, a date out. Everything is drawn from the generator passed in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from terraloom.data.stacks import Dated, Stacks
from terraloom.errors import InvalidInput
from terraloom.metadata import Metadata, ordinal
from terraloom.models.frames import (
    BANDS,
    CHANNELS,
    COLOURS,
    MOST_FRAMES,
    RGB,
    Frames,
    agreed,
    composed,
    mingled,
)
from terraloom.models.waves import SCALE, bicubic4, reduce4
from terraloom.training.holes import hole

Task = Literal["superres", "inpaint", "forecast"]
TASKS: tuple[Task, ...] = ("superres", "inpaint", "forecast")
Floats = npt.NDArray[np.float32]
ANY_TRIPLE = 0.15  # share of images of more than three bands that show three others as colours
OTHER_DATES = 0.6  # share of in-painting with other dates, where there are some
CLOUDED = 0.3  # share of those that have a hole too
YEARS = 15  # of the random shift, at most, both ways
OLDEST = 1980  # year that metadata can say
PLACED = 0.5  # share of crops whose position is told


@dataclass(frozen=True)
class Batch:
    """Frames and the image that was really there."""

    task: Task
    frames: Frames
    truth: Tensor  # (B, 3, H, W)

    def to(self, device: torch.device) -> Batch:
        """Moved to a device."""
        return replace(self, frames=self.frames.to(device), truth=self.truth.to(device))


@dataclass(frozen=True)
class Source:
    """A set read at a reduction, for a task."""

    set: str
    reduce: int
    weight: float


@dataclass(frozen=True)
class _Crop:
    """The same ground on several dates."""

    images: list[Dated]
    values: list[Floats]  # (bands, n, n) each
    gsd: float
    years: int  # added to all dates: few places, so their years would be learned by heart
    placed: bool  # whether the position is told


class FrameBatches:
    """Draws batches of one task.

    Args:
        stacks: the images.
        data: a recipe's data section.
        tasks: those that will be asked for.

    Raises:
        InvalidInput: the recipe asks for sets that the pack does not hold.
    """

    def __init__(self, stacks: Stacks, data: dict[str, Any], tasks: Iterable[Task] = TASKS) -> None:
        self.stacks, self.side = stacks, int(data["side"])
        self.sources = {task: self._sources(task, data[task]) for task in tasks}
        self.drop = float(data.get("field_drop", 0.1)), float(data.get("metadata_drop", 0.1))
        self.drop_bands = float(data.get("band_drop", 0.3))

    def _sources(self, task: Task, rows: list[list[Any]]) -> list[Source]:
        sources = [Source(*row) for row in rows]
        if missing := {s.set for s in sources} - set(self.stacks.places):
            raise InvalidInput(
                f"the recipe's {task} asks for sets {sorted(missing)}; "
                f"the pack holds {sorted(self.stacks.places)}"
            )
        return sources

    def draw(self, rng: np.random.Generator, task: Task, count: int) -> Batch:
        """A batch of `count` images of the recipe's side, all with as many frames (missing ones masked)."""
        sources = self.sources[task]
        weights = np.array([s.weight for s in sources])
        rows = []
        for k in rng.choice(len(sources), count, p=weights / weights.sum()):
            crop = self._crop(rng, sources[k], 2 if task == "forecast" else 1)
            rows.append(MAKERS[task](self, rng, crop))
        return Batch(task, *_stacked(rows))

    def _crop(self, rng: np.random.Generator, source: Source, dates: int) -> _Crop:
        """A random window of a random place that has at least so many dates, turned and mirrored at random."""
        reach = self.side * source.reduce
        places = [
            p
            for p in self.stacks.places[source.set]
            if len(p) >= dates and min(p[0].pixels.shape[1:]) >= reach
        ]
        if not places:
            raise InvalidInput(
                f"no place of {source.set} has {dates} dates and {reach} px a side; "
                "give the task the share 0 in the recipe, or another reduction"
            )
        place = places[int(rng.integers(len(places)))]
        h, w = place[0].pixels.shape[1:]
        step = SCALE if h % SCALE == 0 else 1
        y, x = (int(rng.integers((n - reach) // step + 1)) * step for n in (h, w))
        part = slice(y, y + reach), slice(x, x + reach)
        turn, mirror = int(rng.integers(4)), rng.random() < 0.5
        gain, offset = _jitter(rng)
        values = []
        for image in place:
            v = image.stretched(part)
            v = v.reshape(len(v), self.side, source.reduce, self.side, source.reduce).mean((2, 4))
            v = np.rot90(v, turn, (1, 2))
            v = v[:, :, ::-1] if mirror else v
            values.append(np.ascontiguousarray(v * gain + offset))
        oldest = min((int(image.date[:4]) for image in place if image.date), default=OLDEST)
        shift = max(int(rng.integers(-YEARS, YEARS + 1)), OLDEST - oldest)
        return _Crop(place, values, place[0].gsd * source.reduce, shift, rng.random() < PLACED)

    def _told(self, rng: np.random.Generator, crop: _Crop, k: int) -> Floats:
        """Metadata of image `k` of a crop, dropped at random."""
        field, whole = self.drop
        image = crop.images[k]
        lon, lat = (image.lon, image.lat) if crop.placed else (None, None)
        when = image.date and f"{int(image.date[:4]) + crop.years:04d}{image.date[4:]}"
        when = when and when.replace("-02-29", "-02-28")  # not every year has it
        vector = Metadata(lon, lat, crop.gsd, None, when).vector()
        dropped = rng.random(len(vector)) < (1.0 if rng.random() < whole else field)
        return np.where(dropped, np.nan, vector).astype(np.float32)


def _jitter(rng: np.random.Generator) -> tuple[float, float]:
    """Contrast and brightness of half of the crops, the same for all of their dates."""
    if rng.random() < 0.5:
        return 1.0, 0.0
    return float(rng.uniform(0.7, 1.25)), float(rng.uniform(-0.2, 0.2))


Row = dict[str, Any]


def _superres(batches: FrameBatches, rng: np.random.Generator, crop: _Crop) -> Row:
    """Its bands reduced by four -> one frame; the colours in full -> truth."""
    k = int(rng.integers(len(crop.images)))
    image, values = crop.images[k], crop.values[k]
    colours, extras = _colours(rng, image, others=True)
    truth = torch.from_numpy(values[colours])[None]
    clean = reduce4(truth)
    noise = torch.from_numpy(rng.standard_normal(tuple(clean.shape), dtype=np.float32))
    coarse = clean + float(rng.random() < 0.5) * float(rng.uniform(0, 0.02)) * noise
    truth = truth + bicubic4(coarse - clean)
    pixels = torch.zeros(CHANNELS, batches.side, batches.side)
    base = bicubic4(coarse)[0]
    pixels[:COLOURS], pixels[-1] = base, 1
    if rng.random() >= batches.drop_bands:
        for i in extras:
            if rng.random() < 0.1:
                continue
            factor = max(1, round(SCALE * image.coarseness[i]))
            pixels[BANDS.index(image.bands[i])] = coarsened(torch.from_numpy(values[i]), factor)
    seen = _coarser(batches._told(rng, crop, k), crop.gsd * SCALE)
    return {
        "pixels": [pixels],
        "dated": [seen],
        "target": batches._told(rng, crop, k),
        "base": base,
        "free": torch.ones(1, batches.side, batches.side),
        "coarse": coarse[0],
        "truth": truth[0],
    }


def _inpaint(batches: FrameBatches, rng: np.random.Generator, crop: _Crop) -> Row:
    """An image with a hole, and other dates of the place for some -> the image."""
    k = int(rng.integers(len(crop.images)))
    colours, _ = _colours(rng, crop.images[k])
    truth = torch.from_numpy(crop.values[k][colours])
    missing = torch.from_numpy(hole(rng, batches.side))[None]
    shown = [(k, truth, 1 - missing)]
    rest = [i for i in range(len(crop.images)) if i != k]
    if rest and rng.random() < OTHER_DATES:
        for i in rng.permutation(rest)[: int(rng.integers(1, MOST_FRAMES))]:
            there = torch.ones_like(missing)
            if rng.random() < CLOUDED:
                there = 1 - torch.from_numpy(hole(rng, batches.side))[None]
            shown.append((int(i), torch.from_numpy(crop.values[i][colours]), there))
    base = inpaint_base(truth, 1 - missing, _by_distance(crop, k, shown[1:]))
    return _with_dates(batches, rng, crop, k, shown, base, missing, truth)


def _forecast(batches: FrameBatches, rng: np.random.Generator, crop: _Crop) -> Row:
    """Up to three other dates -> a date, before, between or after them."""
    k = int(rng.integers(len(crop.images)))
    colours, _ = _colours(rng, crop.images[k])
    rest = [i for i in range(len(crop.images)) if i != k]
    count = int(rng.integers(1, min(MOST_FRAMES, len(rest)) + 1))
    whole = torch.ones(1, batches.side, batches.side)
    shown = [
        (int(i), torch.from_numpy(crop.values[i][colours]), whole)
        for i in rng.permutation(rest)[:count]
    ]
    base = mingled([colours[None] for colours, _ in _by_distance(crop, k, shown)])[0]
    truth = torch.from_numpy(crop.values[k][colours])
    return _with_dates(batches, rng, crop, k, shown, base, whole, truth)


def inpaint_base(image: Tensor, known: Tensor, others: list[tuple[Tensor, Tensor]]) -> Tensor:
    """First guess of an image with a hole, (3, H, W): other dates in the hole, the nearest first, else what is around.

    Args:
        image: (3, H, W).
        known: (1, H, W), 0 in the hole.
        others: other dates (3, H, W) and where they are known (1, H, W).
    """
    layers = [(image[None], known[None])]
    for other, there in others:
        layers.append((agreed(other[None], image[None], (known * there)[None]), there[None]))
    return composed(layers)[0]


Shown = tuple[int, Tensor, Tensor]  # number of the image, colours, where they are known


def _by_distance(crop: _Crop, k: int, shown: list[Shown]) -> list[tuple[Tensor, Tensor]]:
    """Colours and knowledge of other dates, those nearest to date `k` first."""
    when = years(crop.images[k])
    nearest = sorted(shown, key=lambda s: abs(years(crop.images[s[0]]) - when))
    return [(colours, known) for _, colours, known in nearest]


def _with_dates(
    batches: FrameBatches,
    rng: np.random.Generator,
    crop: _Crop,
    k: int,
    shown: list[Shown],
    base: Tensor,
    free: Tensor,
    truth: Tensor,
) -> Row:
    """Frames in the order of their dates."""
    pixels, dated = [], []
    for i, colours, known in sorted(shown, key=lambda s: years(crop.images[s[0]])):
        frame = torch.zeros(CHANNELS, batches.side, batches.side)
        frame[:COLOURS], frame[-1:] = colours * known, known
        pixels.append(frame)
        dated.append(batches._told(rng, crop, i))
    return {
        "pixels": pixels,
        "dated": dated,
        "target": batches._told(rng, crop, k),
        "base": base,
        "free": free,
        "coarse": None,
        "truth": truth,
    }


MAKERS: dict[Task, Any] = {"superres": _superres, "inpaint": _inpaint, "forecast": _forecast}


def years(image: Dated) -> float:
    """Date as a number, for order and distance; 0 when unknown."""
    return ordinal(image.date) / 365.25


def _colours(
    rng: np.random.Generator, image: Dated, others: bool = False
) -> tuple[list[int], list[int]]:
    """Numbers of the bands shown as colours, mostly red, green and blue, and of the others."""
    names = image.bands
    if set(RGB) <= set(names) and (len(names) == COLOURS or rng.random() >= ANY_TRIPLE):
        chosen = [names.index(c) for c in RGB]
        rest = [i for i in range(len(names)) if i not in chosen and names[i] in BANDS]
        return chosen, rest if others else []
    fine = [i for i, c in enumerate(image.coarseness) if c == 1]
    pool = fine if len(fine) >= COLOURS else range(len(names))
    return [int(i) for i in rng.permutation(list(pool))[:COLOURS]], []


def coarsened(band: Tensor, factor: int) -> Tensor:
    """A band as a sensor of `factor` times coarser pixels would show it, enlarged again."""
    size = band.shape[-2:]
    small = F.avg_pool2d(band[None, None], factor, ceil_mode=True)
    return F.interpolate(small, size=size, mode="bicubic", align_corners=False)[0, 0]


def _coarser(vector: Floats, gsd: float) -> Floats:
    """Metadata with that gsd instead, unless it is missing."""
    known = Metadata(gsd=gsd).vector()
    i = int(np.flatnonzero(np.isfinite(known))[0])
    out = vector.copy()
    out[i] = known[i] if np.isfinite(vector[i]) else np.nan
    return out


def _stacked(rows: list[Row]) -> tuple[Frames, Tensor]:
    most = max(len(row["pixels"]) for row in rows)
    empty = torch.zeros_like(rows[0]["pixels"][0])
    pixels = [
        torch.stack([*row["pixels"], *[empty] * (most - len(row["pixels"]))], 1) for row in rows
    ]
    nowhere = np.full(7, np.nan, np.float32)
    dated = [
        torch.from_numpy(np.stack([*row["dated"], *[nowhere] * (most - len(row["dated"]))], 1))
        for row in rows
    ]
    present = torch.tensor([[i < len(row["pixels"]) for i in range(most)] for row in rows])
    coarse = None if rows[0]["coarse"] is None else torch.stack([row["coarse"] for row in rows])
    frames = Frames(
        torch.stack(pixels),
        present,
        torch.stack(dated),
        torch.from_numpy(np.stack([row["target"] for row in rows])),
        torch.stack([row["base"] for row in rows]),
        torch.stack([row["free"] for row in rows]),
        coarse,
    )
    return frames, torch.stack([row["truth"] for row in rows])
