"""Pyramid: any window of any level, from blocks on one fixed lattice, each drawn once and in one shape.

    level 6             the base map
    levels 8, 10 .. 18  drawn by the network from the level two above (a block and its halo at once), or four above in a
                        leap, which leaves out the level between
    all other levels    2 x 2 box means of the next finer level

Levels up to 6 and the drawn ones are cached as blocks. A parent is uint8 before its children read it, so a
difference of 1e-6 between two machines does not grow down the pyramid. x wraps; above and below the map, where only
halos reach, its first and last row go on for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from terraloom.data.cover import cells
from terraloom.data.ground import Ground
from terraloom.data.layout import RIM_LEVEL, told, toned
from terraloom.data.relief import shade
from terraloom.data.waters import water
from terraloom.grid import BASE_LEVEL, Window, gsd_at, level_size
from terraloom.noise import NoiseField
from terraloom.world.basemap import BaseMap
from terraloom.world.cache import BlockCache, Key
from terraloom.world.engine import Engine, Given

GDAL_CACHE = 64_000_000  # bytes (rasterio takes no megabytes) of decoded maps; GDAL would take a twentieth of all
SCALE, STEP = 4, 2  # a drawn level is four times finer than its cells, two levels up

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class Pyramid:
    """Pixels of one world, level by level; thread-safe (blocks are drawn one at a time)."""

    def __init__(
        self,
        base: BaseMap,
        ground: Ground,
        noise: NoiseField,
        start: Callable[[int], Engine],
        base_cache: BlockCache,
        cache: BlockCache,
        side: Callable[[int], int],
        halo: int,
        parent: Callable[[int], int | None],
        knows: Callable[[int], tuple[int, bool]],
        lock: threading.RLock,
    ) -> None:
        """Take the parts; `start` gives the engine of a level, when it is drawn for the first time.

        `side` gives the side of a level's blocks, `halo` is drawn around them, in pixels; `parent` gives the level that
        a level is drawn from, None where it is not drawn; `knows` what a level's network can be told, see
        `Checkpoint.knows`.

        Levels up to that of the base map are kept in `base_cache`: they are the same for all seeds. Pyramids that
        share an engine or maps share the lock.
        """
        self._base, self._ground, self._noise = base, ground, noise
        self._base_cache, self._cache, self._knows = base_cache, cache, knows
        self._start, self._side, self._halo, self._parent = start, side, halo, parent
        self._engines: dict[int, Engine] = {}
        self._lock = lock
        self.drawn = 0  # blocks that the network has drawn, for those who watch

    def region(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Any rectangle of a level, uint8 (3, height, width); x wraps, rows off the map repeat its edge."""
        size = level_size(level)
        top, bottom = min(max(y, 0), size - 1), max(min(y + height, size), 1)
        if self._is_blocked(level):
            rows = self._assemble(level, x, top, width, bottom - top)
        else:
            rows = reduce2(self.region(level + 1, 2 * x, 2 * top, 2 * width, 2 * (bottom - top)))
        if bottom - top == height:
            return rows
        above = min(max(-y, 0), height - 1)
        return np.pad(rows, ((0, 0), (above, height - above - (bottom - top)), (0, 0)), mode="edge")

    def blocks(self, level: int, x: int, y: int, width: int, height: int) -> list[Key]:
        """The blocks that a rectangle is cut from; its rows must lie on the map."""
        if not self._is_blocked(level):
            return self.blocks(level + 1, 2 * x, 2 * y, 2 * width, 2 * height)
        size = level_size(level)
        side = self.side(level)
        columns = range(x // side, -(-(x + width) // side))
        return sorted(
            {
                (level, column % (size // side), row)
                for row in range(y // side, -(-(y + height) // side))
                for column in columns
            }
        )

    def side(self, level: int) -> int:
        """Pixels, side of a level's blocks."""
        return min(self._side(level), level_size(level))

    def is_kept(self, key: Key) -> bool:
        """Whether a block is in the cache."""
        return self._kept_in(key[0]).has(key)

    def prepare(self, key: Key) -> None:
        """Make one block, if it is not in the cache."""
        self._block(*key)

    def _is_blocked(self, level: int) -> bool:
        return level <= BASE_LEVEL or self._parent(level) is not None

    def _kept_in(self, level: int) -> BlockCache:
        return self._base_cache if level <= BASE_LEVEL else self._cache

    def _assemble(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """A rectangle cut from blocks; rows lie on the map."""
        side = self.side(level)
        out = np.empty((3, height, width), np.uint8)
        for row in range(y // side, -(-(y + height) // side)):
            for column in range(x // side, -(-(x + width) // side)):
                left, top = max(x, column * side), max(y, row * side)
                right, bottom = (
                    min(x + width, (column + 1) * side),
                    min(y + height, (row + 1) * side),
                )
                block = self._block(level, column, row)
                out[:, top - y : bottom - y, left - x : right - x] = block[
                    :,
                    top - row * side : bottom - row * side,
                    left - column * side : right - column * side,
                ]
        return out

    def _block(self, level: int, column: int, row: int) -> Pixels:
        """One block of the lattice, from the cache or made now."""
        size = level_size(level)
        side = self.side(level)
        key = (level, column % (size // side), row)
        cache = self._kept_in(level)
        block = cache.get(key)
        if block is not None:
            return block
        with self._lock:  # another thread may have made it meanwhile
            block = cache.get(key)
            if block is None:
                with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
                    block = self._make(level, key[1] * side, row * side, side)
                cache.put(key, block)
        return block

    def _make(self, level: int, x: int, y: int, side: int) -> Pixels:
        if level == BASE_LEVEL:
            return self._base.with_shores(self._ground, x, y, side, side)
        if level == BASE_LEVEL - 1:  # past the cache, which the whole base map would fill
            return reduce2(self._base.read(2 * x, 2 * y, 2 * side, 2 * side))
        if level < BASE_LEVEL:
            return reduce2(self.region(level + 1, 2 * x, 2 * y, 2 * side, 2 * side))
        return self._draw(level, x, y)

    def _draw(self, level: int, x: int, y: int) -> Pixels:
        """The network's work on one block: everything within the halo goes in, the core comes out."""
        if level not in self._engines:
            self._engines[level] = self._start(level)
        side, halo = self._side(level), self._halo
        x, y, side = x - halo, y - halo, side + 2 * halo
        left, top, count = x // SCALE, y // SCALE, side // SCALE
        parent = self._parent(level)
        assert parent is not None
        lr = self.region(parent, *(v >> level - parent for v in (x, y, side, side)))
        rows = _clamped(level - STEP, top, count)
        window = Window(level - STEP, left, int(rows[0]), count, int(rows[-1] - rows[0]) + 1)
        cover, layers = cells(self._ground, window, not self._base.is_own)
        cover, layers = cover[rows - window.y], layers[:, rows - window.y]

        def around(margin: int) -> Pixels:
            left, top = ((v >> level - parent) - margin for v in (x, y))
            size = lr.shape[-1] + 2 * margin
            return self.region(parent, left, top, size, size)

        gsd = gsd_at(window.lat[rows - window.y], level)
        wet = None if self._base.is_own else water(self._ground, level, x, y, (side, side))
        self.drawn += 1
        return self._engines[level](
            given(self._noise, self._knows, level, x, y, lr, cover, layers, gsd, around, wet)
        )


def given(
    noise: NoiseField,
    knows: Callable[[int], tuple[int, bool]],
    level: int,
    x: int,
    y: int,
    lr: Pixels,
    cover: Pixels,
    layers: Floats,
    gsd: npt.NDArray[Any],
    around: Callable[[int], Pixels],
    wet: Floats | None,
) -> Given:
    """What a planet gives to an engine for a window.

    Args:
        noise: of the planet.
        knows: what a level's network can be told, see `Checkpoint.knows`.
        level: that is drawn.
        x: of the window's first pixel, a multiple of `SCALE`.
        y: likewise.
        lr: uint8 (3, ...), the parent.
        cover: (h, w) of the cells, see `terraloom.data.cover.cells`.
        layers: likewise.
        gsd: (h,) metres per pixel of the level.
        around: see `terraloom.data.relief.shade`.
        wet: (4h, 4w), see `terraloom.data.waters.water`; None without shores.
    """
    at = level - STEP, x // SCALE, y // SCALE
    height, width = (SCALE * n for n in cover.shape)
    codes, layers = told(cover, layers, noise, at, *knows(level))
    _, with_lines = knows(RIM_LEVEL)
    return Given(
        lr.astype(np.float32) / 127.5 - 1,
        codes,
        layers,
        gsd.astype(np.float32),
        noise.window(level, x, y, width, height, channels=3),
        toned(cover, noise, at, with_lines),
        shade(around, cover, codes, noise, at, with_lines),
        wet if wet is not None and wet.any() else None,
    )


def reduce2(pixels: Pixels) -> Pixels:
    """Means of 2 x 2 pixels, (3, 2h, 2w) -> (3, h, w) uint8; halves go to the even side, so that no level brightens."""
    rows = pixels[:, ::2].astype(np.uint16) + pixels[:, 1::2]
    total = rows[..., ::2] + rows[..., 1::2]
    means: Pixels = ((total + 1 + (total >> 2 & 1)) >> 2).astype(np.uint8)
    return means


def _clamped(level: int, top: int, count: int) -> npt.NDArray[np.int64]:
    """Row numbers, those off the map replaced by its first or last row."""
    return np.clip(np.arange(top, top + count), 0, level_size(level) - 1)
