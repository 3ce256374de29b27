"""The log of a run: one JSON line a minute, to a file, to stderr and, where it is installed, to TensorBoard."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np


class Log:
    """Means of what the steps report since the last line, in `folder`/log.jsonl and `folder`/tensorboard."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log.jsonl"
        self.sums: dict[str, list[float]] = defaultdict(list)
        self.board: Any = None
        if find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"))

    def add(self, values: dict[str, float]) -> None:
        """Take one step's figures."""
        for name, value in values.items():
            self.sums[name].append(value)

    def write(self, done: dict[str, Any], elapsed: float) -> None:
        """Write a line and begin anew; `done` holds step, images and seconds of the run, `elapsed` of this process."""
        means = {name: round(float(np.mean(values)), 4) for name, values in self.sums.items()}
        self.sums.clear()
        line = json.dumps({**done, "elapsed": round(elapsed, 1), **means})
        with self.path.open("a") as file:
            file.write(line + "\n")
        print(line, file=sys.stderr, flush=True)
        if self.board is not None:
            for name, value in means.items():
                self.board.add_scalar(name, value, done["step"])
            self.board.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self.board is not None:
            self.board.close()
