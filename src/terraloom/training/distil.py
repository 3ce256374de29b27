"""Distilling a flow: a network that walks in few steps where its teacher takes many.

The teacher walks from noise to image, every step of the student's path cut into several of its own, and the student
learns to see, at each of its own few sigmas, the image that leads straight to where the teacher arrives: progressive
distillation (Salimans & Ho 2022, arXiv 2202.00512, algorithm 2), several steps at once, along the teacher's own walks.
There is one right answer to each question, so nothing is averaged and nothing judged. What the teacher's `gain` makes
bolder, the student sees so by itself.

The teacher is guided (`schedule.guidance`): what it sees under the parent is moved away from what it sees under a
blurred one, as classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598) moves away from what no words show. A
young flow does not quite believe its parent, and goes on with edges as stains; so each level is a little softer than
its own parent, and a chain of levels dissolves. A leap's parent shows too little to go on with: what it sees is moved
away from what it sees where nobody tells land cover and lines. With `weaker` in the recipe, an earlier checkpoint of
the teacher sees what is led away from (autoguidance: Karras et al. 2024, arXiv 2406.02507): the two differ most where
the younger one is still undecided.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from terraloom.data.packed import Pack
from terraloom.data.uses import UNKNOWN_COVER
from terraloom.diffusion.flow import shifted, walked_by_adams
from terraloom.errors import InvalidInput
from terraloom.models.blur import blurred
from terraloom.models.cascade import CascadeUNet
from terraloom.models.waves import image_of
from terraloom.training.batches import GROUND_LAYERS, Batch
from terraloom.training.cascade import CascadeTask
from terraloom.training.fusing import fuse
from terraloom.training.likeness import looks_apart, misses
from terraloom.training.processes import alike
from terraloom.training.ready import ready_network, wrap_crops

BEND, SHIFT = 1.5, 4.0  # of the teacher's steps, see `steps`
MOST_GUIDED = 10
BLUR, REACH = 1.2, 3  # pixels: Gaussian under which a parent is what guidance leads away from


def _guidance(given: Any) -> list[tuple[float, float]]:
    """(metres, weight from this gsd on), finest first, of a number or a table of a recipe."""
    table = given if isinstance(given, list) else [[0, given]]
    for row in table:
        numbers = isinstance(row, list) and all(isinstance(v, int | float) for v in row)
        if not numbers or len(row) != 2 or row[0] < 0 or not 1 <= row[1] <= MOST_GUIDED:
            raise InvalidInput(
                f"schedule.guidance of the recipe is {given!r}, must be a weight from 1 (none) to {MOST_GUIDED}, "
                "or a list of [metres, weight from this gsd on]"
            )
    return sorted((float(gsd), float(weight)) for gsd, weight in table)


def steps(now: float, later: float, count: int, leap: bool) -> list[float]:
    """Sigmas of the teacher's steps, count + 1 from `now` to `later`: shorter near the image, where faint waves show.

    Of a leap shorter towards the noise (`terraloom.diffusion.flow.shifted`): what it lays out is bold, and decided
    there. Evenly, or bent as the others', they lose a quarter of its contrast.
    """
    if leap:
        start, end = (shifted(sigma, 1 / SHIFT) for sigma in (now, later))
        return [shifted(float(t), SHIFT) for t in np.linspace(start, end, count + 1)]
    start, end = (sigma ** (1 / BEND) for sigma in (now, later))
    return [float(t) ** BEND for t in np.linspace(start, end, count + 1)]


def straight(x: Tensor, arrived: Tensor, now: float, later: float) -> Tensor:
    """What must be seen in x_sigma at `now` to be carried to `arrived` at `later`: `carried` solved for `seen`."""
    left = later / now
    return (arrived - left * x) / (1 - left)


class DistilTask(CascadeTask):
    """What the loop trains where a recipe has a `teacher`."""

    is_flow = False

    def __init__(self, recipe: dict[str, Any], pack: Pack, device: torch.device) -> None:
        """Raise InvalidInput for a recipe without `schedule.substeps` or with chains; otherwise as `CascadeTask`."""
        super().__init__(recipe, pack, device)
        if self.shares.get("chain", 0) > 0:
            raise InvalidInput(
                "schedule.shares of the recipe has chains, which have no place under a teacher: take `chain` out, "
                "of paired, drawn, even and small any may be left"
            )
        self.substeps = recipe["schedule"].get("substeps")
        if not isinstance(self.substeps, int) or self.substeps < 1:
            raise InvalidInput(
                f"schedule.substeps of the recipe is {self.substeps!r}, must be the teacher's steps for each of the "
                "network's own, 1 or more"
            )
        self.guidance = _guidance(recipe["schedule"].get("guidance", 1.0))
        self.teacher = self._named("teacher")
        self.weaker = self.teacher
        if folder := recipe.get("weaker"):
            self.weaker = self._named("weaker")
            if self.weaker.config.leap != self.teacher.config.leap:
                raise InvalidInput(
                    f"weaker of the recipe is {folder!r}, which must draw as many levels at once as the teacher"
                )

    def _named(self, key: str) -> CascadeUNet:
        """A network that the recipe names, ready for crops."""
        net = ready_network(self.recipe[key], key)[0].to(self.device)
        wrap_crops(net)
        fuse(net, self.device)
        return net

    def step(self, step: int, rng: np.random.Generator, sync: Any) -> dict[str, float]:
        """One update; returns the losses and "images"."""
        asked = self.real(self.kind(alike(step)), rng).asked
        starts, ends = self.taught(asked, self.noise(asked.hr, rng))
        path = (*self.model.config.sigmas, 0.0)
        even = torch.ones_like(starts[0][:1, :1])
        missed = []
        for x, end, (now, later) in zip(starts, ends, pairwise(path), strict=True):
            sigma = x.new_full((len(x),), now)
            seen, answer = self.see(asked, x, sigma), straight(x, end, now, later)
            missed.append(misses(seen, answer, sigma, even, asked.hr).mean())
        images = image_of(seen, asked.hr), image_of(end, asked.hr)
        looks = looks_apart(self.features, *images).mean()
        loss = torch.stack(missed).mean() + self.recipe["losses"]["likeness"] * looks
        self.update(step, loss, self.optimizers["model"], sync)
        logs = {f"at {s:g}": m.item() for s, m in zip(path, missed, strict=False)}
        return logs | {"images": float(len(asked.hr)), "likeness": looks.item()}

    @torch.no_grad()
    def taught(self, asked: Batch, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Where the teacher's walk from noise (B, waves, h, w) is as each of the student's steps starts and ends."""
        if self.teacher.config.leap:
            cover = torch.full_like(asked.cover, UNKNOWN_COVER)
            less = replace(asked, cover=cover, ground=asked.ground[:, :GROUND_LAYERS])
        else:
            less = replace(asked, hr=blurred(asked.hr, BLUR, REACH))
        weight = asked.gsd.new_ones(len(asked.gsd))
        for finest, guidance in self.guidance:
            weight[asked.gsd >= finest] = guidance
        guided, weight = bool((weight != 1).any()), weight[:, None, None, None]

        def see(x: Tensor, sigma: float) -> Tensor:
            at = x.new_full((len(x),), sigma)
            seen = self.see(asked, x, at, self.teacher)
            if not guided:
                return seen
            return torch.lerp(self.see(less, x, at, self.weaker), seen, weight)

        count, path = self.substeps, [float(self.model.config.sigmas[0])]
        for now, later in pairwise((*self.model.config.sigmas, 0.0)):
            path += steps(now, later, count, self.teacher.config.leap)[1:]
        reached = walked_by_adams(see, x, path)[::count]
        return reached[:-1], reached[1:]
