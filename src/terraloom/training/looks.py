"""How two draws look beside the truth: their energy score in the features of two frozen networks.

EfficientNet-Lite0 sees whole images (`texture`); the perceptual distance's VGG-16, which is dear, a random part of them
(`perceptual`). Features have length 1 at every position, as LPIPS compares them (Zhang et al. 2018).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from terraloom.models.critic import Features
from terraloom.models.perceptual import Perceptual
from terraloom.training.scores import directions, energy_score

PART = 64  # px, side of the part that the perceptual distance sees
DEPTHS = 4  # of it, and of EfficientNet's features: strides 2 to 16
OVER = 1.2  # images are let out of [-1, 1] so far: beyond there is no slope


class Looks:
    """The two networks and what is asked of them."""

    def __init__(self, features: Features, device: torch.device, perceptual: bool = True) -> None:
        self.features = features
        self.judge = Perceptual(device) if perceptual else None

    def texture(self, one: Tensor, two: Tensor, truth: Tensor, spread: float) -> Tensor:
        """Energy score in EfficientNet's features, images (B, 3, H, W) in [-1, 1] -> (B,)."""
        with torch.no_grad():
            seen = self._directions(truth)
        ours = self._directions(torch.cat([one, two]))
        levels = []
        for f, true in zip(ours, seen, strict=True):
            a, b = f.chunk(2)
            levels.append(energy_score(a, b, true, spread))
        return torch.stack(levels).mean(0)

    def perceptual(
        self, one: Tensor, two: Tensor, truth: Tensor, spread: float, rng: np.random.Generator
    ) -> Tensor:
        """Energy score in the perceptual distance's features of a random part of every image, (B,)."""
        assert self.judge is not None
        h, w = truth.shape[-2:]
        top, left = (int(rng.integers(max(1, n - PART + 1))) for n in (h, w))
        parts = torch.cat([one, two, truth])[..., top : top + PART, left : left + PART]
        with torch.autocast(parts.device.type, torch.bfloat16):
            seen = self.judge.weighted((parts.clamp(-OVER, OVER) + 1) / 2, DEPTHS)
        levels = []
        for f in seen:
            a, b, true = f.chunk(3)
            levels.append(energy_score(a, b, true, spread))
        return torch.stack(levels).sum(0)

    def _directions(self, images: Tensor) -> list[Tensor]:
        with torch.autocast(images.device.type, torch.bfloat16):
            seen = self.features(
                images.clamp(-OVER, OVER).contiguous(memory_format=torch.channels_last)
            )
        return [directions(f.float()) for f in seen[:DEPTHS]]
