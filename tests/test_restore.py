"""The base map's pixels: samples become means, towns grey."""

from __future__ import annotations

import numpy as np
import torch

from terraloom.data import palette, restore
from terraloom.data.ground import LAYERS, Ground
from terraloom.grid import window_of
from terraloom.models.blur import blurred


def test_surroundings_are_shares_of_the_maps() -> None:
    spot = window_of((-74.0, 40.65, -73.999, 40.651), 6)
    around = restore.surroundings(Ground.open(), spot.x - 20, spot.y - 20, 40, 40)
    assert around.shape == (len(LAYERS) + 1, 40, 40) and around.dtype == np.uint8
    land = around[LAYERS.index("land")]
    assert land.max() == 16 and land.min() == 0 and len(np.unique(land)) > 5  # shares, by a shore


def test_samples_become_means() -> None:
    """A texture whose every pixel is a sample of finer grain: the network comes nearer to its means."""
    rng = np.random.default_rng(5)
    samples, means, around = [], [], []
    for _ in range(3):
        smooth = blurred(torch.from_numpy(rng.normal(size=(1, 3, 512, 512))), 6.0, 18)[0]
        fine = smooth.permute(1, 2, 0).numpy() * 400 + 128 + rng.normal(0, 30, (512, 512, 1))
        fine = fine.clip(0, 255)
        samples.append(fine[1::4, 1::4].round().astype(np.uint8))
        means.append(fine.reshape(128, 4, 128, 4, 3).mean((1, 3)).round().astype(np.uint8))
        around.append(np.zeros((7, 128, 128), np.uint8))
    model = restore.fit(samples[:2], means[:2], around[:2], steps=60, batch=2)
    inner = slice(restore.REACH, -restore.REACH)
    out = restore.restored(model, samples[2], around[2])
    assert out.shape == (128 - 2 * restore.REACH, 128 - 2 * restore.REACH, 3)

    def error(image: np.ndarray) -> float:
        return float(np.square(image - means[2][inner, inner].astype(float)).mean() ** 0.5)

    assert error(out) < 0.7 * error(samples[2][inner, inner])


def test_towns_are_grey() -> None:
    rgb = np.array([[[126, 124, 88], [60, 78, 50], [40, 60, 90]]], np.uint8)
    assert np.array_equal(palette.towns(rgb, np.zeros((1, 3))), rgb)
    town = palette.towns(rgb, np.ones((1, 3)))
    assert np.array_equal(town[..., :2], rgb[..., :2])
    assert 98 <= town[0, 0, 2] <= 108  # of 88
    assert town[0, 2, 2] == 90  # water stays blue
