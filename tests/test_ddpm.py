"""The diffusion formulation against what is known in closed form."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from terraloom.diffusion.ddpm import Schedule, ddim, eps_loss, q_sample
from terraloom.errors import InvalidInput

SCHEDULE = Schedule()


def gaussian_denoiser(mean: float, std: float):
    """E[eps | x_t] when every pixel of x_0 is N(mean, std^2), from Bayes' rule on (x_0, eps)."""

    def model(x: Tensor, t: Tensor) -> Tensor:
        a = SCHEDULE.alpha_bar(t).view(-1, 1, 1, 1)
        return (1 - a).sqrt() * (x - a.sqrt() * mean) / (a * std**2 + 1 - a)

    return model


def test_schedule_is_linear_in_sqrt_beta() -> None:
    a = SCHEDULE.alpha_bar(torch.arange(1000)).double()
    beta = 1 - a / torch.cat([torch.ones(1, dtype=torch.float64), a[:-1]])
    assert beta[0].item() == pytest.approx(0.0015, rel=1e-3)
    assert beta[-1].item() == pytest.approx(0.0155, rel=1e-3)
    step = beta.sqrt().diff()
    assert step.mean().item() == pytest.approx((0.0155**0.5 - 0.0015**0.5) / 999, rel=1e-3)
    assert step.std() < 0.2 * step.mean()  # float32 cumulative products are not exact
    assert a[-1].item() == pytest.approx(7e-4, rel=0.1)
    assert SCHEDULE.alpha_bar(torch.tensor(-1)).item() == 1


def test_q_sample_keeps_variance_and_mixes_as_stated() -> None:
    g = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 3, 64, 64, generator=g), torch.randn(2, 3, 64, 64, generator=g)
    t = torch.tensor([10, 700])
    x = q_sample(SCHEDULE, x0, t, eps)
    for i, a in enumerate(SCHEDULE.alpha_bar(t)):
        torch.testing.assert_close(x[i], a.sqrt() * x0[i] + (1 - a).sqrt() * eps[i])
    assert x.var().item() == pytest.approx(1, abs=0.03)


def test_loss_is_zero_for_an_oracle_and_one_for_a_network_that_sees_nothing() -> None:
    g = torch.Generator().manual_seed(1)
    x0, eps = torch.rand(4, 3, 32, 32, generator=g), torch.randn(4, 3, 32, 32, generator=g)
    t = torch.tensor([0, 100, 500, 999])
    assert eps_loss(lambda x, t: eps, SCHEDULE, x0, t, eps) == 0
    blind = eps_loss(lambda x, t, factor: factor * x, SCHEDULE, x0, t, eps, torch.zeros(()))
    assert blind.item() == pytest.approx(1, abs=0.05)


@given(st.integers(1, 1000))
def test_times_start_at_noise_and_fall_to_the_end(evaluations: int) -> None:
    times = SCHEDULE.times(evaluations)
    assert len(times) == evaluations and times[0] == 999
    assert evaluations == 1 or times[-1] == 0
    assert all(a > b for a, b in zip(times, times[1:], strict=False))


@pytest.mark.parametrize("evaluations", [0, -3, 1001])
def test_times_refuses(evaluations: int) -> None:
    with pytest.raises(InvalidInput, match="1 to 1000"):
        SCHEDULE.times(evaluations)


def test_ddim_calls_the_model_once_per_evaluation_and_passes_the_condition() -> None:
    seen: list[tuple[int, float]] = []

    def model(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        seen.append((int(t[0]), condition.item()))
        return torch.zeros_like(x)

    ddim(model, SCHEDULE, torch.zeros(2, 3, 4, 4), 10, torch.tensor(7.0))
    assert seen == [(t, 7.0) for t in SCHEDULE.times(10)]


def test_ddim_transports_noise_to_a_known_distribution() -> None:
    """For Gaussian data the probability-flow ODE maps quantiles to quantiles; DDIM is its integrator.

    The flow is followed from x_T down to time 0; the last evaluation answers with E[x_0 | x_0th].
    """
    mean, std = 0.3, 0.15
    x = torch.linspace(-2.5, 2.5, 11).view(1, 1, 1, -1)
    end, begin = SCHEDULE.alpha_bar(torch.tensor([999, 0]))
    z = (x - end.sqrt() * mean) / (end * std**2 + 1 - end).sqrt()
    exact = mean + z * begin.sqrt() * std**2 / (begin * std**2 + 1 - begin).sqrt()
    drawn = {n: ddim(gaussian_denoiser(mean, std), SCHEDULE, x, n) for n in (250, 500, 1000)}
    error = {n: (y - exact).abs().max().item() for n, y in drawn.items()}
    assert error[1000] < 0.006
    assert error[250] / error[500] == pytest.approx(2, abs=0.2)  # a method of first order
    assert error[500] / error[1000] == pytest.approx(2, abs=0.2)


def test_ddim_is_deterministic_and_stays_in_range() -> None:
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))

    def wild(x: Tensor, t: Tensor) -> Tensor:
        return 3 * x.flip(-1)

    first, second = ddim(wild, SCHEDULE, x, 20), ddim(wild, SCHEDULE, x.clone(), 20)
    assert torch.equal(first, second)
    assert first.abs().max() <= 1
