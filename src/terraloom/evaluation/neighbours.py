"""Is a generated image a copy of a training image? Its nearest ones, beside what real images have.

A held-out real image is no copy; how near it comes to the training images is the measure. Training turns and mirrors
its images, so pixels are compared in all eight positions.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PIXELS = 16  # pixels a side at which images are compared: arrangement and colours, not noise
NEAREST = 3


def nearest(queries: Tensor, known: Tensor, count: int = NEAREST) -> tuple[Tensor, Tensor]:
    """Euclidean distances (n, count) to the nearest of `known` (m, d) and their numbers (n, count)."""
    found = [
        torch.cdist(part, known).topk(count, largest=False) for part in torch.split(queries, 64)
    ]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def nearest_pixels(queries: Tensor, known: Tensor, count: int = NEAREST) -> tuple[Tensor, Tensor]:
    """The same for images, uint8 (n, 3, h, w), reduced to `PIXELS`; root mean square distances of 255."""
    base = _small(known)
    values, indices = [], []
    for kind in range(8):
        turned = torch.rot90(queries, kind % 4, (2, 3))
        turned = torch.flip(turned, [3]) if kind > 3 else turned
        v, i = nearest(_small(turned), base, count)
        values.append(v)
        indices.append(i)
    # a training image that is nearest in several positions is taken once, at its best
    every, order = torch.cat(values, 1).sort(1)
    numbers = torch.cat(indices, 1).gather(1, order)
    rows = [list(dict.fromkeys(row.tolist()))[:count] for row in numbers]
    best = [[float(every[k][numbers[k] == n][0]) for n in row] for k, row in enumerate(rows)]
    return torch.tensor(best) / base.shape[1] ** 0.5, torch.tensor(rows)


def _small(images: Tensor) -> Tensor:
    return F.interpolate(images.float(), (PIXELS, PIXELS), mode="area").flatten(1)


def summary(generated: Tensor, real: Tensor) -> dict[str, Any]:
    """Distances to the nearest training image, (n,), of generated and of held-out real images.

    "below": share of generated images that are nearer than all but 1 % of the held-out ones; 0.01 is what chance gives.
    """
    bound = float(real.quantile(0.01))
    return {
        "generated": round(float(generated.median()), 3),
        "real": round(float(real.median()), 3),
        "nearest_generated": round(float(generated.min()), 3),
        "bound": round(bound, 3),
        "below": round(float((generated < bound).float().mean()), 3),
    }
