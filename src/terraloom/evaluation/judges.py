"""Small CNNs as judges: one reads land cover at 10 m, one tells real from generated."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terraloom.data.packed import Pack, Sample
from terraloom.evaluation.chain import Chains
from terraloom.evaluation.levels import Nets, as_batch, by_level, draw, evenly, parents
from terraloom.evaluation.measures import SQUARE, as_tensor, group_of, squares
from terraloom.models.cascade import CascadeUNet
from terraloom.models.waves import enlarged
from terraloom.training.batches import quantise

Metrics = dict[str, Any]
CLASSES = ("water", "forest", "grass and shrub", "cropland", "urban")
CLASS_OF_GROUP = {0: 0, 1: 1, 2: 2, 3: 2, 5: 3, 6: 4}  # coarse class -> index of CLASSES
CLASSIFIER_STEPS, DISCRIMINATOR_STEPS = 600, 60
ENOUGH = 3  # places of a class that the classifier reads
FEWEST = 8  # held-out images on either side of the discriminator
CHIPS = 4000  # real chips the classifier learns from
IMAGES = 64  # held-out images per level for the discriminator
BATCH = 48


class Judge(nn.Module):
    """Strided 3x3 convolutions and a mean, (B, 3, h, w) -> (B, classes); a sharp one sees the detail enlarged too."""

    def __init__(self, classes: int, sharp: bool) -> None:
        super().__init__()
        self.sharp = sharp
        channels = (6, 16, 32, 64) if sharp else (3, 24, 48, 72, 96)
        layers: list[nn.Module] = []
        for a, b in zip(channels, channels[1:], strict=False):
            layers += [nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(channels[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        if self.sharp:
            blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
            x = torch.cat([x, 6 * (x - blurred)], 1)
        h: Tensor = self.body(x)
        logits: Tensor = self.head(h.mean((2, 3)))
        return logits


def turned(x: Tensor, generator: torch.Generator) -> Tensor:
    """One of eight quarter turns and mirrorings."""
    kind = int(torch.randint(8, (), generator=generator))
    x = torch.rot90(x, kind % 4, (2, 3))
    return torch.flip(x, [3]) if kind > 3 else x


def recoloured(x: Tensor, generator: torch.Generator) -> Tensor:
    """Random contrast, brightness and gain per channel too: texture has to count, not only colour."""
    n = len(x)
    gain = 0.75 + 0.5 * torch.rand(n, 3, 1, 1, generator=generator)
    shift = 0.4 * torch.rand(n, 1, 1, 1, generator=generator) - 0.2
    mean = x.mean((2, 3), keepdim=True)
    contrast = 0.7 + 0.7 * torch.rand(n, 1, 1, 1, generator=generator)
    return turned(((x - mean) * contrast + mean) * gain + shift, generator)


def fit(images: Tensor, labels: Tensor, steps: int, sharp: bool) -> Judge:
    """Train a judge on (N, 3, h, w) in [-1, 1] with balanced classes; the same every time.

    A sharp one is a discriminator; one that is not reads land cover, its images recoloured.
    """
    classes, augment = int(labels.max()) + 1, turned if sharp else recoloured
    with torch.random.fork_rng():
        torch.manual_seed(0)
        judge = Judge(classes, sharp)
    judge.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(judge.parameters(), 3e-3, weight_decay=0.02)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    by_class = [torch.nonzero(labels == k)[:, 0] for k in range(classes)]
    by_class = [members for members in by_class if len(members)]
    share = BATCH // len(by_class)
    for _ in range(steps):
        picks = [m[torch.randint(len(m), (share,), generator=generator)] for m in by_class]
        some = torch.cat(picks)
        seen = augment(images[some], generator).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(judge(seen), labels[some])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        plan.step()
    judge.eval()
    return judge


def ask(judge: Judge, images: Tensor) -> Tensor:
    """Predicted class of each image."""
    with torch.inference_mode():
        return torch.cat([judge(part).argmax(1) for part in torch.split(images, 256)])


def class_of(cover: int) -> int | None:
    """Index of `CLASSES` for an IGBP class, None where chips of that kind do not exist."""
    return CLASS_OF_GROUP.get(group_of(cover))


def chips(pack: Pack) -> tuple[Tensor, Tensor]:
    """Labelled real 10 m chips of a pack (EuroSAT), (N, 3, SQUARE, SQUARE) and classes."""
    images, labels = [], []
    for sample in evenly(pack.sets.get("eurosat", []), CHIPS):
        index = class_of(int(sample.cover[0, 0]))
        if index is not None:
            images.append(sample.rgb[:SQUARE, :SQUARE].transpose(2, 0, 1))
            labels.append(index)
    return as_tensor(np.stack(images)), torch.tensor(labels)


def classifier_metrics(chains: Chains, blind: Chains, train: Pack, held: Pack) -> Metrics:
    """Does a network that learned land cover from real 10 m chips read it in ours?

    Every figure is the mean over the classes that at least `ENOUGH` places have, so that a common class does not hide
    the others. `blind` are some of the same places, drawn without the maps.
    """
    judge = fit(*chips(train), CLASSIFIER_STEPS, sharp=False)
    images, labels = chips(held)
    answers = ask(judge, images)
    real = {name: answers[labels == k] for k, name in enumerate(CLASSES)}
    drawn, without = _read(judge, chains), _read(judge, blind)
    same = _read(judge, {name: chains[name] for name in blind})
    return {
        "real": _recognised({k: v for k, v in real.items() if k in drawn}),
        "generated": _recognised(drawn),
        "chips": sum(map(len, drawn.values())),
        "with_and_without_maps": [_recognised(same), _recognised(without)],
        "read_as": {name: _table(v) for name, v in drawn.items()},
        "read_as_real": {name: _table(v) for name, v in real.items() if len(v)},
    }


def _read(judge: Judge, chains: Chains) -> dict[str, Tensor]:
    """Class told -> classes read in every square of the z14 views."""
    found: dict[str, list[Tensor]] = defaultdict(list)
    for links in chains.values():
        link = next(link for link in links if link.level == 14)
        if (index := class_of(link.cover)) is not None:
            found[CLASSES[index]].append(ask(judge, squares(link.rgb)))
    return {k: torch.cat(v) for k, v in sorted(found.items()) if len(v) >= ENOUGH}


def _recognised(read: dict[str, Tensor]) -> float:
    shares = [float((v == CLASSES.index(name)).float().mean()) for name, v in read.items()]
    return round(float(np.mean(shares)), 3) if shares else 0.0


def _table(answers: Tensor) -> dict[str, float]:
    return {name: round(float((answers == k).float().mean()), 2) for k, name in enumerate(CLASSES)}


def discriminator_metrics(nets: Nets, held: Pack) -> Metrics:
    """Accuracy of a small network that learned real against ours (and bicubic) on other places."""
    rows: Metrics = {}
    for (level, name), samples in by_level(held).items():
        halves = [evenly(half, IMAGES) for half in _halves(samples)]
        if (net := nets.get(level)) is None or min(map(len, halves)) < FEWEST:
            continue
        sides = [_versions(net, half) for half in halves]
        (real, ours, smooth), (other_real, other_ours, other_smooth) = sides
        right = [
            told_apart((real, ours), (other_real, other_ours)),
            told_apart((other_real, other_ours), (real, ours)),
        ]
        rows[f"z{level} {name}"] = {
            "images": sum(map(len, halves)),
            "ours": round(float(np.mean(right)), 2),
            "bicubic": round(told_apart((real, smooth), (other_real, other_smooth)), 2),
        }
    return rows


def _halves(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Every other place on either side."""
    places = sorted({s.place for s in samples})[::2]
    first = set(places)
    return [s for s in samples if s.place in first], [s for s in samples if s.place not in first]


def _versions(net: CascadeUNet, samples: list[Sample]) -> list[Tensor]:
    """Real, ours and bicubic, each cut into squares."""
    real = as_batch(samples, net.config.cover_classes)
    lr = parents(net, real.hr)
    images = real.hr, draw(net, lr, real), quantise(enlarged(lr, real.hr))
    return [_cut(x) for x in images]


def _cut(x: Tensor) -> Tensor:
    parts = x.unfold(2, SQUARE, SQUARE).unfold(3, SQUARE, SQUARE)
    return parts.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)


def told_apart(learned: tuple[Tensor, Tensor], tested: tuple[Tensor, Tensor]) -> float:
    """Accuracy on `tested`, (real, fake), of a judge that learned from other places; 0.5: it cannot tell."""
    labels = torch.arange(2).repeat_interleave(torch.tensor([len(x) for x in learned]))
    judge = fit(torch.cat(learned), labels, DISCRIMINATOR_STEPS, sharp=True)
    shares = [(ask(judge, x) == k).float().mean() for k, x in enumerate(tested)]
    return float(torch.stack(shares).mean())
