"""What real imagery of a level and a land cover is like: the scale that chains are measured with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from terraloom.data.packed import Pack, Sample
from terraloom.evaluation.measures import SQUARE, Floats, bands, contrast, group_of
from terraloom.grid import drawn_level
from terraloom.models.waves import SCALE

Key = tuple[int, int]  # level, coarse class
REDUCTIONS = (1, 2, 4)
OCTAVES = 0.75  # an image stands for a level when its gsd is at most so far from the level's on the equator
NATIVE = 450.0  # metres; Blue Marble's own gsd is 500 m, so what claims to be finer (far north) is enlarged
MOST = 120  # images per key
LOW, HIGH = 0.7, 1.4  # contrast wanted, over that of real imagery


@dataclass(frozen=True)
class Reference:
    """Real images of one level and coarse class."""

    contrast: float  # median over images, of 255
    spread: float  # share of the real images themselves within LOW to HIGH of that median
    bands: Floats  # (3,) geometric mean of band power
    count: int


def fits(sample: Sample, reduce: int = 1) -> bool:
    """Whether an image, reduced, is true imagery of a level: not enlarged, not between two levels."""
    gsd = sample.gsd * reduce
    if sample.set.startswith("bluemarble") and sample.gsd < NATIVE:
        return False
    away = abs(float(np.log2(gsd / 0.6 / 2.0 ** (18 - drawn_level(gsd)))))
    return away <= OCTAVES and min(sample.rgb.shape[:2]) // reduce >= SQUARE


def references(packs: list[Pack]) -> dict[Key, Reference]:
    """By level and coarse class, wherever there are at least five images."""
    found: dict[Key, list[tuple[Sample, int]]] = defaultdict(list)
    for sample, reduce in _images(packs):
        most = int(np.bincount(np.minimum(sample.cover, 18).ravel()).argmax())
        found[drawn_level(sample.gsd * reduce), group_of(most)].append((sample, reduce))
    return {key: _reference(entries) for key, entries in sorted(found.items()) if len(entries) >= 5}


def _images(packs: list[Pack]) -> Iterator[tuple[Sample, int]]:
    for pack in packs:
        for samples in pack.sets.values():
            for sample in samples:
                for reduce in REDUCTIONS:
                    if fits(sample, reduce):
                        yield sample, reduce


def _reference(entries: list[tuple[Sample, int]]) -> Reference:
    picked = entries[:: -(-len(entries) // MOST)]
    images = [shrunk(sample, by).rgb.transpose(2, 0, 1) for sample, by in picked]
    contrasts = np.array([contrast(image) for image in images])
    power = np.stack([bands(image) for image in images])
    middle = float(np.median(contrasts))
    inside = (contrasts >= LOW * middle) & (contrasts <= HIGH * middle)
    return Reference(middle, float(inside.mean()), np.exp(np.log(power).mean(0)), len(entries))


def shrunk(sample: Sample, by: int) -> Sample:
    """A sample reduced by box means; its cells are those of every `by`-th."""
    if by == 1:
        return sample
    h, w = (n // (SCALE * by) * SCALE for n in sample.rgb.shape[:2])
    parts = sample.rgb[: h * by, : w * by].reshape(h, by, w, by, 3)
    cells = np.s_[: h // SCALE * by : by, : w // SCALE * by : by]
    return replace(
        sample,
        rgb=np.asarray(parts.mean((1, 3), dtype=np.float32).round(), np.uint8),
        cover=sample.cover[cells],
        mask=sample.mask[cells],
        gsd=sample.gsd * by,
        use=None,
    )
