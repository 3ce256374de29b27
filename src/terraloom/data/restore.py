"""Blue Marble's zoom 6 as if its pixels were means: a small network that learns from the places where zoom 8 exists.

The published tiles of zoom 6 hold a sample of the finer map in every pixel, sharpened and with half the resolution of
colour: lone dark or white pixels, where a mean of 4 x 4 pixels of zoom 8 shows ridges, valleys and shores. A planet
would draw every such pixel as a blot of 2.4 km. 210 tiles have all 16 children, so what their means are is known.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from terraloom.data.ground import LAYERS, MASK_LEVEL, Ground
from terraloom.data.uses import UNKNOWN_COVER
from terraloom.grid import BASE_LEVEL, Window

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
WIDTH, DEPTH = 40, 3
REACH = 2 * DEPTH + 2  # pixels that a restored one depends on
KEPT = 0.35  # of what the network takes from a sample, for its means of what could be are smoother than any that is
SIDE, RATE = 96, 2e-3  # of crops in pixels, learning rate at its height


class Restorer(nn.Module):
    """(B, 3 + 6 + 19, h, w) colours in 0..1, map layers and land cover -> (B, 3, h, w) colours."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3 + len(LAYERS) + UNKNOWN_COVER + 1, WIDTH, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            )
            for _ in range(DEPTH)
        )
        self.leave = nn.Conv2d(WIDTH, 3, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """The colours, changed by what the network adds."""
        h = F.silu(self.enter(x))
        for block in self.blocks:
            h = h + block(h)
        out: Tensor = x[:, :3] + self.leave(F.silu(h))
        return out


def surroundings(ground: Ground, x: int, y: int, width: int, height: int) -> Bytes:
    """What the maps know of pixels of zoom 6: shares of the six layers in 0..16, and land cover, uint8 (7, h, w)."""
    cover, _ = ground.cells(Window(BASE_LEVEL, x, y, width, height))
    n = 1 << MASK_LEVEL - BASE_LEVEL
    mask = ground.bits(Window(MASK_LEVEL, n * x, n * y, n * width, n * height))
    parts = mask.reshape(height, n, width, n)
    shares = [(parts >> bit & 1).sum((1, 3), dtype=np.uint8) for bit in range(len(LAYERS))]
    return np.stack([*shares, cover])


def inputs(rgb: Bytes, around: Bytes) -> Tensor:
    """What the network sees: rgb (h, w, 3) and `surroundings`, float32 (1, 28, h, w)."""
    colours = torch.from_numpy(rgb).permute(2, 0, 1).float() / 255
    layers = torch.from_numpy(around[:-1].astype(np.float32)) / 16
    cover = F.one_hot(torch.from_numpy(around[-1].astype(np.int64)), UNKNOWN_COVER + 1)
    return torch.cat([colours, layers, cover.permute(2, 0, 1).float()])[None]


def fit(
    samples: list[Bytes],
    means: list[Bytes],
    around: list[Bytes],
    steps: int = 1800,
    batch: int = 16,
    seed: int = 0,
) -> Restorer:
    """Learn to make means out of samples, by the mean of squared differences.

    Args:
        samples: uint8 (h, w, 3), tone-curved tiles of zoom 6.
        means: likewise, means of 4 x 4 pixels of zoom 8.
        around: `surroundings` of each.
        steps: of the optimizer.
        batch: crops a step.
        seed: of crops and weights.
    """
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Restorer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    bar = tqdm(range(steps), desc="restoring zoom 6", unit="step")
    for _ in bar:
        seen, aims = [], []
        for k in rng.integers(len(samples), size=batch):
            top, left = rng.integers(samples[k].shape[0] - SIDE + 1, size=2)
            part = slice(top, top + SIDE), slice(left, left + SIDE)
            flip = [axis for axis in (-2, -1) if rng.random() < 0.5]
            seen.append(inputs(samples[k][part], around[k][:, *part]).flip(flip))
            aim = torch.from_numpy(means[k][part]).permute(2, 0, 1).float() / 255
            aims.append(aim[None].flip(flip))
        inner = slice(REACH, -REACH)
        error = model(torch.cat(seen)) - torch.cat(aims)
        loss = error[..., inner, inner].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(error=f"{255 * loss.item() ** 0.5:.2f}/255")
    return model.eval()


@torch.inference_mode()
def restored(model: Restorer, rgb: Bytes, around: Bytes) -> Bytes:
    """A window without the `REACH` pixels at its borders, uint8 (h, w, 3)."""
    x = inputs(rgb, around)
    y = torch.lerp(model(x), x[:, :3], KEPT)[0, :, REACH:-REACH, REACH:-REACH]
    return (y * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
