"""Perceptual distance: LPIPS in its shift-tolerant variant (Ghildyal and Liu 2022, arXiv 2207.13686).

LPIPS (Zhang et al. 2018) compares unit-length features of a network in five depths. In the shift-tolerant variant the
network's poolings are blurred, so that an offset of a pixel counts for little. Figures are lower than the usual LPIPS's
and not comparable with them. VGG-16 is the usual network; AlexNet is another, for what was trained to please VGG.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from terraloom.errors import TerraloomError

PACKAGE, WEIGHTS = "stlpips_pytorch", "weights/vST0.0/{}_shift_tolerant.pth"
Network = Literal["vgg", "alex"]
DEPTHS = 5
SMALLEST = 48  # px, side of an image that still has features at the fifth depth
BATCH = 4

Features = list[Tensor]


class Perceptual:
    """The distance.

    Args:
        device: where it is computed.
        network: whose features are compared.

    Raises:
        TerraloomError: the package that carries the weights is not installed.
    """

    def __init__(self, device: torch.device | str = "cpu", network: Network = "vgg") -> None:
        spec = find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise TerraloomError(
                "the perceptual distance needs stlpips-pytorch; install it with: pip install 'terraloom[train]'"
            )
        folder = Path(spec.submodule_search_locations[0])
        path = folder / WEIGHTS.format(network)
        # loaded on the CPU: a device with an index, as accelerate names the CPU itself, torch.load refuses
        state: dict[str, Tensor] = torch.load(path, "cpu", weights_only=True)
        self.state = {name: value.to(device) for name, value in state.items()}
        self.depth = self._vgg if network == "vgg" else self._alexnet
        names = [k for k in self.state if k.startswith("net.") and k.endswith(".weight")]
        by_depth = [[k for k in names if k.startswith(f"net.slice{d + 1}.")] for d in range(DEPTHS)]
        self.layers = [
            [(self.state[k], self.state[k.replace(".weight", ".bias")]) for k in depth]
            for depth in by_depth
        ]

    def features(self, image: Tensor, depths: int = DEPTHS) -> Features:
        """Unit-length features in so many depths of images (B, 3, H, W) in [0, 1] of at least `SMALLEST` px."""
        x = (2 * image - 1 - self.state["scaling_layer.shift"]) / self.state["scaling_layer.scale"]
        x = x.contiguous(memory_format=torch.channels_last)
        found = []
        for depth in range(depths):
            x = self.depth(x, depth)
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    def _vgg(self, x: Tensor, depth: int) -> Tensor:
        x = _pooled(x, 2) if depth else x
        for weight, bias in self.layers[depth]:
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
        return x

    def _alexnet(self, x: Tensor, depth: int) -> Tensor:
        ((weight, bias),) = self.layers[depth]
        x = _pooled(x, 3) if depth in (1, 2) else x
        x = F.conv2d(x, weight, bias, padding=2 if depth < 2 else 1)
        return F.relu(x if depth else _blurred(x))

    def weighted(self, image: Tensor, depths: int = DEPTHS) -> Features:
        """`features` scaled so that the square of their Euclidean distance at a position is what `between` averages."""
        return [
            f.float() * self.state[f"lin{d}.model.1.weight"].clamp(min=0).sqrt().view(1, -1, 1, 1)
            for d, f in enumerate(self.features(image, depths))
        ]

    def between(self, a: Features, b: Features) -> Tensor:
        """Distance of images by their features, (B,); 0 for equal ones. `a` may be one image against many."""
        total = torch.zeros(max(len(a[0]), len(b[0])))
        for depth, (x, y) in enumerate(zip(a, b, strict=True)):
            weight = self.state[f"lin{depth}.model.1.weight"]
            total = total + F.conv2d((x - y).square(), weight).mean((1, 2, 3))
        return total

    @torch.inference_mode()
    def __call__(self, images: Tensor, truth: Tensor) -> Tensor:
        """Distance of (B, 3, H, W) in [0, 1] from `truth`, (1 or B, 3, H, W), (B,)."""
        one = self.features(truth) if len(truth) == 1 else None
        parts = []
        for i in range(0, len(images), BATCH):
            there = one or self.features(truth[i : i + BATCH])
            parts.append(self.between(self.features(images[i : i + BATCH]), there))
        return torch.cat(parts)


def _pooled(x: Tensor, side: int) -> Tensor:
    """Largest of side x side at every pixel, blurred."""
    return _blurred(F.max_pool2d(x, side, 1))


def _blurred(x: Tensor) -> Tensor:
    """Binomial blur at every other pixel."""
    binomial = x.new_tensor([1.0, 2.0, 1.0])
    kernel = (binomial[:, None] * binomial / 16).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=x.shape[1])
