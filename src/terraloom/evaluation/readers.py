"""Networks that learned classes from real images: do they read in a generated one what was asked for?

Two of them, because the text model is trained against features of EfficientNet-Lite0 and could please that network
alone: a linear reader on its frozen features, and a plain CNN trained from scratch, which the model never met. Both
also give the features that distances are measured in (`terraloom.evaluation.frechet`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from terraloom.evaluation.chips import Chips, spread, unit
from terraloom.models.critic import Features

VERSION = 1  # of what is kept on disk
ENLARGED = 128  # pixels; EfficientNet sees more of an enlarged chip
MOST = 4000  # images of a domain that the linear reader learns from; more would add half a percent
WEIGHT_DECAY = 0.01  # of the linear reader
CNN_STEPS, CNN_BATCH, CNN_RATE = 2000, 36, 4e-3  # batch of each domain
SHIFT = 8  # pixels, largest move of a training image of the CNN
WIDTH = 160  # channels of the CNN's last layer

State = dict[str, Tensor]


class Reader(Protocol):
    """A network that reads classes and describes images."""

    name: str
    pooled: int  # leading numbers of a description that are plain means of features

    def embed(self, images: Tensor) -> Tensor:
        """uint8 (n, 3, 64, 64) -> descriptions, float32 (n, d)."""

    def read(self, embedded: Tensor, domain: int) -> Tensor:
        """Classes read in descriptions, int64 (n,)."""


class LinearReader:
    """Logistic regression on EfficientNet-Lite0: means and deviations at strides 4 to 32, maxima of the last.

    Raises:
        TerraloomError: the extra `train` is not installed.
    """

    name, pooled = "EfficientNet-Lite0", 24 + 40 + 112 + 320

    def __init__(self) -> None:
        self._features = Features()
        self._features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs
        self.heads: State = {}  # weight and bias of each domain

    def learn(self, learned: Sequence[Chips]) -> State:
        """Fit one head a domain, on at most `MOST` images of it."""
        for k, c in enumerate(learned):
            some = spread(len(c.labels), MOST)
            fitted = _regression(self.embed(c.images[some]), c.labels[some])
            self.heads[f"weight{k}"], self.heads[f"bias{k}"] = fitted
        return self.heads

    def embed(self, images: Tensor) -> Tensor:
        """See `Reader`."""
        return describe(self._features, images)

    def read(self, embedded: Tensor, domain: int) -> Tensor:
        """See `Reader`."""
        return (embedded @ self.heads[f"weight{domain}"] + self.heads[f"bias{domain}"]).argmax(1)


@torch.inference_mode()
def describe(features: Features, images: Tensor) -> Tensor:
    """uint8 (n, 3, h, w) -> float32 (n, 1312): means (496), deviations (496), maxima (320)."""
    found = []
    for part in torch.split(images, 64):
        large = F.interpolate(unit(part), (ENLARGED, ENLARGED), mode="bicubic", antialias=True)
        with torch.autocast("cpu", torch.bfloat16):
            maps = features(large.contiguous(memory_format=torch.channels_last))[1:]
        maps = [m.float() for m in maps]
        means, spread = [m.mean((2, 3)) for m in maps], [m.std((2, 3)) for m in maps]
        found.append(torch.cat([*means, *spread, maps[-1].amax((2, 3))], 1))
    return torch.cat(found).clone()


def _regression(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression on standardised descriptions, folded into (weight, bias) for raw ones."""
    mean, std = x.mean(0), x.std(0) + 1e-3
    z, classes = (x - mean) / std, int(labels.max()) + 1
    weight = torch.zeros(x.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(z @ weight + bias, labels) + WEIGHT_DECAY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    raw = weight.detach() / std[:, None]
    return raw, bias.detach() - mean @ raw


class _Block(nn.Module):
    """Two 3x3 convolutions around a short cut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)])

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norms[0](self.first(x)))
        return F.relu(x + self.norms[1](self.second(h)))


def _down(a: int, b: int) -> list[nn.Module]:
    return [nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]


class PlainCnn(nn.Module):
    """A small residual network from scratch, one head per domain; 0.9 M parameters."""

    name, pooled = "plain CNN", WIDTH

    def __init__(self, classes: Sequence[int]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_down(3, 24), *_down(24, 48), _Block(48), *_down(48, 96), _Block(96), *_down(96, WIDTH), _Block(WIDTH)
        )  # fmt: skip
        self.heads = nn.ModuleList([nn.Linear(2 * WIDTH, n) for n in classes])
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 64, 64) in [-1, 1] -> means and maxima of the last features, (n, 2 WIDTH)."""
        h = self.body(x)
        return torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1).float()

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Tensor:
        """See `Reader`."""
        return torch.cat([self(unit(part)) for part in torch.split(images, 256)]).clone()

    def read(self, embedded: Tensor, domain: int) -> Tensor:
        """See `Reader`."""
        with torch.inference_mode():
            logits: Tensor = self.heads[domain](embedded)
        return logits.argmax(1)


