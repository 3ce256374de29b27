"""One evaluation of a text-to-image checkpoint: metrics.json, card.md and contact sheets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from terraloom.evaluation import neighbours, responses, text_card
from terraloom.evaluation.chips import DOMAINS, EUROSAT, SIDE, Chips, Domain, chips, spread
from terraloom.evaluation.frechet import distance_rows
from terraloom.evaluation.painter import Paint, Painter, asked
from terraloom.evaluation.readers import Reader, readers
from terraloom.evaluation.report import one_thread, write
from terraloom.evaluation.sheets import table_sheet
from terraloom.evaluation.text_sheets import class_sheet, response_sheets
from terraloom.metadata import Metadata
from terraloom.training.captioned import TextPack

Metrics = dict[str, Any]
COPIES = 20  # generated images shown beside their nearest training images
WIDE = 256  # pixels, side of the images that are read chip by chip


@dataclass(frozen=True)
class Counts:
    """How many images are drawn."""

    each: int  # per class, read by the classifiers
    seeds: int  # per value of a field
    distance: int  # for Frechet and kernel distances
    wide: int  # of `WIDE` pixels, per class


FULL, QUICK = Counts(20, 16, 500, 4), Counts(8, 6, 160, 2)


@dataclass(frozen=True)
class Real:
    """What real images say: both sides of the pack, and the readers that learned from one of them."""

    pack: TextPack
    learned: list[Chips]  # by domain
    held: list[Chips]
    readers: list[Reader]


def evaluate_text(
    model: str, pack: Path, out: Path, *, seed: int = 0, quick: bool = False
) -> Metrics:
    """Measure a text-to-image checkpoint and write `metrics.json`, `card.md` and sheets (WebP) into `out`.

    Args:
        model: name or folder of a text-to-image checkpoint.
        pack: text pack; its training side teaches the classifiers and is what distances are measured to, its held-out
            side is the ceiling and the floor.
        out: folder, made if missing.
        seed: of the noise.
        quick: fewer images.

    Raises:
        BadCheckpoint: no text-to-image checkpoint.
        BadPack: the pack cannot be read or lacks one of the two sets with classes.
        TerraloomError: the extra `train` is not installed.
    """
    painter = Painter(model)
    with one_thread():
        real = real_images(pack)
        out.mkdir(parents=True, exist_ok=True)
        counts = QUICK if quick else FULL
        metrics: Metrics = {
            "model": painter.pipeline.digest,
            "steps": painter.pipeline.config.steps,
            "guidance": painter.pipeline.config.guidance,
            "seed": seed,
        }
        metrics |= measure(painter, real, out, seed, counts)
    write(out / "metrics.json", json.dumps(metrics, indent=1))
    write(out / "card.md", text_card.body(metrics))
    return metrics


def real_images(pack: Path) -> Real:
    """Read a pack and train the readers, or find them in the cache."""
    train, held = TextPack.load(pack), TextPack.load(pack, validation=True)
    learned = [chips(train, d) for d in DOMAINS]
    known = readers(learned, [len(d.classes) for d in DOMAINS])
    return Real(train, learned, [chips(held, d) for d in DOMAINS], known)


def measure(paint: Paint, real: Real, out: Path, seed: int, counts: Counts) -> Metrics:
    """All measures of whatever draws; sheets go to `out` on the way."""
    seeds = list(range(1_000_000 * seed, 1_000_000 * seed + counts.seeds))
    classes: Metrics = {}
    drawn: list[Tensor] = []
    for k, domain in enumerate(DOMAINS):
        images, classes[domain.set] = _prompted(paint, real, k, seed, counts.each)
        drawn.append(images)
        class_sheet(images, domain, counts.each, out / f"{domain.set}.webp")
    wide = _wide(paint, real, seed, counts.wide, out / "wide.webp")
    moved, pictures = responses.field_responses(paint, real.pack, seeds)
    words, pairs = responses.word_responses(paint, seeds)
    missing, blanks = responses.missing_responses(paint, seeds)
    response_sheets(pictures, pairs, blanks, out)
    return {
        "classes": classes,
        "wide": wide,
        "distance": _distances(paint, real, seed, counts.distance),
        "responses": moved,
        "words": words,
        "missing": missing,
        "neighbours": _neighbours(drawn[0], real, out / "neighbours.webp"),
    }


def _prompted(paint: Paint, real: Real, k: int, seed: int, each: int) -> tuple[Tensor, Metrics]:
    """Images of every class of a domain, and how they are read."""
    domain = DOMAINS[k]
    prompts, labels, seeds = asked(domain, each, seed)
    images = paint(prompts, [Metadata(gsd=domain.gsd)] * len(prompts), seeds)
    known = set(real.pack.captions)
    metrics: Metrics = {"each": each, "gsd": domain.gsd}
    for reader in real.readers:
        held = real.held[k]
        real_read = reader.read(reader.embed(held.images), k)
        read = reader.read(reader.embed(images), k)
        metrics[reader.name] = _accuracy(domain, prompts, known, read, torch.tensor(labels)) | {
            "real": round(_by_class(real_read, held.labels, len(domain.classes)).mean(), 3),
            "real_images": len(held.labels),
        }
    return images, metrics


def _wide(paint: Paint, real: Real, seed: int, each: int, path: Path) -> Metrics:
    """How the chips of wide images of EuroSAT's classes are read."""
    prompts, labels, seeds = asked(EUROSAT, each, seed)
    images = paint(prompts, [Metadata(gsd=EUROSAT.gsd)] * len(prompts), seeds, WIDE)
    parts = [part for row in torch.split(images, SIDE, 2) for part in torch.split(row, SIDE, 3)]
    cut, told = torch.cat(parts), torch.tensor(labels).repeat(len(parts))
    shown = [(name, [*images[k * each :][:each].numpy()]) for k, name in enumerate(EUROSAT.classes)]
    table_sheet(shown, [f"{k + 1}" for k in range(each)], path, WIDE)
    metrics: Metrics = {"each": each, "side": WIDE}
    for reader in real.readers:
        share = _by_class(reader.read(reader.embed(cut), 0), told, len(EUROSAT.classes))
        by_class = dict(zip(EUROSAT.classes, share.round(2).tolist(), strict=True))
        metrics[reader.name] = {"generated": round(float(share.mean()), 3), "by_class": by_class}
    return metrics


