"""Few-step sharpening: what the sampler would show at run time is judged by a projected critic.

The sampler of `terraloom.diffusion.flow` is run from noise for a random number of its steps without gradient; the
image seen at the next step learns from the critic, which compares it with the real images of the same words and
metadata. So every step of the sampler learns to see a sharp image (adversarial diffusion distillation, Sauer et al.
2023, arXiv 2311.17042, without a teacher), on its own outputs as inputs: nothing differs from run time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from terraloom.diffusion.flow import restarted, seen_image, sigmas
from terraloom.models.autoencoder import PixelAutoencoder
from terraloom.models.critic import Features, TextCritic
from terraloom.training.captioned import TextBatch
from terraloom.training.contest import contest
from terraloom.training.likeness import looked_at

Predict = Callable[[Tensor, Tensor, TextBatch], Tensor]


class Sharpening:
    """The critic, its optimizer and the generator's loss."""

    def __init__(
        self, predict: Predict, features: Features, recipe: dict[str, Any], device: torch.device
    ) -> None:
        self.predict, self.features, self.recipe, self.device = predict, features, recipe, device
        self.vae = PixelAutoencoder()
        self.critic = TextCritic().to(device)
        self.optimizer = torch.optim.Adam(
            self.critic.parameters(), recipe["optimizer"]["critic_lr"], betas=(0.0, 0.99)
        )

    def loss(
        self, batch: TextBatch, rng: np.random.Generator, sync: Any, logs: dict[str, float]
    ) -> Tensor:
        """Update the critic, then return what it holds against the generated images, a scalar."""
        fake = self._generated(batch, rng)
        seen, true = looked_at(self.features, fake), looked_at(self.features, batch.images)
        judged = (batch.pooled, batch.metadata)
        score, hinge = contest(
            self.critic,
            self.optimizer,
            (true, batch.images, *judged),
            (seen, fake, *judged),
            sync,
        )
        logs |= {"hinge": hinge, "score": score.item()}
        return -float(self.recipe["losses"]["critic"]) * score

    def _generated(self, batch: TextBatch, rng: np.random.Generator) -> Tensor:
        """What the sampler sees at a random one of its steps, (B, 3, H, W), with gradient through that step alone."""
        schedule = self.recipe["schedule"]
        path = sigmas(schedule["evaluations"], schedule.get("shift", 1.0)).to(self.device)
        n = len(batch.images)
        shape = tuple(self.vae.encode(batch.images).shape)
        last = int(rng.integers(len(path)))
        x = self._noise(shape, rng)
        for now in range(last):
            with torch.no_grad():
                velocity = self.predict(x, path[now].expand(n), batch)
                x = restarted(x, velocity, path[now], path[now + 1], self._noise(shape, rng))
        velocity = self.predict(x, path[last].expand(n), batch)
        image: Tensor = self.vae.decode(seen_image(x, velocity, path[last])).sample
        return image

    def _noise(self, shape: tuple[int, ...], rng: np.random.Generator) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(self.device)
