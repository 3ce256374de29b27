"""Images as waves: the detail that makes a low-resolution image into one four or sixteen times finer.

One low-resolution pixel is a *cell* of 4 x 4 pixels. Detail is the image less the bicubic enlargement of its
low-resolution image, told as numbers a cell: how much there is of each wave, of three colours, at the frequencies
that a cell has. Of one level there are 45, the 15 frequencies besides the mean, which is the low-resolution image's.
In a *leap* over two levels the means are drawn as well, 48 numbers, and only the mean of 4 x 4 cells is given.

Real detail has little colour and falls with frequency (COLOUR_SIZES, measured on the training images). Waves are
divided by the square root of their size: noise then hides fine and coloured waves longer than bold ones, but not ten
times longer.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE = 4  # one level of the cascade is two Web Mercator zooms
DETAIL = 0.1  # detail is counted in this part of [-1, 1]
COLOURS = ((1, 1, 1), (1, 0, -1), (-1, 2, -1))  # grey, red - blue, green - magenta
COLOUR_SIZES = (
    3.0,
    0.32,
    0.25,
)  # of a wave of frequency 1, standard deviation in units of DETAIL; 1/f above
MEAN_SIZES = (6.4, 1.0, 0.75)  # likewise of the means that a leap draws
WAVES = len(COLOURS) * (SCALE * SCALE - 1)
LEAP_WAVES = WAVES + len(COLOURS)
WHITE = 0.25  # of [-1, 1]
REFITS = 2  # `bounded` clips and projects this often before it scales what still clips


def reduce4(x: Tensor) -> Tensor:
    """Box average of 4 x 4 pixels, (B, C, 4h, 4w) -> (B, C, h, w): what "low resolution" means here."""
    return F.avg_pool2d(x, SCALE)


def nearest4(x: Tensor) -> Tensor:
    """Every pixel repeated 4 x 4 times, (B, C, h, w) -> (B, C, 4h, 4w)."""
    return F.interpolate(x, scale_factor=SCALE, mode="nearest")


def bicubic4(x: Tensor) -> Tensor:
    """Bicubic enlargement by 4, (B, C, h, w) -> (B, C, 4h, 4w)."""
    return F.interpolate(x, scale_factor=SCALE, mode="bicubic", align_corners=False)


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    """Bicubic enlargement to the size of another image, (B, C, h, w) and (..., k h, k w) -> (B, C, k h, k w)."""
    return F.interpolate(x, size=like.shape[-2:], mode="bicubic", align_corners=False)


def consistent(y: Tensor, lr: Tensor) -> Tensor:
    """The image nearest to `y` whose means of k x k pixels are exactly `lr` (orthogonal projection).

    Each octave is thus made by one level only, and a chain of levels cannot drift in colour or contrast.

    Args:
        y: (B, C, k h, k w).
        lr: (B, C, h, w).

    Returns:
        (B, C, k h, k w).
    """
    side = y.shape[-1] // lr.shape[-1]
    return y + F.interpolate(lr - F.avg_pool2d(y, side), scale_factor=side, mode="nearest")


def softened(lr: Tensor) -> Tensor:
    """What a leap starts from in the place of the level between: `lr` (B, C, h, w) enlarged by 4, its means kept."""
    return consistent(bicubic4(lr), lr)


def bounded(y: Tensor, lr: Tensor, low: float = -1.0, high: float = 1.0) -> Tensor:
    """As `consistent`, but within limits.

    Clipping alone would darken bright cells and brighten dark ones, and a chain of levels would drift. So what was
    clipped is given to the other pixels of the cell, and what still sticks out loses contrast, cell by cell.

    Args:
        y: (B, C, k h, k w).
        lr: (B, C, h, w) within the limits.
        low: of what comes out; may be infinite.
        high: likewise.

    Returns:
        (B, C, k h, k w).
    """
    batch, channels, h, w = lr.shape
    side = y.shape[-1] // w
    cells = F.pixel_unshuffle(y, side).reshape(batch, channels, side * side, h, w)
    mean = lr[:, :, None]
    cells = cells + (mean - cells.mean(2, keepdim=True))
    for _ in range(REFITS):
        cells.clamp_(low, high)
        cells += mean - cells.mean(2, keepdim=True)
    cells -= mean
    highest, lowest = cells.amax(2, keepdim=True), cells.amin(2, keepdim=True)
    room = torch.minimum(
        (high - mean) / highest.clamp(min=1e-6), (low - mean) / lowest.clamp(max=-1e-6)
    )
    return F.pixel_shuffle((cells * room.clamp(0, 1) + mean).flatten(1, 2), side)


def _waves() -> tuple[Tensor, Tensor]:
    """The waves of a cell, orthonormal float32 (48, 3, 4, 4), means last, and the usual size of each when told, (48,).

    Cosines (the discrete cosine transform of 4 x 4 pixels) in each of `COLOURS`.
    """
    with torch.inference_mode(False), torch.device("cpu"):  # whoever imports this
        colours = F.normalize(torch.tensor(COLOURS, dtype=torch.float64), dim=1)
        at = torch.arange(SCALE, dtype=torch.float64)
        cosines = F.normalize(torch.cos(math.pi / SCALE * at[:, None] * (at + 0.5)), dim=1)
        basis = torch.einsum("cr,fy,gx->cfgryx", colours, cosines, cosines).flatten(1, 2)
        frequency = (at[:, None] ** 2 + at**2).sqrt().flatten()[1:]
        sizes = torch.tensor(COLOUR_SIZES, dtype=torch.float64)[:, None] / frequency
        means = torch.tensor(MEAN_SIZES, dtype=torch.float64)
        ordered = torch.cat([basis[:, 1:].flatten(0, 1), basis[:, 0]])
        return ordered.float(), torch.cat([sizes.flatten(), means]).sqrt().float()


BASIS, SIZES = _waves()


def detail_of(hr: Tensor, lr: Tensor, waves: int = WAVES) -> Tensor:
    """The detail that makes an image of its low-resolution image.

    Args:
        hr: (B, 3, 4h, 4w).
        lr: (B, 3, h, w); for a leap, `softened`.
        waves: `WAVES`, or `LEAP_WAVES` for a leap.

    Returns:
        (B, waves, h, w).
    """
    told = BASIS[:waves] / (DETAIL * SIZES[:waves, None, None, None])
    return F.conv2d(hr - bicubic4(lr), told.to(hr.device), stride=SCALE)


def image_of(detail: Tensor, lr: Tensor) -> Tensor:
    """The image (B, 3, 4h, 4w) of a detail (B, waves, h, w) and low-resolution image (B, 3, h, w) as in `detail_of`.

    Its means of 4 x 4 pixels are `lr`; of a leap those of 16 x 16 are the means of 4 x 4 of `lr`.
    """
    waves = detail.shape[1]
    told = BASIS[:waves] * (DETAIL * SIZES[:waves, None, None, None])
    drawn = F.conv_transpose2d(detail, told.to(detail.device), stride=SCALE)
    return consistent(bicubic4(lr) + drawn, lr if waves == WAVES else reduce4(lr))


def faint_on_white(detail: Tensor, lr: Tensor) -> Tensor:
    """Detail that fades where its low-resolution image comes within `WHITE` of white.

    There is no room there, and networks saw too little of it in training to leave it empty: they weave. Ice sheets and
    salt pans are nearly even in images too.

    Args:
        detail: (B, waves, h, w).
        lr: (B, 3, h, w) as in `detail_of`.

    Returns:
        (B, waves, h, w).
    """
    room = ((1 - lr.mean(1, keepdim=True)) / WHITE).clamp(0, 1)
    return detail * room**2 * (3 - 2 * room)


def noise_of(pixels: Tensor, waves: int = WAVES) -> Tensor:
    """Noise of waves (B, waves, h, w) from noise of pixels (B, 3, 4h, 4w), both independent standard normal."""
    return F.conv2d(pixels, BASIS[:waves].to(pixels.device), stride=SCALE)


def scaling(sigma: Tensor, waves: int = WAVES) -> tuple[Tensor, Tensor]:
    """Of sigma (B,): how much of noised waves is kept, and the size of what the network adds; (B, waves, 1, 1) each.

    c_skip and c_out of Karras et al. 2022 (arXiv 2206.00364, table 1) for the path x_sigma = (1 - sigma) x + sigma eps.
    """
    s, size = sigma[:, None], SIZES[:waves].to(sigma.device)
    power = ((1 - s) * size) ** 2 + s**2
    keep, scale = (1 - s) * size**2 / power, s * size * power.rsqrt()
    return keep[..., None, None], scale[..., None, None]