def trained_cnn(learned: Sequence[Chips], classes: Sequence[int], steps: int) -> PlainCnn:
    """Train the CNN on all domains together, the same every time; minutes on one CPU thread."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = PlainCnn(classes)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(net.parameters(), CNN_RATE, weight_decay=0.05)
    plan = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, CNN_RATE, total_steps=steps, pct_start=0.15
    )
    for _ in range(steps):
        picks = [torch.randint(len(c.labels), (CNN_BATCH,), generator=generator) for c in learned]
        some = torch.cat([c.images[i] for c, i in zip(learned, picks, strict=True)])
        with torch.autocast("cpu", torch.bfloat16):
            parts = net(_varied(some, generator)).split(CNN_BATCH)
        losses = [
            F.cross_entropy(head(part), c.labels[i], label_smoothing=0.05)
            for head, part, c, i in zip(net.heads, parts, learned, picks, strict=True)
        ]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        plan.step()
    return net.eval()


def _varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turned, mirrored, moved, slightly other colours."""
    kind = int(torch.randint(8, (), generator=generator))
    x = torch.rot90(images, kind % 4, (2, 3))
    x = torch.flip(x, [3]) if kind > 3 else x
    gain = 0.9 + 0.2 * torch.rand(len(x), 3, 1, 1, generator=generator)
    shift = 0.2 * torch.rand(len(x), 1, 1, 1, generator=generator) - 0.1
    y, z = torch.randint(2 * SHIFT + 1, (2,), generator=generator).tolist()
    padded = F.pad(unit(x) * gain + shift, (SHIFT,) * 4, mode="reflect")
    cut = padded[:, :, y : y + x.shape[2], z : z + x.shape[3]]
    return cut.contiguous(memory_format=torch.channels_last)


def readers(learned: Sequence[Chips], classes: Sequence[int]) -> list[Reader]:
    """Both readers, trained on real images alone; what takes long is kept in the user's cache, by content."""
    how = (VERSION, ENLARGED, MOST, WEIGHT_DECAY, CNN_STEPS, CNN_BATCH, CNN_RATE)
    digest = hashlib.sha256(repr(how).encode())
    for c in learned:
        digest.update(c.images.numpy().tobytes() + c.labels.numpy().tobytes())
    name = digest.hexdigest()[:16]
    linear, cnn = LinearReader(), PlainCnn(classes).eval()
    linear.heads = _kept(f"{name}-linear", lambda: linear.learn(learned))
    cnn.load_state_dict(
        _kept(f"{name}-cnn", lambda: trained_cnn(learned, classes, CNN_STEPS).state_dict())
    )
    return [linear, cnn]


def _kept(name: str, make: Callable[[], State]) -> State:
    """Tensors from the cache folder (TERRALOOM_CACHE or the user's), made and written when they are not there."""
    given = os.environ.get("TERRALOOM_CACHE")
    folder = (Path(given) if given else user_cache_path("terraloom")) / "readers"
    path = folder / f"{name}.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        state = {k: v.contiguous() for k, v in make().items()}
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(state, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return state
