"""The energy score: how good a set of draws is as a forecast of what was there.

For draws y_1 .. y_m of one condition, the truth x and a distance d = |f(.) - f(.)|,

    ES = mean_i d(y_i, x) - 1/2 mean_{i != j} d(y_i, y_j)              (Gneiting & Raftery 2007, section 4.3)

is smallest on average when the draws are spread as the truth is, given the condition: the first term pulls every draw
to the truth, the second one pushes draws apart. So a network with noise for input learns to draw in one evaluation,
without a critic (De Bortoli et al. 2025, arXiv 2502.02483, for one step of it). Here d is a Euclidean distance of
patches and of a pretrained network's features at every position: the score of those, averaged.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

PATCH = 4  # pixels
LOOSE = 1e-4  # keeps the slope of the norm finite where two patches are equal


def patches(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 16 C, H / 4, W / 4), scaled so that distances are root mean squares of values."""
    y: Tensor = F.pixel_unshuffle(x, PATCH)
    return y / math.sqrt(y.shape[1])


def directions(features: Tensor) -> Tensor:
    """Features (B, C, h, w) of length 1 at every position, as LPIPS compares them (Zhang et al. 2018)."""
    return features / (features.square().sum(1, keepdim=True) + 1e-6).sqrt()


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean over channels at every position, (B, C, h, w) twice -> (B,)."""
    return ((a - b).square().sum(1) + LOOSE**2).sqrt().mean((1, 2)) - LOOSE


def energy_score(one: Tensor, two: Tensor, truth: Tensor, spread: float = 1.0) -> Tensor:
    """ES of two draws, (B, C, h, w) each -> (B,).

    Args:
        one: a draw.
        two: another one.
        truth: what was there.
        spread: weight of the second term; below 1 draws are less varied than the truth and nearer to it.
    """
    near = (distance(one, truth) + distance(two, truth)) / 2
    return near - spread / 2 * distance(one, two)
