"""The cascade's detail as waves, its network's locality, and the sampler that walks from noise to detail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from terraloom.diffusion.flow import carried, noised, walked, walked_by_adams
from terraloom.models.cascade import CascadeConfig, CascadeUNet
from terraloom.models.waves import BASIS, SIZES, detail_of, image_of, noise_of, reduce4, scaling
from terraloom.training.parents import evenness
from terraloom.weights import save_model
from terraloom.world import engine as engines


def images(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_waves_are_orthonormal_and_without_mean() -> None:
    flat = BASIS.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(48), atol=1e-6, rtol=0)
    assert float(BASIS[:45].mean((2, 3)).abs().max()) < 1e-7
    assert float(BASIS[45:].std((2, 3)).max()) < 1e-7
    assert SIZES.shape == (48,) and float(SIZES.min()) > 0.2


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999))
def test_detail_and_image_undo_each_other(seed: int) -> None:
    hr = images(seed, 2, 3, 32, 48)
    lr = reduce4(hr)
    torch.testing.assert_close(image_of(detail_of(hr, lr), lr), hr, atol=1e-5, rtol=0)
    other, detail = images(seed + 1, 2, 3, 8, 12), images(seed + 2, 2, 45, 8, 12)
    torch.testing.assert_close(reduce4(image_of(detail, other)), other, atol=1e-5, rtol=0)
    torch.testing.assert_close(detail_of(image_of(detail, other), other), detail, atol=1e-4, rtol=0)


def test_noise_of_pixels_is_noise_of_waves() -> None:
    pixels = torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    noise = noise_of(pixels)[0].flatten(1)
    assert noise.shape == (45, 128 * 128)
    assert float((torch.cov(noise) - torch.eye(45)).abs().max()) < 0.05


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 99), st.floats(0.05, 1), st.floats(0, 1))
def test_carried_stays_on_the_path_of_one_image(seed: int, now: float, share: float) -> None:
    x, eps = images(seed, 1, 2, 4, 4), images(seed + 1, 1, 2, 4, 4)
    later = now * share
    at, after = (noised(x, eps, torch.tensor(s)) for s in (now, later))
    torch.testing.assert_close(carried(at, x, now, later), after, atol=1e-4, rtol=1e-4)


def test_a_walk_asks_where_it_is_told_and_ends_in_what_is_seen_last() -> None:
    asked = []

    def see(x: torch.Tensor, sigma: float) -> torch.Tensor:
        asked.append(sigma)
        return torch.full_like(x, sigma)

    drawn = walked(see, images(0, 1, 2, 4, 4), (1.0, 0.6, 0.3))
    assert asked == [1.0, 0.6, 0.3]
    assert torch.equal(drawn, torch.full_like(drawn, 0.3))


def test_a_walk_reaches_the_right_spread() -> None:
    """Data of one Gaussian: the best answer is linear, and the flow carries noise to data of its size."""
    size = 0.5

    def see(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return (1 - sigma) * size**2 / (((1 - sigma) * size) ** 2 + sigma**2) * x

    eps = torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    path = tuple(float(s) for s in np.linspace(1, 1 / 400, 400))
    assert float(walked(see, eps, path).std()) == pytest.approx(size, rel=0.03)
    few = np.linspace(1, 0, 9) ** 1.5
    reached = walked_by_adams(see, eps, few.tolist())
    assert len(reached) == 9 and reached[0] is eps
    assert float(reached[-1].std()) == pytest.approx(size, rel=0.04)
    assert float(walked(see, eps, tuple(few[:-1].tolist())).std()) < 0.9 * size


def test_scaling_keeps_what_is_clean_and_trusts_nothing_in_noise() -> None:
    keep, scale = scaling(torch.tensor([1.0, 1e-4]), len(SIZES))
    assert float(keep[0].abs().max()) == 0
    torch.testing.assert_close(scale[0].flatten(), SIZES)
    assert float((keep[1] - 1).abs().max()) < 1e-3 and float(scale[1].max()) < 1e-3


def test_evenness_is_one_on_even_ground_and_falls_at_an_edge() -> None:
    lr = torch.zeros(1, 3, 12, 12)
    lr[..., 6:] = 0.5
    even = evenness(lr)
    assert even.shape == (1, 1, 12, 12)
    assert (
        torch.equal(even[..., :5], torch.ones(1, 1, 12, 5)) and float(even[..., 5:7].max()) < 0.01
    )


def test_several_evaluations_with_their_halo_equal_the_canvas(tmp_path: Path) -> None:
    """A block with the whole halo of two evaluations is the same pixels of a larger block."""
    torch.manual_seed(2)
    net = CascadeUNet(CascadeConfig(widths=(8, 16), depth=1, embed=8, sigmas=(1.0, 0.4)))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    checkpoint = save_model(net, tmp_path)
    geometry = engines.geometry(checkpoint)
    assert geometry.exact == 2 * net.config.halo
    halo, side = geometry.exact, 2 * geometry.exact + 64
    wide = side + 64
    rng = np.random.default_rng(0)
    cells = wide // 4
    lr = rng.uniform(-0.5, 0.5, (3, cells, cells)).astype(np.float32)
    cover = rng.integers(0, 18, (cells, cells)).astype(np.uint8)
    ground = rng.integers(0, 2, (6, cells, cells)).astype(np.float32)
    gsd = np.full(cells, 10, np.float32)
    noise = rng.standard_normal((3, wide, wide)).astype(np.float32)
    whole = engines.start("torch", "f32", checkpoint, wide, halo, 0)(
        engines.Given(lr, cover, ground, gsd, noise)
    )
    few = side // 4
    part = engines.start("torch", "f32", checkpoint, side, halo, 0)(
        engines.Given(lr[:, :few, :few], cover[:few, :few], ground[:, :few, :few], gsd[:few], noise[:, :side, :side])
    )  # fmt: skip
    assert whole.std() > 10
    assert np.abs(part.astype(int) - whole[:, :64, :64]).max() <= 1
    assert (part != whole[:, :64, :64]).mean() < 1e-3
