"""A whole image made finer by the cascade, x4 a level, outside any planet.

The planet draws blocks that must agree with their neighbours; a single image has none. So it is drawn in one piece,
mirrored at its edges, with noise keyed by its seed.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from terraloom.data.ground import LAYERS
from terraloom.data.uses import UNKNOWN_COVER
from terraloom.errors import InvalidInput
from terraloom.models.waves import SCALE
from terraloom.noise import NoiseField
from terraloom.weights import COARSE_GSD, find
from terraloom.world.engine import Engine, Given, choose, geometry, start

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

HALO = 64  # output pixels of mirrored surroundings; a third of the exact halo, as no neighbour has to agree
NOISE_LEVEL = 8  # the first level's noise; wide enough that noise does not repeat within an image
LARGEST = 4096  # pixels a side; an image is drawn in one piece, and memory grows with its area
MOST_LEVELS = 5


def refine(
    image: Pixels,
    gsd: float,
    levels: int,
    seed: int,
    *,
    cover: int | Pixels = UNKNOWN_COVER,
    ground: Floats | None = None,
    model: str | Path = "refine",
    engine: str = "auto",
) -> Pixels:
    """The same image `4**levels` times finer.

    The 4 x 4 means of each level are the level before, to half a level of 255; everything finer is made up. The same
    arguments give the same bytes in one engine.

    Args:
        image: uint8 (3, h, w).
        gsd: metres per pixel of `image`.
        levels: how often to refine, 1 or more.
        seed: of the noise, 0 to 2**63 - 1.
        cover: IGBP class 0..16 (18: unknown) of everything, or uint8 (h, w).
        ground: float32 (6, h, w) of 0 or 1, see `terraloom.data.ground.LAYERS`; nothing is known when not given.
        model: name or folder of a checkpoint that draws one level at a time.
        engine: auto, cuda, openvino or torch.

    Returns:
        uint8 (3, 4**levels h, 4**levels w).

    Raises:
        InvalidInput: an argument outside its range, or more than 4096 pixels a side of output.
        BadCheckpoint: the cascade is missing or damaged.
    """
    _check(image, gsd, levels)
    size = image.shape[1:]
    cover = np.full(size, cover, np.uint8) if isinstance(cover, int) else cover
    ground = np.zeros((len(LAYERS), *size), np.float32) if ground is None else ground
    if cover.shape != size or ground.shape != (len(LAYERS), *size):
        raise InvalidInput(
            f"cover {cover.shape} and ground {ground.shape} do not lie on the image's {size} pixels"
        )
    noise = NoiseField(seed)
    for level in range(levels):
        if level:
            cover, ground = (np.repeat(np.repeat(a, SCALE, -2), SCALE, -1) for a in (cover, ground))
        gsd /= SCALE
        image = _finer(
            image, gsd, noise, NOISE_LEVEL + 2 * level, cover, ground, (str(model), engine)
        )
    return image


def _check(image: Pixels, gsd: float, levels: int) -> None:
    """Refuse what cannot be refined."""
    if image.ndim != 3 or image.shape[0] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise InvalidInput(
            f"image is {image.dtype} {image.shape}; uint8 (3, height, width) is needed"
        )
    if not 0 < gsd < np.inf:
        raise InvalidInput(f"gsd {gsd} is not a positive number of metres per pixel")
    if not 1 <= levels <= MOST_LEVELS:
        raise InvalidInput(f"levels {levels} is outside 1 to {MOST_LEVELS}")
    largest = max(image.shape) * SCALE**levels
    if largest > LARGEST:
        raise InvalidInput(f"{largest} pixels a side are too many for one piece; at most {LARGEST}")


def _finer(
    image: Pixels,
    gsd: float,
    noise: NoiseField,
    level: int,
    cover: Pixels,
    ground: Floats,
    network: tuple[str, str],
) -> Pixels:
    """One level: uint8 (3, h, w) -> (3, 4h, 4w) at `gsd`."""
    _, h, w = image.shape
    period = geometry(find(network[0])).period // SCALE
    cells = -(-max(h, w) // period) * period  # engines draw squares on the network's lattice
    margin = HALO // SCALE
    edges = ((margin, cells - h + margin), (margin, cells - w + margin))
    lr, cover, ground = (
        np.pad(a, (*((0, 0),) * (a.ndim - 2), *edges), "symmetric")
        for a in (image.astype(np.float32) / 127.5 - 1, cover, ground)
    )
    side = SCALE * cells + 2 * HALO
    draw = engine_for(*network, gsd >= COARSE_GSD, side)
    eps = noise.window(level, -HALO, -HALO, side, side, channels=3)
    rows = np.full(cells + 2 * margin, gsd, np.float32)
    return draw(Given(lr, cover, ground, rows, eps))[:, : SCALE * h, : SCALE * w]


@lru_cache(maxsize=3)  # an image of two levels needs two
def engine_for(model: str, engine: str, coarse: bool, side: int) -> Engine:
    """A network ready for squares of `side` px of coarse or fine levels, `HALO` included; engines are kept.

    Raises:
        InvalidInput: the checkpoint is no cascade, or draws two levels at once.
    """
    checkpoint = find(model)
    if checkpoint.kind != "cascade" or checkpoint.leaps:
        what = (
            "cascade that draws two levels at once"
            if checkpoint.kind == "cascade"
            else f"{checkpoint.kind} model"
        )
        raise InvalidInput(f"{model} is a {what}, which cannot refine single images; use 'refine'")
    part = (checkpoint.coarse if coarse else None) or checkpoint
    return start(*choose(engine, checkpoint), part, side, HALO, seed=0)
