"""One evaluation of a cascade checkpoint: metrics.json, card.md and contact sheets."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from terraloom.errors import BadCheckpoint, InvalidInput
from terraloom.evaluation import judges, measures, sheets
from terraloom.evaluation.places import PLACES
from terraloom.evaluation.rollout import LEVELS, Link, Roller
from terraloom.models.cascade import CascadeUNet, bicubic4
from terraloom.training.batches import flattened
from terraloom.training.packed import Pack
from terraloom.weights import find, load_model

Metrics = dict[str, Any]
TWELVE = (
    "Nile delta", "Tokyo", "London", "Iowa", "Amazon", "Sahara", "Alps", "Ganges", "Po plain",
    "Taiga", "Sao Paulo", "Outback",
)  # fmt: skip
CLASSIFIER_STEPS, DISCRIMINATOR_STEPS = 500, 150
URBAN, CROPLAND = 13, 12


def evaluate(
    model: str | Path, pack: Path, out: Path, seed: int = 0, places: int = 40, quick: bool = False
) -> Metrics:
    """Measure a cascade checkpoint and write `metrics.json`, `card.md` and sheets into `out`.

    Args:
        model: name or folder of a cascade checkpoint.
        pack: training pack; its held-out side judges single levels, both sides tell real contrast.
        out: folder, made if missing.
        seed: of the noise.
        places: chains to draw, 1 to 40.
        quick: chains and levels only, no trained judges.

    Raises:
        BadCheckpoint: not a cascade.
        InvalidInput: `places` out of range.
    """
    if not 1 <= places <= len(PLACES):
        raise InvalidInput(f"places is {places}; it must be 1 to {len(PLACES)}")
    checkpoint = find(model)
    net = load_model(checkpoint)
    if not isinstance(net, CascadeUNet):
        raise BadCheckpoint(f"{model} is a {checkpoint.kind} model; only cascades are evaluated")
    out.mkdir(parents=True, exist_ok=True)
    held, train = Pack.load(pack, validation=True), Pack.load(pack)
    roller = Roller(net, seed)
    chosen = list(PLACES.items())[:places]
    chains = {name: roller(*place) for name, place in chosen}
    metrics: Metrics = {
        "model": checkpoint.digest,
        "training": checkpoint.config.get("training", {}),
        "seed": seed,
        "places": places,
        "chain": chain_metrics(chains, measures.real_contrast([held, train])),
        "levels": level_metrics(net, held, out / "levels.webp"),
        "flat": flat_metrics(net, train),
    }
    other = Roller(net, seed + 1)(*chosen[0][1], finest=10)[-1].rgb.astype(float)
    first = chains[chosen[0][0]][1].rgb
    metrics["seed_difference"] = round(float(np.abs(other - first).mean()), 2)
    sheets.chain_sheet({n: c for n, c in chains.items() if n in TWELVE}, out / "chains.webp")
    if not quick:
        without = Roller(net, seed, known=False)
        blind = {name: without(*place, finest=14) for name, place in chosen}
        metrics["classifier"] = classifier_metrics(chains, blind, train, held)
        metrics["discriminator"] = discriminator_metrics(net, held)
    _write(out / "metrics.json", json.dumps(metrics, indent=1))
    _write(out / "card.md", tables(metrics))
    return metrics


def chain_metrics(
    chains: dict[str, list[Link]], real: dict[tuple[int, int], tuple[float, int]]
) -> Metrics:
    """Per level: contrast against real imagery of that level and land cover, drift, consistency, lattice."""
    rows: Metrics = {}
    for k, level in enumerate(LEVELS):
        links = [chain[k] for chain in chains.values()]
        ratios = [
            measures.contrast(link.rgb) / real[key][0]
            for link in links
            if (key := (level, measures.group_of(link.cover))) in real
        ]
        drift = [np.abs(_means(link.rgb) - _means(link.parent)).max() for link in links]
        reduced = [
            np.abs(_reduce(link.rgb) - link.parent.astype(np.float32)).max() for link in links
        ]
        lattice = np.array([measures.lattice(link.rgb, link.parent) for link in links])
        rows[f"z{level}"] = {
            "contrast": round(float(np.median([measures.contrast(link.rgb) for link in links])), 1),
            "contrast_ratio": round(float(np.median(ratios)), 2) if ratios else None,
            "within_0.7_1.4": round(float(np.mean([0.7 <= r <= 1.4 for r in ratios])), 2)
            if ratios
            else None,
            "compared": len(ratios),
            "colour_drift_max": round(float(max(drift)), 2),
            "consistency_max": round(float(max(reduced)), 2),
            "lattice_4_8_16": [round(float(v), 3) for v in np.median(lattice, 0)],
        }
    return rows


def level_metrics(net: CascadeUNet, held: Pack, sheet: Path) -> Metrics:
    """Each level alone on held-out places: band power against bicubic and against other real images."""
    rows: Metrics = {}
    pictures = []
    for level, samples in sorted(measures.samples_by_level([held]).items()):
        if level < LEVELS[0]:
            continue
        samples = sorted(samples, key=lambda s: -float(s.rgb.std()))[: max(4, len(samples) // 2)]
        samples = samples[:: max(1, len(samples) // 24)][:24]
        real = measures.as_batch(samples)
        lr, ours = measures.enlarge(net, real)
        smooth = bicubic4(lr)
        half = len(samples) // 2
        rows[f"z{level}"] = {
            "images": len(samples),
            "gsd": round(float(real.gsd.median()), 1),
            "ours": measures.bands_against(real.hr, ours),
            "bicubic": measures.bands_against(real.hr, smooth),
            "real_half_against_half": measures.bands_against(real.hr[::2], real.hr[1::2]),
            "inconsistency": round(measures.inconsistency(ours, lr), 2),
        }
        pictures += [
            (f"z{level}, {real.gsd[i]:.3g} m", lr[i], smooth[i], ours[i], real.hr[i])
            for i in (0, half)
        ]
    sheets.level_sheet(pictures, sheet)
    return rows


def flat_metrics(net: CascadeUNet, train: Pack) -> Metrics:
    """A nearly even input, labelled: contrast of what is drawn over the real detail of that class."""
    rows: Metrics = {}
    rng = np.random.default_rng(0)
    for level, samples in measures.samples_by_level([train]).items():
        for name, cover in (("urban", URBAN), ("cropland", CROPLAND)):
            these = [s for s in samples if (s.cover == cover).mean() > 0.8][:400:40]
            if len(these) < 3:
                continue
            real = measures.as_batch(these)
            lr, _ = measures.enlarge(net, real)
            flat, detail = flattened(real.hr, lr, rng)
            rows_gsd = real.gsd[:, None].expand(-1, lr.shape[-1])
            noise = torch.randn(len(lr), 1, 128, 128, generator=torch.Generator().manual_seed(0))
            with torch.inference_mode():
                drawn = net(flat, real.cover, real.ground, rows_gsd, noise)
            rows[f"z{level} {name}"] = {
                "drawn": round(float(drawn.std((2, 3)).mean() * 127.5), 1),
                "real": round(float(detail.std((2, 3)).mean() * 127.5), 1),
            }
    return rows


def classifier_metrics(
    chains: dict[str, list[Link]], blind: dict[str, list[Link]], train: Pack, held: Pack
) -> Metrics:
    """Does a network that learned land cover from real 10 m chips read it in ours, with and without the maps?"""
    judge = judges.fit(*judges.chips(train), len(judges.CLASSES), CLASSIFIER_STEPS)
    images, labels = judges.chips(held)
    ceiling = float((judges.ask(judge, images) == labels).float().mean())
    hits = _recognised(judge, chains)
    return {
        "real": round(ceiling, 3),
        "generated": _share(hits),
        "generated_without_maps": _share(_recognised(judge, blind)),
        "chips": sum(map(len, hits.values())),
        "by_class": {name: round(float(np.mean(h)), 2) for name, h in hits.items()},
    }


def _recognised(judge: judges.Judge, chains: dict[str, list[Link]]) -> dict[str, list[bool]]:
    """For each class, whether the judge reads it in each 64 px square of the z14 views."""
    side, hits = judges.CHIP, defaultdict[str, list[bool]](list)
    for chain in chains.values():
        link = next(link for link in chain if link.level == 14)
        index = judges.class_of(link.cover)
        if index is None:
            continue
        x = torch.from_numpy(link.rgb.astype(np.float32)) / 127.5 - 1
        squares = x.unfold(1, side, side).unfold(2, side, side).permute(1, 2, 0, 3, 4)
        hits[judges.CLASSES[index]] += judges.ask(judge, squares.flatten(0, 1)).eq(index).tolist()
    return hits


def _share(hits: dict[str, list[bool]]) -> float:
    return round(float(np.mean([h for group in hits.values() for h in group])), 3)


def discriminator_metrics(net: CascadeUNet, held: Pack) -> Metrics:
    """Accuracy of a small network that learned real against ours (and bicubic) on half of the places."""
    rows: Metrics = {}
    for level, samples in sorted(measures.samples_by_level([held]).items()):
        if level < LEVELS[0] or len(samples) < 16:
            continue
        real = measures.as_batch(samples[:: max(1, len(samples) // 96)][:96])
        lr, ours = measures.enlarge(net, real)
        parts = [_quarters(t) for t in (real.hr, ours, bicubic4(lr))]
        rows[f"z{level}"] = {
            "images": len(real.hr),
            "ours": round(judges.told_apart(parts[0], parts[1], DISCRIMINATOR_STEPS), 2),
            "bicubic": round(judges.told_apart(parts[0], parts[2], DISCRIMINATOR_STEPS), 2),
        }
    return rows


def tables(m: Metrics) -> str:
    """The measured figures as Markdown tables."""
    lines = [
        f"Chains at {m['places']} land places from the base map, seed {m['seed']}: contrast (standard deviation in",
        "64 px squares) against the median of real imagery of that level and land cover; share of places within",
        "0.7 to 1.4; largest drift of mean colour and largest deviation of the 4 x 4 means from the parent, of 255.",
        "",
        "| level | contrast | ratio | within | drift | consistency | lattice 4, 8, 16 px |",
        "|---|---|---|---|---|---|---|",
    ]
    for level, r in m["chain"].items():
        lines.append(
            f"| {level} | {r['contrast']} | {r['contrast_ratio']} | {r['within_0.7_1.4']} of {r['compared']} | "
            f"{r['colour_drift_max']} | {r['consistency_max']} | {r['lattice_4_8_16']} |"
        )
    lines += [
        "",
        "Single levels, held-out places: band power over real (0.03-0.125, -0.25, -0.5 cycles per pixel).",
        "",
    ]
    lines += [
        "| level | images | ours | bicubic | real half against half |",
        "|---|---|---|---|---|",
    ]
    for level, r in m["levels"].items():
        lines.append(
            f"| {level} | {r['images']} | {r['ours']} | {r['bicubic']} | {r['real_half_against_half']} |"
        )
    lines += [
        "",
        "An even input with its land cover told: contrast drawn, and of the real detail.",
        "",
    ]
    lines += ["| input | drawn | real |", "|---|---|---|"]
    lines += [f"| {name} | {r['drawn']} | {r['real']} |" for name, r in sorted(m["flat"].items())]
    if "classifier" in m:
        c = m["classifier"]
        lines += [
            "",
            "Land cover read by a classifier that learned from real 10 m chips: "
            f"{c['real']:.0%} on held-out real chips, "
            f"{c['generated']:.0%} on {c['chips']} generated chips (z14), "
            f"{c['generated_without_maps']:.0%} when the maps are withheld; by class {c['by_class']}.",
            "",
            "Small discriminator, tested on other places than it learned from (0.5: cannot tell):",
            "",
            "| level | images | ours | bicubic |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {level} | {r['images']} | {r['ours']} | {r['bicubic']} |"
            for level, r in m["discriminator"].items()
        ]
    return "\n".join(lines) + "\n"


def _means(rgb: Any) -> Any:
    return rgb.reshape(3, -1).mean(1)


def _reduce(rgb: Any) -> Any:
    h, w = rgb.shape[1:]
    return rgb.reshape(3, h // 4, 4, w // 4, 4).mean((2, 4), dtype=np.float32)


def _quarters(x: Tensor) -> Tensor:
    """Images cut in four, the quarters of one image side by side."""
    h = x.shape[-1] // 2
    return torch.stack([x[..., :h, :h], x[..., h:, :h], x[..., :h, h:], x[..., h:, h:]], 1).flatten(
        0, 1
    )


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.replace(path)
