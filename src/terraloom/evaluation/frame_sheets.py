"""Contact sheets of super-resolution, in-painting and forecasting: what is given, rivals, draws, the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from terraloom.evaluation.frame_answers import OURS, Answers
from terraloom.evaluation.frame_cases import SIDE, SMALL_SIDE, Case
from terraloom.evaluation.measures import Pixels
from terraloom.evaluation.sheets import table_sheet
from terraloom.training.frame_batches import Task

GIVEN = {"superres": "given", "inpaint": "given", "forecast": "nearest date"}
PER_GROUP = 2  # rows
STRONGER = 4  # factor of the spread


@dataclass(frozen=True)
class Shown:
    """A row of a sheet."""

    case: Case
    answers: Answers
    drawn: Tensor  # (n, 3, h, w)


def frame_sheet(task: Task, rows: list[Shown], path: Path) -> None:
    """The first rows of every group; columns that a row lacks stay grey."""
    side = SMALL_SIDE if task == "superres" else SIDE
    groups = dict.fromkeys(row.case.group for row in rows)
    chosen = [r for g in groups for r in [r for r in rows if r.case.group == g][:PER_GROUP]]
    found = dict.fromkeys(way for row in chosen for way in row.answers)
    ways = [way for way in found if not way.startswith(OURS) and way != GIVEN[task]]
    if any(len(row.case.asked) > 1 for row in chosen):
        ways.append(OURS)  # alone; the draws are of what it says when it is told more
    heads = [GIVEN[task], *ways, "draw 1", "draw 2", "truth", f"spread x {STRONGER}"]
    tiles = [
        (row.case.name, [_tile(image, side) for image in _columns(row, ways)]) for row in chosen
    ]
    table_sheet(tiles, heads, path, side)


def _columns(row: Shown, ways: list[str]) -> list[Tensor]:
    grey = torch.full_like(row.case.truth, 0.5)
    spread = row.drawn.std(0).mean(0, keepdim=True).expand_as(grey) * STRONGER
    given = row.case.given
    if row.case.hole is not None:
        given = given + 0.5 * row.case.hole
    answers = [row.answers.get(way, grey) for way in ways]
    return [given, *answers, row.drawn[0], row.drawn[1], row.case.truth, spread]


def _tile(image: Tensor, side: int) -> Pixels:
    """uint8; small images grow by a whole factor, others get a white rim."""
    factor = side // image.shape[1]
    large = image.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    more = side - large.shape[1]
    large = F.pad(large, (0, more, 0, more), value=1.0)
    return np.asarray((large.clamp(0, 1) * 255).round().byte().numpy())
