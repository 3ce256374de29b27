"""Rectified flow: the straight path between image and noise, its loss, and the few-step sampler.

Notation of Liu et al. 2022 (arXiv 2209.03003) with the times of Esser et al. 2024 (arXiv 2403.03206). With
sigma in [0, 1] and eps ~ N(0, I),

    x_sigma = (1 - sigma) x + sigma eps,                                                   (Esser, eq. 13)
    L = E || v_theta(x_sigma, sigma, condition) - (eps - x) ||^2,

so v_theta is the velocity and x_hat = x_sigma - sigma v_theta the image that the network sees in x_sigma. A network
trained to see sharp images (terraloom.training.sharpen) is sampled by restarting: x_hat is carried back to the next,
smaller sigma with *new* noise; that is diffusers' FlowMatchEulerDiscreteScheduler with `stochastic_sampling`.

Nothing here draws a random number: noise and times are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

Time = TypeVar("Time", float, Tensor)
STEPS = 1000  # the network is told 1000 sigma, as diffusers' flow schedulers do


def noised(x: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """x_sigma for images and noise (B, C, H, W) and sigma () or (B,) in [0, 1]."""
    s = sigma.view(-1, 1, 1, 1)
    return (1 - s) * x + s * eps


def seen_image(x_sigma: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """x_hat, the image that a velocity (B, C, H, W) at sigma () or (B,) points to."""
    return x_sigma - sigma.view(-1, 1, 1, 1) * velocity


def restarted(x_sigma: Tensor, velocity: Tensor, now: Tensor, later: Tensor, eps: Tensor) -> Tensor:
    """The image seen at sigma `now`, carried to the smaller sigma `later` with new noise; sigmas () or (B,)."""
    return noised(seen_image(x_sigma, velocity, now), eps, later)


def carried(x_sigma: Tensor, seen: Tensor, now: float, later: float) -> Tensor:
    """x at the smaller sigma `later`, of the image `seen` at `now` and the noise that is left in x_sigma."""
    eps = (x_sigma - (1 - now) * seen) / now
    return (1 - later) * seen + later * eps


def walked(see: Callable[[Tensor, float], Tensor], eps: Tensor, path: Sequence[float]) -> Tensor:
    """From noise to image along the flow (Euler steps), with a network that tells the image in x_sigma itself.

    Args:
        see: tells the image in x_sigma, (B, C, H, W) -> same, given sigma.
        eps: (B, C, H, W) standard normal.
        path: sigmas at which it is asked, 1 and then smaller ones.

    Returns:
        (B, C, H, W), the image seen at the last sigma.
    """
    x = eps
    for now, later in pairwise((*path, 0.0)):
        x = carried(x, see(x, now), now, later)
    return x


def walked_by_adams(
    see: Callable[[Tensor, float], Tensor], x_sigma: Tensor, path: Sequence[float]
) -> list[Tensor]:
    """x at each sigma of `path`, from x at its first one, by the two-step method of Adams and Bashforth.

    The velocity over a step is led on from the last two, with an evaluation a step: eight of a leap come nearer to
    where many lead than fifteen by Heun's method, and Euler's lose a sixth of the contrast (docs/decisions.md).

    Args:
        see: as in `walked`.
        x_sigma: (B, C, H, W) at `path[0]`.
        path: falling sigmas; the last may be 0.

    Returns:
        As many x as sigmas, the first `x_sigma` itself.
    """
    reached, before = [x_sigma], None
    for now, later in pairwise(path):
        x, step = reached[-1], later - now
        velocity = (x - see(x, now)) / now
        led = velocity
        if before is not None:
            led = velocity + step / (2 * before[1]) * (velocity - before[0])
        before = velocity, step
        reached.append(x + step * led)
    return reached


def flow_loss(velocity: Tensor, x: Tensor, eps: Tensor) -> Tensor:
    """Mean squared error of the velocity, a scalar."""
    return F.mse_loss(velocity.float(), eps - x)


def sigmas(evaluations: int, shift: float = 1.0) -> Tensor:
    """Where a sampler of so many evaluations asks the network: from 1 down, evenly, float32 (evaluations,).

    A shift above 1 spends more of them near the noise (Esser, eq. 23).
    """
    even = torch.linspace(1, 1 / evaluations, evaluations)
    return shifted(even, shift)


def shifted(time: Time, shift: float) -> Time:
    """Sigmas of times in [0, 1], later ones for shifts above 1 (Esser, eq. 23); undone by a shift of 1 / `shift`."""
    return shift * time / (1 + (shift - 1) * time)
