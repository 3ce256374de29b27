"""World: a whole synthetic planet as a pure function of its spec and of position."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window as RasterWindow

from terraloom import weights
from terraloom.data.ground import Ground
from terraloom.errors import InvalidInput
from terraloom.grid import BASE_LEVEL, FINEST_LEVEL, TILE, Window, level_size
from terraloom.io.cog import block_windows, stream_cog
from terraloom.io.provenance import synthetic_tags
from terraloom.noise import NoiseField
from terraloom.weights import Checkpoint
from terraloom.world import engine as engines
from terraloom.world.basemap import BaseMap
from terraloom.world.blocks import Pyramid
from terraloom.world.cache import BlockCache, Key, cache_folder
from terraloom.world.canvas import Canvas, canvas
from terraloom.world.spec import WorldSpec

Pixels = npt.NDArray[np.uint8]
Progress = Callable[[int, int], object]  # (parts done, parts in all)

PART = 1024  # pixels, side of the parts that a canvas is drawn in
MAX_READ = 16384  # pixels, longest side of an array
MAX_EXPORT = 1 << 20  # pixels, longest side of a file
BLOCKS = (64, 4096)  # pixels, smallest and largest block; powers of two tile every level
CREDITS = (
    "Synthetic image made by Terraloom. Maps: NASA Earth Observatory (Blue Marble Next Generation), NASA LP DAAC "
    "(MCD12C1), Natural Earth. Weights (CC BY-SA 4.0) trained on these, Landsat and National Map imagery of the U.S. "
    "Geological Survey, USDA NAIP, modified Copernicus Sentinel data, imagery (c) Planet Labs (Planet Open California, "
    "CC BY-SA 4.0), Orthofoto Kanton Zuerich (Amt fuer Raumentwicklung)."
)


@dataclass(frozen=True)
class Raster:
    """Pixels with their place."""

    data: Pixels  # uint8 (3, height, width)
    transform: Affine  # pixel to `crs`
    crs: CRS


class World:
    """A synthetic planet: the same arguments give the same pixels, wherever and in whatever order."""

    def __init__(
        self,
        seed: int = 0,
        *,
        model: str | Path = "cascade",
        base: str | Path | None = None,
        cover: str | Path | None = None,
        cache: str | Path | bool | None = None,
        engine: str = "auto",
        block: int = 1024,
        halo: int | None = None,
    ) -> None:
        """Open a world; nothing is drawn yet.

        Args:
            seed: 0 to 2**63 - 1, which of the possible planets.
            model: name of shipped weights, or a checkpoint folder.
            base: a GeoTIFF in any CRS that replaces the shipped base map where it has data.
            cover: a GeoTIFF of IGBP land cover classes that replaces the shipped one where it has data.
            cache: folder for drawn blocks; None is TERRALOOM_CACHE or the user's cache folder, False memory only.
            engine: auto, cuda, openvino or torch.
            block: pixels, side of the blocks drawn at once: a power of two from 64 to 4096.
            halo: pixels drawn around each block, see `terraloom.world.engine.geometry`.

        Raises:
            InvalidInput: a value outside its range, or a file that cannot be used.
            BadCheckpoint: no such weights.
        """
        checkpoint = weights.find(model)
        noise = NoiseField(seed)
        geometry = engines.geometry(checkpoint)
        halo = geometry.usual if halo is None else halo
        _check_block(block, halo, geometry)
        ground = Ground.open(None if cover is None else Path(cover))
        base_map = BaseMap(base)
        name, precision = engines.choose(engine, checkpoint)
        self.spec = WorldSpec(
            seed, base_map.digest, ground.digest, checkpoint.digest, block, halo, name, precision
        )
        self._maps, self._folder = (base_map, ground), cache_folder(cache)
        self._base_blocks = BlockCache(self._folder, f"base-{base_map.digest}-{block}")
        self._lock = threading.RLock()
        self._side = once(partial(engines.side_at, checkpoint, block=block))
        self._levels = checkpoint.parent, checkpoint.knows
        self._start = _starter(name, precision, checkpoint, self._side, halo)
        self._pyramid = self._open(noise)

    def another(self, seed: int) -> World:
        """The planet of another seed, which shares this one's maps, weights and engine: it costs its blocks alone.

        Raises:
            InvalidInput: a seed outside 0 to 2**63 - 1.
        """
        sibling = copy(self)
        noise = NoiseField(seed)
        sibling.spec = replace(self.spec, seed=seed)
        sibling._pyramid = sibling._open(noise)
        return sibling

    def _open(self, noise: NoiseField) -> Pyramid:
        seed = self.spec.seed
        caches = self._base_blocks, BlockCache(self._folder, self.id)
        return Pyramid(
            *self._maps,
            noise,
            lambda level: self._start(seed, level),
            *caches,
            self._side,
            self.spec.halo,
            *self._levels,
            self._lock,
        )

    def __repr__(self) -> str:
        return f"World({', '.join(f'{key}={value!r}' for key, value in asdict(self.spec).items())})"

    @property
    def id(self) -> str:
        """12 hex digits that change with anything that changes pixels."""
        return self.spec.id

    @property
    def tags(self) -> dict[str, str]:
        """Provenance that every image file carries."""
        return {
            **synthetic_tags(CREDITS),
            "TERRALOOM_WORLD_ID": self.id,
            "TERRALOOM_SEED": str(self.spec.seed),
            "TERRALOOM_MODEL": self.spec.model,
            "TERRALOOM_ENGINE": f"{self.spec.engine} {self.spec.precision}",
        }

    def level(self, z: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Pixels of a level, uint8 (3, height, width).

        Args:
            z: level 0..18.
            x: global pixel, any integer (wraps at the antimeridian).
            y: global pixel; the rows must lie on the map.
            width: pixels, at most 16384.
            height: pixels, at most 16384.

        Raises:
            InvalidInput: an unknown level, rows off the map, an empty or too large window.
        """
        window = Window(z, x, y, width, height)
        _check_size(width, height, MAX_READ, "read it in parts")
        return self._pyramid.region(window.level, x, y, width, height)

    def blocks(self, z: int, x: int, y: int, width: int, height: int) -> list[Key]:
        """The blocks that `level` cuts this window from.

        Raises:
            InvalidInput: as for `level`.
        """
        window = Window(z, x, y, width, height)
        _check_size(width, height, MAX_READ, "ask for it in parts")
        return self._pyramid.blocks(window.level, x, y, width, height)

    def side(self, z: int) -> int:
        """Pixels, side of a level's blocks."""
        return self._pyramid.side(z)

    def lacking(self, z: int, x: int, y: int, width: int, height: int) -> list[Key]:
        """Those of `blocks` that have to be made first, each good for one `prepare`."""
        return [
            key for key in self.blocks(z, x, y, width, height) if not self._pyramid.is_kept(key)
        ]

    def prepare(self, block: Key) -> None:
        """Make one block and keep it, unless it is kept already."""
        self._pyramid.prepare(block)

    @property
    def drawn(self) -> int:
        """How many blocks the network has drawn for this object."""
        return self._pyramid.drawn

    def tile(self, z: int, x: int, y: int) -> Pixels:
        """One XYZ tile, uint8 (3, 256, 256); x wraps.

        Raises:
            InvalidInput: an unknown zoom or row.
        """
        rows = level_size(z) // TILE
        if not 0 <= y < rows:
            raise InvalidInput(f"tile row {y} does not exist at zoom {z}; rows are 0 to {rows - 1}")
        return self.level(z, TILE * x, TILE * y, TILE, TILE)

    def read(self, bbox: Sequence[float], gsd: float, crs: Any = None) -> Raster:
        """Pixels of a place, at most 16384 x 16384; see `export` for more.

        Args:
            bbox: west, south, east, north in degrees; west > east crosses the antimeridian.
            gsd: metres per pixel; see `terraloom.world.canvas.canvas` for where exactly it holds.
            crs: anything rasterio understands; Web Mercator by default.

        Raises:
            InvalidInput: a bad bbox, gsd or CRS, or a canvas that is too large.
        """
        grid = canvas(self._pyramid, bbox, gsd, crs)
        _check_size(
            grid.width, grid.height, MAX_READ, "use export, a coarser gsd or a smaller bbox"
        )
        data = np.empty((3, grid.height, grid.width), np.uint8)
        for window, pixels in _parts(grid):
            column, row, width, height = window.flatten()
            data[:, row : row + height, column : column + width] = pixels
        return Raster(data, grid.transform, grid.crs)

    def export(
        self,
        bbox: Sequence[float],
        gsd: float,
        path: str | Path,
        crs: Any = None,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Write a place of any size as a Cloud-Optimized GeoTIFF, in memory that does not grow with it.

        Args:
            bbox: as for `read`.
            gsd: as for `read`.
            path: file to make; it appears whole or not at all.
            crs: as for `read`.
            overwrite: replace an existing file.
            progress: called with (parts done, parts in all).

        Raises:
            InvalidInput: as for `read` (at most 1048576 x 1048576), or a path that cannot be written.
            TerraloomError: writing failed, for instance because the disk is full.
        """
        grid = canvas(self._pyramid, bbox, gsd, crs)
        _check_size(grid.width, grid.height, MAX_EXPORT, "use a coarser gsd or a smaller bbox")
        return stream_cog(
            path,
            _parts(grid, progress),
            width=grid.width,
            height=grid.height,
            bands=("red", "green", "blue"),
            transform=grid.transform,
            crs=grid.crs,
            tags={**self.tags, "TERRALOOM_GSD": f"{gsd:g}"},
            overwrite=overwrite,
        )


def _starter(
    name: str, precision: str, checkpoint: Checkpoint, side: Callable[[int], int], halo: int
) -> Callable[[int, int], engines.Engine]:
    """What makes the engine of a seed and level.

    One network's is one for all its levels, and for all seeds, except that MetaEarth's windows have the seed inside.
    """

    def start(seed: int, level: int) -> engines.Engine:
        part = checkpoint.at(level)
        return engines.start(name, precision, part, side(level) + 2 * halo, halo, seed)

    if checkpoint.kind != "cascade":
        shared = once(lambda seed: start(seed, FINEST_LEVEL))
        return lambda seed, level: shared(seed)
    first = {checkpoint.at(level).path: level for level in range(FINEST_LEVEL, BASE_LEVEL, -2)}
    networks = once(lambda level: start(0, level))
    return lambda seed, level: networks(first[checkpoint.at(level).path])


def _parts(grid: Canvas, progress: Progress | None = None) -> Iterator[tuple[RasterWindow, Pixels]]:
    """A canvas part by part, row by row: what lies above a row of parts is still in the cache for the next."""
    total = -(-grid.width // PART) * -(-grid.height // PART)
    for done, window in enumerate(block_windows(grid.width, grid.height, PART), start=1):
        yield window, grid.draw(*(int(number) for number in window.flatten()))
        if progress is not None:
            progress(done, total)


def _check_size(width: int, height: int, limit: int, advice: str) -> None:
    if max(width, height) > limit:
        raise InvalidInput(
            f"a canvas of {width} x {height} pixels is too large: at most {limit} a side; {advice}"
        )


def _check_block(block: int, halo: int, geometry: engines.Geometry) -> None:
    exact, period = geometry.exact, geometry.period
    smallest, largest = max(BLOCKS[0], period), BLOCKS[1]
    if not smallest <= block <= largest or block & (block - 1) or block % period:
        raise InvalidInput(f"block {block} is not a power of two from {smallest} to {largest}")
    if not 0 <= halo <= exact or (exact - halo) % period:
        raise InvalidInput(
            f"halo {halo} is not allowed: give {exact} less a multiple of {period}, at least 0"
        )
