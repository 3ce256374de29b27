"""Polish: what the sampler shows at run time is judged by a projected critic, its spectrum and its repetitions.

The sampler is run without gradient up to its last evaluation, which learns (adversarial diffusion distillation, Sauer
et al. 2023, arXiv 2311.17042, without a teacher). Earlier evaluations stay a regression: they decide structure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from terraloom.data.uses import UNKNOWN_COVER
from terraloom.models.critic import Critic, Features
from terraloom.models.waves import bicubic4, reduce4
from terraloom.training.batches import GROUPS, Batch, main_group
from terraloom.training.contest import contest
from terraloom.training.likeness import maps, unlikeness
from terraloom.training.patterns import colour_bands, repeated


def mistold(true: list[Tensor], real: Batch, smooth: Tensor) -> tuple[Any, ...] | None:
    """Real images as a critic is shown them, under the land cover of the next one; None where no such pair differs.

    Unknown land cover is never wrong, and of an image that has it none is.
    """
    kinds = [main_group(cover.cpu().numpy()) for cover in real.cover]
    other = torch.arange(len(kinds)).roll(-1)
    known = [kind != GROUPS[UNKNOWN_COVER] for kind in kinds]
    pairs = [(k, int(o)) for k, o in enumerate(other) if known[k] and known[o]]
    odd = torch.tensor([k for k, o in pairs if kinds[k] != kinds[o]], dtype=torch.long)
    if not len(odd):
        return None
    return [f[odd] for f in true], real.hr[odd], smooth[odd], real.cover[other[odd]], real.gsd[odd]


class Polish:
    """The critic, its optimizer and the generator's loss."""

    def __init__(
        self, cover_classes: int, features: Features, recipe: dict[str, Any], device: torch.device
    ) -> None:
        self.weights, self.features = recipe["losses"], features
        self.critic = Critic(cover_classes).to(device)
        self.optimizer = torch.optim.Adam(
            self.critic.parameters(), recipe["optimizer"]["critic_lr"], betas=(0.0, 0.99)
        )

    def loss(
        self, kind: str, drawn: Tensor, asked: Batch, real: Batch, sync: Any, logs: dict[str, float]
    ) -> Tensor:
        """Update the critic, then return what is held against the drawn images, a scalar.

        Args:
            kind: of step; "paired" and "small" have a real image to each drawn one.
            drawn: (B, 3, n, n), with gradient.
            asked: what it was drawn from; hr is the low-resolution image.
            real: what it is to look like.
            sync: averages gradients over processes.
            logs: gets the parts of the loss.
        """
        w = self.weights
        if kind == "chain":  # the parent fixes the mean colour, not the network: judge without it
            shift = drawn.detach().mean((2, 3), keepdim=True) - real.hr.mean((2, 3), keepdim=True)
            real = replace(real, hr=(real.hr + shift).clamp(-1, 1))
        seen = maps(self.features, drawn)
        with torch.no_grad():
            true = maps(self.features, real.hr)
        smooth, smooth_real = bicubic4(asked.hr), bicubic4(reduce4(real.hr))
        # per image; in a chain the real one is of the same land cover, so each class finds its own contrast
        band = F.smooth_l1_loss(colour_bands(drawn).log(), colour_bands(real.hr).log())
        pattern = repeated(drawn - smooth, real.hr - smooth_real)
        score, hinge = contest(
            self.critic,
            self.optimizer,
            (true, real.hr, smooth_real, real.cover, real.gsd),
            (seen, drawn, smooth, asked.cover, asked.gsd),
            sync,
            mistold(true, real, smooth_real),
        )
        loss: Tensor = w["band"] * band + w["lattice"] * pattern - w["critic"] * score
        logs |= {f"{kind}_band": band.item(), "pattern": pattern.item()}
        logs |= {f"{kind}_hinge": hinge, f"{kind}_score": score.item()}
        if kind in ("paired", "small"):
            feature = unlikeness(seen[:4], true[:4]).mean()
            loss = loss + w["feature"] * feature
            logs["feature"] = feature.item()
        return loss
