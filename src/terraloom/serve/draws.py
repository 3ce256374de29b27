"""The drawing of blocks: one at a time, in one thread, each once however many wait for it.

All tiles of a block wait for one drawing, so that cold tiles are made in batches of a block. A block that nobody waits
for any more loses its place. When nothing waits, the neighbours of what was last looked at are drawn.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from terraloom.errors import TerraloomError
from terraloom.grid import BASE_LEVEL, level_size
from terraloom.serve.metrics import Metrics
from terraloom.world import World
from terraloom.world.cache import Key

log = logging.getLogger("terraloom.serve")

IDLE = 0.3  # seconds without a wish before neighbours are drawn
Name = tuple[str, Key]


class Busy(TerraloomError):
    """Too many wait already."""


@dataclass
class Job:
    """A block that somebody waits for."""

    world: World
    key: Key
    done: asyncio.Future[None]
    waiting: int = 0


@dataclass
class Draws:
    """The queue, and the task that works it off; belongs to one event loop."""

    limit: int  # blocks that may wait
    prefetch: bool
    metrics: Metrics
    _jobs: OrderedDict[Name, Job] = field(default_factory=OrderedDict)  # waiting
    _running: dict[Name, Job] = field(default_factory=dict)
    _near: list[tuple[World, Key]] = field(default_factory=list)
    _later: list[tuple[World, Key]] = field(default_factory=list)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="draw")
    )

    async def make(self, world: World, key: Key) -> None:
        """Wait until a block is in the cache; to be cancelled when it is not wanted any more.

        Raises:
            Busy: too many blocks wait.
        """
        name = (world.id, key)
        job = self._running.get(name) or self._jobs.get(name)
        if job is None:
            if len(self._jobs) >= self.limit:
                raise Busy(f"{len(self._jobs)} blocks wait to be drawn; try again in a moment")
            job = self._jobs[name] = Job(world, key, asyncio.get_running_loop().create_future())
            self._wake.set()
        job.waiting += 1
        try:
            await asyncio.shield(job.done)
        finally:
            job.waiting -= 1
            if job.waiting == 0 and name in self._jobs:
                del self._jobs[name]
                job.done.cancel()
            self.metrics.queue.set(len(self._jobs))

    def look_around(self, world: World, keys: list[Key]) -> None:
        """Draw the neighbours of these blocks when there is nothing else to do, instead of earlier ones."""
        if self.prefetch:
            self._near = [(world, near) for key in keys for near in _neighbours(world, key)]
            self._wake.set()

    def warm(self, world: World) -> None:
        """Start the engine and make the coarse levels that every map begins with, when there is nothing else to do."""
        start = world.blocks(8, 0, level_size(8) // 2, 1, 1)[:1]
        self._later = [(world, key) for key in start]
        for level in range(BASE_LEVEL - 1, -1, -1):
            size = level_size(level)
            self._later += [(world, key) for key in world.blocks(level, 0, 0, size, size)]
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled; the block in hand is finished."""
        try:
            while True:
                if self._jobs:
                    name, job = self._jobs.popitem(last=False)
                    await self._work(name, job)
                elif await self._asleep(IDLE if self._near else 0 if self._later else None):
                    continue
                elif self._near:
                    await self._ahead(*self._near.pop(0))
                    self.metrics.prefetched.inc()
                elif self._later:
                    await self._ahead(*self._later.pop(0))
        finally:
            for job in self._jobs.values():
                job.done.cancel()
            self._thread.shutdown(wait=True)

    async def _work(self, name: Name, job: Job) -> None:
        self._running[name] = job
        self.metrics.queue.set(len(self._jobs))
        start = time.perf_counter()
        try:
            await self._in_thread(job.world, job.key)
        except Exception as error:  # goes to all who wait
            job.done.set_exception(error)
            job.done.exception()  # they may all have gone
        else:
            self.metrics.draw_seconds.observe(time.perf_counter() - start)
            if not job.done.done():
                job.done.set_result(None)
        finally:
            del self._running[name]
            job.done.cancel()

    async def _ahead(self, world: World, key: Key) -> None:
        """Make a block that nobody asked for; whoever asks will be told what is wrong with it."""
        try:
            await self._in_thread(world, key)
        except Exception:
            log.exception("a block could not be made ahead")
            self._near, self._later = [], []

    async def _in_thread(self, world: World, key: Key) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, world.prepare, key)

    async def _asleep(self, seconds: float | None) -> bool:
        """Wait for a wish; whether one came in time."""
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return False
        self._wake.clear()
        return True


def _neighbours(world: World, key: Key) -> list[Key]:
    """The blocks around one that are not drawn yet."""
    level, column, row = key
    side = world.side(level)
    count = level_size(level) // side
    around = [
        (level, (column + dx) % count, row + dy)
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
        if 0 <= row + dy < count
    ]
    return [
        near for near in around if world.lacking(level, near[1] * side, near[2] * side, side, side)
    ]
