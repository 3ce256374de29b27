"""Districts: land as surveyors divide it, by the place alone; in units of a pixel of zoom 14 (9.55 m on the equator).

Around points from noise of the planet's seed, each cut into strips, unequal in width and of a direction that in some
regions all districts share, and these across into pieces.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from terraloom.noise import NoiseField, share_below

Floats = npt.NDArray[Any]  # float32, and float64 where places are
Ints = npt.NDArray[np.int64]
Cut = tuple[Ints, Floats, Floats]  # see `District._cut`
UNITS = 14  # zoom whose pixels are units
OFF = 0.3  # of a district, how far its point lies off the middle at most; of a strip, its rim
TABLE_LEVEL, TABLE = 5, 64  # zoom and side of the noise that strips are drawn from
REGION = 2048  # units, side of what has one direction: surveyed land is alike for tens of kilometres, old land is not
TONE = 128  # units, how far away a field has its tone from at most: its neighbours are at another stage of the year
ROWS_APART, SOWN = (0.22, 0.4), 0.8  # units; share of fields that have rows
FURROWS = (0.03, 0.09)  # of -1..1, contrast of rows
MAIN = 1.2  # width of roads between districts over those within
DASH = 12  # units: rims that are no roads come and go in such pieces where a kind has `dashes`
NONE = 99.0  # units: further away than any


@dataclass(frozen=True)
class Kind:
    """How one kind of ground is divided; lengths in units."""

    zoom: int  # whose pixels hold a district each
    width: tuple[float, float]  # of strips, the least and the most of a district
    length: tuple[float, float]  # of their pieces
    shown: float  # share of rims that are lines
    roads: float  # share of strips' rims that are roads
    road: float  # half the width of a road
    main: float  # share of rims of districts that are roads
    dashes: bool = False
    lot: float = 0.0  # width of a lot with a house, 0 for none
    house: float = 0.0  # half the width of the house


class Found(NamedTuple):
    """Where n cells lie among the districts of a kind."""

    table: Floats  # uniform numbers in 0..1, a power of two of them
    points: Floats  # (2, 3, n), see `_nearest`
    cells: list[Floats]  # y (n,) and x (n,) of their middles, units

    def some(self, which: npt.NDArray[np.bool_]) -> Found:
        """The same of some of the cells."""
        return Found(self.table, self.points[..., which], [v[which] for v in self.cells])


def under(noise: NoiseField, kind: Kind, cells: list[Floats]) -> Found:
    """Find the districts under cells, y (n,) and x (n,) of their middles in units."""
    table = share_below(noise.window(TABLE_LEVEL, 0, 0, TABLE, TABLE)[0]).ravel()
    points = _nearest(noise, kind.zoom, cells) if len(cells[0]) else np.zeros((2, 3, 0))
    return Found(table, points, cells)


class District:
    """The districts of a kind under n cells; arrays (n, pixels), or (n, 1) for what a cell has once."""

    def __init__(
        self, kind: Kind, found: Found, pixels: tuple[Floats, Floats] = (np.zeros(1), np.zeros(1))
    ) -> None:
        """Place pixels in the district of each cell.

        Args:
            kind: of all cells.
            found: see `under`.
            pixels: how far from the middle of a cell each is, y and x, units; without them the middle itself.
        """
        self.kind, (table, points, cells) = kind, found
        self._table = table
        own, other = points[..., None]
        dy, dx = (
            (v[:, None] - o + p).astype(np.float32)
            for v, o, p in zip(cells, own[:2], pixels, strict=True)
        )
        self.key = (own[2] * len(table)).astype(np.int64)
        angle = np.float32(np.pi) * self._direction(own)
        cos, sin = self._turn = np.cos(angle), np.sin(angle)
        self.across, self.along = dx * cos + dy * sin, dy * cos - dx * sin
        self._place, self._gap = (dy, dx), (other - own)[:2].astype(np.float32)
        self.pair = ((own[2] + other[2]) * len(table)).astype(np.int64)

    @cached_property
    def rim(self) -> Floats:
        """Distance to the rim of the district, (n, pixels) float32 units."""
        (dy, dx), gap, wide = self._place, self._gap, np.hypot(*self._gap)
        return np.asarray(np.abs((dy * gap[0] + dx * gap[1]) / wide - wide / 2))

    def _direction(self, own: Floats) -> Floats:
        """Direction of the strips, of half a turn: a region has its own, which districts of some regions keep to."""
        row, column = np.floor(own[:2] / REGION).astype(np.int64)
        region = 67 * row + 26 * column  # even: the same a whole world further east
        apart = self.chance(region + 1) ** 2
        return np.asarray(self.chance(region) + apart * (self.chance(self.key + 11) - 0.5))

    def chance(self, number: Ints) -> Floats:
        """Uniform in 0..1, the same for the same number."""
        return np.asarray(self._table[number & len(self._table) - 1])

    def away(self) -> Floats:
        """Distance to the nearest line, (n, pixels) float32 units."""
        kind = self.kind
        streets = kind.roads == 1
        strip, near, number, own, end, number_along = self._rims()
        rim = self.key + 91 * number
        road = self.chance(rim + 29) < kind.roads
        dash = 7 * (self.along // DASH).astype(np.int64) if kind.dashes else 0
        shown = road | (self.chance(rim + dash + 17) < kind.shown)
        away = np.where(shown, np.where(road, np.abs(near - kind.road), near), NONE)
        inside = near > kind.road * road
        shown = inside & (self.chance(own + 91 * number_along + 17) < kind.shown)
        away = np.minimum(away, np.where(shown, np.abs(end - kind.road * streets), NONE))
        main = self.chance(self.pair) < kind.main
        width = MAIN * kind.road
        away = np.where(main & (self.rim < 0.9 * width), NONE, away)
        away = np.minimum(away, np.where(main, np.abs(self.rim - width), NONE))
        if kind.lot:
            away = np.minimum(away, self._houses(strip, near, number, end))
        return away.astype(np.float32)

    def to_any(self) -> Floats:
        """Distance to the nearest rim, whether it shows or not, (n, pixels) float32 units."""
        _, near, _, _, end, _ = self._rims()
        return np.asarray(np.minimum(np.minimum(near, end), self.rim))

    def inward(self, reach: float) -> Floats:
        """How far it is to where no rim is nearer than `reach`, beside roads to their side, (2, n, pixels) units.

        y and x; 0 on roads.
        """
        (strip, low, high), _, (_, first, last) = self._piece()
        near, number = _nearer(strip, low, high)
        road = self.kind.road * (self.chance(self.key + 91 * number + 29) < self.kind.roads)
        main = MAIN * self.kind.road * (self.chance(self.pair) < self.kind.main)
        across = np.sign(high - low) * np.clip(road + reach - near, 0, None)
        along = np.sign(last - first) * np.clip(reach - np.minimum(first, last), 0, None)
        (cos, sin), wide = self._turn, np.hypot(*self._gap)
        back = np.clip(main + reach - self.rim, 0, None) / wide
        way = np.stack([across * sin + along * cos, across * cos - along * sin])
        way -= np.stack([back * part for part in self._gap])
        return np.where((near > road) & (self.rim > main), way, 0).astype(np.float32)

    def places(self) -> Floats:
        """How far the middle of a field is, and where that has its tone from, y and x of each, (4, n, pixels) units."""
        (_, low, high), own, (piece, first, last) = self._piece()
        across, along, (cos, sin) = (high - low) / 2, (last - first) / 2, self._turn
        middle = np.stack([across * sin + along * cos, across * cos - along * sin])
        field = own + 91 * piece
        tone = np.stack([self.chance(field + salt) for salt in (43, 71)]) * 2 - 1
        return np.concatenate([middle, middle + TONE * tone])

    def stripes(self, down: Floats, right: Floats) -> Floats:
        """`terraloom.data.lines.rows` at offsets (4, 1) and (4,) from the middle of each cell, (4, n, 4, 4)."""
        (_, low, high), own, (piece, first, last) = self._piece()
        field = (own + 91 * piece)[..., None]
        cos, sin = (v[..., None] for v in self._turn)
        turned = self.chance(field + 13) < 0.3  # rows run along most strips
        across, along = (v[..., None] for v in (self.across, self.along))
        across, along = across + right * cos + down * sin, along + down * cos - right * sin
        at = np.where(turned, along, across)
        least, most = ROWS_APART
        apart = least * (most / least) ** self.chance(field + 19)
        wave = np.cos(2 * np.pi * at / apart)
        row = np.floor(at / apart + 0.5).astype(np.int64)
        light = np.sqrt(2) * wave * (0.5 + self.chance(field + 31 * row))
        sown = (self.chance(field + 23) < SOWN).astype(np.float32)
        inside = np.minimum(np.minimum(low, high), np.minimum(first, last))
        share = sown * np.clip(4 * inside[..., None], 0, 1)
        strong = FURROWS[0] + (FURROWS[1] - FURROWS[0]) * self.chance(field + 41)
        return np.stack(np.broadcast_arrays(share, strong / 2, strong, light)).astype(np.float32)

    def _rims(self) -> tuple[Ints, Floats, Ints, Ints, Floats, Ints]:
        """Strip, distance to its nearer rim and number of that; key of the strip, and the like two of its pieces."""
        (strip, *rims), own, (piece, *ends) = self._piece()
        near, number = _nearer(strip, *rims)
        return strip, near, number, own, *_nearer(piece, *ends)

    def _piece(self) -> tuple[Cut, Ints, Cut]:
        """The strip, its key, and the piece of it; strip and piece as `_cut` tells them."""
        strip = self._cut(self.across, self.key, self._drawn(3, self.kind.width))
        own = self.key + 53 * strip[0]
        return strip, own, self._cut(self.along, own, self._drawn(5, self.kind.length))

    def _drawn(self, salt: int, between: tuple[float, float]) -> Floats:
        """A length of each district between two, evenly in its logarithm."""
        low, high = between
        return np.asarray(low * (high / low) ** self.chance(self.key + salt), np.float32)

    def _cut(self, at: Floats, key: Ints, width: Floats) -> Cut:
        """Number of a strip, distances to its rims: to that of the strip before, and to its own."""

        def rim(k: Ints) -> Floats:
            return (k + np.float32(0.5) + OFF * (2 * self.chance(key + 37 * k) - 1)) * width

        strip = np.floor(at / width).astype(np.int64)
        strip += at >= rim(strip)
        return strip, at - rim(strip - 1), rim(strip) - at

    def _houses(self, strip: Ints, near: Floats, number: Ints, end: Floats) -> Floats:
        """Distance to the outline of a house, one a lot on both sides of a block."""
        kind = self.kind
        lot = kind.lot * (0.85 + 0.3 * self.chance(self.key + 61))
        place = np.floor(self.along / lot).astype(np.int64)
        key = self.key + 53 * strip + 7 * number + 41 * place
        wide, deep = (kind.house * (0.8 + 0.5 * self.chance(key + salt)) for salt in (1, 2))
        front = kind.road + 0.55 + 0.3 * self.chance(key + 3)
        beside = np.abs(self.along - (place + 0.5) * lot) - wide
        behind = np.abs(near - front - deep) - deep
        stands = (self.chance(key + 4) < 0.92) & (end > kind.road + 1.2 * kind.house)
        return np.where(stands, np.abs(np.maximum(beside, behind)), NONE)


def _nearer(strip: Ints, low: Floats, high: Floats) -> tuple[Floats, Ints]:
    """Distance to the nearer rim, and its number."""
    return np.minimum(low, high), np.where(low < high, strip - 1, strip)


def _nearest(noise: NoiseField, zoom: int, cells: list[Floats]) -> Floats:
    """The two districts' points that are nearest to each cell.

    Args:
        noise: of the planet.
        zoom: whose pixels hold a point each.
        cells: y (n,) and x (n,), units.

    Returns:
        float64 (2, 3, n): y and x, units, and a number of 0..1 of the district.
    """
    side = float(1 << UNITS - zoom)
    first = [int(np.floor(v.min() / side)) - 1 for v in cells]
    count = [int(np.floor(v.max() / side)) + 2 - f for v, f in zip(cells, first, strict=True)]
    window = noise.window(zoom, first[1], first[0], count[1], count[0], 3)
    drawn = share_below(window).astype(np.float64)
    drawn[:2] = np.round((0.5 + OFF * (2 * drawn[:2] - 1)) * side * 16) / 16  # exact in float32
    rows, columns = (
        np.floor(v / side).astype(np.int64) - f for v, f in zip(cells, first, strict=True)
    )
    at = rows * count[1] + columns
    # from the corner of its own pixel, so the same wherever it is counted from
    inside = [
        (v - (k + f) * side).astype(np.float32)
        for v, k, f in zip(cells, (rows, columns), first, strict=True)
    ]
    points = drawn[:2].astype(np.float32).reshape(2, -1)
    least = np.full((2, len(at)), np.inf, np.float32)
    which = np.zeros((2, len(at)), np.int64)
    for r in (-1, 0, 1):
        for c in (-1, 0, 1):
            other = at + (r * count[1] + c)
            far = (points[0, other] + np.float32(r * side) - inside[0]) ** 2
            far += (points[1, other] + np.float32(c * side) - inside[1]) ** 2
            best, second = far < least[0], far < least[1]
            least[1] = np.where(best, least[0], np.where(second, far, least[1]))
            which[1] = np.where(best, which[0], np.where(second, other, which[1]))
            least[0] = np.where(best, far, least[0])
            which[0] = np.where(best, other, which[0])
    for axis in (0, 1):
        shape = (-1, 1) if axis == 0 else (-1,)
        drawn[axis] += (np.arange(count[axis]) + first[axis]).reshape(shape) * side
    return np.asarray(drawn.reshape(3, -1)[:, which].transpose(1, 0, 2))
