"""Engines: what runs a checkpoint's network on the inputs of one block, always of one shape.

`openvino` is fastest on a CPU, `torch` runs anywhere, `cuda` needs a GPU. All end in `to_pixels`, in float32 whatever
the precision of the network: so the 4 x 4 means of the output are those of its input in every engine.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terraloom.diffusion import windows
from terraloom.diffusion.flow import walked
from terraloom.errors import InvalidInput
from terraloom.grid import BASE_LEVEL
from terraloom.models import fields, shores
from terraloom.models.cascade import CascadeConfig, CascadeUNet
from terraloom.models.fields import evened, shaded
from terraloom.models.shores import overlaid, unmixed
from terraloom.models.waves import (
    SCALE,
    bounded,
    enlarged,
    faint_on_white,
    image_of,
    noise_of,
    softened,
)
from terraloom.weights import Checkpoint, configuration, load_model

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

COARSE_SIDE = 256  # pixels, blocks of coarse levels are no larger
COARSE_LEAP = 512  # pixels, those of a coarse network that leaps
LEAP_SIDE = 1024  # pixels, blocks of a leap are no smaller
# pixels that tones, slopes and shores reach further than the network of a leap; cells are 16 of them, and `enlarged`
# looks two cells and a bit far; a multiple of 16
BEYOND = fields.REACH + fields.COARSER * (fields.WIDE[1] + 1) + 16 * (shores.REACH + 3) + 12

ENGINES = ("auto", "cuda", "openvino", "torch")


class Given(NamedTuple):
    """Everything that reaches a block."""

    lr: Floats  # (3, h, w) in [-1, 1], the level above with its halo; of a leap (3, h / 4, w / 4), two above
    cover: Pixels  # (h, w) land cover
    ground: Floats  # (6, h, w) map layers, or (22, h, w) with lines
    gsd: Floats  # (h,) metres per output pixel of each row
    noise: Floats  # (3, 4h, 4w)
    tones: Floats | None = None  # (4, 8h, 8w) or (4, 4h, 4w), see `terraloom.data.layout.toned`
    shade: Floats | None = None  # (4, 4h, 4w), see `terraloom.data.relief.shade`
    wet: Floats | None = None  # (4h, 4w), see `terraloom.data.waters.water`


class Engine(Protocol):
    """Draws one block from everything that reaches it; one call at a time."""

    def __call__(self, given: Given) -> Pixels:
        """Uint8 (3, 4h - 2 halo, 4w - 2 halo): the halo is gone."""


def choose(engine: str, checkpoint: Checkpoint) -> tuple[str, str]:
    """The engine and its precision, (cuda | openvino | torch, f32 | bf16), that "auto" or a wish comes to.

    Raises:
        InvalidInput: an engine that does not exist, is not installed or has no device.
    """
    if engine not in ENGINES:
        raise InvalidInput(f"engine {engine!r} is unknown; choose from {', '.join(ENGINES)}")
    convertible = checkpoint.kind == "cascade"
    if engine == "auto":
        if torch.cuda.is_available():
            engine = "cuda"
        else:
            engine = "openvino" if convertible and find_spec("openvino") else "torch"
    if engine == "cuda" and not torch.cuda.is_available():
        raise InvalidInput("engine 'cuda' finds no GPU; use auto, openvino or torch")
    if engine == "openvino":
        if not convertible:
            raise InvalidInput(
                f"engine 'openvino' cannot run a {checkpoint.kind} model; use cuda or torch"
            )
        if not find_spec("openvino"):
            raise InvalidInput(
                "engine 'openvino' is not installed: pip install 'terraloom[openvino]'"
            )
        return engine, _openvino_precision()
    return engine, "f32"


@dataclass(frozen=True)
class Geometry:
    """What a network asks of blocks, in pixels."""

    exact: int  # halo with which a block equals the same pixels of the whole canvas
    usual: int  # halo that is drawn
    period: int  # lattice of the sides of blocks


def geometry(checkpoint: Checkpoint) -> Geometry:
    """What a checkpoint's network asks of blocks.

    A cascade is usually drawn with a third of what one evaluation can reach: with shipped weights that changes one in
    a hundred of the pixels that are so near a border, by 1/255, and saves a quarter of the work that two thirds take.
    Of several evaluations, which could reach as many halos far, the later ones reach hardly further.
    """
    shape = configuration(checkpoint)
    if not isinstance(shape, CascadeConfig):
        return Geometry(windows.MARGIN, windows.MARGIN, windows.CELL)
    period, exact = shape.period, len(shape.sigmas) * shape.halo
    usual = shape.halo // 3 // period * period
    if checkpoint.coarse is not None:
        inner = geometry(checkpoint.coarse)
        period, exact = max(period, inner.period), max(exact, inner.exact)
    if shape.lines:
        exact += BEYOND
    return Geometry(exact, usual, period)


def side_at(checkpoint: Checkpoint, level: int, block: int) -> int:
    """Side of the blocks of a level in pixels, where `block` is that of the finest.

    Coarse levels are seen in small parts, so their blocks are small: at most 256 px, 512 of a leap. A leap's are larger
    because the level between is its mean: a tile there needs four blocks of 512. Others of a leap have at least 1024.
    """
    if level == BASE_LEVEL:
        return min(block, COARSE_SIDE)
    part = checkpoint.at(level)
    if level > BASE_LEVEL and part is checkpoint.coarse:
        return COARSE_LEAP if part.leaps else min(block, COARSE_SIDE)
    return max(block, LEAP_SIDE) if part.leaps else block


def start(
    name: str, precision: str, checkpoint: Checkpoint, side: int, halo: int, seed: int
) -> Engine:
    """Load the weights and make an engine ready for blocks of `side` pixels, halo included.

    Raises:
        BadCheckpoint: see `load_model`.
    """
    device = torch.device("cuda" if name == "cuda" else "cpu")
    model = load_model(checkpoint, device)
    if not isinstance(model, CascadeUNet):
        return _Windows(model, seed, configuration(checkpoint).evaluations, device)
    network = _openvino(model, side, precision) if name == "openvino" else _torch(model, device)
    return _Cascade(network, model.config, halo)


def drawn(
    see: Callable[[Tensor, Tensor, float], Tensor], lr: Tensor, noise: Tensor, config: CascadeConfig
) -> Tensor:
    """What a cascade network draws: its sampler from noise to the image, which `to_pixels` brings within limits.

    Args:
        see: the network: of the low-resolution image as it is shown, noised waves and sigma, the waves it sees.
        lr: (B, 3, h, w) in [-1, 1].
        noise: (B, 3, k h, k w) standard normal.
        config: of the network.

    Returns:
        (B, 3, k h, k w) float32.
    """
    shown = softened(lr) if config.leap else lr
    detail = walked(partial(see, shown), noise_of(noise, config.waves), config.sigmas)
    return image_of(faint_on_white(detail, shown), shown)


def to_pixels(y: Tensor, lr: Tensor) -> Tensor:
    """The displayable image nearest to `y` whose k x k means are `lr`, to half a level of 255; see `bounded`.

    Args:
        y: (B, 3, k h, k w) float32.
        lr: (B, 3, h, w) float32 in [-1, 1].

    Returns:
        uint8 (B, 3, k h, k w).
    """
    pixels = (bounded(y, lr) + 1).mul_(127.5).round_().clamp_(0, 255)
    return pixels.to(torch.uint8)


class _Cascade:
    """The sampler of a cascade network in any runtime, then `to_pixels` on the core."""

    def __init__(self, network: Callable[..., Tensor], config: CascadeConfig, halo: int) -> None:
        self._network, self._config, self._halo = network, config, halo

    def __call__(self, given: Given) -> Pixels:
        *inputs, tones, shade, covered = given
        parent, *told, eps = (torch.from_numpy(np.ascontiguousarray(a))[None] for a in inputs)
        land = parent
        if covered is not None:
            wet = torch.from_numpy(covered)[None, None]
            land, sea = unmixed(parent, F.avg_pool2d(wet, wet.shape[-1] // parent.shape[-1]))
        y = drawn(
            lambda shown, x, sigma: self._network(shown, *told, x, torch.tensor([sigma])),
            land,
            eps,
            self._config,
        )
        low = None
        if tones is not None:
            y, low = evened(y, land, torch.from_numpy(tones))
        if shade is not None:
            y = shaded(y, enlarged(land, y) if low is None else low, torch.from_numpy(shade))
        if covered is not None:
            y = overlaid(y, parent, sea, wet, eps[:, :1])
        rim = self._halo * parent.shape[-1] // y.shape[-1]
        return to_pixels(_crop(y, self._halo), _crop(parent, rim))[0].numpy()


class _Windows:
    """MetaEarth's own scheme: windows over one repeated noise block, which `seed` decides; maps are not used."""

    def __init__(self, model: nn.Module, seed: int, evaluations: int, device: torch.device) -> None:
        self._sample = windows.sampler(model, seed, evaluations, device)  # type: ignore[arg-type]

    def __call__(self, given: Given) -> Pixels:
        return windows.fill(self._sample, torch.from_numpy(given.lr), torch.from_numpy(given.gsd))


