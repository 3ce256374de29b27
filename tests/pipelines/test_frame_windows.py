"""Windows: they cover any image once, fade into each other, and rows begin anywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terraloom.pipelines.windows import OVERLAP, SIDE, STRIDE, Lattice, mirrored, ramp, strips

sizes = st.integers(1, 900)


def varied(left: int, top: int) -> np.ndarray:
    """Every window its own noise, so that order and neighbours would show."""
    rng = np.random.default_rng([left + 1000, top + 1000])
    return rng.standard_normal((2, SIDE, SIDE)).astype(np.float32)


@given(size=sizes, i=st.integers(0, 899))
def test_every_pixel_has_weights_that_sum_to_one(size: int, i: int) -> None:
    x = i % size
    weights = [float(ramp()[x - s]) for s in Lattice(size, 1).columns if s <= x < s + SIDE]
    assert sum(weights) == pytest.approx(1, abs=1e-6) and len(weights) <= 2


@given(size=sizes)
def test_strips_follow_each_other_over_the_whole_image(size: int) -> None:
    lattice = Lattice(1, size)
    ends = [lattice.strip(row) for row in range(len(lattice.rows))]
    assert ends[0][0] == 0 and ends[-1][1] == size
    assert all(a[1] == b[0] and b[0] < b[1] for a, b in zip(ends, ends[1:], strict=False))


@settings(max_examples=5, deadline=None)
@given(width=sizes, height=sizes, cut=st.integers(0, 5))
def test_rows_begin_anywhere_with_the_same_bytes(width: int, height: int, cut: int) -> None:
    lattice = Lattice(width, height)
    whole = list(strips(lattice, varied))
    image = np.concatenate(whole, 1)
    assert image.shape == (2, height, width)
    first = cut % len(whole)
    for a, b in zip(whole[first:], strips(lattice, varied, first), strict=True):
        assert np.array_equal(a, b)


def test_equal_windows_leave_no_trace() -> None:
    x, y = np.meshgrid(np.arange(700), np.arange(500))
    field = (np.sin(x / 50) + np.cos(y / 30)).astype(np.float32)

    def cut(left: int, top: int) -> np.ndarray:
        rows, columns = (mirrored(n, SIDE, size) for n, size in ((top, 500), (left, 700)))
        return field[rows][:, columns][None]

    image = np.concatenate(list(strips(Lattice(700, 500), cut)), 1)[0]
    assert np.abs(image - field).max() < 1e-5


def test_sizes() -> None:
    assert STRIDE + OVERLAP == SIDE
    assert Lattice(128, 129).columns == [-64] and Lattice(128, 129).rows == [-64, 128]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_mirroring_repeats_the_edge_pixel(size: int) -> None:
    found = mirrored(-2 * size, 5 * size, size)
    there = list(range(size))
    assert found.tolist() == [*there, *there[::-1], *there, *there[::-1], *there]
