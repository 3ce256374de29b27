"""Crops, degradations and chains: what one training step of the cascade sees.

Everything is drawn from the generator passed in, so a step is a pure function of (pack, seed, step number).
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from terraloom.data.packed import Pack, Sample
from terraloom.data.uses import UNKNOWN_COVER
from terraloom.errors import InvalidInput
from terraloom.models.blur import blurred
from terraloom.models.waves import SCALE, bicubic4, enlarged, reduce4, softened
from terraloom.training.lines import told_lines

GROUND_LAYERS = 6
FINEST_BLUEMARBLE = 450.0  # metres
PALE = 1 / 3  # of a leap's images have paler parents
PALEST = 0.15  # what these keep of their contrast at least
FINEST_MASKED_GSD = 20.0  # metres; finer targets get no mask, as in World
GROUPS = np.array([0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 4, 5, 6, 5, 7, 8, 9, 9])  # IGBP -> coarse class


@dataclass(frozen=True)
class Source:
    """A set read at a reduction: `reduce` pixels of the set make one training pixel."""

    set: str
    reduce: int
    weight: float
    levels: int = 0  # chains: how many levels are generated from it


@dataclass(frozen=True)
class Batch:
    """Images with what is known of them."""

    hr: Tensor  # (B, 3, n, n) in [-1, 1]
    cover: Tensor  # (B, n / 4, n / 4) int64
    ground: Tensor  # (B, 6, n / 4, n / 4) float, with lines 22
    gsd: Tensor  # (B,) metres per pixel of hr

    def to(self, device: torch.device) -> Batch:
        """Moved to a device."""
        return Batch(*(t.to(device) for t in (self.hr, self.cover, self.ground, self.gsd)))

    def twice(self) -> Batch:
        """Every row once more, after all of them."""
        return Batch(*(torch.cat([t, t]) for t in (self.hr, self.cover, self.ground, self.gsd)))


class Batches:
    """Draws batches from a pack."""

    def __init__(
        self, pack: Pack, data: dict[str, Any], codes: int = 0, lines: bool = False
    ) -> None:
        """Take a pack, a recipe's `data` and what the network knows: uses beyond its codes are told as land cover."""
        self.pack, self.codes, self.lines = pack, codes, lines
        self.sources = _sources(data["sources"], pack)
        self.small = _sources(data["small_sources"], pack)
        self.chains = _sources(data["chains"], pack)
        self.unknown = float(data["unknown_cover"])
        self._wide: dict[tuple[str, int], list[Sample]] = {}
        self._pool: dict[tuple[int, int], list[tuple[Sample, int]]] = defaultdict(list)
        for source in self.sources + self.small:
            for sample in pack.sets[source.set]:
                if source.set.startswith("bluemarble") and sample.gsd < FINEST_BLUEMARBLE:
                    continue  # far north its pixels are finer than its content: no example of that level
                key = _level(sample.gsd * source.reduce), main_group(sample.cover)
                self._pool[key].append((sample, source.reduce))

    def paired(self, rng: np.random.Generator, count: int, size: int, small: bool) -> Batch:
        """Random crops over all levels, colours jittered; with lines, if the network knows them, after the ground."""
        sources = [
            s for s in (self.small if small else self.sources) if self._large_enough(s, size)
        ]
        if not sources:
            raise InvalidInput(f"no source of the recipe has images of {size} training pixels")
        weights = np.array([s.weight for s in sources])
        crops = []
        for k in rng.choice(len(sources), count, p=weights / weights.sum()):
            samples = self._large_enough(sources[k], size)
            crops.append(
                self._crop(samples[rng.integers(len(samples))], size, sources[k].reduce, rng)
            )
        batch = _stack(crops)
        hr = _jitter(batch.hr, rng)
        ground = [batch.ground, told_lines(hr, rng)] if self.lines else [batch.ground]
        return replace(batch, hr=hr, ground=torch.cat(ground, 1))

    def chain(
        self, rng: np.random.Generator, count: int, sides: dict[int, int]
    ) -> tuple[Batch, int]:
        """Real images to start chains from (hr is the first low-resolution image), and their depth.

        `sides` gives the side of the first low-resolution image for each depth.
        """
        able = [s for s in self.chains if self._large_enough(s, sides[s.levels])]
        if not able:
            raise InvalidInput("no chain of the recipe has images that are large enough")
        weights = np.array([s.weight for s in able])
        source = able[rng.choice(len(able), p=weights / weights.sum())]
        side = sides[source.levels]
        samples = self._large_enough(source, side)
        picked = [samples[rng.integers(len(samples))] for _ in range(count)]
        return _stack([self._crop(s, side, source.reduce, rng) for s in picked]), source.levels

    def like(self, rng: np.random.Generator, cover: Tensor, gsd: Tensor, size: int) -> Batch | None:
        """Real crops of about the given gsd with the same coarse land cover, None if the level has none."""
        crops = []
        for classes, metres in zip(cover, gsd, strict=True):
            level = _level(float(metres))
            group = main_group(classes.numpy())
            pool = self._pool.get((level, group)) or [
                entry for (at, _), entries in self._pool.items() if at == level for entry in entries
            ]
            pool = [(s, r) for s, r in pool if min(s.rgb.shape[:2]) >= size * r]
            if not pool:
                return None
            sample, factor = pool[rng.integers(len(pool))]
            crops.append(self._crop(sample, size, factor, rng))
        return _stack(crops)

    def _large_enough(self, source: Source, size: int) -> list[Sample]:
        """Samples of a source that hold a crop of `size` training pixels."""
        key = source.set, size * source.reduce
        if key not in self._wide:
            samples = self.pack.sets[source.set]
            self._wide[key] = [s for s in samples if min(s.rgb.shape[:2]) >= key[1]]
        return self._wide[key]

    def _crop(self, sample: Sample, size: int, factor: int, rng: np.random.Generator) -> list[Any]:
        """One crop of size x size training pixels, turned and mirrored at random."""
        side, cells = size * factor, size // SCALE
        step = SCALE * factor
        y, x = (step * int(rng.integers((n - side) // step + 1)) for n in sample.rgb.shape[:2])
        raw = sample.rgb[y : y + side, x : x + side].astype(np.float32)
        rows = np.add.reduce([raw[k::factor] for k in range(factor)])  # a mean of both axes is slow
        rgb = np.add.reduce([rows[:, k::factor] for k in range(factor)]) / np.float32(factor**2)
        part = np.s_[
            y // SCALE : (y + side) // SCALE : factor, x // SCALE : (x + side) // SCALE : factor
        ]
        cover, mask = sample.told(self.codes)[part], sample.mask[part]
        turn, mirror = int(rng.integers(4)), rng.random() < 0.5
        rgb, cover, mask = (np.rot90(a, turn) for a in (rgb, cover, mask))
        if mirror:
            rgb, cover, mask = rgb[:, ::-1], cover[:, ::-1], mask[:, ::-1]
        if rng.random() < self.unknown:
            cover = np.full((cells, cells), UNKNOWN_COVER)
        gsd = sample.gsd * factor
        if gsd < FINEST_MASKED_GSD or rng.random() < self.unknown:
            mask = np.zeros_like(mask)
        bits = np.arange(GROUND_LAYERS)[:, None, None]
        return [
            rgb.transpose(2, 0, 1) / 127.5 - 1,
            cover.astype(np.int64),
            (mask[None] >> bits & 1).astype(np.float32),
            np.float32(gsd),
        ]


def _stack(crops: list[list[Any]]) -> Batch:
    return Batch(
        *(
            torch.from_numpy(np.ascontiguousarray(np.stack(part)))
            for part in zip(*crops, strict=True)
        )
    )


def _sources(rows: list[list[Any]], pack: Pack) -> list[Source]:
    sources = [Source(*row) for row in rows]
    if missing := {s.set for s in sources} - set(pack.sets):
        raise InvalidInput(
            f"the recipe asks for sets {sorted(missing)}; the pack holds {sorted(pack.sets)}"
        )
    return sources


def _level(gsd: float) -> int:
    """Steps of x4 above 0.6 m: 0 for zoom 18, 5 for zoom 8."""
    return round(math.log2(gsd / 0.6) / 2)


def main_group(cover: npt.NDArray[Any]) -> int:
    """Coarse class that most of a land cover map is of."""
    return int(np.bincount(GROUPS[np.minimum(cover, UNKNOWN_COVER).ravel()]).argmax())


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32))


def _jitter(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Saturation, contrast, channel gain and brightness of half of the images, alike in input and target."""
    n = x.shape[0]
    grey, mean = x.mean(1, keepdim=True), x.mean((2, 3), keepdim=True)
    y = grey + (x - grey) * _uniform(rng, 0.7, 1.25, n, 1, 1, 1)
    y = (y - mean) * _uniform(rng, 0.4, 1.35, n, 1, 1, 1) + mean
    y = y * _uniform(rng, 0.92, 1.08, n, 3, 1, 1) + _uniform(rng, -0.15, 0.15, n, 1, 1, 1)
    chosen = _uniform(rng, 0, 1, n, 1, 1, 1) < 0.5
    return torch.where(chosen, y, x).clamp(-1, 1)


def quantise(x: Tensor) -> Tensor:
    """To the 256 levels of uint8 and back: parents are snapped before children read them."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def degrade(lr: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur and noise of random strength on half of the images each, then rounding (Real-ESRGAN's idea, small)."""
    n = len(lr)
    sigma = _uniform(rng, 0, 0.7, n) * (_uniform(rng, 0, 1, n) < 0.5) + 1e-3
    x = blurred(lr, sigma, 2)
    strength = _uniform(rng, 0, 0.02, n, 1, 1, 1) * (_uniform(rng, 0, 1, n, 1, 1, 1) < 0.5)
    grain = torch.from_numpy(rng.standard_normal(tuple(x.shape), dtype=np.float32))
    return quantise(x + strength * grain)


def degraded_pair(hr: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """(low resolution, target): the target is moved so that it stays consistent with the degraded input."""
    clean = reduce4(hr)
    lr = degrade(clean, rng)
    return lr, hr + bicubic4(lr - clean)


def leaping_pair(hr: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """As `degraded_pair` for a leap: the low resolution is of 16 x 16 pixels, and `softened`.

    A third of the images have paler parents: those of a planet, the base map above all, show less than real ones.
    """
    clean = reduce4(reduce4(hr))
    lr = degrade(clean, rng)
    n = len(lr)
    pale = _uniform(rng, 0, 1, n, 1, 1, 1) < PALE
    lr = _paled(lr, torch.where(pale, _uniform(rng, PALEST, 1, n, 1, 1, 1), torch.ones(1)))
    return softened(lr), hr + bicubic4(bicubic4(lr - clean))


def flattened(
    hr: Tensor, lr: Tensor, rng: np.random.Generator, least: float = 0.0, most: float = 0.12
) -> tuple[Tensor, Tensor]:
    """(low resolution that keeps so much of its contrast, the real detail on it): a parent that shows little."""
    flat = _paled(lr, _uniform(rng, least, most, len(lr), 1, 1, 1))
    return flat, hr + enlarged(flat - lr, hr)


def _paled(lr: Tensor, keep: Tensor) -> Tensor:
    """Images with a share of their contrast, (B, 1, 1, 1), on 256 levels."""
    mean = lr.mean((2, 3), keepdim=True)
    return quantise(mean + keep * (lr - mean))


def evenest(batch: Batch, count: int) -> Batch:
    """Those `count` images that show least beyond 16 pixels beside what they show within 4.

    Under an even parent lies what is even at large: canopy, scrub, small fields. The detail of large fields put there
    would be their edges alone, embossed.
    """
    lr = reduce4(batch.hr)
    wide = reduce4(lr).std((2, 3), correction=0).mean(1)
    own = (batch.hr - bicubic4(lr)).std((2, 3), correction=0).mean(1)
    chosen = (wide / (own + 1e-3)).argsort()[:count]
    return Batch(batch.hr[chosen], batch.cover[chosen], batch.ground[chosen], batch.gsd[chosen])


def quarters(batch: Batch) -> Batch:
    """Every image cut in four, (B, ...) -> (4 B, ...)."""

    def cut(x: Tensor) -> Tensor:
        return torch.cat([part for half in x.chunk(2, -1) for part in half.chunk(2, -2)])

    return Batch(cut(batch.hr), cut(batch.cover), cut(batch.ground), batch.gsd.repeat(4))


def crop_at(x: Tensor, y0: int, x0: int, side: int) -> Tensor:
    """Square part of the last two dimensions."""
    return x[..., y0 : y0 + side, x0 : x0 + side].contiguous()
