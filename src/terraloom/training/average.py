"""The running average of weights that is exported."""

from __future__ import annotations

import torch
from torch import nn


def update_average(average: nn.Module, model: nn.Module, most: float, step: int) -> None:
    """Exponential moving average with decay min(most, (1 + step) / (10 + step)), which forgets the start quickly."""
    decay = min(most, (1 + step) / (10 + step))
    with torch.no_grad():
        for mean, value in zip(average.parameters(), model.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
