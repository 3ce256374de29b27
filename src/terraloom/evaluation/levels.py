"""Each level alone: held-out real images, reduced by 4 and enlarged again by the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from terraloom.data.packed import Pack, Sample
from terraloom.evaluation.measures import ratio_of_bands
from terraloom.evaluation.references import REDUCTIONS, fits, shrunk
from terraloom.grid import BASE_LEVEL, drawn_level
from terraloom.models.cascade import CascadeUNet
from terraloom.models.critic import Features
from terraloom.models.waves import SCALE, enlarged, reduce4
from terraloom.training.batches import FINEST_MASKED_GSD, Batch, flattened, quantise
from terraloom.world.engine import drawn, to_pixels

Metrics = dict[str, Any]
Sets = dict[tuple[int, str], list[Sample]]  # (level, set)
Nets = Mapping[int, CascadeUNet]  # by level, of those that a network draws
WIDE = 128  # pixels, images that are large enough are cut to this side, the side of training crops
FEWEST, SHOWN = (
    8,
    24,
)  # images of a level and set that are worth measuring, and how many of them are
CITY, FIELDS = 13, 12  # IGBP


def by_level(pack: Pack) -> Sets:
    """Images of every level the network draws, by level and set, where there are enough."""
    found: Sets = {}
    for name, samples in pack.sets.items():
        for sample in samples:
            by = next((by for by in REDUCTIONS if fits(sample, by)), None)
            if by is not None and (level := drawn_level(sample.gsd * by)) > BASE_LEVEL:
                found.setdefault((level, name), []).append(shrunk(sample, by))
    return {key: found[key] for key in sorted(found) if len(found[key]) >= FEWEST}


def evenly(samples: list[Sample], count: int) -> list[Sample]:
    """At most `count` of them, spread over the list."""
    return samples[:: max(1, -(-len(samples) // count))]


def as_batch(samples: list[Sample], codes: int = 0) -> Batch:
    """Middles of images, as large as the smallest allows; no mask for targets finer than 20 m, as in `World`.

    `codes`: of land cover and use that the network knows; of images whose use is another it is told land cover.
    """
    side = min(WIDE, *(n // 16 * 16 for s in samples for n in s.rgb.shape[:2]))
    bits = np.arange(6)[:, None, None]
    hr, cover, ground = [], [], []
    for s in samples:
        y, x = ((n - side) // 8 * SCALE for n in s.rgb.shape[:2])
        hr.append(s.rgb[y : y + side, x : x + side].transpose(2, 0, 1) / np.float32(127.5) - 1)
        cells = np.s_[y // SCALE : (y + side) // SCALE, x // SCALE : (x + side) // SCALE]
        cover.append(s.told(codes)[cells].astype(np.int64))
        mask = s.mask[cells] * (s.gsd >= FINEST_MASKED_GSD)
        ground.append((mask[None] >> bits & 1).astype(np.float32))
    images, covers, grounds = (torch.from_numpy(np.stack(v)) for v in (hr, cover, ground))
    gsd = torch.tensor([s.gsd for s in samples], dtype=torch.float32)
    return Batch(images, covers, grounds, gsd)


def draw(net: CascadeUNet, lr: Tensor, real: Batch, seed: int = 0) -> Tensor:
    """The network's answer to `lr`, see `parents`, as a display shows it, (B, 3, n, n) in [-1, 1] on 256 levels."""
    n = real.hr.shape[-1]
    noise = torch.randn(len(lr), 3, n, n, generator=torch.Generator().manual_seed(seed))
    rows = real.gsd[:, None].expand(-1, n // SCALE)
    parts = []
    with torch.inference_mode():
        for i in range(0, len(lr), 8):
            given, *told = (t[i : i + 8] for t in (lr, real.cover, real.ground, rows))
            y = drawn(partial(_see, net, told), given, noise[i : i + 8], net.config)
            parts.append(to_pixels(y, given).float() / 127.5 - 1)
    return torch.cat(parts)


def parents(net: CascadeUNet, hr: Tensor) -> Tensor:
    """The low-resolution images that a network draws images from, on 256 levels: 4 times coarser, of a leap 16."""
    lr = reduce4(hr)
    return quantise(reduce4(lr) if net.config.leap else lr)


def _see(net: CascadeUNet, told: list[Tensor], shown: Tensor, x: Tensor, sigma: float) -> Tensor:
    seen: Tensor = net(shown, *told, x, x.new_full((len(x),), sigma))
    return seen


def level_metrics(nets: Nets, held: Pack) -> tuple[Metrics, list[tuple[Any, ...]]]:
    """Per level and set: spectrum, consistency, feature distance; and rows of pictures for a sheet.

    Of every set the more structured half is used: on flat images all methods agree.
    """
    features = Features()
    rows: Metrics = {}
    pictures: list[tuple[Any, ...]] = []
    for (level, name), samples in by_level(held).items():
        if (net := nets.get(level)) is None:  # a leap draws two at once
            continue
        strongest = sorted(samples, key=lambda s: -float(s.rgb.std()))[
            : max(FEWEST, len(samples) // 2)
        ]
        real = as_batch(evenly(strongest, SHOWN), net.config.cover_classes)
        lr = parents(net, real.hr)
        side = real.hr.shape[-1] // lr.shape[-1]
        ours, smooth = draw(net, lr, real), quantise(enlarged(lr, real.hr))
        off = (F.avg_pool2d(ours, side) - lr).abs() * 127.5
        near, far = real.hr[::2], real.hr[1::2]
        rows[f"z{level} {name}"] = {
            "gsd": round(float(real.gsd.median()), 1),
            "images": len(lr),
            "bands": ratio_of_bands(real.hr, ours),
            "bands_bicubic": ratio_of_bands(real.hr, smooth),
            "bands_real": ratio_of_bands(near, far),
            "features": feature_distance(features, real.hr, ours),
            "features_bicubic": feature_distance(features, real.hr, smooth),
            "features_real": feature_distance(features, near, far),
            "off_mean": round(float(off.mean()), 3),
            "off_max": round(float(off.max()), 2),
        }
        for i in (0, len(lr) // 3, 2 * len(lr) // 3):
            caption = f"z{level} {name}, {real.gsd[i]:.3g} m"
            pictures.append((caption, lr[i], smooth[i], ours[i], real.hr[i]))
    return rows, pictures


def feature_distance(features: Features, real: Tensor, other: Tensor) -> float:
    """Distance of the mean features of two sets of images, in standard deviations of the real ones.

    Mean over the channels of EfficientNet-Lite0 at strides 2 to 16, features averaged over each image. Not paired:
    an image that is as good but different costs nothing.
    """
    with torch.inference_mode():
        a, b = ([f.mean((2, 3)) for f in features(x)[:4]] for x in (real, other))
    away = [
        ((p.mean(0) - q.mean(0)).abs() / (p.std(0) + 1e-3)).mean()
        for p, q in zip(a, b, strict=True)
    ]
    return round(float(torch.stack(away).mean()), 3)


def flat_metrics(nets: Nets, packs: list[Pack]) -> Metrics:
    """A nearly even input whose land cover is told: contrast of the detail drawn over that of the real detail."""
    rows: Metrics = {}
    for level, name, samples in _of_one_class(packs):
        if (net := nets.get(level)) is None:
            continue
        real = as_batch(evenly(samples, SHOWN), net.config.cover_classes)
        clean = parents(net, real.hr)
        flat, target = flattened(real.hr, clean, np.random.default_rng(0))
        ours, smooth = draw(net, flat, real), enlarged(flat, real.hr)
        drawn, true = (float((x - smooth).std((2, 3)).mean() * 127.5) for x in (ours, target))
        rows[f"z{level} {name}"] = {
            "parent_gsd": round(float(real.gsd.median()) * real.hr.shape[-1] / flat.shape[-1], 1),
            "images": len(clean),
            "drawn": round(drawn, 1),
            "real": round(true, 1),
            "ratio": round(drawn / true, 2),
        }
    return rows


def _of_one_class(packs: list[Pack]) -> Iterator[tuple[int, str, list[Sample]]]:
    """(level, class, images of it) for city and fields."""
    found: dict[tuple[int, str], list[Sample]] = {}
    for pack in packs:
        for (level, _), samples in by_level(pack).items():
            for name, cover in (("urban", CITY), ("cropland", FIELDS)):
                some = [s for s in samples if (s.cover == cover).mean() > 0.8]
                found.setdefault((level, name), []).extend(some)
    for (level, name), samples in sorted(found.items()):
        if len(samples) >= 5:
            yield level, name, samples
