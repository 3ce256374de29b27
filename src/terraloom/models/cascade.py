"""The cascade network: a low-resolution image in, the detail of the same place four times finer out.

One set of weights serves every level of the pyramid (MetaEarth, section III: p(x_k | x_{k-1}, s_k)), but unlike
MetaEarth's it is *translation-equivariant*: 3x3 convolutions on a pixel-unshuffled canvas, RMS norm over channels
at each pixel, conditioning by scale and shift. No attention, no window statistics. So an output pixel depends only
on inputs within `halo` pixels, on a lattice of `period` pixels, and a block cut from the canvas with that halo
equals the canvas.

One low-resolution pixel is one *cell* of the network's finest level. What is drawn is the *detail*: the image less the
bicubic enlargement of its low-resolution image, zero on average in every cell. It is told as 45 numbers a cell, how
much there is of each wave (of three colours, at the 15 frequencies that a cell of 4 x 4 pixels has besides its mean),
and drawn along a flow (`terraloom.diffusion.flow`): the network is shown noised waves and tells the waves it sees.

Real detail has little colour and falls with frequency (COLOUR_SIZES, measured on the training images). Waves are
divided by the square root of their size: noise then hides fine and coloured waves longer than bold ones, but not ten
times longer.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALE = 4  # one level of the cascade is two Web Mercator zooms
DETAIL = 0.1  # detail is counted in this part of [-1, 1]
COLOURS = ((1, 1, 1), (1, 0, -1), (-1, 2, -1))  # grey, red - blue, green - magenta
COLOUR_SIZES = (
    3.0,
    0.32,
    0.25,
)  # of a wave of frequency 1, standard deviation in units of DETAIL; 1/f above
WAVES = len(COLOURS) * (SCALE * SCALE - 1)
REFITS = 2  # `bounded` clips and projects this often before it scales what still clips


@dataclass(frozen=True)
class CascadeConfig:
    """Shape of a `CascadeUNet`; what `config.json` of a checkpoint holds."""

    widths: tuple[int, ...] = (64, 128, 256)  # channels per resolution, finest first
    depth: int = 2  # residual blocks per resolution, on the way down and on the way up
    embed: int = 128  # width of the gsd embedding
    cover_classes: int = 19  # IGBP 0..16, 17 spare, 18 unknown
    cover_embed: int = 8
    ground_layers: int = 6  # see terraloom.data.ground.LAYERS
    sigmas: tuple[float, ...] = (1.0,)  # where the sampler asks the network
    gain: float = 1.0  # of the grey detail seen: a young flow sees less than there is

    def __post_init__(self) -> None:
        for name in ("widths", "sigmas"):  # JSON gives lists
            object.__setattr__(self, name, tuple(getattr(self, name)))

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
        cells = need + 1  # stem
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


def reduce4(x: Tensor) -> Tensor:
    """Box average of 4 x 4 pixels, (B, C, 4h, 4w) -> (B, C, h, w): what "low resolution" means here."""
    return F.avg_pool2d(x, SCALE)


def nearest4(x: Tensor) -> Tensor:
    """Every pixel repeated 4 x 4 times, (B, C, h, w) -> (B, C, 4h, 4w)."""
    return F.interpolate(x, scale_factor=SCALE, mode="nearest")


def bicubic4(x: Tensor) -> Tensor:
    """Bicubic enlargement by 4, (B, C, h, w) -> (B, C, 4h, 4w)."""
    return F.interpolate(x, scale_factor=SCALE, mode="bicubic", align_corners=False)


def consistent(y: Tensor, lr: Tensor) -> Tensor:
    """The image nearest to `y` whose 4 x 4 means are exactly `lr` (orthogonal projection).

    Each octave is thus made by one level only, and a chain of levels cannot drift in colour or contrast.
    """
    return y + nearest4(lr - reduce4(y))


def bounded(y: Tensor, lr: Tensor, low: float = -1.0, high: float = 1.0) -> Tensor:
    """As `consistent`, but within limits.

    Clipping alone would darken bright cells and brighten dark ones, and a chain of levels would drift. So what was
    clipped is given to the other pixels of the cell, and what still sticks out loses contrast, cell by cell.

    Args:
        y: (B, C, 4h, 4w).
        lr: (B, C, h, w) within the limits.
        low: of what comes out; may be infinite.
        high: likewise.

    Returns:
        (B, C, 4h, 4w).
    """
    batch, channels, h, w = lr.shape
    cells = F.pixel_unshuffle(y, SCALE).reshape(batch, channels, SCALE * SCALE, h, w)
    mean = lr[:, :, None]
    cells = cells + (mean - cells.mean(2, keepdim=True))
    for _ in range(REFITS):
        cells.clamp_(low, high)
        cells += mean - cells.mean(2, keepdim=True)
    cells -= mean
    highest, lowest = cells.amax(2, keepdim=True), cells.amin(2, keepdim=True)
    room = torch.minimum(
        (high - mean) / highest.clamp(min=1e-6), (low - mean) / lowest.clamp(max=-1e-6)
    )
    return F.pixel_shuffle((cells * room.clamp(0, 1) + mean).flatten(1, 2), SCALE)


def _waves() -> tuple[Tensor, Tensor]:
    """The waves of a cell, orthonormal float32 (45, 3, 4, 4), and the usual size of each when told, (45,).

    Cosines (the discrete cosine transform of 4 x 4 pixels) in each of `COLOURS`.
    """
    with torch.inference_mode(False), torch.device("cpu"):  # whoever imports this
        colours = F.normalize(torch.tensor(COLOURS, dtype=torch.float64), dim=1)
        at = torch.arange(SCALE, dtype=torch.float64)
        cosines = F.normalize(torch.cos(math.pi / SCALE * at[:, None] * (at + 0.5)), dim=1)
        basis = torch.einsum("cr,fy,gx->cfgryx", colours, cosines, cosines).flatten(1, 2)[:, 1:]
        frequency = (at[:, None] ** 2 + at**2).sqrt().flatten()[1:]
        sizes = torch.tensor(COLOUR_SIZES, dtype=torch.float64)[:, None] / frequency
        return basis.flatten(0, 1).float(), sizes.flatten().sqrt().float()


BASIS, SIZES = _waves()


def _gains(gain: float) -> Tensor:
    """`gain` for waves of the first of `COLOURS`, 1 for the others, (45, 1, 1)."""
    gains = torch.ones(WAVES, 1, 1)
    gains[: WAVES // len(COLOURS)] = gain
    return gains


def detail_of(hr: Tensor, lr: Tensor) -> Tensor:
    """The detail that makes `lr` (B, 3, h, w) into the image `hr` (B, 3, 4h, 4w), as waves (B, 45, h, w)."""
    told = BASIS / (DETAIL * SIZES[:, None, None, None])
    return F.conv2d(hr - bicubic4(lr), told.to(hr.device), stride=SCALE)


def image_of(detail: Tensor, lr: Tensor) -> Tensor:
    """The image (B, 3, 4h, 4w) of a detail (B, 45, h, w); its 4 x 4 means are `lr` (B, 3, h, w)."""
    told = BASIS * (DETAIL * SIZES[:, None, None, None])
    drawn = F.conv_transpose2d(detail, told.to(detail.device), stride=SCALE)
    return consistent(bicubic4(lr) + drawn, lr)


def noise_of(pixels: Tensor) -> Tensor:
    """Noise of waves (B, 45, h, w) from noise of pixels (B, 3, 4h, 4w), both independent standard normal."""
    return F.conv2d(pixels, BASIS.to(pixels.device), stride=SCALE)


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


def scaling(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Of sigma (B,): how much of noised waves is kept, and the size of what the network adds; (B, 45, 1, 1) each.

    c_skip and c_out of Karras et al. 2022 (arXiv 2206.00364, table 1) for the path x_sigma = (1 - sigma) x + sigma eps.
    """
    s, size = sigma[:, None], SIZES.to(sigma.device)
    power = ((1 - s) * size) ** 2 + s**2
    keep, scale = (1 - s) * size**2 / power, s * size * power.rsqrt()
    return keep[..., None, None], scale[..., None, None]


