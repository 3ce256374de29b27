"""Where a planet puts land uses and sites (terraloom.data.uses): in patches, from noise of its seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from terraloom.data.districts import UNITS
from terraloom.data.ground import FINEST_MASKED_LEVEL
from terraloom.data.halves import in_halves
from terraloom.data.lines import edges, fields, lines
from terraloom.data.patches import smooth
from terraloom.data.uses import CODES, COVER_OF, SHARES, SITE_SHARES, WITH_SITES, WITH_USES
from terraloom.noise import NoiseField, share_below

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
# zooms whose pixels are patches, 611 and 153 m on the equator; their noise is of the level below, read by nothing else
USE_LEVEL, SITE_LEVEL = 8, 10
# the coarsest cells that are told uses and sites: those of images of 10 and 0.6 m
USE_CELLS, SITE_CELLS = 12, 16
# the level whose pixels, 153 m, are about as large as fields, and the coarsest one whose network is told their rims
FIELD_LEVEL, RIM_LEVEL = 10, 14
ROW_LEVEL = 18  # whose pixels are as fine as rows of crops
BEND = 0.3  # of a patch, standard deviation of how far its edges are moved


def told(
    cover: Bytes,
    layers: Floats,
    noise: NoiseField,
    at: tuple[int, int, int],
    codes: int,
    with_lines: bool,
) -> tuple[Bytes, Floats]:
    """What a network is told of cells: `laid_out`, and layers with the planet's lines after them if it knows such.

    No map layers on fine levels: maps of 1 : 10 million know nothing there, nor did training.

    Args:
        cover: uint8 (h, w) IGBP class of the cells.
        layers: float32 (6, h, w), see `terraloom.data.ground.LAYERS`.
        noise: of the planet.
        at: level whose pixels the cells are, x and y of the first.
        codes: that the network knows.
        with_lines: whether it knows lines (terraloom.data.lines).

    Returns:
        uint8 (h, w), and float32 (6, h, w) or (22, h, w).
    """
    level, x, y = at
    codes_here = laid_out(cover, noise, level, x, y, codes)
    if level + 2 > FINEST_MASKED_LEVEL:
        layers = np.zeros_like(layers)
    if not with_lines:
        return codes_here, layers
    laid = _by_halves(lines, codes_here, noise, level + 2, x, y)
    return codes_here, np.concatenate([layers, laid])


def toned(
    cover: Bytes, noise: NoiseField, at: tuple[int, int, int], with_lines: bool
) -> Floats | None:
    """Where a planet's fields have their tones from: at 150 m all of a field from one place, at 0.6 m from inside it.

    The network that draws 150 m does not see fields, whose rims are laid out for finer levels, and paints across them.
    So each field takes one tone of what was drawn near it. Pixels of 10 m at a rim mix two fields, and the network that
    draws 0.6 m leaves them mixed. So what is near a rim takes its colour from further inside (terraloom.models.fields).

    Args:
        cover: uint8 (h, w) IGBP class of the cells, 4 x 4 pixels each.
        noise: of the planet.
        at: level whose pixels the cells are, x and y of the first.
        with_lines: whether the network of `RIM_LEVEL` knows lines.

    Returns:
        float32 in pixels, (4, 8h, 8w) of quarters of 150 m, see `terraloom.data.lines.fields`, or (4, 4h, 4w) at 0.6 m,
        see `terraloom.data.lines.edges`; None for other levels, where there are none, and without lines.
    """
    level, x, y = at
    if not with_lines or level + 2 not in (FIELD_LEVEL, ROW_LEVEL):
        return None
    if level + 2 == ROW_LEVEL:
        codes = _chosen(cover, SHARES, noise, USE_LEVEL, (level, y, x))
        inward = _by_halves(edges, codes, noise, ROW_LEVEL, x, y)
        away = np.concatenate([inward, np.zeros_like(inward)]) * np.float32(1 << ROW_LEVEL - UNITS)
        return np.asarray(np.round(away)) if inward.any() else None
    each = 2 << FIELD_LEVEL - level  # quarters along a cell
    quarters = FIELD_LEVEL + 1, each * y, each * x
    codes = _chosen(cover.repeat(each, 0).repeat(each, 1), SHARES, noise, USE_LEVEL, quarters)
    away = _by_halves(fields, codes, noise, FIELD_LEVEL + 1, each * x, each * y)
    # in sixteenths, so that sums are exact and a place is the same pixel for all blocks
    return np.asarray(np.round(away) / np.float32(1 << UNITS - FIELD_LEVEL))


def _by_halves(
    make: Callable[[Bytes, NoiseField, int, int, int], Floats],
    codes: Bytes,
    noise: NoiseField,
    level: int,
    x: int,
    y: int,
) -> Floats:
    """What one of `terraloom.data.lines` makes of codes."""
    made: Floats = in_halves(
        lambda first, count: make(codes[first : first + count], noise, level, x, y + first),
        len(codes),
    )
    return made


def laid_out(cover: Bytes, noise: NoiseField, level: int, x: int, y: int, codes: int) -> Bytes:
    """What a network is told of every cell of a planet: the use, or the site, as far as it knows such codes.

    Args:
        cover: uint8 (h, w) IGBP class of the cells, 18 unknown, or a use.
        noise: of the planet.
        level: whose pixels the cells are. At 150 m a cell is no land use, at 10 m no site: coarser cells are told none.
        x: of the first cell, any integer.
        y: likewise; rows off the map have a use too (a halo reaches there).
        codes: that the network knows: those of land cover alone, `WITH_USES` or `WITH_SITES`.

    Returns:
        uint8 (h, w) codes; land cover without uses stays as it is, with sites also uses without them.
    """
    if codes < WITH_USES or level < USE_CELLS:
        return COVER_OF[cover]
    out = _chosen(cover, SHARES, noise, USE_LEVEL, (level, y, x))
    if codes < WITH_SITES or level < SITE_CELLS:
        return out
    named = {CODES[use]: share for use, share in SITE_SHARES.items()}
    out = _chosen(out, named, noise, SITE_LEVEL, (level, y, x))
    return np.where(out < WITH_USES, COVER_OF[out], out)


def _chosen(
    codes: Bytes,
    shares: dict[int, dict[str, float]],
    noise: NoiseField,
    patches: int,
    at: tuple[int, int, int],
) -> Bytes:
    """Codes that have shares replaced by one of these for each patch."""
    having = sorted(set(np.unique(codes).tolist()) & set(shares))
    if not having:
        return codes
    chance = _chances(noise, patches, at, codes.shape)
    out = codes.copy()
    for code in having:
        here = codes == code
        names, parts = zip(*shares[code].items(), strict=True)
        ends = np.cumsum(parts)[:-1]  # but the last
        out[here] = np.array([CODES[name] for name in names], np.uint8)[
            np.searchsorted(ends, chance[here])
        ]
    return out


def _chances(
    noise: NoiseField, patches: int, at: tuple[int, int, int], shape: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """Uniform in 0..1, one number a patch, float32 (h, w): patches are squares with their edges bent."""
    level, *corner = at
    per = 1 << level - patches  # cells along a patch
    bend = BEND * per * smooth(noise, patches + 1, at, shape)
    spots = [start + np.arange(count) + 0.5 for start, count in zip(corner, shape, strict=True)]
    rows = np.floor((spots[0][:, None] + bend[0]) / per).astype(int)
    columns = np.floor((spots[1] + bend[1]) / per).astype(int)
    top, left = int(rows.min()), int(columns.min())
    height, width = int(rows.max()) - top + 1, int(columns.max()) - left + 1
    drawn = noise.window(patches + 1, 2 * left, 2 * top, 2 * width, 2 * height)[0, ::2, ::2]
    return share_below(drawn[rows - top, columns - left])
