"""The worlds that a server shows, by name and seed."""

from __future__ import annotations

import threading
from collections import OrderedDict

from terraloom.errors import InvalidInput
from terraloom.serve.settings import Settings
from terraloom.world import World

OPEN = 4  # worlds whose latest blocks stay in memory, 128 MB each


class Planets:
    """Opens worlds when they are asked for; those of one name share maps and engine. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        """Open the first world, so that what is wrong with it shows now.

        Raises:
            InvalidInput, BadCheckpoint: see `World`.
        """
        self._settings = settings
        self._first: dict[str, World] = {}
        self._open: OrderedDict[tuple[str, int], World] = OrderedDict()
        self._closed = 0  # blocks drawn by worlds that were closed since
        self._lock = threading.Lock()
        self.default = next(iter(settings.worlds))
        self.find()

    def find(self, name: str | None = None, seed: int | None = None) -> World:
        """The world of a name and seed, both on the lists; the first of each by default.

        Raises:
            InvalidInput: a name or seed that is not on its list.
        """
        name = self.default if name is None else name
        seed = self._settings.seeds[0].start if seed is None else seed
        if name not in self._settings.worlds:
            names = ", ".join(self._settings.worlds)
            raise InvalidInput(f"no world {name[:40]!r} here; there are: {names}")
        if not self._settings.allows(seed):
            seeds = ", ".join(f"{some.start} to {some.stop - 1}" for some in self._settings.seeds)
            raise InvalidInput(f"seed {seed} is not served here; seeds are {seeds}")
        with self._lock:
            world = self._open.get((name, seed))
            if world is None:
                world = self._open[name, seed] = self._made(name, seed)
            self._open.move_to_end((name, seed))
            while len(self._open) > OPEN:
                self._closed += self._open.popitem(last=False)[1].drawn
            return world

    @property
    def drawn(self) -> int:
        """Blocks that the network has drawn since the server started."""
        with self._lock:
            return self._closed + sum(world.drawn for world in self._open.values())

    def _made(self, name: str, seed: int) -> World:
        if name in self._first:
            return self._first[name].another(seed)
        settings = self._settings
        self._first[name] = World(
            seed,
            model=settings.model,
            base=settings.worlds[name],
            cache=settings.cache,
            engine=settings.engine,
            block=settings.block,
            halo=settings.halo,
        )
        return self._first[name]
