"""The rivals: MetaEarth's windows, InfiniteDiffusion and a diffusers loop.

The first two run *our* network as their denoiser, in the same runtime, so that an evaluation costs the same; what they
draw is not an image. Each is timed on a few windows; evaluations per output pixel are those of a whole canvas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from measures import timed
from torch import Tensor

from terraloom.data.uses import UNKNOWN_COVER
from terraloom.diffusion import windows
from terraloom.diffusion.ddpm import Schedule, ddim
from terraloom.diffusion.flow import walked
from terraloom.models.cascade import CascadeConfig, CascadeUNet
from terraloom.models.waves import image_of, noise_of

WINDOW, STRIDE, STEPS = 256, 128, 50
CELLS = WINDOW // 4
PARENTS = 1 + 1 / 16 + 1 / 256 + 1 / 4096  # what levels 12, 10 and 8 add on a large canvas


@dataclass(frozen=True)
class Network:
    """Our network on one 256 px window, in the runtime that World uses: no map is known, no line told."""

    run: Callable[..., Tensor]  # CascadeUNet.forward
    config: CascadeConfig

    def __call__(self, lr: Tensor, gsd: Tensor, noise: Tensor, sigma: float = 1.0) -> Tensor:
        """One evaluation, lr (1, 3, 64, 64), gsd (1, 64), waves (1, waves, 64, 64)."""
        cover = torch.full((1, CELLS, CELLS), UNKNOWN_COVER, dtype=torch.uint8)
        ground = torch.zeros(1, self.config.told_layers, CELLS, CELLS)
        return self.run(lr, cover, ground, gsd, noise.contiguous(), torch.tensor([sigma])).cpu()


def network(model: CascadeUNet, engine: str, precision: str) -> Network:
    """The network alone, at the shape of one window."""
    from terraloom.world import engine as engines

    if engine == "openvino":
        return Network(engines._openvino(model, WINDOW, precision), model.config)
    device = torch.device("cuda" if engine == "cuda" else "cpu")
    return Network(engines._torch(model, device), model.config)


def denoised(net: Network, lr: Tensor, gsd: Tensor, x: Tensor) -> Tensor:
    """One evaluation as rivals need it: pixels (1, 3, 256, 256) in, pixels out."""
    return image_of(net(lr, gsd, noise_of(x, net.config.waves)), lr)


def window_scheme(net: Network) -> tuple[float, float]:
    """MetaEarth: (seconds per output pixel, evaluations per output pixel), timed on two windows of 50 steps."""
    schedule, noise = Schedule(), windows.window_noise(0)[None]

    def sample(lr: Tensor, gsd: Tensor) -> Tensor:
        return ddim(lambda x, t: denoised(net, lr, gsd, x), schedule, noise, STEPS)

    lr, gsd = torch.rand(3, CELLS, CELLS + STRIDE // 4) * 2 - 1, torch.full((CELLS,), 10.0)
    seconds = timed(lambda: windows.fill(sample, lr, gsd))
    return seconds / (2 * STRIDE**2), STEPS * (WINDOW / STRIDE) ** 2


def repeated_noise(
    net: Network,
    sigmas: tuple[float, ...],
    lr: npt.NDArray[np.float32],
    gsd: npt.NDArray[np.float32],
) -> npt.NDArray[np.uint8]:
    """A canvas in MetaEarth's windows: our weights and our sampler under its repeated noise."""
    noise = noise_of(windows.window_noise(0)[None], net.config.waves)

    def sample(part: Tensor, rows: Tensor) -> Tensor:
        detail = walked(lambda x, sigma: net(part, rows, x, sigma), noise, sigmas)
        return image_of(detail, part)

    return windows.fill(sample, torch.from_numpy(lr), torch.from_numpy(gsd))


def infinite_diffusion(net: Network, side: int = 1024, phases: int = 2) -> tuple[float, float]:
    """The infinite-tensor package: linear blending, one evaluation in each of two phases, a cold region of `side` px.

    Fewer evaluations than MetaEarth's 50 steps, as its authors use it with few-step models.

    Raises:
        ImportError: the package is not installed.
    """
    from infinite_tensor import InfiniteTensor, MemoryTileStore, TensorWindow

    ramp = 1 - (torch.arange(WINDOW) - (WINDOW - 1) / 2).abs() / (WINDOW / 2)
    kernel = (ramp[:, None] * ramp).clamp(min=1e-3)[None]
    shape, size, stride = (4, None, None), (4, WINDOW, WINDOW), (4, STRIDE, STRIDE)
    gsd, calls = torch.full((1, CELLS), 10.0), 0

    def phase(index: tuple[int, ...], *parent: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        g = torch.Generator().manual_seed(hash(index) & 0xFFFF)
        lr = torch.rand(1, 3, CELLS, CELLS, generator=g) * 2 - 1
        noise = torch.randn(1, 3, WINDOW, WINDOW, generator=g)
        if parent:
            noise = 0.35 * noise + (parent[0][:3] / parent[0][3:])[None]
        return torch.cat([denoised(net, lr, gsd, noise)[0] * kernel, kernel])

    window, store = TensorWindow(size, stride=stride), MemoryTileStore()
    canvas = InfiniteTensor(shape, phase, window, tile_store=store, tensor_id="phase 0")
    for k in range(1, phases):
        canvas = InfiniteTensor(
            shape, phase, window, (canvas,), (window,), tile_store=store, tensor_id=f"phase {k}"
        )
    seconds = timed(lambda: canvas[:, 0:side, 0:side])
    return seconds / side**2, calls * WINDOW**2 / side**2


def diffusers_loop(precision: str, steps: int = 3) -> tuple[float, float, float]:
    """UNet2DModel and DDIMScheduler on independent 256 px tiles: as above, and million parameters.

    `steps` of the 50 are timed; tiles do not overlap, which is the least it can cost.

    Raises:
        ImportError: diffusers is not installed.
    """
    from diffusers import DDIMScheduler, UNet2DModel
    from diffusers.utils import logging

    logging.set_verbosity_error()  # it warns of a cast that is meant
    attention, plain = ("AttnDownBlock2D", "AttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")
    model = UNet2DModel(
        sample_size=WINDOW,
        in_channels=6,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(32, 64, 128, 128),
        down_block_types=(plain[0], plain[0], plain[0], attention[0]),
        up_block_types=(attention[1], plain[1], plain[1], plain[1]),
        norm_num_groups=16,
    ).eval()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = model.to(dtype=dtype, memory_format=torch.channels_last)
    scheduler = DDIMScheduler(1000, 0.0015, 0.0155, "scaled_linear")
    scheduler.set_timesteps(STEPS)
    x, lr = torch.randn(1, 3, WINDOW, WINDOW), torch.rand(1, 3, WINDOW, WINDOW)

    def loop() -> None:
        sample = x
        for t in scheduler.timesteps[:steps]:
            seen = torch.cat([sample, lr], 1).to(dtype)
            sample = scheduler.step(model(seen, t).sample.float(), t, sample).prev_sample

    with torch.inference_mode():
        model(torch.cat([x, lr], 1).to(dtype), 0)
        seconds = timed(loop) / steps * STEPS
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    return seconds / WINDOW**2, float(STEPS), parameters
