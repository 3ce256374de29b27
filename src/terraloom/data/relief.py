"""Relief that a planet lays out on wild land before finer levels are drawn: ridges and valleys, seen by their shadows.

A mountain range is decided over hundreds of pixels of 150 m, and the network that draws them decides over dozens: it
knows how much contrast rough land has, and lays it out as grain. So hills of the planet's seed are carved by gullies
(terraloom.data.erosion) and lit by the sun of a satellite's morning; how much of it shows follows from how uneven the
base map is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from terraloom.data.erosion import carved, slopes
from terraloom.data.halves import in_halves
from terraloom.data.layout import FIELD_LEVEL, RIM_LEVEL, ROW_LEVEL
from terraloom.data.lines import rows
from terraloom.data.patches import curved
from terraloom.data.uses import CODES
from terraloom.grid import level_size
from terraloom.models.blur import blurred
from terraloom.noise import NoiseField

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
STEEP = 0.0312  # how steep slopes are, so that their light has variance 1
BRIGHTEST = 2.0  # of slopes, and the darkest: what is lit more is drawn as snow
TROPIC = 20.0  # degrees of latitude where the morning's sun stands as much to the south, or north, as to the east
NEAR = (1.5, 4)  # pixels of the base map: Gaussian under which it is even
WIDE = (2.0, 6)  # likewise, how far around its unevenness counts
MARGIN = NEAR[1] + WIDE[1]  # pixels of the base map that unevenness depends on
FLAT = 0.03  # of -1..1, standard deviation of the base map where woods and pastures show no relief
ROUGH = 0.1  # likewise, where they show all of it
SHOWN = 0.9  # contrast of the relief over that of the base map
SAND = 0.05  # of -1..1, contrast of relief on bare ground, at least, in the middle; plains have less, hills more
HILLS = 4  # zoom whose pixels are plains or hills
VARIED = 0.7  # standard deviation of the logarithm of their contrast
EDGE = (1.5, 4)  # cells, blur of borders of land cover
GRADED = (9, 10)  # savannas, and grassland with farms
FOREST, SAVANNA = (1, 2, 3, 4, 5), 8
# of even woods, woody savannas too: share of relief (what is drawn are clearings, too bright); of forest, its contrast
CANOPY, ROLLING = 0.8, 0.05
WOODED = 0.75  # contrast of relief in uneven forest over that of the base map, at most
BARE = 16
OPEN = (7, 15, BARE, CODES["HerbaceousVegetation"])


def shade(
    around: Callable[[int], Bytes],
    cover: Bytes,
    codes: Bytes,
    noise: NoiseField,
    at: tuple[int, int, int],
    with_lines: bool,
) -> Floats | None:
    """What is laid over what is drawn: relief on wild land at 150 m, on bare ground at 10 m, rows of crops at 0.6 m.

    Args:
        around: gives the base map of the window and so many pixels more on every side, see `relief`.
        cover: of the cells, see `terraloom.data.cover.cells`.
        codes: likewise, what the network is told.
        noise: of the planet.
        at: level whose pixels the cells are, x and y of the first.
        with_lines: whether the network of `RIM_LEVEL` knows lines.

    Returns:
        float32 (4, 4h, 4w): share of it in what is drawn, its contrast at least and at most, and light, of variance 1;
        None for other levels and without lines.
    """
    level, x, y = at
    if not with_lines:
        return None
    if level + 2 == FIELD_LEVEL:
        return relief(around(MARGIN), cover, noise, at)
    if level + 2 == RIM_LEVEL:
        return bare(cover, noise, at)
    return rows(codes, noise, level + 2, x, y) if level + 2 == ROW_LEVEL else None


def relief(base: Bytes, cover: Bytes, noise: NoiseField, at: tuple[int, int, int]) -> Floats:
    """What shows of a planet's relief on the pixels of zoom 10.

    Args:
        base: uint8 (3, h + 2 MARGIN, w + 2 MARGIN) base map of the window and around it.
        cover: uint8 (4h, 4w) of its cells, see `terraloom.data.cover.cells`.
        noise: of the planet.
        at: level whose pixels the cells are, 8, x and y of the first.

    Returns:
        float32 (4, 16h, 16w), see `shade`.
    """
    level, x, y = at
    image = torch.from_numpy(base)[None].float() / 127.5 - 1
    grey = image.mean(1, keepdim=True)
    uneven = blurred((grey - blurred(grey, *NEAR)) ** 2, *WIDE).sqrt()
    inner = slice(MARGIN, -MARGIN)
    uneven = F.interpolate(uneven[..., inner, inner], scale_factor=16, mode="bilinear")[0, 0]
    rough = ((uneven - FLAT) / (ROUGH - FLAT)).clamp(0, 1)
    forest = _share(cover, FOREST)
    woods = forest + _share(cover, (SAVANNA,))
    share = (
        _share(cover, OPEN)
        + woods * (CANOPY + (1 - CANOPY) * rough)
        + _share(cover, GRADED) * rough
    )
    least = torch.maximum(SHOWN * uneven, _sand(cover, noise, at))
    most = (WOODED * uneven).clamp(min=ROLLING) / forest  # infinite where there is none
    return _shade(share, torch.minimum(least, most), most, noise, at)


def bare(cover: Bytes, noise: NoiseField, at: tuple[int, int, int]) -> Floats | None:
    """Relief of bare ground alone, at any level; see `shade`. None where there is none."""
    if not (cover == BARE).any():
        return None
    share = _share(cover, (BARE,))
    most = torch.full_like(share, torch.inf)
    return _shade(share, _sand(cover, noise, at), most, noise, at)


def _shade(
    share: Tensor, least: Tensor, most: Tensor, noise: NoiseField, at: tuple[int, int, int]
) -> Floats:
    level, x, y = at
    light = np.zeros(share.shape, np.float32)
    rows, columns = (np.flatnonzero(share.numpy().any(axis)) for axis in (1, 0))
    if len(rows):
        top, left, width = int(rows[0]), int(columns[0]), int(np.ptp(columns)) + 1
        light[top : rows[-1] + 1, left : columns[-1] + 1] = in_halves(
            lambda first, count: lit(
                noise, level + 2, 4 * x + left, 4 * y + top + first, count, width
            ),
            int(np.ptp(rows)) + 1,
        )
    return np.stack([share.numpy(), least.numpy(), most.numpy(), light])


def _sand(cover: Bytes, noise: NoiseField, at: tuple[int, int, int]) -> Tensor:
    """The least contrast of bare ground, 0 elsewhere."""
    level, x, y = at
    height, width = (4 * n for n in cover.shape)
    hills = curved(noise, HILLS, level + 2, 4 * x, 4 * y, height, width).astype(np.float32)
    return SAND * torch.exp(VARIED * torch.from_numpy(hills)) * _share(cover, (BARE,))


def lit(noise: NoiseField, level: int, x: int, y: int, height: int, width: int) -> Floats:
    """How much brighter than even ground slopes are at the pixels of a window, of variance about 1, float32 (h, w)."""
    east, south = slopes(carved(noise, level, x - 1, y - 1, height + 2, width + 2))
    rows = 1 - 2 * (y + np.arange(height) + 0.5) / level_size(level)
    high = np.clip(np.degrees(np.arctan(np.sinh(np.pi * rows))) / TROPIC, -1, 1)[:, None]
    # the sun stands in the east, and towards the equator: what rises towards it lies in shadow
    light = -(east + high * south) / (STEEP * np.sqrt((1 + high**2) / 2))
    return (BRIGHTEST * np.tanh(light / BRIGHTEST)).astype(np.float32)


def _share(cover: Bytes, classes: tuple[int, ...]) -> Tensor:
    """How much of the pixels around each is of some classes, (4 h, 4 w) of cells (h, w)."""
    inside = torch.from_numpy(np.isin(cover, classes).astype(np.float32))[None, None]
    return F.interpolate(blurred(inside, *EDGE), scale_factor=4, mode="bilinear")[0, 0]
