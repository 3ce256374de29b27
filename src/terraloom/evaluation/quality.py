"""How near an image is to the true one: error, structure, power of the detail, the seam around a hole.

Images are (B, 3, H, W) float32 in [0, 1]; a mask (B, 1, H, W), 1 where it counts, restricts a figure to a part of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from terraloom.models.blur import blurred

SSIM_SIGMA, SSIM_REACH = 1.5, 5  # Wang et al. 2004: a Gaussian window of 11 x 11 px
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
SIGMAS = (0.0, 1.0, 2.0, 4.0, 8.0)  # blurs whose differences are the octaves, finest first
OCTAVES = ("2 to 5 px", "5 to 9 px", "9 to 18 px", "18 to 37 px")  # wavelengths they are most of


def psnr(image: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB for a peak of 1, (B,); infinite where both are equal."""
    return -10 * torch.log10(_mean((image - truth).square().mean(1, keepdim=True), mask))


def ssim(image: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Structural similarity (Wang et al. 2004), mean over channels and over pixels, (B,).

    Without a mask over the pixels whose window lies inside the image, as in the paper's own code.
    """

    def smooth(x: Tensor) -> Tensor:
        return blurred(x, SSIM_SIGMA, SSIM_REACH)

    middle = (
        truth.mean()
    )  # small variances are differences of squares, which should not be large in float32
    x, y = image - middle, truth - middle
    mx, my = smooth(x), smooth(y)
    vx, vy, cov = smooth(x * x) - mx * mx, smooth(y * y) - my * my, smooth(x * y) - mx * my
    mx, my = mx + middle, my + middle
    light = (2 * mx * my + SSIM_C1) / (mx * mx + my * my + SSIM_C1)
    index = (light * (2 * cov + SSIM_C2) / (vx + vy + SSIM_C2)).mean(1, keepdim=True)
    if mask is None:
        index = index[..., SSIM_REACH:-SSIM_REACH, SSIM_REACH:-SSIM_REACH]
    return _mean(index, mask)


def octaves(image: Tensor, mask: Tensor | None = None) -> Tensor:
    """Power of the grey image in four octaves of wavelength, finest first, (B, 4).

    Differences of Gaussian blurs, squared: local, so that the inside of a hole has a spectrum too.
    """
    grey = image.mean(1, keepdim=True)
    blurs = [grey if s == 0 else blurred(grey, s, int(4 * s)) for s in SIGMAS]
    pairs = zip(blurs, blurs[1:], strict=False)
    return torch.stack([_mean((a - b).square(), mask) for a, b in pairs], 1)


def steps(image: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
    """Mean absolute step between neighbouring pixels, (B,) each: across the edge of a hole, and inside it."""
    across, inside = [], []
    for axis in (2, 3):
        n = image.shape[axis] - 1
        step = image.diff(dim=axis).abs().mean(1, keepdim=True)
        a, b = hole.narrow(axis, 0, n), hole.narrow(axis, 1, n)
        across.append((step, (a != b).float()))
        inside.append((step, a * b))
    edge, within = (
        sum((s * m).sum((1, 2, 3)) for s, m in part)
        / sum(m.sum((1, 2, 3)) for _, m in part).clamp(min=1)  # type: ignore[union-attr]
        for part in (across, inside)
    )
    return edge, within


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of (B, 1, H, W) over all pixels, or over those of a mask, (B,)."""
    if mask is None:
        return values.mean((1, 2, 3))
    return (values * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp(min=1)
