"""What is measured: peak of the machine, work of an engine, memory, and the share of a periodic pattern."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from terraloom.models.cascade import CascadeConfig, CascadeUNet
from terraloom.world.engine import Engine, Given


def conv_peak(dtype: torch.dtype, repeats: int = 5) -> float:
    """GFLOP/s of torch's 3x3 convolution, 256 channels, channels-last, 4 x 96 x 96 px: the best of `repeats`."""
    x = torch.randn(4, 256, 96, 96).to(dtype).contiguous(memory_format=torch.channels_last)
    w = torch.randn(256, 256, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
    work = 2 * 9 * 256 * 256 * x[:, 0].numel() / 1e9
    with torch.inference_mode():
        F.conv2d(x, w, padding=1)
        return max(work / timed(lambda: F.conv2d(x, w, padding=1)) for _ in range(repeats))


def timed(run: Callable[[], object]) -> float:
    """Seconds of one call."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def flop_per_pixel(config: CascadeConfig) -> float:
    """Floating point operations of one evaluation per output pixel."""
    cells = 4 * config.period
    with torch.device("meta"):
        model = CascadeUNet(config)
        inputs = (
            torch.empty(1, 3, cells, cells),
            torch.empty(1, cells, cells, dtype=torch.long),
            torch.empty(1, 6, cells, cells),
            torch.empty(1, cells),
            torch.empty(1, config.waves, cells, cells),
            torch.empty(1),
        )
    with FlopCounterMode(display=False) as counter:
        model(*inputs)
    return counter.get_total_flops() / (4 * cells) ** 2


class Counted:
    """An engine, with the pixels that its network computed (halo and all evaluations) and the seconds it took."""

    def __init__(self, engine: Engine, evaluations: float) -> None:
        self.engine, self.evaluations, self.pixels, self.seconds = engine, evaluations, 0.0, 0.0

    def __call__(self, given: Given) -> npt.NDArray[np.uint8]:
        begun = time.perf_counter()
        out = self.engine(given)
        self.seconds += time.perf_counter() - begun
        _, height, width = given.noise.shape
        self.pixels += self.evaluations * height * width
        return out


def total(started: list[Counted]) -> tuple[float, float]:
    """(pixels computed, seconds) of all engines so far."""
    return sum(e.pixels for e in started), sum(e.seconds for e in started)


def count_engines(work: float) -> list[Counted]:
    """From now on every engine that a World starts is counted; returns the list they appear in.

    Evaluations are counted in those of a network of `work` operations per pixel, so that networks of two sizes add up.
    """
    from terraloom.weights import configuration
    from terraloom.world import engine as engines

    started: list[Counted] = []
    start = engines.start

    def counting(*args: Any) -> Counted:
        config = configuration(args[2])
        each = flop_per_pixel(config) / work
        started.append(Counted(start(*args), len(config.sigmas) * each))
        return started[-1]

    engines.start = counting  # type: ignore[assignment]
    return started


def peak_memory() -> float:
    """Largest resident memory of this process so far, MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def lattice_share(rgb: npt.NDArray[np.uint8], period: int) -> float:
    """Share of high-pass luminance variance that a pattern of `period` pixels explains, (3, h, w) -> 0..1.

    The image minus its Gaussian blur (sigma 2), folded modulo the period; variance of the fold's mean, less what
    independent pixels would leave in it.
    """
    grey = torch.from_numpy(rgb).float().mean(0)[None, None]
    taps = torch.exp(-(torch.arange(-8.0, 9.0) ** 2) / 8)
    taps = taps / taps.sum()
    blurred = F.conv2d(F.conv2d(grey, taps[None, None, None]), taps[None, None, :, None])
    detail = (grey[..., 8:-8, 8:-8] - blurred)[0, 0]
    rows, columns = (side // period for side in detail.shape)
    fold = detail[: rows * period, : columns * period].reshape(rows, period, columns, period)
    fold = fold.permute(0, 2, 1, 3).reshape(rows * columns, -1)
    between = fold.mean(0).var() - fold.var(0).mean() / len(fold)
    return float(between / fold.var())


def median(values: list[float]) -> float:
    """Median."""
    return statistics.median(values)
