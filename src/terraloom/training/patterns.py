"""What training compares without comparing pixels: spectrum, and what repeats with the network's own cells."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BANDS = ((0.03, 0.125), (0.125, 0.25), (0.25, 0.5))  # cycles per pixel
LATTICES = ((4, 8), (8, 8), (16, 4))  # period in pixels, cells averaged per side


def band_power(x: Tensor) -> Tensor:
    """Power of the grey image in three radial bands, (B, 3, n, n) -> (B, 3)."""
    n = x.shape[-1]
    grey = x.float().mean(1)
    power = torch.fft.rfft2(grey - grey.mean((1, 2), keepdim=True)).abs() ** 2 / n**4
    fy = torch.fft.fftfreq(n, device=x.device)[:, None]
    fx = torch.fft.rfftfreq(n, device=x.device)[None]
    r = (fy**2 + fx**2).sqrt()
    return torch.stack([(power * ((r >= a) & (r < b))).sum((1, 2)) for a, b in BANDS], 1) + 1e-7


def colour_bands(x: Tensor) -> Tensor:
    """Band power of grey, red - green and blue - yellow, (B, 3, n, n) -> (B, 9).

    Grey alone lets a network fill a band with coloured speckle.
    """
    r, g, b = x.float().chunk(3, 1)
    return torch.cat([band_power(x), band_power(r - g), band_power(b - (r + g) / 2)], 1)


def lattice_share(detail: Tensor) -> Tensor:
    """How much of the detail repeats with the network's own periods, (B, 3, n, n) -> (3,) for 4, 8 and 16 px.

    A network on a lattice can answer an even input with one pattern in every cell. The share is the power of the
    mean cell of a neighbourhood over the power of all; independent noise has 1/64, 1/64 and 1/16.
    """
    shares = []
    for period, cells in LATTICES:
        folded = F.pixel_unshuffle(detail, period)
        shares.append(
            _neighbourhoods(folded, cells).square().mean() / (folded.square().mean() + 1e-6)
        )
    return torch.stack(shares)


def dots_share(detail: Tensor) -> Tensor:
    """How much of the *size* of the detail repeats with the network's periods, (B, 3, n, n) -> (3,).

    Strokes at one place of every cell with a random sign escape `lattice_share`; their size does not.
    """
    size = detail.abs().mean(1, keepdim=True)
    shares = []
    for period, cells in LATTICES:
        folded = F.pixel_unshuffle(size, period)
        mean = _neighbourhoods(folded, cells).var(1).mean((1, 2))
        total = folded.var(1).mean((1, 2))
        shares.append((mean / (total + 1e-6)).mean())  # per image: even ones show it most
    return torch.stack(shares)


def repeated(drawn: Tensor, true: Tensor) -> Tensor:
    """How much more of what was drawn repeats with the network's cells than in the truth, a scalar.

    Args:
        drawn: (B, 3, H, W), what the network added.
        true: likewise, what it should have added; of other images if need be.
    """
    shares = [
        F.relu(share(drawn) - share(true).detach()).sum() for share in (lattice_share, dots_share)
    ]
    return torch.stack(shares).sum()


def _neighbourhoods(folded: Tensor, cells: int) -> Tensor:
    """Means of `cells` x `cells` cells, of all of a small image's."""
    return F.avg_pool2d(folded, min(cells, *folded.shape[-2:]))
