"""MetaEarth's network: a noise-predicting U-Net on pixels, guided by a low-resolution image and a resolution.

After Yu et al. 2024 (arXiv 2405.13570), figure 2 and section III: the frequency encodings of time t and ground
sampling distance s pass two MLPs and are summed, e = MLP_t(f(t)) + MLP_s(f(s)), and e enters every block; the
low-resolution image passes an RRDB encoder E_lr and a learned upsampling F_up, and is concatenated with x_t at the
input. The published size is more than 600 million parameters; channel widths and attention levels are not
published. The default is small; `recipes/metaearth_paper.toml` has the published size.

Group norm and attention see the whole image, so unlike `CascadeUNet` this network needs MetaEarth's windows
(`terraloom.diffusion.windows`) on a canvas larger than it was trained for.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALE = 4  # one level of the cascade is two Web Mercator zooms


@dataclass(frozen=True)
class MetaEarthConfig:
    """Shape of a `MetaEarthUNet`; what `config.json` of a checkpoint holds. Widths are multiples of 32."""

    widths: tuple[int, ...] = (32, 64, 128, 128)  # channels per resolution, finest (full) first
    blocks: int = 1  # residual blocks per resolution on the way down; one more on the way up
    attention: tuple[int, ...] = (3,)  # resolutions with self-attention, as indices of `widths`
    embed: int = 128  # width of the embedding of time and resolution
    lr_width: int = 32  # channels of E_lr and F_up, and of what is concatenated with x_t
    lr_growth: int = 16  # channels that each dense convolution of E_lr adds
    lr_blocks: int = 2  # RRDBs of E_lr
    evaluations: int = 50  # DDIM steps from noise to image

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))  # JSON gives lists
        object.__setattr__(self, "attention", tuple(self.attention))

    @property
    def period(self) -> int:
        """Sides of the output are multiples of it, in pixels."""
        return max(SCALE, 1 << (len(self.widths) - 1))

    def to_json(self) -> dict[str, object]:
        """The fields as JSON types, for `config.json`."""
        return asdict(self)


def frequencies(value: Tensor, width: int) -> Tensor:
    """f(v): sines and cosines of `value` (B,) at `width / 2` rates from 1 to 1e-4, (B, width) float32."""
    rates = torch.exp(
        torch.arange(width // 2, device=value.device) * (-math.log(1e4) / (width // 2))
    )
    angles = value.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)


def norm(channels: int) -> nn.GroupNorm:
    """Group norm with 32 groups, fewer where that would leave less than four channels in one."""
    return nn.GroupNorm(min(32, channels // 4), channels)


class ResBlock(nn.Module):
    """Norm, SiLU, 3x3 convolution, twice; the embedding scales and shifts between the two."""

    def __init__(self, c_in: int, c_out: int, embed: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2, self.conv2 = norm(c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.film = nn.Linear(embed, 2 * c_out)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Features (B, c_in, H, W) and embedding (B, embed) -> (B, c_out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.film(e)[:, :, None, None].chunk(2, 1)
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        return self.skip(x) + h  # type: ignore[no-any-return]


class SelfAttention(nn.Module):
    """Residual multi-head attention over all pixels, heads of 64 channels (32 where 64 does not divide)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // (64 if channels % 64 == 0 else 32)
        self.norm = norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same."""
        b, c, height, width = x.shape
        qkv = self.qkv(self.norm(x)).view(b, 3, self.heads, c // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # each (B, heads, pixels, channels per head)
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.transpose(-1, -2).reshape(b, c, height, width))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """A residual block, then self-attention where the resolution has it."""

    def __init__(self, c_in: int, c_out: int, embed: int, attention: bool) -> None:
        super().__init__()
        self.block = ResBlock(c_in, c_out, embed)
        self.attention = SelfAttention(c_out) if attention else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """As `ResBlock`."""
        return self.attention(self.block(x, e))  # type: ignore[no-any-return]


class Enlarge(nn.Module):
    """Nearest doubling and a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W)."""
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))  # type: ignore[no-any-return]


class DenseBlock(nn.Module):
    """Five densely connected 3x3 convolutions, added at a fifth (the part of an RRDB; arXiv 1809.00219)."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        outputs = (growth, growth, growth, growth, width)
        self.convs = nn.ModuleList(
            nn.Conv2d(width + i * growth, c, 3, padding=1) for i, c in enumerate(outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> same."""
        seen = [x]
        for conv in self.convs[:-1]:
            seen.append(F.leaky_relu(conv(torch.cat(seen, 1)), 0.2))
        return x + 0.2 * self.convs[-1](torch.cat(seen, 1))  # type: ignore[no-any-return]


class RRDB(nn.Module):
    """Residual in residual dense block: three dense blocks, added at a fifth (arXiv 1809.00219)."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.dense = nn.Sequential(*[DenseBlock(width, growth) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> same."""
        return x + 0.2 * self.dense(x)  # type: ignore[no-any-return]


class LowResolutionEncoder(nn.Module):
    """F_up(E_lr(lr)): RRDBs at the low resolution, then two learned doublings."""

    def __init__(self, width: int, growth: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.trunk = nn.Sequential(
            *[RRDB(width, growth) for _ in range(blocks)], nn.Conv2d(width, width, 3, padding=1)
        )
        self.up = nn.ModuleList(Enlarge(width) for _ in range(2))
        self.out = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, lr: Tensor) -> Tensor:
        """(B, 3, h, w) in [-1, 1] -> features (B, width, 4h, 4w)."""
        x = self.stem(lr)
        x = x + self.trunk(x)
        for enlarge in self.up:
            x = F.leaky_relu(enlarge(x), 0.2)
        return self.out(x)  # type: ignore[no-any-return]


class MetaEarthUNet(nn.Module):
    """eps_theta(x_t, t, s, lr): the noise in a noised image, given its low-resolution image and gsd."""

    def __init__(self, config: MetaEarthConfig | None = None) -> None:
        super().__init__()
        c = self.config = config or MetaEarthConfig()
        self.time, self.resolution = (
            nn.Sequential(nn.Linear(c.embed, c.embed), nn.SiLU(), nn.Linear(c.embed, c.embed))
            for _ in range(2)
        )
        self.low = LowResolutionEncoder(c.lr_width, c.lr_growth, c.lr_blocks)
        self.stem = nn.Conv2d(3 + c.lr_width, c.widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        at, skips = c.widths[0], [c.widths[0]]
        for i, width in enumerate(c.widths):
            for _ in range(c.blocks):
                self.down.append(Stage(at, width, c.embed, i in c.attention))
                at = width
                skips.append(at)
            if i + 1 < len(c.widths):
                self.down.append(nn.Conv2d(at, at, 3, stride=2, padding=1))
                skips.append(at)
        self.middle = nn.ModuleList([Stage(at, at, c.embed, k == 0) for k in range(2)])
        for i, width in reversed(list(enumerate(c.widths))):
            for _ in range(c.blocks + 1):
                self.up.append(Stage(at + skips.pop(), width, c.embed, i in c.attention))
                at = width
            if i:
                self.up.append(Enlarge(at))
        self.head_norm, self.head = norm(at), nn.Conv2d(at, 3, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def encode(self, lr: Tensor) -> Tensor:
        """F_up(E_lr(lr)), (B, 3, h, w) in [-1, 1] -> (B, lr_width, 4h, 4w): the same at all steps of a sampler."""
        return self.low(lr)  # type: ignore[no-any-return]

    def embedding(self, t: Tensor, gsd: Tensor) -> Tensor:
        """e = MLP_t(f(t)) + MLP_s(f(s)); s = 10 log2(gsd), averaged over the rows. (B,), (B, rows) -> (B, embed)."""
        s = 10 * torch.log2(gsd.float()).mean(1)
        width, dtype = self.config.embed, self.stem.weight.dtype
        times: Tensor = self.time(frequencies(t, width).to(dtype))
        return F.silu(times + self.resolution(frequencies(s, width).to(dtype)))

    def denoise(self, x: Tensor, t: Tensor, features: Tensor, gsd: Tensor) -> Tensor:
        """`forward` with `features = encode(lr)` in place of `lr`."""
        e = self.embedding(t, gsd)
        h = self.stem(torch.cat([x.to(features.dtype), features], 1))
        skips = [h]
        for part in self.down:
            h = part(h, e) if isinstance(part, Stage) else part(h)
            skips.append(h)
        for stage in self.middle:
            h = stage(h, e)
        for part in self.up:
            h = part(torch.cat([h, skips.pop()], 1), e) if isinstance(part, Stage) else part(h)
        return self.head(F.silu(self.head_norm(h)))  # type: ignore[no-any-return]

    def forward(self, x: Tensor, t: Tensor, lr: Tensor, gsd: Tensor) -> Tensor:
        """Predict the noise.

        Args:
            x: (B, 3, 4h, 4w) x_t, sides multiples of `config.period`.
            t: (B,) integer times, 0 (clean) to 999.
            lr: (B, 3, h, w) in [-1, 1].
            gsd: (B, rows) ground sampling distance of the output, metres per pixel; averaged over the rows.

        Returns:
            (B, 3, 4h, 4w) eps_hat.
        """
        return self.denoise(x, t, self.encode(lr), gsd)
