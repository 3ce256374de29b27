from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from terraloom.errors import TerraloomError
from terraloom.evaluation import quality
from terraloom.models import perceptual
from terraloom.models.perceptual import Perceptual


def pair() -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    a = rng.random((40, 52, 3))
    b = np.clip(a + 0.2 * rng.standard_normal(a.shape), 0, 1)
    return as_image(a), as_image(b)


def as_image(x: np.ndarray) -> Tensor:
    return torch.from_numpy(x.transpose(2, 0, 1)[None].astype(np.float32))


def half(h: int, w: int) -> Tensor:
    mask = torch.zeros(1, 1, h, w)
    mask[..., : w // 2] = 1
    return mask


def test_psnr_and_ssim_are_those_of_scikit_image() -> None:
    a, b = (
        pair()
    )  # scikit-image 0.26: gaussian_weights, sigma 1.5, use_sample_covariance False, data_range 1
    assert quality.psnr(a, b).item() == pytest.approx(15.058478447, abs=1e-5)
    assert quality.ssim(a, b).item() == pytest.approx(0.8242912831, abs=1e-6)


def test_equal_images() -> None:
    a, _ = pair()
    assert math.isinf(quality.psnr(a, a).item())
    assert quality.ssim(a, a).item() == pytest.approx(1)
    assert quality.ssim(a, a, half(40, 52)).item() == pytest.approx(1)


@given(st.floats(0.01, 0.5))
def test_psnr_of_an_offset(offset: float) -> None:
    a = torch.full((2, 3, 9, 9), 0.25)
    assert quality.psnr(a, a + offset)[1].item() == pytest.approx(
        -20 * math.log10(offset), rel=1e-4
    )


def test_a_mask_leaves_out_what_it_does_not_cover() -> None:
    a, b = pair()
    mask = half(40, 52)
    spoiled = torch.where(mask > 0, b, 0)
    assert quality.psnr(spoiled, a, mask).item() == quality.psnr(b, a, mask).item()
    assert quality.psnr(spoiled, a).item() < quality.psnr(b, a).item()
    whole = torch.ones_like(mask)
    assert quality.octaves(a, whole) == pytest.approx(quality.octaves(a))


@pytest.mark.parametrize(("wavelength", "octave"), [(3, 0), (6.5, 1), (13, 2), (26, 3)])
def test_a_wave_is_in_its_octave(wavelength: float, octave: int) -> None:
    x = torch.arange(128.0)
    wave = 0.5 + 0.2 * torch.sin(2 * torch.pi * x / wavelength)
    power = quality.octaves(wave.expand(1, 3, 128, 128))[0]
    assert power.argmax().item() == octave
    assert power[octave] > 0.4 * power.sum()


def test_steps_across_an_edge_and_inside() -> None:
    hole = half(8, 10)
    image = hole.expand(1, 3, 8, 10).clone()
    image[..., 1::2, :5] += 0.5  # rows inside the hole: a step of 0.5 along one of two axes
    edge, inside = quality.steps(image, hole)
    assert edge.item() == pytest.approx(1.25)  # of 1 and 1.5
    assert inside.item() == pytest.approx(0.5 * 35 / (35 + 32))


needs_weights = pytest.mark.skipif(
    perceptual.find_spec(perceptual.PACKAGE) is None, reason="stlpips-pytorch is not installed"
)


@needs_weights
@pytest.mark.parametrize(("network", "expected"), [("vgg", 0.06909193), ("alex", 0.04455532)])
def test_perceptual_distance_is_the_packages_own(network: Any, expected: float) -> None:
    a, b = (
        torch.rand(1, 3, 48, 55, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)
    )
    distance = Perceptual(network=network)
    # stlpips_pytorch.stlpips.LPIPS(net=network, variant="shift_tolerant")(2 * a - 1, 2 * b - 1)
    assert distance(a, b).item() == pytest.approx(expected, abs=1e-6)
    assert distance(a, a).item() == 0
    both = distance(torch.cat([b, a]), a)
    assert both.tolist() == pytest.approx([expected, 0], abs=1e-6)


@needs_weights
@pytest.mark.parametrize("network", ["vgg", "alex"])
def test_weighted_features_make_the_distance(network: Any) -> None:
    a, b = (torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    distance = Perceptual(network=network)
    parts = zip(distance.weighted(a), distance.weighted(b), strict=True)
    total = sum((x - y).square().sum(1).mean() for x, y in parts)
    assert float(total) == pytest.approx(float(distance(a, b)), rel=1e-4)


def test_missing_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    with pytest.raises(TerraloomError, match="stlpips-pytorch"):
        Perceptual()
