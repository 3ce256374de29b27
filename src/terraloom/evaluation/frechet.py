"""Distances between two sets of images in the features of a network: Frechet and kernel (FID and KID).

The numbers are of the network named beside them, not of the usual Inception network, whose weights no package carries;
compare them with each other and with the floor (real against real), not with those of papers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from terraloom.evaluation.readers import Reader

Floats = npt.NDArray[np.float64]
PARTS = 10  # pairs of random halves that tell how far the kernel distance scatters


def frechet(x: Floats, y: Floats) -> float:
    """Frechet distance of two Gaussians fitted to features (n, d) and (m, d) (Heusel et al. 2017, eq. 6).

    |mu_x - mu_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)). Grows as n falls: compare at equal n only.
    """
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    # the eigenvalues of C_x C_y are those of the symmetric C_x^(1/2) C_y C_x^(1/2)
    cross = np.sqrt(np.linalg.eigvalsh(root @ b @ root).clip(0)).sum()
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a) + np.trace(b) - 2 * cross)


def kernel(x: Floats, y: Floats) -> float:
    """Squared maximum mean discrepancy under the kernel (x.y / d + 1)^3, unbiased (Binkowski et al. 2018, eq. 4).

    About 0, also slightly below, for two samples of one distribution, whatever n and m.
    """
    n, m, d = len(x), len(y), x.shape[1]
    own, other = (v @ v.T / d + 1 for v in (x, y))
    within = (np.power(own, 3).sum() - np.power(np.diag(own), 3).sum()) / (n * (n - 1))
    within += (np.power(other, 3).sum() - np.power(np.diag(other), 3).sum()) / (m * (m - 1))
    return float(within - 2 * np.power(x @ y.T / d + 1, 3).mean())


def distances(x: Floats, y: Floats) -> dict[str, float]:
    """FID, KID and the standard deviation of KID over random halves of the images."""
    rng, size = np.random.default_rng(0), min(len(x), len(y)) // 2
    parts = [kernel(rng.permutation(x)[:size], rng.permutation(y)[:size]) for _ in range(PARTS)]
    return {
        "fid": round(frechet(x, y), 2),
        "kid": round(kernel(x, y), 4),
        "kid_scatter": round(float(np.std(parts)), 4),
    }


def distance_rows(reader: Reader, reference: Tensor, others: dict[str, Tensor]) -> dict[str, Any]:
    """Distances of sets of images from a reference set, all uint8 (n, 3, 64, 64), in one network's mean features.

    Features are standardised by the reference's mean and deviation, channel by channel, so that no stride rules.
    """
    base = reader.embed(reference)[:, : reader.pooled]
    mean, std = base.mean(0), base.std(0) + 1e-3

    def standard(embedded: Tensor) -> Floats:
        return np.asarray(((embedded[:, : reader.pooled] - mean) / std).numpy(), np.float64)

    known = standard(base)
    return {
        name: distances(known, standard(reader.embed(images))) for name, images in others.items()
    }
