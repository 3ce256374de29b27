"""MetaEarth's sliding windows: layout, noise, random access and memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from terraloom.diffusion.windows import CELL, MARGIN, fill, sampler, window_noise
from terraloom.errors import InvalidInput

CPU = torch.device("cpu")


def canvas(rows: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    height, width = 32 * rows + 32, 32 * columns + 32
    lr = torch.rand(3, height, width, generator=g) * 2 - 1
    return lr, torch.linspace(10, 9, height)


def enlarge(lr: Tensor, gsd: Tensor) -> Tensor:
    """A sampler that repeats pixels: what it draws shows where a window was read from."""
    return lr.repeat_interleave(4, 2).repeat_interleave(4, 3)


class Small(torch.nn.Module):
    """A noise predictor with what makes windows disagree: a mean over the whole window."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix = torch.nn.Conv2d(6, 3, 5, padding=2)

    def encode(self, lr: Tensor) -> Tensor:
        return enlarge(lr, lr)

    def denoise(self, x: Tensor, t: Tensor, features: Tensor, gsd: Tensor) -> Tensor:
        y = self.mix(torch.cat([x, features], 1))
        return x - 0.2 * features - 0.1 * y - y.mean((2, 3), keepdim=True) + 0.01 * gsd.mean()


@pytest.fixture(scope="module")
def small() -> Small:
    return Small()


def test_noise_is_one_block_repeated_and_equal_where_windows_overlap() -> None:
    noise = window_noise(3)
    assert noise.shape == (3, 256, 256) and noise.dtype == torch.float32
    left, right = noise[:, :, CELL:], noise[:, :, :CELL]  # of a window and of its right neighbour
    assert torch.equal(left, right)
    assert torch.equal(noise[:, CELL:], noise[:, :CELL])
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert not torch.equal(noise, window_noise(4))
    assert torch.equal(noise, window_noise(3))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
def test_cells_are_the_centres_of_their_windows(rows: int, columns: int, batch: int) -> None:
    lr, gsd = canvas(rows, columns)
    out = fill(enlarge, lr, gsd, batch)
    whole = enlarge(lr[None], gsd)[0, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
    assert out.dtype == np.uint8 and out.shape == (3, rows * CELL, columns * CELL)
    assert np.array_equal(out, ((whole + 1) * 127.5).round().to(torch.uint8).numpy())


def test_a_window_is_told_its_own_rows_gsd() -> None:
    seen = []

    def sample(lr: Tensor, gsd: Tensor) -> Tensor:
        seen.append(gsd)
        return enlarge(lr, gsd)

    lr, gsd = canvas(2, 1)
    fill(sample, lr, gsd)
    assert torch.equal(torch.cat(seen), torch.stack([gsd[:64], gsd[32:]]))


@pytest.mark.parametrize("batch", [1, 3])
def test_any_part_of_a_canvas_equals_the_whole(small: Small, batch: int) -> None:
    lr, gsd = canvas(2, 3)
    sample = sampler(small, seed=5, evaluations=3, device=CPU)
    whole = fill(sample, lr, gsd, batch)
    assert whole.std() > 20
    for row in range(2):
        for column in range(3):
            part = (slice(32 * row, 32 * row + 64), slice(32 * column, 32 * column + 64))
            cell = fill(sample, lr[:, *part], gsd[part[0]], batch)
            place = whole[:, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
            assert np.array_equal(cell, place)


def test_seed_and_image_decide_a_window(small: Small) -> None:
    lr, gsd = canvas(1, 1)
    one = fill(sampler(small, 1, 2, CPU), lr, gsd)
    assert np.array_equal(one, fill(sampler(small, 1, 2, CPU), lr, gsd))
    assert (one != fill(sampler(small, 2, 2, CPU), lr, gsd)).mean() > 0.5
    assert (one != fill(sampler(small, 1, 2, CPU), -lr, gsd)).mean() > 0.5


@pytest.mark.parametrize("shape", [(32, 64), (64, 65), (80, 96)])
def test_a_canvas_that_is_not_whole_cells_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(InvalidInput, match="32 n"):
        fill(enlarge, torch.zeros(3, *shape), torch.ones(shape[0]))


def test_memory_is_the_canvas_and_one_batch() -> None:
    """numpy's share, which tracemalloc sees: the uint8 canvas, not floats of all windows."""
    lr, gsd = canvas(6, 6)
    tracemalloc.start()
    out = fill(enlarge, lr, gsd)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * out.nbytes
