"""The one training loop: a task, a time budget, exact resume.

The loop knows nothing of what is trained. A task offers modules, optimizers and `step`; every step draws its
randomness from a generator seeded by (seed, step, process), so a resumed run repeats the uninterrupted one bit by bit
on a CPU. It runs alone, or on several devices under `accelerate launch` (terraloom.training.processes).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from terraloom.data.packed import Pack
from terraloom.errors import InvalidInput
from terraloom.training.log import Log
from terraloom.training.processes import Processes, Sync
from terraloom.training.recipe import load_recipe
from terraloom.training.state import load_state, save_state

SAVE_EVERY = 300.0  # seconds
LOG_EVERY = 60.0


class Task(Protocol):
    """What the loop trains."""

    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]

    def step(self, step: int, rng: np.random.Generator, sync: Sync) -> dict[str, float]:
        """One update; `sync` averages gradients over processes. Returns logs, "images" among them."""

    def export(self, folder: Path, training: dict[str, Any]) -> None:
        """Write a checkpoint that `terraloom.weights` loads."""

    def warm_start(self, folder: Path) -> None:
        """Begin from a checkpoint's weights."""


def make_task(
    recipe: dict[str, Any], pack: Path | None, folder: Path | None, device: torch.device
) -> Task:
    """The task that a recipe's `kind` names, with weights drawn from the recipe's seed."""
    if (pack is None) == (folder is None):
        raise InvalidInput("give a training pack or a folder of captioned images, one of them")
    with torch.random.fork_rng():
        torch.manual_seed(int(recipe.get("seed", 0)))
        if recipe["kind"] == "text":
            return _text_task(recipe, pack, folder, device)
        if pack is None:
            raise InvalidInput(f"a {recipe['kind']} is trained on a pack, not on {folder}")
        if recipe["kind"] == "metaearth":
            from terraloom.training.metaearth import MetaEarthTask

            return MetaEarthTask(recipe, Pack.load(pack), device)
        if recipe["kind"] == "frames":
            from terraloom.training.frames import FramesTask

            return FramesTask(recipe, pack, device)
        if "teacher" in recipe:
            from terraloom.training.distil import DistilTask

            return DistilTask(recipe, Pack.load(pack), device)
        from terraloom.training.cascade import CascadeTask

        return CascadeTask(recipe, Pack.load(pack), device)


def _text_task(
    recipe: dict[str, Any], pack: Path | None, folder: Path | None, device: torch.device
) -> Task:
    from terraloom.training.captioned import TextPack
    from terraloom.training.text import TextTask

    if pack is not None:
        return TextTask(recipe, TextPack.load(pack), device)
    from terraloom.training.folder import folder_data, read_folder

    assert folder is not None
    recipe = {**recipe, "data": folder_data(recipe["data"])}
    return TextTask(recipe, read_folder(folder), device)


def run(
    recipe: Path,
    pack: Path | None,
    out: Path,
    minutes: float | None = None,
    steps: int | None = None,
    resume: bool = True,
    start: Path | None = None,
    threads: int | None = None,
    data: Path | None = None,
) -> Path:
    """Train, save and export into `out`.

    Args:
        recipe: TOML file, see recipes/.
        pack: training pack made by `terraloom data pack`.
        out: folder for state, log (log.jsonl) and the exported checkpoint (out/checkpoint).
        minutes: time budget, counted from the first step; None is no limit.
        steps: stop when this many steps were made in all; None is no limit. A recipe's `schedule.total_steps` is one:
            after them nothing is learned.
        resume: go on from the state in `out` where there is one.
        start: checkpoint to begin from when there is no state yet.
        threads: CPU threads; None leaves torch's choice.
        data: folder of captioned images or shards instead of a pack, for text (terraloom.training.folder).

    Returns:
        The folder of the exported checkpoint.

    Raises:
        InvalidInput: a bad recipe, or neither minutes nor steps given.
        BadPack: a pack that cannot be read.
    """
    if (minutes is None or minutes <= 0) and (steps is None or steps <= 0):
        raise InvalidInput(f"give a budget above zero: minutes={minutes}, steps={steps}")
    with _arithmetic(threads):
        settings = load_recipe(recipe)
        processes = Processes.these()
        task = make_task(settings, pack, data, processes.device)
        state, done = out / "state", {"step": 0, "images": 0, "seconds": 0.0}
        if resume and state.exists():
            done |= load_state(state, task.modules, task.optimizers)
        elif start is not None:
            task.warm_start(start)
        out.mkdir(parents=True, exist_ok=True)
        seed = int(settings.get("seed", 0))
        planned = settings.get("schedule", {}).get("total_steps")
        last = min((limit for limit in (steps, planned) if limit is not None), default=None)

        def save() -> None:
            if processes.rank == 0:
                save_state(state, task.modules, task.optimizers, done)
                task.export(out / "checkpoint", {"recipe": recipe.stem, **done})

        log = Log(out) if processes.rank == 0 else None
        try:
            _steps(task, seed, processes, done, minutes, last, save, log)
        finally:
            if log:
                log.close()
        save()
        return out / "checkpoint"


@contextmanager
def _arithmetic(threads: int | None) -> Iterator[None]:
    """CPU threads, and zero for denormals (critics' vanishing gradients are some, 100 times slower); undone after."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


def _steps(
    task: Task, seed: int, processes: Processes, done: dict[str, Any],
    minutes: float | None, last: int | None, save: Callable[[], None], log: Log | None,
) -> None:  # fmt: skip
    """Step until the budget is spent or SIGTERM comes to any process; save and log in between."""
    stop = _Stop()
    begun = saved = logged = time.monotonic()
    seconds = float(done["seconds"])
    over = False
    while not over and (last is None or done["step"] < last):
        rng = np.random.default_rng([seed, done["step"], processes.rank])
        logs = task.step(done["step"], rng, processes.average)
        now = time.monotonic()
        done["step"] += 1
        done["images"] += int(logs.pop("images")) * processes.count
        done["seconds"] = round(seconds + now - begun, 1)
        if log:
            log.add(logs)
            if now - logged > LOG_EVERY:
                log.write(done, now - begun)
                logged = now
        over = processes.any(stop.asked or (minutes is not None and now - begun > minutes * 60))
        if not over and now - saved > SAVE_EVERY:
            save()
            saved = now
    if log and log.sums:
        log.write(done, time.monotonic() - begun)


class _Stop:
    """Set by SIGTERM: finish the step, save, leave."""

    def __init__(self) -> None:
        self.asked = False
        try:
            signal.signal(signal.SIGTERM, self._ask)
        except ValueError:  # not in the main thread: the caller stops by budget
            pass

    def _ask(self, *_: object) -> None:
        self.asked = True
