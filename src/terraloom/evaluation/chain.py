"""Chains: what becomes of a place from the base map down to 0.6 m, level by level."""

from __future__ import annotations

from typing import Any

import numpy as np

from terraloom.data.packed import Pack
from terraloom.evaluation.measures import (
    Pixels,
    bands,
    contrast,
    detail,
    group_of,
    reduced,
    share_of_dots,
    share_of_lattice,
)
from terraloom.evaluation.places import PLACES
from terraloom.evaluation.references import HIGH, LOW, Key, Reference
from terraloom.evaluation.rollout import LEVELS, VIEW, Link, Roller
from terraloom.grid import drawn_level

Metrics = dict[str, Any]
Chains = dict[str, list[Link]]
GROUPS = (
    "water", "forest", "shrub and savanna", "grassland", "wetland", "cropland", "urban", "snow and ice", "barren",
    "unknown",
)  # fmt: skip
WIDE_PLACES = ("Sahara", "Taiga", "Iowa")  # even places, where a lattice shows
WIDE_VIEW = 1040  # pixels: 1024 and what the high-pass takes
PERIODS = (
    4,
    8,
    16,
    32,
    64,
    128,
    256,
)  # pixels: the network's cells and the base map's blocks, carried down
SEEDS = 4


def chain_metrics(chains: Chains, real: dict[Key, Reference]) -> Metrics:
    """Per level: contrast and spectrum against real imagery of that gsd and land cover, drift and consistency."""
    return {
        f"z{level}": _row([links[k] for links in chains.values()], real)
        for k, level in enumerate(LEVELS)
    }


def _row(links: list[Link], real: dict[Key, Reference]) -> Metrics:
    matched = [(link, real[key]) for link in links if (key := _key(link)) in real]
    ratios = np.array([contrast(link.rgb) / ref.contrast for link, ref in matched])
    power = [np.log(bands(link.rgb) / ref.bands) for link, ref in matched]
    drift = [np.abs(link.rgb.mean((1, 2)) - link.parent.mean((1, 2))).max() for link in links]
    off = np.array([np.abs(reduced(link.rgb) - link.parent) for link in links])
    row: Metrics = {
        "contrast": round(float(np.median([contrast(link.rgb) for link in links])), 1),
        "compared": len(matched),
        "drift_max": round(float(max(drift)), 2),
        "off_mean": round(float(off.mean()), 3),
        "off_max": round(float(off.max()), 2),
    }
    if matched:
        row |= {
            "ratio": round(float(np.median(ratios)), 2),
            "within": round(float(((ratios >= LOW) & (ratios <= HIGH)).mean()), 2),
            "within_real": round(float(np.mean([ref.spread for _, ref in matched])), 2),
            "bands": [round(float(v), 2) for v in np.exp(np.median(power, 0))],
        }
    return row


def _key(link: Link) -> Key:
    return drawn_level(link.gsd), group_of(link.cover)


def class_metrics(chains: Chains, real: dict[Key, Reference]) -> Metrics:
    """Land cover -> level -> median contrast over that of real imagery, and of how many places."""
    found: dict[str, dict[str, list[float]]] = {}
    for links in chains.values():
        for link in links:
            if (ref := real.get(_key(link))) is not None:
                row = found.setdefault(GROUPS[group_of(link.cover)], {})
                row.setdefault(f"z{link.level}", []).append(contrast(link.rgb) / ref.contrast)
    return {
        name: {level: [round(float(np.median(v)), 2), len(v)] for level, v in row.items()}
        for name, row in sorted(found.items())
    }


def place_metrics(chains: Chains) -> Metrics:
    """Place -> standard deviation of its 192 px view at the base map and every level, of 255."""

    def std(rgb: Any) -> int:
        return round(float(rgb.std((1, 2)).mean()))

    return {
        name: [std(links[0].parent), *(std(link.rgb) for link in links)]
        for name, links in chains.items()
    }


def lattice_metrics(chains: Chains, held: Pack) -> Metrics:
    """Percent of the detail that repeats in every cell, and dots in every cell; per level, and of real images."""
    rows = {
        f"z{level}": _lattice([links[k].rgb for links in chains.values()])
        for k, level in enumerate(LEVELS)
    }
    real = [
        s.rgb[:VIEW, :VIEW].transpose(2, 0, 1) for samples in held.sets.values() for s in samples
    ]
    wide = [rgb for rgb in real if rgb.shape[1:] == (VIEW, VIEW)]
    return rows | {"real": _lattice(wide[:: -(-len(wide) // 100)])} if wide else rows


def _lattice(images: list[Pixels]) -> Metrics:
    details = [detail(rgb) for rgb in images]
    shares = [[share_of_lattice(d, period) for d in details] for period in PERIODS[:3]]
    dots = [share_of_dots(d) for d in details]
    return {
        "4_8_16": [_percent(s) for s in shares],
        "dots": _percent(dots),
        "worst": _percent([max(map(max, shares))]),
        "worst_dots": _percent([max(dots)]),
    }


def wide_lattice_metrics(roller: Roller, seed: int) -> Metrics:
    """Place -> level -> percent of the high-pass variance explained by `PERIODS`, on 1024 px."""
    rows: Metrics = {}
    for name in WIDE_PLACES:
        for link in roller(*PLACES[name], seed=seed):
            high = detail(link.rgb)
            shares = [_percent([share_of_lattice(high, period)]) for period in PERIODS]
            rows.setdefault(name, {})[f"z{link.level}"] = shares
    return rows


def diversity(roller: Roller, chain: list[Link], lon: float, lat: float, seed: int) -> Metrics:
    """Level -> standard deviation of a pixel over `SEEDS` seeds, of 255; 0 would be one planet only."""
    others = [roller(lon, lat, seed=seed + k) for k in range(1, SEEDS)]
    stacks = [np.stack([links[k].rgb for links in (chain, *others)]) for k in range(len(chain))]
    return {
        f"z{link.level}": round(float(stack.std(0, dtype=np.float64).mean()), 1)
        for link, stack in zip(chain, stacks, strict=True)
    }


def _percent(shares: list[float]) -> float:
    return round(100 * float(np.mean(shares)), 2)
