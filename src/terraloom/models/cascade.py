"""The cascade network: a low-resolution image in, the detail of the same place four times finer out.

One set of weights serves every level of the pyramid (MetaEarth, section III: p(x_k | x_{k-1}, s_k)), but unlike
MetaEarth's it is *translation-equivariant*: 3x3 convolutions on a pixel-unshuffled canvas, RMS norm over channels
at each pixel, conditioning by scale and shift. No attention, no window statistics. So an output pixel depends only
on inputs within `halo` pixels, on a lattice of `period` pixels, and a block cut from the canvas with that halo
equals the canvas.

One low-resolution pixel is one *cell* of the network's finest level. What is drawn is the *detail* in it, told as waves
(`terraloom.models.waves`), along a flow (`terraloom.diffusion.flow`): the network is shown noised waves and tells the
waves it sees.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terraloom.models.waves import (
    COLOURS,
    LEAP_WAVES,
    SCALE,
    WAVES,
    bicubic4,
    nearest4,
    scaling,
)


@dataclass(frozen=True)
class CascadeConfig:
    """Shape of a `CascadeUNet`; what `config.json` of a checkpoint holds."""

    widths: tuple[int, ...] = (64, 128, 256)  # channels per resolution, finest first
    depth: int = 2  # residual blocks per resolution, on the way down and on the way up
    embed: int = 128  # width of the gsd embedding
    cover_classes: int = 19  # IGBP 0..16, 17 spare, 18 unknown; 29: with land use, 50: with sites (terraloom.data.uses)
    cover_embed: int = 8
    ground_layers: int = 6  # see terraloom.data.ground.LAYERS
    lines: bool = False  # whether it is told where straight lines run (terraloom.data.lines)
    sigmas: tuple[float, ...] = (1.0,)  # where the sampler asks the network
    gain: float = 1.0  # of the grey detail seen: a young flow sees less than there is
    leap: bool = False  # whether it draws two levels at once, four cells a side under each pixel that is given

    def __post_init__(self) -> None:
        for name in ("widths", "sigmas"):  # JSON gives lists
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def waves(self) -> int:
        """Numbers a cell that it tells."""
        return LEAP_WAVES if self.leap else WAVES

    @property
    def told_layers(self) -> int:
        """Layers a cell that it is told: of the ground, then how far lines cover each of its pixels."""
        return self.ground_layers + (SCALE * SCALE if self.lines else 0)

    @property
    def period(self) -> int:
        """Alignment lattice in output pixels: block origins and sides are multiples of it."""
        return int(SCALE * 2 ** (len(self.widths) - 1))

    @property
    def halo(self) -> int:
        """Output pixels around an aligned block within which anything can reach it, rounded up to `period`.

        The recursion follows the cells that an aligned block needs, from the output back to the input:
        a 3x3 convolution needs one more cell, nearest upsampling and 2x2 striding move between resolutions.
        The bicubic skip needs two low-resolution cells, the network always more.
        """
        last = len(self.widths) - 1
        need = 1 + 2 * self.depth  # head and decoder blocks at the finest resolution
        for _ in range(last):
            need = (
                math.ceil(need / 2) + 2 * self.depth
            )  # decoder blocks; at the bottom: its only blocks
        for _ in range(last):
            need = 2 * need + 2 * self.depth  # encoder blocks one resolution finer
        cells = (
            need + 1 + (2 * SCALE if self.leap else 0)
        )  # stem; `softened` reaches two of the pixels given
        return math.ceil(SCALE * cells / self.period) * self.period

    def to_json(self) -> dict[str, object]:
        """The fields as JSON holds them."""
        return asdict(self)


def rms_norm(x: Tensor) -> Tensor:
    """Root-mean-square norm over channels at each pixel, (B, C, H, W) -> same; local, unlike group norm."""
    power = x.square().mean(
        1, keepdim=True, dtype=torch.float32
    )  # summed in float32 without a copy in it
    return x * torch.rsqrt(power + 1e-6).to(x.dtype)


def activated(x: Tensor) -> Tensor:
    """What a block's first convolution reads."""
    return F.silu(rms_norm(x))


def modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """What its second one reads: (B, C, H, W), and (B, C, H, 1) each."""
    return F.silu(rms_norm(x) * (1 + scale) + shift)


def gsd_features(gsd: Tensor, count: int = 32, top: float = 3.0) -> Tensor:
    """Sinusoids of log2(gsd), metres per pixel, at rates 0.1 to `top`, (...,) -> (..., 2 * count)."""
    rates = torch.exp(torch.linspace(math.log(0.1), math.log(top), count, device=gsd.device))
    angles = torch.log2(gsd)[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)


def sigma_features(sigma: Tensor, count: int = 16, top: float = 40.0) -> Tensor:
    """Sinusoids of sigma, 0 to 1, at rates 1 to `top`, (...,) -> (..., 2 * count)."""
    rates = torch.exp(torch.linspace(0.0, math.log(top), count, device=sigma.device))
    angles = sigma[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)


