"""One evaluation of a cascade checkpoint: metrics.json, card.md and contact sheets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from terraloom.data.packed import Pack
from terraloom.errors import BadCheckpoint, InvalidInput
from terraloom.evaluation import card, chain, judges, levels, sheets
from terraloom.evaluation.places import PLACES, TWELVE, random_land
from terraloom.evaluation.references import references
from terraloom.evaluation.rollout import LEVELS, Roller
from terraloom.models.cascade import CascadeUNet, wrap
from terraloom.weights import Checkpoint, find, load_model

Metrics = dict[str, Any]
RANDOM = 20  # land places, shown and read by the classifier


def evaluate(
    model: str | Path, pack: Path, out: Path, seed: int = 0, places: int = 40, quick: bool = False
) -> Metrics:
    """Measure a cascade checkpoint and write `metrics.json`, `card.md` and sheets (WebP) into `out`.

    Args:
        model: name or folder of a cascade checkpoint.
        pack: training pack; its held-out side judges single levels, both sides tell what real imagery is like.
        out: folder, made if missing.
        seed: of the noise.
        places: chains to draw, 1 to 40.
        quick: chains (at most twelve) and levels only: no trained judges, no wide views, no random places.

    Raises:
        BadCheckpoint: not a cascade.
        BadPack: the pack cannot be read.
        InvalidInput: `places` out of range.
        TerraloomError: the extra `train` is not installed.
    """
    if not 1 <= places <= len(PLACES):
        raise InvalidInput(f"places is {places}; it must be 1 to {len(PLACES)}")
    checkpoint, nets = _cascade(model)
    held, train = Pack.load(pack, validation=True), Pack.load(pack)
    out.mkdir(parents=True, exist_ok=True)
    with one_thread():
        metrics = _measure(checkpoint, nets, held, train, out, seed, places, quick)
    write(out / "metrics.json", json.dumps(metrics, indent=1))
    write(out / "card.md", card.body(metrics))
    return metrics


def _measure(
    checkpoint: Checkpoint, nets: levels.Nets, held: Pack, train: Pack, out: Path,
    seed: int, places: int, quick: bool,
) -> Metrics:  # fmt: skip
    """All measures; sheets go to `out` on the way."""
    roller = Roller(checkpoint)
    chosen = list(PLACES.items())[: min(places, TWELVE) if quick else places]
    chains = {name: roller(*place, seed=seed) for name, place in chosen}
    elsewhere = random_land(0 if quick else RANDOM, roller.ground)
    wild = {name: roller(*place, seed=seed) for name, place in elsewhere.items()}
    real = references([held, train])
    first, spot = chosen[0]
    single, pictures = levels.level_metrics(nets, held)
    metrics: Metrics = {
        "model": checkpoint.digest,
        "training": checkpoint.config.get("training", {}),
        "seed": seed,
        "places": len(chosen),
        "chain": chain.chain_metrics(chains, real),
        "classes": chain.class_metrics(chains, real),
        "deviation": chain.place_metrics(chains),
        "lattice": chain.lattice_metrics(chains | wild, held),
        "seeds": chain.diversity(roller, chains[first], *spot, seed),
        "levels": single,
        "flat": levels.flat_metrics(nets, [held, train]),
    }
    sheets.level_sheet(pictures, out / "levels.webp")
    sheets.chain_sheet(list(chains.items())[:TWELVE], out / "chains.webp")
    if not quick:
        sheets.chain_sheet(list(wild.items()), out / "random.webp")
        blind = {n: roller(*p, seed=seed, finest=14, known=False) for n, p in chosen[::2]}
        metrics["classifier"] = judges.classifier_metrics(chains | wild, blind, train, held)
        metrics["discriminator"] = judges.discriminator_metrics(nets, held)
        wide = Roller(checkpoint, chain.WIDE_VIEW)
        metrics["wide_lattice"] = chain.wide_lattice_metrics(wide, seed)
    return metrics


def compare(models: Sequence[str | Path], out: Path, seed: int = 0, places: int = TWELVE) -> Path:
    """Draw the same places with several checkpoints, one below the other, into the picture `out`.

    Raises:
        BadCheckpoint: a model that cannot be loaded.
    """
    chosen = list(PLACES.items())[:places]
    rollers = [(Path(model).name, Roller(find(model))) for model in models]
    rows = [
        (f"{place}: {name}", roller(*spot, seed=seed))
        for place, spot in chosen
        for name, roller in rollers
    ]
    sheets.chain_sheet(rows, out)
    return out


def _cascade(model: str | Path) -> tuple[Checkpoint, levels.Nets]:
    checkpoint = find(model)
    parts = {checkpoint.at(level).digest: checkpoint.at(level) for level in LEVELS}
    nets: dict[str, CascadeUNet] = {}
    for digest, part in parts.items():
        net = load_model(part)
        if not isinstance(net, CascadeUNet):
            raise BadCheckpoint(f"{model} is a {part.kind} model; only cascades are evaluated")
        wrap(net)  # as in training
        nets[digest] = net
    drawn = [level for level in LEVELS if checkpoint.parent(level) is not None]
    return checkpoint, {level: nets[checkpoint.at(level).digest] for level in drawn}


@contextmanager
def one_thread() -> Iterator[None]:
    """Measures are many small sums: several threads would mostly wait for each other (the engine keeps its own)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def write(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