class ResBlock(nn.Module):
    """Two 3x3 convolutions around a scale and shift that depend on the row's gsd embedding."""

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
        h = self.conv1(F.silu(rms_norm(x)))
        scale, shift = self.film(e).transpose(1, 2)[..., None].chunk(2, 1)  # (B, C, rows, 1)
        h = self.conv2(F.silu(rms_norm(h) * (1 + scale) + shift))
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
        inputs = 3 + 3 * pixels + WAVES + c.cover_embed + c.ground_layers
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
        self.head = nn.Conv2d(c.widths[0], WAVES, 3, padding=1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.head.bias))

    def forward(
        self, lr: Tensor, cover: Tensor, ground: Tensor, gsd: Tensor, x: Tensor, sigma: Tensor
    ) -> Tensor:
        """See the detail in noised detail, for the level below `lr`.

        Args:
            lr: (B, 3, h, w) float in [-1, 1]; h and w multiples of `config.period // 4`.
            cover: (B, h, w) integer land cover per cell, IGBP 0..16 or 18 for unknown.
            ground: (B, ground_layers, h, w) float 0 or 1, see `terraloom.data.ground.LAYERS`.
            gsd: (B, h) ground sampling distance of the *output*, metres per pixel, per row of cells.
            x: (B, 45, h, w) float32 waves, x_sigma of `terraloom.diffusion.flow`.
            sigma: (B,) its share of noise, in (0, 1].

        Returns:
            (B, 45, h, w) float32 waves.
        """
        keep, scale = scaling(sigma)
        cells = torch.cat(
            [
                lr,
                F.pixel_unshuffle(bicubic4(lr) - nearest4(lr), SCALE) * 4,
                x,
                self.cover(cover.long()).permute(0, 3, 1, 2),
                ground,
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
            seen = seen * _gains(self.config.gain).to(seen.device)
        return cast(Tensor, seen)
