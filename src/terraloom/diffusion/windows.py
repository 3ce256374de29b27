"""MetaEarth's unbounded generation: sliding windows over one repeated block of noise.

Yu et al. 2024 (arXiv 2405.13570), section III: a canvas is cut into windows of 256 px at a stride of 128 px (64 and
32 px of the low-resolution canvas). Every window starts from the same noise, one 128 px block laid 2 x 2, so that
two windows see equal noise where they overlap, and DDIM adds none. The centre 128 px of each window are kept,
without blending.

So a *cell* of 128 px is a function of the low-resolution image within 64 px around it and of the seed: cells can be
computed in any order, with one batch of windows in memory. What the scheme does not give is agreement of neighbouring
cells (group norm, attention and receptive field see past the margin), and the repeated noise shows as a lattice of
128 px. The cascade network has neither fault; this is the rival to measure it against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from terraloom.diffusion.ddpm import Schedule, ddim
from terraloom.errors import InvalidInput
from terraloom.noise import NoiseField

SCALE = 4  # output pixels per low-resolution pixel
CELL = 128  # output pixels kept of a window, and the stride
MARGIN = 64  # output pixels of a window around its cell
WINDOW = CELL + 2 * MARGIN

Sampler = Callable[[Tensor, Tensor], Tensor]  # (lr (B, 3, 64, 64), gsd (B, 64)) -> (B, 3, 256, 256)


def window_noise(seed: int) -> Tensor:
    """Initial noise of every window of a world: (3, 256, 256) float32, of period 128 in the canvas.

    Windows start 64 px before a multiple of 128, hence the roll: the block itself starts at the cell.
    """
    block = NoiseField(seed).window(0, 0, 0, CELL, CELL, channels=3)
    return torch.from_numpy(np.roll(np.tile(block, (1, 2, 2)), MARGIN, axis=(1, 2)))


def _batches(cells: list[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    """Cells in groups of exactly `size`; the last one repeats its last cell, since kernels differ by shape."""
    for start in range(0, len(cells), size):
        group = cells[start : start + size]
        yield group + group[-1:] * (size - len(group))


def fill(sample: Sampler, lr: Tensor, gsd: Tensor, batch: int = 1) -> npt.NDArray[np.uint8]:
    """Fill a canvas of whole cells, window by window.

    Args:
        sample: draws a batch of windows, in [-1, 1].
        lr: (3, h, w) in [-1, 1], the low-resolution image of the cells and of 16 low-resolution px around them;
            h and w are 32 n + 32.
        gsd: (h,) metres per output pixel.
        batch: windows drawn at once, always exactly so many: the bytes of a cell depend on no other cell.

    Returns:
        uint8 (3, 4h - 128, 4w - 128).

    Raises:
        InvalidInput: h or w is not 32 n + 32, n >= 1.
    """
    step, side = CELL // SCALE, WINDOW // SCALE
    height, width = lr.shape[1:]
    if min(height, width) < side or height % step or width % step:
        raise InvalidInput(
            f"a low-resolution canvas of {width} x {height} px: MetaEarth's windows need sides of "
            f"{step} n + {step}, at least {side}"
        )
    rows, columns = height // step - 1, width // step - 1
    out = np.empty((3, rows * CELL, columns * CELL), np.uint8)
    for group in _batches(list(product(range(rows), range(columns))), batch):
        spans = [
            (slice(r * step, r * step + side), slice(c * step, c * step + side)) for r, c in group
        ]
        windows = sample(
            torch.stack([lr[:, r, c] for r, c in spans]), torch.stack([gsd[r] for r, _ in spans])
        )
        kept = windows[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN].float()
        pixels = ((kept + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        for (r, c), cell in zip(group, pixels, strict=True):
            out[:, r * CELL : (r + 1) * CELL, c * CELL : (c + 1) * CELL] = cell
    return out


class NoisePredictor(Protocol):
    """What the sampler needs of a network; `terraloom.models.metaearth.MetaEarthUNet` is one."""

    def encode(self, lr: Tensor) -> Tensor:
        """Features of the low-resolution image, the same at all steps."""

    def denoise(self, x: Tensor, t: Tensor, features: Tensor, gsd: Tensor) -> Tensor:
        """eps_hat of x_t."""


def sampler(model: NoisePredictor, seed: int, evaluations: int, device: torch.device) -> Sampler:
    """DDIM of `model` from the repeated noise of `seed`; moves windows to `device`."""
    schedule, noise = Schedule(), window_noise(seed).to(device)

    def sample(lr: Tensor, gsd: Tensor) -> Tensor:
        start = noise.expand(len(lr), -1, -1, -1)
        with torch.inference_mode():
            features = model.encode(lr.to(device))
            return ddim(model.denoise, schedule, start, evaluations, features, gsd.to(device))

    return sample
