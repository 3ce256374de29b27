"""The shipped weights for dated images: what they draw is kept within a tolerance, and is better than the base."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")

from terraloom.models.frames import BANDS, COLOURS, Frames, filled  # noqa: E402
from terraloom.models.waves import bicubic4, reduce4  # noqa: E402
from terraloom.pipelines import FramesToImage  # noqa: E402

SIDE = 128


@pytest.fixture(scope="module")
def pipe() -> FramesToImage:
    return FramesToImage.from_pretrained("frames")


def fields(seed: int) -> Tensor:
    """Something like farmland: flat plots of random colours with sharp, slanted borders, (1, 3, SIDE, SIDE)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    plots = np.floor(5 * x + 1.3 * y) * 7 + np.floor(4 * y - 0.8 * x)
    colours = rng.uniform(-0.7, 0.5, (64, 1)) + rng.uniform(-0.15, 0.15, (64, COLOURS))
    image = colours[(plots.astype(int)) % 64].transpose(2, 0, 1)
    return torch.from_numpy(image.astype(np.float32))[None]


def told(pixels: Tensor, base: Tensor, free: Tensor, coarse: Tensor | None = None) -> Frames:
    nothing = torch.full((1, 7), torch.nan)
    frame = torch.zeros(1, len(BANDS) + 1, 1, SIDE, SIDE)
    frame[:, :COLOURS, 0], frame[:, -1:, 0] = pixels, 1 - free * (coarse is None)
    return Frames(
        frame, torch.ones(1, 1, dtype=torch.bool), nothing[..., None], nothing, base, free, coarse
    )


def noise(seed: int) -> Tensor:
    return torch.from_numpy(
        np.random.default_rng(seed).standard_normal((1, 3, SIDE, SIDE), np.float32)
    )


def test_superres_sharpens_borders_and_keeps_the_means(pipe: FramesToImage) -> None:
    truth = fields(0)
    coarse = reduce4(truth)
    base = bicubic4(coarse)
    out = pipe.draw(told(base, base, torch.ones(1, 1, SIDE, SIDE), coarse), noise(1))
    assert torch.allclose(reduce4(out), coarse, atol=1e-4)
    steps = [float(image.diff(dim=3).square().mean()) for image in (base, out, truth)]
    assert steps[0] < steps[1] < 1.3 * steps[2]
    assert float((out - base).abs().mean()) == pytest.approx(SUPERRES, rel=0.1)


def test_inpainting_fills_the_hole_and_noise_counts(pipe: FramesToImage) -> None:
    truth = fields(2)
    free = torch.zeros(1, 1, SIDE, SIDE)
    free[..., 40:80, 50:90] = 1
    base = filled(truth * (1 - free), 1 - free)
    frames = told(truth * (1 - free), base, free)
    one, two = (pipe.draw(frames, noise(seed)) for seed in (1, 2))
    hole = free.expand(-1, 3, -1, -1) > 0
    assert torch.equal(one[~hole], truth[~hole])
    assert not torch.equal(one[hole], two[hole])
    assert float((one - base)[hole].abs().mean()) == pytest.approx(INPAINT, rel=0.1)


# Mean absolute change of the base by the shipped weights, within a tenth: another machine rounds otherwise.
SUPERRES = 0.0314
INPAINT = 0.0537
