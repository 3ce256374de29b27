"""Lines that a planet lays out before its network draws: rims of fields, roads, streets and houses.

What a road is, is decided over hundreds of pixels, and a small network decides over dozens. So it is told where
straight lines run: in training those of the real image (`terraloom.training.lines`), on a planet those of its
districts (`terraloom.data.districts`). They depend on the place alone, so the streets of zoom 18 are those of zoom 14.
What has rims has more: a tone at 150 m, and rows of crops at 0.6 m.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from terraloom.data.districts import MAIN, UNITS, District, Found, Kind, under
from terraloom.data.uses import CODES
from terraloom.noise import NoiseField

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[Any]  # float32, and float64 where places are
Ints = npt.NDArray[np.int64]
PIXELS = 4  # along a cell
HALF = 1.2  # pixels, half the width of a line

# Shares of pixels under lines are about those that a detector finds in real images of a use or site: 0.06 of crops,
# 0.02 of pastures and homes, 0.04 of industry at 10 m, 0.07 to 0.09 of homes at 0.6 m.
FIELDS = Kind(6, (22, 64), (24, 110), 0.7, 0.12, 0.9, main=0.6)
ORCHARDS = Kind(6, (10, 22), (12, 40), 0.3, 0.08, 0.9, main=0.6, dashes=True)
MEADOWS = Kind(6, (24, 70), (30, 100), 0.25, 0.05, 0.9, main=0.4)
HIGHWAYS = Kind(6, (24, 50), (24, 60), 0.3, 0.5, 1.1, main=0.9)
TOWN = Kind(7, (5, 9), (6, 14), 0.06, 0.04, 0.9, main=0.3, dashes=True)
QUARTERS = Kind(7, (20, 40), (24, 80), 0.0, 0.1, 1.0, main=0.3)  # of one age, so of one tone
SHEDS = Kind(7, (7, 13), (9, 20), 0.25, 0.08, 0.9, main=0.4, dashes=True)
# of sites all rims of blocks are streets
STREETS = Kind(7, (7, 10), (11, 26), 1.0, 1.0, 0.4, 0.9)
ROWS = Kind(7, (7, 10), (11, 26), 1.0, 1.0, 0.4, 0.9, lot=1.7, house=0.55)
DENSE = Kind(7, (7, 10), (11, 26), 1.0, 1.0, 0.4, 0.9, lot=1.25, house=0.48)
SPARSE = Kind(7, (7, 10), (11, 26), 1.0, 1.0, 0.4, 0.9, lot=3.0, house=0.7)
BLOCKS = Kind(7, (7, 10), (11, 26), 1.0, 1.0, 0.4, 0.9, lot=3.4, house=1.2)
KINDS = {
    FIELDS: ("AnnualCrop", "agricultural"),
    ORCHARDS: ("PermanentCrop",),
    MEADOWS: ("Pasture",),
    HIGHWAYS: ("Highway",),
    TOWN: ("Residential",),
    SHEDS: ("Industrial",),
    QUARTERS: ("Residential", "Industrial"),
    STREETS: ("intersection", "parkinglot", "freeway", "overpass", "tenniscourt", "baseballdiamond", "storagetanks"),
    ROWS: ("mediumresidential",),
    DENSE: ("denseresidential", "mobilehomepark"),
    SPARSE: ("sparseresidential",),
    BLOCKS: ("buildings",),
}  # fmt: skip
EDGED = (FIELDS, ORCHARDS, MEADOWS, HIGHWAYS)  # whose rims part colours
MIXED = 1.3  # units, how far from a rim a pixel of `UNITS` has some of the other side's colour
TONED = (FIELDS, ORCHARDS, MEADOWS, HIGHWAYS, QUARTERS)  # whose pieces have a tone each


def lines(codes: Bytes, noise: NoiseField, level: int, x: int, y: int) -> npt.NDArray[np.float32]:
    """How far lines cover the 4 x 4 pixels of every cell of a window.

    Args:
        codes: uint8 (h, w) use or site of the cells, see `terraloom.data.layout.laid_out`; others have no lines.
        noise: of the planet.
        level: of the pixels, finer than `UNITS` or equal.
        x: of the first cell, any integer.
        y: likewise.

    Returns:
        float32 (16, h, w) of 0..1, pixels of a cell row by row.
    """
    out = np.zeros((codes.size, PIXELS * PIXELS), np.float32)
    unit, off = _offsets(level)
    for kind in KINDS:
        at, found = _under(kind, codes, noise, PIXELS * unit, x, y)
        if not kind.lot:
            at, found = _by_rims(kind, at, found, HALF * unit, off)
        if len(at):
            away = District(kind, found, _pixels(off)).away() / np.float32(unit)
            out[at] = np.maximum(out[at], np.clip(HALF - away, 0, 1))
    return np.ascontiguousarray(out.T).reshape(PIXELS * PIXELS, *codes.shape)


def fields(codes: Bytes, noise: NoiseField, level: int, x: int, y: int) -> Floats:
    """How far from each pixel of a window the middle of its field is, and the place that this has its tone from.

    Args:
        codes: uint8 (h, w) use of the pixels, see `terraloom.data.layout.laid_out`.
        noise: of the planet.
        level: of the pixels.
        x: of the first pixel, any integer.
        y: likewise.

    Returns:
        float32 (4, h, w), y and x of either in `UNITS`; 0 where there are no fields.
    """
    out = np.zeros((4, codes.size), np.float32)
    for kind in TONED:
        at, found = _under(kind, codes, noise, 2.0 ** (UNITS - level), x, y)
        if len(at):
            out[:, at] = District(kind, found).places()[..., 0]
    return out.reshape(4, *codes.shape)


def edges(codes: Bytes, noise: NoiseField, level: int, x: int, y: int) -> Floats:
    """How far inside its field each pixel of a window's cells has a colour that no neighbour is mixed with.

    Args:
        codes: uint8 (h, w) use of the cells, see `terraloom.data.layout.laid_out`.
        noise: of the planet.
        level: of the pixels, finer than `UNITS`, whose pixels mix fields.
        x: of the first cell, any integer.
        y: likewise.

    Returns:
        float32 (2, 4h, 4w), y and x in `UNITS`; 0 away from rims and on roads.
    """
    h, w = codes.shape
    out = np.zeros((2, h * w, PIXELS * PIXELS), np.float32)
    unit, off = _offsets(level)
    for kind in EDGED:
        at, found = _under(kind, codes, noise, PIXELS * unit, x, y)
        at, found = _by_rims(kind, at, found, MIXED, off)
        if len(at):
            out[:, at] = District(kind, found, _pixels(off)).inward(MIXED)
    return _as_pixels(out, h, w)


def rows(codes: Bytes, noise: NoiseField, level: int, x: int, y: int) -> Floats:
    """Rows of crops on the pixels of a window's cells, as bright and dark stripes.

    Args:
        codes: uint8 (h, w) use or site of the cells, see `terraloom.data.layout.laid_out`; others have no rows.
        noise: of the planet.
        level: of the pixels, fine enough for rows of `ROWS_APART`.
        x: of the first cell, any integer.
        y: likewise.

    Returns:
        float32 (4, 4h, 4w): share of stripes in what is drawn, their contrast at least and at most, and light, of
        variance 1.
    """
    h, w = codes.shape
    out = np.zeros((4, h * w, PIXELS * PIXELS), np.float32)
    unit, off = _offsets(level)
    at, found = _under(FIELDS, codes, noise, PIXELS * unit, x, y)
    if len(at):
        off = off.astype(np.float32)
        stripes = District(FIELDS, found).stripes(off[:, None], off)
        out[:, at] = stripes.reshape(4, -1, PIXELS * PIXELS)
    return _as_pixels(out, h, w)


def _offsets(level: int) -> tuple[float, Floats]:
    """Side of a level's pixels, and how far those of a cell are from its middle, units."""
    unit = 2.0 ** (UNITS - level)
    return unit, (np.arange(PIXELS) + 0.5 - PIXELS / 2) * unit


