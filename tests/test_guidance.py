"""The algebra of guidance: one sum, whose terms with factor 0 are not evaluated."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from terraloom.errors import InvalidInput

pytest.importorskip("diffusers")

from terraloom.pipelines.guidance import Scales, conditions, projected

scale = st.floats(0, 20)


def told(
    scales: Scales, metadata: Tensor | None
) -> tuple[tuple[float, ...], Tensor, Tensor | None]:
    prompt = torch.full((2, 3), 5.0), torch.full((4,), 5.0)
    negative = torch.full((2, 3), -5.0), torch.full((4,), -5.0)
    c = conditions(scales, prompt, negative, metadata)
    assert c.pooled is not None and torch.equal(c.pooled[:, 0], c.text[:, 0, 0])
    return c.factors, c.text[:, 0, 0], c.metadata


@given(scale, scale, st.lists(st.floats(-9, 9), min_size=3, max_size=3))
def test_factors_are_the_formula(text: float, metadata: float, values: list[float]) -> None:
    u, m, t = values
    factors = Scales(text, metadata).factors()
    assert sum(factors) == pytest.approx(1)
    total = sum(f * v for f, v in zip(factors, values, strict=True))
    assert total == pytest.approx(u + metadata * (m - u) + text * (t - m), abs=1e-9)


@given(scale, st.floats(-9, 9), st.floats(-9, 9))
def test_without_metadata_their_scale_does_not_matter(text: float, u: float, t: float) -> None:
    factors = Scales(text, 17.0).factors(metadata_known=False)
    assert factors[1] == 0
    total = factors[0] * u + factors[2] * t
    assert total == pytest.approx(u + text * (t - u), abs=1e-9)


@pytest.mark.parametrize(
    ("text", "metadata", "evaluations"),
    [(1, 1, 1), (3, 3, 2), (3, 1, 2), (0, 0, 1), (0, 2, 2), (3, 2, 3), (2, 3, 3)],
)
def test_a_factor_of_zero_is_not_evaluated(text: int, metadata: int, evaluations: int) -> None:
    factors, texts, numbers = told(Scales(text, metadata), torch.arange(7.0))
    assert len(factors) == len(texts) == evaluations
    assert numbers is not None and numbers.shape == (evaluations, 7)
    assert all(factors)


def test_who_is_told_what() -> None:
    _, texts, numbers = told(Scales(3, 2), torch.arange(7.0))
    assert texts.tolist() == [-5, -5, 5]
    assert numbers is not None
    assert numbers.isnan().all(1).tolist() == [True, False, False]


def test_unknown_metadata_cost_nothing() -> None:
    factors, _, _ = told(Scales(3, 2), torch.full((7,), torch.nan))
    assert factors == (-2, 3)
    factors, _, numbers = told(Scales(3, 2), None)
    assert factors == (-2, 3) and numbers is None


def test_combine_is_the_weighted_sum() -> None:
    c = conditions(
        Scales(3, 2), (torch.zeros(2, 3), None), (torch.zeros(2, 3), None), torch.arange(7.0)
    )
    u, m, t = x = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0)).double()
    assert torch.allclose(c.combine(x)[0].double(), u + 2 * (m - u) + 3 * (t - m), atol=1e-5)
    assert c.combine(x.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), "3", None])
def test_bad_scales(bad: object) -> None:
    with pytest.raises(InvalidInput, match="guidance_scale"):
        Scales(bad, 1)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="metadata_guidance_scale"):
        Scales(1, bad)  # type: ignore[arg-type]


@given(st.integers(0, 100))
def test_projected_guidance_halves_what_moves_means_and_contrast(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    told, image, more = torch.randn(3, 1, 2, 4, 4, generator=generator)
    contrast = image - image.mean((2, 3), keepdim=True)

    def along(x: Tensor) -> Tensor:
        return torch.stack([(x * contrast).sum(), *x.mean((2, 3)).flatten()])

    moved = projected(told + more, told, image) - told
    assert torch.allclose(along(moved), along(more) / 2, atol=1e-4)
    assert torch.allclose(
        projected(told + moved, told, image) - told - moved, (moved - more) / 2, atol=1e-4
    )
    assert torch.equal(projected(told, told, image), told)
