"""What super-resolution, in-painting and forecasting of whole scenes have in common.

A scene knows what its network is shown in a window and what becomes of the drawn strips; windows, noise and their
order are here. Everything between is in stretched values, about [-1, 1], the same line for all dates of a band.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from affine import Affine
from torch import Tensor

from terraloom.io.raster import Raster
from terraloom.io.source import Grid, Known, Pixels
from terraloom.io.stretch import Stretch, stretch_of
from terraloom.metadata import RANGES, Metadata
from terraloom.models.frames import BANDS, CHANNELS, COLOURS, MOST_FRAMES, RGB
from terraloom.models.waves import SCALE, bounded
from terraloom.noise import NoiseField
from terraloom.pipelines.frames_to_image import FramesToImage
from terraloom.pipelines.windows import SIDE, Floats, Lattice, mirrored, strips

LEVEL = 18  # the widest of the noise field's: it does not repeat within 67 million pixels

Window = tuple[int, int, int, int]  # x, y, width, height
Strip = tuple[Pixels, Known]  # (bands, rows, width) as stored, and where they are known


class Scene(ABC):
    """One image to draw.

    Attributes:
        task: "superres", "inpaint" or "forecast".
        raster: whose units, dtype and nodata value the image has.
        grid: where its pixels lie.
        bands: their names.
        metadata: of the image.
        noise: channels of the noise a window is drawn with, px of it around the window, and its level.
    """

    task: str
    raster: Raster
    grid: Grid
    bands: tuple[str, ...]
    metadata: Metadata
    noise: tuple[int, int, int] = (COLOURS, 0, LEVEL)

    @abstractmethod
    def inputs(self) -> list[Raster]:
        """All scenes that pixels are made of, in a fixed order."""

    @abstractmethod
    def window(self, pipe: FramesToImage, left: int, top: int, noise: Tensor) -> Floats:
        """A window of the image, stretched, (bands, SIDE, SIDE), from noise (1, channels, sides with their rim)."""

    @abstractmethod
    def finish(self, drawn: Floats, top: int) -> Strip:
        """The rows from `top` on as they are stored, from what was drawn there."""

    def tags(self) -> dict[str, str]:
        """What a file says of itself beside what all say."""
        return {}

    def more(self) -> str:
        """Whatever else decides pixels, e.g. a mask; for `identity`."""
        return ""

    def identity(self, pipe: FramesToImage, seed: int) -> str:
        """Changes with everything that decides pixels: a hash."""
        told = (
            self.task,
            pipe.digest or fingerprint(pipe),
            seed,
            self.grid,
            self.bands,
            self.metadata,
            self.more(),
        )
        digest = hashlib.sha256(repr(told).encode())
        for raster in self.inputs():
            digest.update(raster.identity().encode())
        return digest.hexdigest()[:16]

    @property
    def rows(self) -> int:
        """Strips of the image."""
        return len(Lattice(self.grid.width, self.grid.height).rows)

    def strips(
        self,
        pipe: FramesToImage,
        seed: int,
        first: int = 0,
        step: Callable[[], None] = lambda: None,
    ) -> Iterator[Strip]:
        """The image from strip `first` on, top to bottom; `step` is called after every window."""
        field, lattice = NoiseField(seed), Lattice(self.grid.width, self.grid.height)
        channels, around, level = self.noise
        side = SIDE + 2 * around

        def draw(left: int, top: int) -> Floats:
            noise = field.window(level, left - around, top - around, side, side, channels)
            drawn = self.window(pipe, left, top, torch.from_numpy(noise)[None])
            step()
            return drawn

        for row, drawn in enumerate(strips(lattice, draw, first), first):
            yield self.finish(drawn, lattice.strip(row)[0])

    def whole(self, pipe: FramesToImage, seed: int) -> Pixels:
        """The image in one piece, (bands, height, width) as stored."""
        return np.concatenate([pixels for pixels, _ in self.strips(pipe, seed)], 1)


def fingerprint(pipe: FramesToImage) -> str:
    """Of a model's weights, for one that was not loaded from a folder."""
    digest = hashlib.sha256()
    for net in (pipe.unet, pipe.controlnet):
        for name, value in net.state_dict().items():
            digest.update(name.encode() + value.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def read(
    raster: Raster, window: Window, bands: Sequence[str], stretch: Stretch
) -> tuple[Tensor, Tensor]:
    """Stretched values of a window, mirrored beyond the scene's edge, and where they are known.

    Returns:
        (bands, 1, h, w) float32, 0 where unknown, and 0 or 1 of the same shape.
    """
    values, known = around(raster, window, lambda inner: raster.read(inner, bands))
    normal = stretch.normal(values, known)
    return torch.from_numpy(normal)[:, None], torch.from_numpy(known.astype(np.float32))[:, None]


def around(
    raster: Raster, window: Window, inside: Callable[[Window], tuple[npt.NDArray[Any], ...]]
) -> tuple[npt.NDArray[Any], ...]:
    """What `inside` reads of a window, mirrored beyond the scene's edge; its arrays end in (h, w)."""
    x, y, width, height = window
    columns, rows = mirrored(x, width, raster.width), mirrored(y, height, raster.height)
    left, top = int(columns.min()), int(rows.min())
    inner = (left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1)
    return tuple(part[..., (rows - top)[:, None], columns - left] for part in inside(inner))


def fitted(
    raster: Raster, values: npt.NDArray[np.float64], top: int, limits: tuple[float, float]
) -> Strip:
    """Rows of colours four times finer than a scene's, their 4 x 4 means those of the scene; unknown where it is.

    Args:
        raster: the scene.
        values: what was drawn, in its units: (3, rows, width).
        top: first of the rows.
        limits: smallest and largest value that may come out.
    """
    window = (0, top // SCALE, raster.width, values.shape[1] // SCALE)
    coarse, known = raster.read(window, RGB)
    means = torch.from_numpy(coarse.astype(np.float64))[None]
    fine = bounded(torch.from_numpy(values)[None], means, *limits)
    there = known.repeat(SCALE, 1).repeat(SCALE, 2)
    return raster.encode(fine[0].numpy(), there), there


def known_limits(raster: Raster) -> tuple[float, float]:
    """Smallest and largest value that is known: an end of the dtype that means nodata is not drawn."""
    low, high = raster.limits
    nodata, step = raster.nodata, int(raster.dtype.kind in "iu")
    return low + step * (nodata == low), high - step * (nodata == high)


def finer(raster: Raster) -> tuple[Grid, Metadata]:
    """Grid of four times finer pixels over the same ground, and its metadata."""
    g, gsd = raster.grid, raster.metadata.gsd
    grid = Grid(g.crs, g.transform * Affine.scale(1 / SCALE), SCALE * g.width, SCALE * g.height)
    smaller = None if gsd is None else max(gsd / SCALE, RANGES["gsd"][0])
    return grid, replace(raster.metadata, gsd=smaller)


def slots(raster: Raster) -> dict[str, str]:
    """Bands that the network knows -> its name for them.

    A narrow near infrared alone (Landsat 8) stands where the broad one does, as in training.
    """
    alone = "nir08" in raster.bands and "nir" not in raster.bands
    return {b: "nir" if alone and b == "nir08" else b for b in raster.bands if b in BANDS}


def triples(bands: Sequence[str]) -> list[tuple[int, ...]]:
    """Numbers of the bands that are drawn together: the colours first, then three by three; the last ones repeat."""
    order = [bands.index(b) for b in RGB if b in bands] if set(RGB) <= set(bands) else []
    order += [i for i in range(len(bands)) if i not in order]
    groups = [order[i : i + COLOURS] for i in range(0, len(order), COLOURS)]
    if len(order) >= COLOURS:
        groups[-1] = order[-COLOURS:]
    return [tuple((g + g[-1:] * COLOURS)[:COLOURS]) for g in groups]


def put(image: Tensor, numbers: Sequence[int], triple: Tensor) -> None:
    """Three drawn bands to their places in an image, (3, h, w) -> (bands, h, w)."""
    for number, band in zip(numbers, triple, strict=True):
        image[number] = band


def frame(colours: Tensor, known: Tensor) -> Tensor:
    """Three bands in the colours' places and where all of them are known: (3, h, w) twice -> (CHANNELS, h, w)."""
    there = known.amin(0)
    pixels = torch.zeros(CHANNELS, *there.shape)
    pixels[:COLOURS], pixels[-1] = colours * there, there
    return pixels


def stretches(rasters: Sequence[Raster], bands: Sequence[str]) -> dict[int, Stretch]:
    """`id` of a raster -> stretch of those of the bands that it has, one line for all dates of a dtype."""
    found = {}
    for raster in rasters:
        alike = [other for other in rasters if other.dtype == raster.dtype]
        found[id(raster)] = stretch_of(alike, [band for band in bands if band in raster.bands])
    return found


def sequence(
    pictures: Sequence[Tensor | None], told: Sequence[Metadata]
) -> tuple[Tensor, Tensor, Tensor]:
    """`pixels`, `present` and `dated` of `Frames` for one image from pictures in the order of their dates.

    None is left out. Places are filled up to `MOST_FRAMES` with frames that are not there, as in training.
    """
    pairs = [(p, vector(m)) for p, m in zip(pictures, told, strict=True) if p is not None]
    missing = MOST_FRAMES - len(pairs)
    nothing = [(torch.zeros_like(pairs[0][0]), torch.full((7,), torch.nan))] * missing
    pixels, vectors = (torch.stack(part, 1)[None] for part in zip(*pairs, *nothing, strict=True))
    return pixels, torch.tensor([[True] * len(pairs) + [False] * missing]), vectors


def vector(metadata: Metadata) -> Tensor:
    """As the small model is told, (7,)."""
    known = Metadata(metadata.lon, metadata.lat, metadata.gsd, None, metadata.date)
    return torch.from_numpy(known.vector())
