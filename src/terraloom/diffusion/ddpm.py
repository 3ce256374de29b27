"""Denoising diffusion: MetaEarth's schedule, its loss, and the DDIM sampler.

Notation of Ho et al. 2020 (arXiv 2006.11239). With a_bar_t = prod_{s <= t} (1 - beta_s) and eps ~ N(0, I),

    x_t = sqrt(a_bar_t) x_0 + sqrt(1 - a_bar_t) eps.                                             (Ho, eq. 4)

A network eps_theta(x_t, t, condition) learns to see the noise; MetaEarth's condition is the low-resolution image
and the ground sampling distance:

    L = E || eps - eps_theta(x_t, t, condition) ||^2.                                            (Ho, eq. 14)

DDIM with eta = 0 (Song et al. 2021, arXiv 2010.02502, eq. 12) walks back without new noise, so that the image is
a function of x_T and the condition alone:

    x0_hat = (x_t - sqrt(1 - a_bar_t) eps_hat) / sqrt(a_bar_t),
    x_s    = sqrt(a_bar_s) x0_hat + sqrt(1 - a_bar_s) eps_hat,      s < t.

Nothing here draws a random number: noise and times are arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from terraloom.errors import InvalidInput

Denoiser = Callable[..., Tensor]  # (x_t, t (B,) int64, *condition) -> eps_hat, shaped like x_t


@dataclass(frozen=True)
class Schedule:
    """Noise schedule "linear" of latent diffusion: sqrt(beta) grows linearly (arXiv 2112.10752, released code).

    The values are MetaEarth's, which are those of latent diffusion's super-resolution model. Times run 0 .. steps - 1;
    at the last one a little signal is left (a_bar = 7e-4), as in the original.
    """

    steps: int = 1000
    first: float = 0.0015  # beta at time 0
    last: float = 0.0155  # beta at time steps - 1

    def alpha_bar(self, t: Tensor) -> Tensor:
        """Share of signal power left at times `t` (int64, any shape): float32 on `t`'s device; 1 where t = -1."""
        root = torch.linspace(self.first**0.5, self.last**0.5, self.steps, dtype=torch.float64)
        table = torch.cat([torch.cumprod(1 - root**2, 0), torch.ones(1, dtype=torch.float64)])
        return table.float().to(t.device)[t]  # index -1 is the clean image

    def times(self, evaluations: int) -> list[int]:
        """`evaluations` times, evenly spaced from steps - 1 (noise) to 0, after which the image is clean.

        Both ends are included: a sampler that stops short of 0 leaps from visible noise and smooths what it draws.

        Raises:
            InvalidInput: `evaluations` is not within 1 .. steps.
        """
        if not 1 <= evaluations <= self.steps:
            raise InvalidInput(
                f"{evaluations} sampling steps: choose 1 to {self.steps}, the steps of the schedule"
            )
        last, gaps = self.steps - 1, max(evaluations - 1, 1)
        return [round(last * (1 - i / gaps)) for i in range(evaluations)]


def _power(schedule: Schedule, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(a_bar_t) and sqrt(1 - a_bar_t), shaped to multiply `x` (B, ...)."""
    a = schedule.alpha_bar(t).view(-1, *[1] * (x.dim() - 1))
    return a.sqrt(), (1 - a).sqrt()


def q_sample(schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Forward process: images `x0` (B, C, H, W) noised to times `t` (B,) with standard normal `eps` (B, C, H, W)."""
    signal, noise = _power(schedule, t, x0)
    return signal * x0 + noise * eps


def eps_loss(
    model: Denoiser, schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor, *condition: Tensor
) -> Tensor:
    """Mean squared error of the noise that `model` sees in q_sample(x0, t, eps); a scalar (Ho, eq. 14)."""
    seen = model(q_sample(schedule, x0, t, eps), t, *condition)
    return (seen.float() - eps).square().mean()


def ddim(
    model: Denoiser, schedule: Schedule, x: Tensor, evaluations: int, *condition: Tensor
) -> Tensor:
    """Deterministic DDIM from noise to image; exactly `evaluations` calls of `model`.

    x0_hat is limited to [-1, 1] at every step, as is usual for diffusion on pixels (guided diffusion,
    arXiv 2105.05233): near t = T an error of eps_hat is multiplied by 1 / sqrt(a_bar_T) = 38.

    Args:
        model: eps_theta, called as model(x_t, t, *condition) with t (B,) int64.
        schedule: the one the model was trained with.
        x: (B, C, H, W) standard normal, x_T.
        evaluations: network evaluations, 1 to `schedule.steps`; MetaEarth uses 50.
        condition: handed to `model` as it is.

    Returns:
        (B, C, H, W) in [-1, 1].

    Raises:
        InvalidInput: `evaluations` is out of range.
    """
    times = schedule.times(evaluations)
    for now, after in zip(times, [*times[1:], -1], strict=True):
        t = torch.full((len(x),), now, device=x.device)
        signal, noise = _power(schedule, t, x)
        x0 = ((x - noise * model(x, t, *condition).float()) / signal).clamp(-1, 1)
        eps = (x - signal * x0) / noise
        signal, noise = _power(schedule, torch.full_like(t, after), x)
        x = signal * x0 + noise * eps
    return x