def _gains(gain: float, waves: int) -> Tensor:
    """`gain` for waves of the first of `COLOURS`, 1 for the others, (waves, 1, 1)."""
    gains = torch.ones(waves, 1, 1)
    gains[: WAVES // len(COLOURS)] = gain
    gains[WAVES : WAVES + 1] = gain
    return gains


class ResBlock(nn.Module):
    """Two 3x3 convolutions around a scale and shift that depend on the row's gsd embedding."""

    activated, modulated = staticmethod(activated), staticmethod(modulated)

    def __init__(self, c_in: int, c_out: int, embed: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.film = nn.Linear(embed, 2 * c_out)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        for p in (*self.conv2.parameters(), *self.film.parameters()):
            nn.init.zeros_(p)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """(B, c_in, h, w) and (B, h, embed) -> (B, c_out, h, w)."""
        h = self.conv1(self.activated(x))
        scale, shift = self.film(e).transpose(1, 2)[..., None].chunk(2, 1)  # (B, C, rows, 1)
        h = self.conv2(self.modulated(h, scale, shift))
        return cast(Tensor, self.skip(x) + h)


def wrap(*parts: nn.Module) -> None:
    """Make their 3 x 3 convolutions wrap around: the rim of a crop must not look like the end of the world."""
    for part in parts:
        for layer in part.modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
                layer.padding_mode = "circular"


class CascadeUNet(nn.Module):
    """Resolution-guided x4 generator: low-resolution image + what is there + gsd + noised detail -> detail."""

    def __init__(self, config: CascadeConfig | None = None) -> None:
        super().__init__()
        c = self.config = config or CascadeConfig()
        pixels = SCALE * SCALE
        self.cover = nn.Embedding(c.cover_classes, c.cover_embed)
        self.embed = nn.Sequential(
            nn.Linear(96, c.embed), nn.SiLU(), nn.Linear(c.embed, c.embed), nn.SiLU()
        )
        inputs = 3 + 3 * pixels + c.waves + c.cover_embed + c.told_layers
        self.stem = nn.Conv2d(inputs, c.widths[0], 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for i, w in enumerate(c.widths):
            self.down.append(nn.ModuleList([ResBlock(w, w, c.embed) for _ in range(c.depth)]))
            if i + 1 < len(c.widths):
                self.shrink.append(nn.Conv2d(w, c.widths[i + 1], 2, stride=2))
        for i in reversed(range(len(c.widths) - 1)):
            w = c.widths[i]
            self.grow.append(nn.Conv2d(c.widths[i + 1], w, 1))
            self.up.append(
                nn.ModuleList(
                    [ResBlock(2 * w if k == 0 else w, w, c.embed) for k in range(c.depth)]
                )
            )
        self.head = nn.Conv2d(c.widths[0], c.waves, 3, padding=1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.head.bias))

    def forward(
        self, lr: Tensor, cover: Tensor, ground: Tensor, gsd: Tensor, x: Tensor, sigma: Tensor
    ) -> Tensor:
        """See the detail in noised detail, for the level below `lr`.

        Args:
            lr: (B, 3, h, w) float in [-1, 1], of a leap `terraloom.models.waves.softened`; h and w multiples of
                `config.period // 4`.
            cover: (B, h, w) integer land cover per cell, IGBP 0..16 or 18 for unknown.
            ground: (B, k, h, w) float 0 to 1, see `terraloom.data.ground.LAYERS`, then lines (terraloom.data.lines).
                Of `config.told_layers` any may be missing at the end, and more are not looked at.
            gsd: (B, h) ground sampling distance of the *output*, metres per pixel, per row of cells.
            x: (B, waves, h, w) float32, x_sigma of `terraloom.diffusion.flow`.
            sigma: (B,) its share of noise, in (0, 1].

        Returns:
            (B, waves, h, w) float32.
        """
        keep, scale = scaling(sigma, self.config.waves)
        cells = torch.cat(
            [
                lr,
                F.pixel_unshuffle(bicubic4(lr) - nearest4(lr), SCALE) * 4,
                x,
                self.cover(cover.long()).permute(0, 3, 1, 2),
                F.pad(ground, (0, 0, 0, 0, 0, self.config.told_layers - ground.shape[1])),
            ],
            1,
        )
        told = torch.cat(
            [gsd_features(gsd), sigma_features(sigma)[:, None].expand(-1, gsd.shape[1], -1)], -1
        )
        rows = [self.embed(told)]  # (B, rows, embed), one entry per resolution
        for _ in self.shrink:
            rows.append(F.avg_pool1d(rows[-1].transpose(1, 2), 2).transpose(1, 2))
        h = self.stem(cells.contiguous(memory_format=torch.channels_last))
        skips = []
        for i, blocks in enumerate(self.down):
            for block in cast(nn.ModuleList, blocks):
                h = block(h, rows[i])
            if i < len(self.shrink):
                skips.append(h)
                h = self.shrink[i](h)
        for i, (grow, blocks) in enumerate(zip(self.grow, self.up, strict=True)):
            h = F.interpolate(grow(h), scale_factor=2, mode="nearest")
            h = torch.cat([h, skips.pop()], 1)
            for block in cast(nn.ModuleList, blocks):
                h = block(h, rows[-2 - i])
        seen = keep * x + scale * self.head(F.silu(rms_norm(h))).float()
        if self.config.gain != 1 and not self.training:  # else it would be learned away
            seen = seen * _gains(self.config.gain, self.config.waves).to(seen.device)
        return cast(Tensor, seen)
