"""Cache of drawn blocks: the most recent in memory, more of them as files, both of limited size.

Any number of processes may share a folder: files appear by rename, carry a checksum, and one that is damaged counts
as missing. Blocks are stored as they are: writing takes 2 ms and reading less than 1 ms per megapixel, where PNG
takes 130 and 40 for three fifths of the room.
"""

from __future__ import annotations

import os
import struct
import threading
import time
import warnings
import zlib
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
from platformdirs import user_cache_path

Pixels = npt.NDArray[np.uint8]
Key = tuple[int, int, int]  # level, column, row

MEMORY_BYTES = 128 << 20
DISK_BYTES = 4 << 30  # of all worlds in the folder together
MAGIC = b"TLB1"
HEADER = struct.Struct("<4sI3I")  # magic, crc32 of the pixels, shape
STALE = 3600  # seconds after which an unfinished file belongs to a process that died


def cache_folder(cache: str | Path | bool | None) -> Path | None:
    """Where blocks are kept: the folder given, TERRALOOM_CACHE, or the user's cache folder; False is nowhere."""
    if cache is False:
        return None
    if isinstance(cache, str | Path):
        return Path(cache)
    given = os.environ.get("TERRALOOM_CACHE")
    return Path(given) if given else user_cache_path("terraloom") / "blocks"


class BlockCache:
    """Blocks of one world by (level, column, row); thread-safe."""

    def __init__(
        self,
        folder: Path | None,
        world_id: str,
        memory_bytes: int = MEMORY_BYTES,
        disk_bytes: int = DISK_BYTES,
    ) -> None:
        """Keep blocks in memory and, unless `folder` is None, in `folder/world_id/level/column-row.block`."""
        self._folder, self._world = folder, world_id
        self._memory_bytes, self._disk_bytes = memory_bytes, disk_bytes
        self._blocks: OrderedDict[Key, Pixels] = OrderedDict()
        self._held = 0  # bytes in memory
        self._unswept = (
            disk_bytes  # bytes written since the folder was measured; the first write measures it
        )
        self._lock = threading.Lock()

    def get(self, key: Key) -> Pixels | None:
        """A block, uint8 (3, h, w), not to be written to; None when it has to be drawn."""
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key]
        block = self._load(key)
        if block is not None:
            self._remember(key, block)
        return block

    def has(self, key: Key) -> bool:
        """Whether a block is in memory or on disk; nothing is read, so a damaged file counts."""
        with self._lock:
            if key in self._blocks:
                return True
        return self._folder is not None and self._path(self._folder, key).exists()

    def put(self, key: Key, block: Pixels) -> None:
        """Keep a block."""
        self._remember(key, block)
        if self._folder is None:
            return
        try:
            self._save(key, block)
        except OSError as error:
            warnings.warn(f"blocks are no longer kept in {self._folder}: {error}", stacklevel=2)
            self._folder = None

    def _remember(self, key: Key, block: Pixels) -> None:
        block.flags.writeable = False
        with self._lock:
            old = self._blocks.pop(key, None)
            self._blocks[key] = block
            self._held += block.nbytes - (0 if old is None else old.nbytes)
            while self._held > self._memory_bytes and len(self._blocks) > 1:
                self._held -= self._blocks.popitem(last=False)[1].nbytes

    def _path(self, folder: Path, key: Key) -> Path:
        level, column, row = key
        return folder / self._world / str(level) / f"{column}-{row}.block"

    def _load(self, key: Key) -> Pixels | None:
        if self._folder is None:
            return None
        path = self._path(self._folder, key)
        try:
            data = path.read_bytes()
            os.utime(path)  # the files not used for longest go first
        except OSError:
            return None
        if len(data) < HEADER.size:
            return None
        magic, crc, *shape = HEADER.unpack_from(data)
        pixels = memoryview(data)[HEADER.size :]
        if (
            magic != MAGIC
            or len(pixels) != np.prod(shape, dtype=np.int64)
            or zlib.crc32(pixels) != crc
        ):
            return None
        return np.frombuffer(pixels, np.uint8).reshape(shape)

    def _save(self, key: Key, block: Pixels) -> None:
        assert self._folder is not None
        path = self._path(self._folder, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.ascontiguousarray(block).data
        part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
        try:
            with part.open("wb") as file:
                file.write(HEADER.pack(MAGIC, zlib.crc32(pixels), *block.shape))
                file.write(pixels)
            os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        with self._lock:
            self._unswept += block.nbytes
            due = self._unswept > self._disk_bytes // 20
            if due:
                self._unswept = 0
        if due:
            sweep(self._folder, self._disk_bytes)


def sweep(folder: Path, limit: int) -> None:
    """Delete the blocks used least recently until those of all worlds in `folder` take at most `limit` bytes.

    Several processes may sweep at once: what one has deleted already, the other skips.
    """
    files = []
    for path in folder.glob("*/*/*"):
        with suppress(OSError):
            status = path.stat()
            if path.suffix == ".block":
                files.append((status.st_mtime, status.st_size, path))
            elif path.suffix == ".part" and status.st_mtime < time.time() - STALE:
                path.unlink()
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            break
        with suppress(OSError):
            path.unlink()
        total -= size