def _pixels(off: Floats) -> tuple[Floats, Floats]:
    """How far each pixel of a cell is from its middle, y and x, (16,) units."""
    return np.repeat(off, PIXELS), np.tile(off, PIXELS)


def _by_rims(kind: Kind, at: Ints, found: Found, reach: float, off: Floats) -> tuple[Ints, Found]:
    """Those of the cells that have a pixel within `reach` of a rim or its road."""
    if not len(at):
        return at, found
    far = reach + MAIN * kind.road + np.hypot(off[0], off[0])
    near = District(kind, found).to_any()[:, 0] < far
    return at[near], found.some(near)


def _as_pixels(cells: Floats, h: int, w: int) -> Floats:
    """Values of 4 x 4 pixels of h x w cells, (k, h w, 16), as an image, (k, 4h, 4w)."""
    parts = cells.reshape(-1, h, w, PIXELS, PIXELS).transpose(0, 1, 3, 2, 4)
    return np.ascontiguousarray(parts).reshape(-1, PIXELS * h, PIXELS * w)


def _under(
    kind: Kind, codes: Bytes, noise: NoiseField, side: float, x: int, y: int
) -> tuple[Ints, Found]:
    """Which cells of a window, `side` units wide, are of a kind, (n,), and where they lie among its districts."""
    rows, columns = np.nonzero(np.isin(codes, [CODES[name] for name in KINDS[kind]]))
    cells = [(start + at + 0.5) * side for start, at in ((y, rows), (x, columns))]
    return rows * codes.shape[1] + columns, under(noise, kind, cells)
