"""Captioned images for the text model: the reader of its pack (layout: terraloom.data.text_pack) and its batches.

Everything is decoded and reduced once; drawing a batch is slicing. It depends on the pack, the recipe's data section
and the generator passed in alone.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from terraloom.data.packed import read_file
from terraloom.errors import BadPack, InvalidInput
from terraloom.metadata import FIELDS, Metadata

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
VERSION = 1
EVEN = ("eurosat", "ucmerced")  # sets whose classes are drawn equally often
REGION = 0.5  # share of draws at which a set without places tells its region
DROPS = (
    "text_drop",
    "metadata_drop",
    "field_drop",
)  # shares, 0.1 each where the recipe says nothing


@dataclass(frozen=True)
class Captioned:
    """One image with what is known of it."""

    set: str
    rgb: Bytes  # (h, w, 3)
    gsd: float | None  # metres per pixel
    captions: tuple[int, ...]  # rows of the pack's texts, one of them is drawn
    lon: float | None = None
    lat: float | None = None
    region: tuple[float, float, float, float] | None = None  # west, south, east, north
    cloud_cover: float | None = None  # 0..1
    date: str | None = None
    label: str = ""


@dataclass(frozen=True)
class TextPack:
    """Captioned images and their texts as vectors; captions[0] is the empty text."""

    rows: list[Captioned]
    captions: list[str]
    tokens: npt.NDArray[np.float16]  # (captions, TOKENS, 384)
    pooled: npt.NDArray[np.float16]  # (captions, 384)

    @classmethod
    def load(cls, path: Path | str, validation: bool = False) -> TextPack:
        """Decode the training side of a pack, or the held-out side.

        Raises:
            BadPack: the file is missing, damaged or of another version.
        """
        index, data = read_file(path, "text", "text-pack", VERSION)
        try:
            tokens, pooled = data["tokens"], data["pooled"]
        except KeyError as error:
            raise BadPack(f"text pack {path} has no {error}; make it anew") from error
        rows = [
            _row(row, image)
            for row, image in zip(index["rows"], data["image"], strict=True)
            if row["val"] == validation
        ]
        return cls(rows, index["captions"], tokens, pooled)

    @property
    def sets(self) -> list[str]:
        """Names of the sets, sorted."""
        return sorted({row.set for row in self.rows})


def _row(row: dict[str, Any], image: Bytes) -> Captioned:
    return Captioned(
        set=row["set"],
        rgb=np.asarray(Image.open(io.BytesIO(image.tobytes())).convert("RGB")),
        gsd=row["gsd"],
        captions=tuple(row["captions"]),
        lon=row["lon"],
        lat=row["lat"],
        region=tuple(row["region"]) if row["region"] else None,
        cloud_cover=row["cloud_cover"],
        date=row["date"],
        label=row["label"] or "",
    )


@dataclass(frozen=True)
class TextBatch:
    """What one training step of the text model sees."""

    images: Tensor  # float32 (n, 3, side, side) in [-1, 1]
    tokens: Tensor  # float32 (n, TOKENS, 384)
    pooled: Tensor  # float32 (n, 384)
    metadata: Tensor  # float32 (n, 7), 0..1000 scale of terraloom.metadata, NaN where missing
    labels: list[str]  # classes of the sets, "" where unknown
    captions: list[str]  # the drawn texts, "" where dropped

    def to(self, device: torch.device) -> TextBatch:
        """Moved to a device."""
        return replace(
            self,
            images=self.images.to(device),
            tokens=self.tokens.to(device),
            pooled=self.pooled.to(device),
            metadata=self.metadata.to(device),
        )


@dataclass(frozen=True)
class _Source:
    """A set at a reduction, ready to be cropped."""

    images: list[Bytes]  # each at least side x side
    rows: list[Captioned]
    metadata: Floats  # (images, 7)
    corners: (
        Floats  # (images, 2, 2): west south, east north on the metadata's scale; NaN without region
    )
    cumulated: npt.NDArray[np.float64]  # of the images' shares


class TextBatches:
    """Draws batches from a pack.

    The recipe's data section has `sources`, [[set, reduction, weight], ...] (`reduction` pixels of the set make one
    training pixel, whose gsd is told; "fit" is the largest reduction at which the crop still fits), and `text_drop`,
    `metadata_drop`, `field_drop`: shares of images whose text, whole metadata and each single field are withheld.

    Raises:
        InvalidInput: a share outside 0..1, or a source that is malformed or not in the pack.
    """

    def __init__(self, pack: TextPack, data: dict[str, Any]) -> None:
        self.pack = pack
        self._recipe = [_checked(source) for source in data["sources"]]
        if missing := {s for s, _, _ in self._recipe} - set(pack.sets):
            raise InvalidInput(
                f"the recipe asks for sets {sorted(missing)}; the pack holds {pack.sets}"
            )
        self._drops = [float(data.get(name, 0.1)) for name in DROPS]
        for name, share in zip(DROPS, self._drops, strict=True):
            if not 0 <= share <= 1:
                raise InvalidInput(f"{name} is {share}, must be 0 to 1")
        self._ready: dict[int, tuple[list[_Source], npt.NDArray[np.float64]]] = {}

    def draw(self, rng: np.random.Generator, n: int, side: int = 64) -> TextBatch:
        """Random crops of n images, turned and mirrored, each with one of its captions.

        Images that are smaller than `side` after their reduction are passed over.

        Raises:
            InvalidInput: no source of the recipe has an image that is large enough.
        """
        sources, cumulated = self._sources(side)
        picked = np.searchsorted(cumulated, rng.random(n), side="right")
        crops = np.empty((n, side, side, 3), np.uint8)
        metadata = np.empty((n, len(FIELDS)), np.float32)
        chosen = np.empty(n, np.int64)
        rows = []
        for k, source in enumerate(sources[p] for p in picked):
            i = int(np.searchsorted(source.cumulated, rng.random(), side="right"))
            row = source.rows[i]
            rows.append(row)
            crops[k] = _crop(source.images[i], side, rng)
            metadata[k] = source.metadata[i]
            if row.region is not None and rng.random() < REGION:
                metadata[k, :2] = rng.uniform(*source.corners[i])
            chosen[k] = row.captions[rng.integers(len(row.captions))]
        text_drop, metadata_drop, field_drop = self._drops
        chosen[rng.random(n) < text_drop] = 0
        metadata[rng.random(n) < metadata_drop] = np.nan
        metadata[rng.random(metadata.shape) < field_drop] = np.nan
        return TextBatch(
            torch.from_numpy(crops).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous(),
            torch.from_numpy(self.pack.tokens[chosen].astype(np.float32)),
            torch.from_numpy(self.pack.pooled[chosen].astype(np.float32)),
            torch.from_numpy(metadata),
            [row.label for row in rows],
            [self.pack.captions[c] for c in chosen],
        )

    def _sources(self, side: int) -> tuple[list[_Source], npt.NDArray[np.float64]]:
        """The sources that have crops of `side` pixels, and their cumulated shares."""
        if side not in self._ready:
            made = [(_source(self.pack, s, r, side), w) for s, r, w in self._recipe]
            kept = [(source, w) for source, w in made if source is not None and w > 0]
            if not kept:
                raise InvalidInput(f"no source of the recipe has images of {side} training pixels")
            self._ready[side] = [s for s, _ in kept], _cumulated([w for _, w in kept])
        return self._ready[side]


Reduction = int | Literal["fit"]


def _checked(source: Sequence[Any]) -> tuple[str, Reduction, float]:
    """A source of a recipe."""
    match source:
        case [str(name), reduction, int() | float() as weight] if weight >= 0:
            if reduction == "fit" or (isinstance(reduction, int) and reduction >= 1):
                return name, reduction, float(weight)
    raise InvalidInput(
        f'source {source} of the recipe is not [set, reduction, weight], reduction 1, 2, ... or "fit"'
    )


def _source(pack: TextPack, name: str, reduction: Reduction, side: int) -> _Source | None:
    rows, factors = [], []
    for row in pack.rows:
        short = min(row.rgb.shape[:2])
        factor = short // side if reduction == "fit" else reduction
        if row.set == name and short >= side * max(factor, 1):
            rows.append(row)
            factors.append(factor)
    if not rows:
        return None
    sizes = Counter(row.label for row in rows)
    weights = [1 / sizes[row.label] if name in EVEN else 1.0 for row in rows]
    return _Source(
        [_reduce(row.rgb, factor) for row, factor in zip(rows, factors, strict=True)],
        rows,
        np.stack([_told(row, f).vector() for row, f in zip(rows, factors, strict=True)]),
        np.stack([_corners(row) for row in rows]),
        _cumulated(weights),
    )


def _told(row: Captioned, reduction: int) -> Metadata:
    """What the model is told of an image whose pixels are `reduction` times as large."""
    gsd = None if row.gsd is None else row.gsd * reduction
    return Metadata(row.lon, row.lat, gsd, row.cloud_cover, row.date)


def _corners(row: Captioned) -> Floats:
    if row.region is None:
        return np.full((2, 2), np.nan, np.float32)
    west, south, east, north = row.region
    low, high = (Metadata(lon, lat).vector()[:2] for lon, lat in ((west, south), (east, north)))
    return np.stack([low, high])


def _cumulated(weights: Sequence[float]) -> npt.NDArray[np.float64]:
    """Running sum to exactly 1."""
    total = np.cumsum(weights)
    return np.asarray(total / total[-1])


def _reduce(rgb: Bytes, factor: int) -> Bytes:
    """Mean of factor x factor boxes, what does not fill a box is cut off."""
    if factor == 1:
        return rgb
    h, w = (n // factor for n in rgb.shape[:2])
    total = np.zeros((h, w, 3), np.uint32)
    for y, x in product(range(factor), repeat=2):  # ten times as fast as a mean over two axes
        total += rgb[y : h * factor : factor, x : w * factor : factor]
    area = factor * factor
    return ((total + area // 2) // area).astype(np.uint8)


def _crop(rgb: Bytes, side: int, rng: np.random.Generator) -> Bytes:
    """A random square, turned and mirrored at random."""
    y, x = (int(rng.integers(n - side + 1)) for n in rgb.shape[:2])
    cut = np.rot90(rgb[y : y + side, x : x + side], int(rng.integers(4)))
    return cut[:, ::-1] if rng.random() < 0.5 else cut
