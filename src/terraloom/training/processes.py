"""What the processes of one training run have in common, alone or under `accelerate launch`.

Every process draws batches of its own and averages its gradients with the others'. Each collective call waits for all:
so whatever decides which calls a step makes must be decided alike everywhere (`alike`), and the end of a run too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Sync = Callable[[Iterable[nn.Parameter]], None]
ALIKE = 77  # sets these draws apart from those of a step's data


def alike(step: int) -> np.random.Generator:
    """Randomness of a step that is the same in every process."""
    return np.random.default_rng([ALIKE, step])


@dataclass(frozen=True)
class Processes:
    """This process among those of its run."""

    device: torch.device
    rank: int = 0
    count: int = 1
    accelerator: Any = None

    @classmethod
    def these(cls) -> Processes:
        """As `accelerate launch` says, or one alone."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        from accelerate import Accelerator

        a = Accelerator()
        return cls(a.device, a.process_index, a.num_processes, a)

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put the mean over the processes in the place of every gradient; a missing one counts as zero."""
        if self.accelerator is None:
            return
        trained = [p for p in parameters if p.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        flat = torch.cat([g.reshape(-1) for g in gradients])  # one call instead of hundreds
        mean: Tensor = self.accelerator.reduce(flat, "mean")
        parts = torch.split(mean, [p.numel() for p in trained])
        for p, part in zip(trained, parts, strict=True):
            p.grad = part.view_as(p).clone()

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        if self.accelerator is None:
            return flag
        said = torch.tensor(float(flag), device=self.device)
        return bool(self.accelerator.reduce(said, "sum") > 0)