def _by_class(read: Tensor, labels: Tensor, classes: int) -> Any:
    """Share that is read right, class by class, of the classes that occur."""
    right = (read == labels).float()
    present = [k for k in range(classes) if bool((labels == k).any())]
    return np.array([float(right[labels == k].mean()) for k in present])


def _accuracy(
    domain: Domain, prompts: list[str], known: set[str], read: Tensor, labels: Tensor
) -> Metrics:
    """Means over classes, apart for prompts that are captions of the training images, prompt by prompt, confusion."""
    right = (read == labels).tolist()
    told = [p in known for p in prompts]
    share = _by_class(read, labels, len(domain.classes))
    confusion = torch.zeros(len(domain.classes), len(domain.classes), dtype=torch.int64)
    confusion.index_put_((labels, read), torch.ones_like(labels), accumulate=True)
    return {
        "generated": round(float(share.mean()), 3),
        "captions": _mean([r for r, t in zip(right, told, strict=True) if t]),
        "other_words": _mean([r for r, t in zip(right, told, strict=True) if not t]),
        "by_class": dict(zip(domain.classes, share.round(2).tolist(), strict=True)),
        "by_prompt": {
            p: _mean([r for r, q in zip(right, prompts, strict=True) if q == p])
            for p in dict.fromkeys(prompts)
        },
        "confusion": confusion.tolist(),
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 3) if values else None


def _distances(paint: Paint, real: Real, seed: int, count: int) -> Metrics:
    """EuroSAT-like images, of the captions that held-out images have, against training images."""
    learned, held = real.learned[0], real.held[0]
    count = min(count, len(held.labels), len(learned.labels) // 2)
    rng = np.random.default_rng(seed)
    rows = [held.rows[i] for i in spread(len(held.rows), count)]
    texts = [real.pack.captions[row.captions[rng.integers(len(row.captions))]] for row in rows]
    first = 2_000_000_000 + 1_000_000 * seed
    drawn = paint(texts, [Metadata(gsd=EUROSAT.gsd)] * count, range(first, first + count))
    halves = spread(len(learned.labels), 2 * count)
    halves = halves[torch.randperm(2 * count, generator=torch.Generator().manual_seed(1))]
    reference = learned.images[halves[:count]]
    sets = {
        "generated": drawn,
        "real, held out": held.images[spread(len(held.labels), count)],
        "real, other half": learned.images[halves[count:]],
    }
    return {"images": count} | {r.name: distance_rows(r, reference, sets) for r in real.readers}


def _neighbours(drawn: Tensor, real: Real, path: Path) -> Metrics:
    """Nearest training images of generated EuroSAT-class images, in features and in pixels."""
    learned, held = real.learned[0].images, real.held[0].images
    held = held[spread(len(held), 200)]
    reader = real.readers[-1]  # the CNN: it knows the kind of image, and is quick on all of them
    base = reader.embed(learned)[:, : reader.pooled]
    mean, std = base.mean(0), base.std(0) + 1e-3

    def standard(images: Tensor) -> Tensor:
        return (reader.embed(images)[:, : reader.pooled] - mean) / std

    known = (base - mean) / std
    d, i = neighbours.nearest(standard(drawn), known)
    p, j = neighbours.nearest_pixels(drawn, learned)
    shown = torch.linspace(0, len(drawn) - 1, min(COPIES, len(drawn))).long()
    rows = [
        (
            f"features {d[k, 0]:.1f}, pixels {p[k, 0]:.1f}",
            [drawn[k], *learned[i[k]], *learned[j[k]]],
        )
        for k in shown.tolist()
    ]
    heads = ["generated", *["nearest, features"] * 3, *["nearest, pixels"] * 3]
    table_sheet([(name, [t.numpy() for t in tiles]) for name, tiles in rows], heads, path)
    return {
        "images": len(drawn),
        "features": neighbours.summary(d[:, 0], neighbours.nearest(standard(held), known)[0][:, 0]),
        "pixels": neighbours.summary(p[:, 0], neighbours.nearest_pixels(held, learned)[0][:, 0]),
    }