def _crop(x: Tensor, margin: int) -> Tensor:
    return x[..., margin : x.shape[-2] - margin, margin : x.shape[-1] - margin]


def _torch(model: CascadeUNet, device: torch.device) -> Callable[..., Tensor]:
    """Eager torch in float32: on a GPU without TF32 and autotuning, which would change pixels with the day."""
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(*inputs: Tensor) -> Tensor:
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ),
        ):
            out: Tensor = model(*(x.to(device) for x in inputs))
            return out.cpu()

    return run


def _openvino_precision() -> str:
    """bf16 where the CPU computes in it, else f32."""
    import openvino

    abilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if "BF16" in abilities else "f32"


def _openvino(model: CascadeUNet, side: int, precision: str) -> Callable[..., Tensor]:
    """Trace on a small canvas, then fix the shape: OpenVINO compiles for exactly that one. 2 s in all.

    Left alone, `convert_model` traces the whole canvas several times (6 s); `torch.export` takes twice as long.
    """
    import openvino

    cells = side // SCALE
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # trace is OpenVINO's way in, deprecated or not
        traced = torch.jit.freeze(
            torch.jit.trace(  # type: ignore[no-untyped-call]
                model, _example(model.config.period // SCALE, model.config), check_trace=False
            )
        )
    shapes = [list(x.shape) for x in _example(cells, model.config)]
    kinds = [openvino.Type.f32, openvino.Type.u8] + 4 * [openvino.Type.f32]
    graph = openvino.convert_model(traced, input=list(zip(shapes, kinds, strict=True)))
    compiled = openvino.Core().compile_model(
        graph, "CPU", {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    )
    request = compiled.create_infer_request()

    def run(*inputs: Tensor) -> Tensor:
        result = request.infer([x.numpy() for x in inputs], share_inputs=True)
        return torch.from_numpy(result[0].copy())  # the next evaluation writes there again

    return run


def _example(cells: int, config: CascadeConfig) -> tuple[Tensor, ...]:
    """Inputs of a square of cells."""
    return (
        torch.zeros(1, 3, cells, cells),
        torch.zeros(1, cells, cells, dtype=torch.uint8),
        torch.zeros(1, config.told_layers, cells, cells),
        torch.ones(1, cells),
        torch.zeros(1, config.waves, cells, cells),
        torch.ones(1),
    )
