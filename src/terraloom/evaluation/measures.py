"""Numbers about images: band power, consistency, lattice share, contrast of real imagery."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from terraloom.models.cascade import CascadeUNet, bicubic4, reduce4
from terraloom.training.batches import GROUPS, Batch, quantise
from terraloom.training.cascade import band_power, lattice_share
from terraloom.training.packed import Pack, Sample

Pixels = npt.NDArray[np.uint8]
CROP = 128  # pixels of the images that single levels are judged on
WINDOW = 64  # pixels; contrast is measured inside squares of this side


def level_of(gsd: float) -> int:
    """The even zoom, 6 to 18, whose gsd on the equator is nearest to `gsd` (x4 steps from 0.6 m)."""
    return int(np.clip(18 - 2 * round(float(np.log2(gsd / 0.6)) / 2), 6, 18))


def group_of(cover: int) -> int:
    """Coarse class of an IGBP class."""
    return int(GROUPS[cover])


def samples_by_level(packs: list[Pack], side: int = CROP) -> dict[int, list[Sample]]:
    """Real images at least `side` pixels wide, by level."""
    found: dict[int, list[Sample]] = defaultdict(list)
    for pack in packs:
        for samples in pack.sets.values():
            for sample in samples:
                if min(sample.rgb.shape[:2]) >= side:
                    found[level_of(sample.gsd)].append(sample)
    return found


def contrast(rgb: npt.NDArray[Any]) -> float:
    """Standard deviation inside WINDOW px squares, mean over squares and channels, (3, h, w)."""
    h, w = (n // WINDOW for n in rgb.shape[1:])
    cut = rgb[:, : h * WINDOW, : w * WINDOW].astype(np.float32)
    return float(cut.reshape(3, h, WINDOW, w, WINDOW).std((2, 4)).mean())


def real_contrast(packs: list[Pack]) -> dict[tuple[int, int], tuple[float, int]]:
    """(level, coarse class) -> (median contrast of real images, how many)."""
    found: dict[tuple[int, int], list[float]] = defaultdict(list)
    for level, samples in samples_by_level(packs, WINDOW).items():
        for s in samples:
            group = group_of(int(np.bincount(np.minimum(s.cover, 18).ravel()).argmax()))
            found[level, group].append(contrast(s.rgb.transpose(2, 0, 1)))
    return {key: (float(np.median(v)), len(v)) for key, v in found.items()}


def as_batch(samples: list[Sample], side: int = CROP) -> Batch:
    """Middles of samples as a batch; no mask for targets finer than 20 m."""
    hr, cover, ground, gsd = [], [], [], []
    bits = np.arange(6)[:, None, None]
    for s in samples:
        y, x = ((n - side) // 8 * 4 for n in s.rgb.shape[:2])
        hr.append(s.rgb[y : y + side, x : x + side].transpose(2, 0, 1) / np.float32(127.5) - 1)
        part = np.s_[y // 4 : (y + side) // 4, x // 4 : (x + side) // 4]
        cover.append(np.minimum(s.cover[part], 18).astype(np.int64))
        mask = s.mask[part] * (s.gsd >= 20)
        ground.append((mask[None] >> bits & 1).astype(np.float32))
        gsd.append(s.gsd)
    images, covers, grounds = (torch.from_numpy(np.stack(v)) for v in (hr, cover, ground))
    return Batch(images, covers, grounds, torch.tensor(gsd, dtype=torch.float32))


def enlarge(model: CascadeUNet, real: Batch, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(low resolution of real images rounded to uint8, the model's answer), both in [-1, 1]."""
    lr = quantise(reduce4(real.hr))
    n = real.hr.shape[-1]
    noise = torch.randn(len(lr), 1, n, n, generator=torch.Generator().manual_seed(seed))
    rows = real.gsd[:, None].expand(-1, n // 4)
    with torch.inference_mode():
        out = torch.cat(
            [
                model(*(t[i : i + 8] for t in (lr, real.cover, real.ground, rows, noise)))
                for i in range(0, len(lr), 8)
            ]
        )
    return lr, quantise(out)


def bands_against(real: Tensor, other: Tensor) -> list[float]:
    """Mean band power of `other` over that of `real`, three radial bands."""
    ratio = band_power(other).mean(0) / band_power(real).mean(0)
    return [round(float(r), 3) for r in ratio]


def inconsistency(image: Tensor, lr: Tensor) -> float:
    """Mean |reduce4(image) - lr| in levels of 255."""
    return float((reduce4(image) - lr).abs().mean() * 127.5)


def lattice(image: Pixels, parent: Pixels) -> list[float]:
    """Shares of the detail that repeats with periods 4, 8 and 16 px; noise has 0.016, 0.016 and 0.063."""
    y, lr = (torch.from_numpy(a.astype(np.float32))[None] / 127.5 - 1 for a in (image, parent))
    return [round(float(v), 3) for v in lattice_share(y - bicubic4(lr))]
