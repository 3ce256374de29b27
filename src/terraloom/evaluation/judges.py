"""Small CNNs as judges: one reads land cover at 10 m, one tells real from generated."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terraloom.training.batches import GROUPS
from terraloom.training.packed import Pack

CHIP = 64
CLASSES = ("water", "forest", "grass and shrub", "cropland", "urban")
CLASS_OF_GROUP = {
    0: 0,
    1: 1,
    2: 2,
    3: 2,
    5: 3,
    6: 4,
}  # coarse class of the pack -> index of CLASSES


def class_of(cover: int) -> int | None:
    """Index of `CLASSES` for an IGBP class, None where chips of that kind do not exist."""
    return CLASS_OF_GROUP.get(int(GROUPS[cover]))


class Judge(nn.Module):
    """Four strided 3x3 convolutions and a mean, (B, 3, h, w) -> (B, classes)."""

    def __init__(self, classes: int, width: int = 32) -> None:
        super().__init__()
        channels = (3, width, 2 * width, 3 * width, 4 * width)
        layers: list[nn.Module] = []
        for a, b in zip(channels, channels[1:], strict=False):
            layers += [nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(channels[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        h: Tensor = self.body(x)
        logits: Tensor = self.head(h.mean((2, 3)))
        return logits


def jitter(x: Tensor, generator: torch.Generator) -> Tensor:
    """Random gain, offset and contrast per channel and image: texture has to count, not only colour."""
    n = len(x)
    gain = 0.75 + 0.5 * torch.rand(n, 3, 1, 1, generator=generator)
    shift = 0.4 * torch.rand(n, 1, 1, 1, generator=generator) - 0.2
    mean = x.mean((2, 3), keepdim=True)
    contrast = 0.7 + 0.7 * torch.rand(n, 1, 1, 1, generator=generator)
    x = ((x - mean) * contrast + mean) * gain + shift
    return torch.flip(x, [3]) if torch.rand((), generator=generator) < 0.5 else x


def fit(images: Tensor, labels: Tensor, classes: int, steps: int, seed: int = 0) -> Judge:
    """Train a judge on (N, 3, h, w) in [-1, 1] with balanced classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        judge = Judge(classes)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(judge.parameters(), 2e-3, weight_decay=0.02)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    by_class = [torch.nonzero(labels == k)[:, 0] for k in range(classes)]
    by_class = [members for members in by_class if len(members)]
    for _ in range(steps):
        picks = torch.cat(
            [
                members[torch.randint(len(members), (64 // len(by_class),), generator=generator)]
                for members in by_class
            ]
        )
        loss = F.cross_entropy(judge(jitter(images[picks], generator)), labels[picks])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        plan.step()
    return judge.eval()


def ask(judge: Judge, images: Tensor) -> Tensor:
    """Predicted class of each image."""
    with torch.inference_mode():
        return torch.cat([judge(images[i : i + 256]).argmax(1) for i in range(0, len(images), 256)])


def chips(pack: Pack, limit: int = 4000) -> tuple[Tensor, Tensor]:
    """Labelled real 10 m chips of a pack (EuroSAT), (N, 3, 64, 64) and classes."""
    images, labels = [], []
    samples = pack.sets.get("eurosat", [])
    for sample in samples[:: max(1, len(samples) // limit)]:
        index = class_of(int(sample.cover[0, 0]))
        if index is not None:
            images.append(sample.rgb[:CHIP, :CHIP].transpose(2, 0, 1) / np.float32(127.5) - 1)
            labels.append(index)
    return torch.from_numpy(np.stack(images)), torch.tensor(labels)


def told_apart(real: Tensor, fake: Tensor, steps: int, seed: int = 0) -> float:
    """Accuracy on the second half of a judge trained on the first half; 0.5 means it cannot tell.

    Halves are by place: images must be ordered by place, and (real, fake) pairs share an index.
    """
    half = len(real) // 2
    images = torch.cat([real[:half], fake[:half]])
    labels = torch.cat([torch.zeros(half, dtype=torch.long), torch.ones(half, dtype=torch.long)])
    judge = fit(images, labels, 2, steps, seed)
    right = torch.cat([ask(judge, real[half:]) == 0, ask(judge, fake[half:]) == 1])
    return float(right.float().mean())
