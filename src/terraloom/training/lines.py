"""Straight lines of real images, told to a network as a planet's own are (terraloom.data.lines)."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from terraloom.models.waves import SCALE

SHORTEST = 10.0  # pixels; shorter ones are found in every tree
UNTOLD = 0.12  # share of images whose lines are withheld
FEWEST = 0.6  # share of an image's lines that is told at least
BITS = 4  # of a pixel's parts, in which lines are drawn


def lines_of(
    rgb: npt.NDArray[np.uint8], share: float, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Lines that LSD, the detector of von Gioi et al. (IPOL 2012), sees in an image.

    Args:
        rgb: uint8 (h, w, 3).
        share: 0..1, chance of each line to be told.
        rng: decides which.

    Returns:
        uint8 (h, w), how far each pixel is covered by lines one pixel wide.
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    out = np.zeros(rgb.shape[:2], np.uint8)
    found = cv2.createLineSegmentDetector(cv2.LSD_REFINE_STD).detect(grey)[0]
    if found is None:
        return out
    ends = found.reshape(-1, 2, 2)
    long = np.hypot(*(ends[:, 1] - ends[:, 0]).T) >= SHORTEST
    ends = ends[long & (rng.random(len(ends)) < share)]
    for start, end in np.round(ends * (1 << BITS)).astype(int).tolist():
        cv2.line(out, start, end, 255, 1, cv2.LINE_AA, BITS)
    return out


def told_lines(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Lines of images (B, 3, n, n) in [-1, 1] as a network is told them, (B, 16, n / 4, n / 4) in [0, 1]."""
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    found = []
    for image in pixels.contiguous().numpy():
        share = 0.0 if rng.random() < UNTOLD else rng.uniform(FEWEST, 1)
        found.append(lines_of(image, share, rng))
    return F.pixel_unshuffle(torch.from_numpy(np.stack(found))[:, None].float() / 255, SCALE)
