"""Figures of all answers to a question, and their means over questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from terraloom.evaluation import quality
from terraloom.evaluation.frame_answers import OURS, Answers
from terraloom.evaluation.frame_cases import Case
from terraloom.models.perceptual import Perceptual

Metrics = dict[str, Any]
TRUTH = "truth"
BLOCK = 16  # px, blocks whose means tell how much a scene has changed


@dataclass(frozen=True)
class Figures:
    """Of one answer; inside the hole alone for in-painting, but for the distance."""

    psnr: float  # dB
    ssim: float
    distance: float  # on VGG-16, whose features the shipped weights were trained on
    alexnet: float  # the same distance on a network that they were not
    octaves: tuple[float, ...]  # power
    edge: float  # mean step across the edge of the hole, 0 without one
    inside: float  # mean step inside it


@dataclass(frozen=True)
class Row:
    """One question with the figures of every way, the truth's own power and steps among them."""

    group: str
    change: float  # mean difference of block means between what is given and the truth
    ways: dict[str, Figures]
    error: float  # mean square of the truth less the mean of the draws, where pixels are drawn
    variance: float  # of the draws there, unbiased
    draws: int


Judges = tuple[Perceptual, Perceptual]  # by VGG-16, by AlexNet


def judges() -> Judges:
    """Both perceptual distances.

    Raises:
        TerraloomError: their weights are not installed.
    """
    return Perceptual(), Perceptual(network="alex")


def judged(case: Case, answers: Answers, drawn: Tensor, judges: Judges) -> Row:
    """Measure answers and a model's draws, (n, 3, h, w)."""
    names, images = [TRUTH, *answers], torch.stack([case.truth, *answers.values()])
    truth = case.truth[None]
    mask = None if case.hole is None else case.hole[None].expand(len(images), -1, -1, -1)
    columns = [
        quality.psnr(images, truth, mask).tolist(),
        quality.ssim(images, truth.expand_as(images), mask).tolist(),
        *([0.0, *judge(images[1:], truth).tolist()] for judge in judges),
        [tuple(row) for row in quality.octaves(images, mask).tolist()],
        *_steps(images, mask),
    ]
    ways = {name: Figures(*v) for name, *v in zip(names, *columns, strict=True)}
    where = torch.ones_like(case.truth) if case.hole is None else case.hole.expand_as(case.truth)
    error = (drawn.mean(0) - case.truth).square()[where > 0].mean()
    spread = drawn.var(0)[where > 0].mean() if len(drawn) > 1 else torch.zeros(())
    return Row(case.group, _change(case), ways, float(error), float(spread), len(drawn))


def _steps(images: Tensor, mask: Tensor | None) -> list[list[float]]:
    if mask is None:
        return [[0.0] * len(images)] * 2
    return [part.tolist() for part in quality.steps(images, mask)]


def _change(case: Case) -> float:
    """How much of the scene is another one than before, in [0, 1]; 0 where sizes differ."""
    if case.given.shape != case.truth.shape:
        return 0.0
    return float(F.avg_pool2d((case.given - case.truth)[None], BLOCK).abs().mean())


def summary(rows: Sequence[Row]) -> Metrics:
    """Means over questions of every way that all of them have; power and steps as ratios to the truth's.

    `better`: in how many questions the model is nearer to the truth, by perceptual distance, than a way. `spread`: root
    of the mean variance of the draws over the error that it would explain; 1 where draws are as uncertain as they ought
    to be, below 1 where they are too sure.
    """
    names = [n for n in rows[0].ways if n != TRUTH and all(n in row.ways for row in rows)]
    true = [row.ways[TRUTH] for row in rows]
    real = np.array([f.octaves for f in true]).mean(0)
    ways: Metrics = {}
    for name in names:
        found = [row.ways[name] for row in rows]
        power = np.array([f.octaves for f in found]).mean(0) / real
        ways[name] = {
            "psnr": round(float(np.mean([f.psnr for f in found])), 2),
            "ssim": round(float(np.mean([f.ssim for f in found])), 3),
            "distance": round(float(np.mean([f.distance for f in found])), 4),
            "alexnet": round(float(np.mean([f.alexnet for f in found])), 4),
            "octaves": power.round(2).tolist(),
        }
        if any(f.edge for f in true):
            for key in ("edge", "inside"):
                step, usual = (sum(getattr(f, key) for f in part) for part in (found, true))
                ways[name][key] = round(step / usual, 2)
        if name != OURS and OURS in names:
            pairs = [(row.ways[OURS].distance, row.ways[name].distance) for row in rows]
            ways[name]["better"] = sum(ours < theirs for ours, theirs in pairs)
    count = rows[0].draws
    error = sum(row.error for row in rows)
    spread = (1 + 1 / count) * sum(row.variance for row in rows)
    return {
        "questions": len(rows),
        "spread": round(float(np.sqrt(spread / max(error, 1e-12))), 2),
        "ways": ways,
    }


def by_group(rows: Sequence[Row]) -> Metrics:
    """Summary of every group, in their order."""
    names = dict.fromkeys(row.group for row in rows)
    return {name: summary([row for row in rows if row.group == name]) for name in names}


def by_change(rows: Sequence[Row]) -> Metrics:
    """Summaries of the half of the questions whose scene changed most, and of the other half."""
    ordered = sorted(rows, key=lambda row: -row.change)
    middle = len(ordered) // 2
    halves = {"most changed half": ordered[:middle], "least changed half": ordered[middle:]}
    return {name: summary(half) for name, half in halves.items() if half}
