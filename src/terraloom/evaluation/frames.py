"""One evaluation of a model for dated images beside its rivals: metrics.json, card.md and contact sheets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from terraloom.evaluation import frame_card
from terraloom.evaluation.frame_answers import OURS, Draw, Rivals, draws
from terraloom.evaluation.frame_cases import (
    Case,
    forecast_cases,
    inpaint_cases,
    superres_cases,
)
from terraloom.evaluation.frame_rivals import missing_packages
from terraloom.evaluation.frame_scores import (
    Judges,
    Row,
    by_change,
    by_group,
    judged,
    judges,
    summary,
)
from terraloom.evaluation.frame_sheets import Shown, frame_sheet
from terraloom.evaluation.held_out import HeldOut, check
from terraloom.evaluation.report import write
from terraloom.training.frame_batches import Task

Metrics = dict[str, Any]
DRAWS = 4
CASES: dict[Task, Callable[[HeldOut, bool], Iterable[Case]]] = {
    "superres": superres_cases,
    "inpaint": inpaint_cases,
    "forecast": forecast_cases,
}


def evaluate_frames(
    model: str | Path,
    data: Path,
    out: Path,
    *,
    regression: str | Path | None = None,
    seed: int = 0,
    quick: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> Metrics:
    """Measure a small model for dated images on held-out places and dates, its rivals in the same run.

    Args:
        model: name or folder of a model for dated images.
        data: folder of the imagery sets.
        out: folder for `metrics.json`, `card.md` and sheets (WebP), made if missing.
        regression: such a model trained to the mean squared error: a rival in super-resolution.
        seed: of the noise.
        quick: fewer questions.
        progress: called with a line about every task.

    Raises:
        BadCheckpoint: no model for dated images.
        InvalidInput: a set is missing.
        TerraloomError: the extra `dev` is not installed.
    """
    from terraloom.pipelines import FramesToImage

    pipe = FramesToImage.from_pretrained(model)
    check(data)
    mean = None if regression is None else FramesToImage.from_pretrained(regression)
    both, rivals = judges(), Rivals.load(None if mean is None else mean.draw)
    progress("Reading what is held out ...")
    held = HeldOut.read(data)
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    metrics: Metrics = {
        "model": pipe.digest,
        "seed": seed,
        "quick": quick,
        "left_out": missing_packages(),
    }
    for task, cases in CASES.items():
        questions = list(cases(held, quick))
        progress(f"{task}: {len(questions)} questions ...")
        metrics[task] = measure(task, questions, pipe.draw, rivals, both, out, seed)
    metrics["seconds"] = round(time.monotonic() - start)
    write(out / "metrics.json", json.dumps(metrics, indent=1))
    write(out / "card.md", frame_card.body(metrics))
    return metrics


def measure(
    task: Task,
    cases: Iterable[Case],
    draw: Draw,
    rivals: Rivals,
    both: Judges,
    out: Path,
    seed: int = 0,
) -> Metrics:
    """All figures of one task, by group of questions and pooled; its sheet goes to `out`.

    Mean and spread of draws are of the last way a question is asked: with another date, where there is one.
    """
    rows: list[Row] = []
    sheet: list[Shown] = []
    for case in cases:
        answers = rivals(task, case)
        for words, frames in case.asked.items():
            drawn = draws(draw, frames, DRAWS, seed)
            answers[OURS + words] = drawn[0]
        answers[f"{OURS}{words}, mean of {DRAWS} draws"] = drawn.mean(0)
        rows.append(judged(case, answers, drawn, both))
        sheet.append(Shown(case, answers, drawn))
    frame_sheet(task, sheet, out / f"{task}.webp")
    return by_group(rows) | pooled(task, rows)


def pooled(task: Task, rows: Sequence[Row]) -> Metrics:
    """Summaries over groups: what says most of a task in a line."""
    if task == "forecast":
        return by_change(rows)
    if task == "inpaint":
        some = [row for row in rows if f"{OURS}, with another date" in row.ways]
        return {"all": summary(rows)} | ({"all with another date": summary(some)} if some else {})
    some = [row for row in rows if not row.group.endswith("sea")]
    return {"all but sea": summary(some)}
