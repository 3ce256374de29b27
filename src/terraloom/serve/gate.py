"""The gate before whatever costs something: each answer is made once, and no more than the machine can bear.

A request goes through these steps, and most stop early: the browser has the answer (304); it is in memory; another
request is making it; the blocks of its tile are drawn by `Draws`; only then does the application make it, in a thread.
An answer is a function of world, address and body, so that its ETag is known before any pixel.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from terraloom.errors import InvalidInput
from terraloom.grid import FINEST_LEVEL, TILE
from terraloom.serve.draws import Busy, Draws
from terraloom.serve.metrics import Metrics
from terraloom.serve.reader import TILE_SIZES
from terraloom.serve.settings import Limits
from terraloom.serve.work import Abandoned, Ticket, current
from terraloom.world import World

TILE_PATH = re.compile(r"/tiles/WebMercatorQuad/(\d{1,2})/(\d{1,7})/(\d{1,7})(?:\.\w+)?")
LARGE_PATH = re.compile(r"/(preview|bbox|feature|statistics|point|cog\.tif|generate)\b")
TILES_AT_ONCE, LARGE_AT_ONCE = 4, 2  # threads
KEPT_BYTES, KEPT_LARGEST = 96 << 20, 2 << 20  # of answers in memory
CACHE_CONTROL = "public, max-age=3600"
RETRY_SECONDS = 5


@dataclass
class Answer:
    """A whole response."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass
class Ask:
    """A request at the gate."""

    scope: Scope
    world: World
    tile: tuple[int, int, int, int] | None  # level, x, y, size of what it shows, if it is a tile
    body: bytes = b""

    @property
    def key(self) -> str:
        """Digest of all that decides the answer."""
        query = self.scope["query_string"]
        parts = (self.world.id, version("terraloom"), self.scope["path"], query.decode("latin-1"))
        digest = hashlib.sha256("\n".join(parts).encode())
        digest.update(b"\n" + self.body)
        return digest.hexdigest()[:32]


@dataclass
class Flight:
    """An answer in the making, and how many wait for it."""

    task: asyncio.Task[Answer]
    ticket: Ticket
    waiting: int = 0


@dataclass
class Lane:
    """So many threads, and so many that may wait for one."""

    at_once: int
    limit: int
    waiting: int = 0
    free: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        """Open all threads."""
        self.free = asyncio.Semaphore(self.at_once)

    async def __aenter__(self) -> None:
        """Wait for a thread."""
        if self.free.locked() and self.waiting >= self.limit:
            raise Busy(f"{self.waiting} requests wait already; try again in a moment")
        self.waiting += 1
        try:
            await self.free.acquire()
        finally:
            self.waiting -= 1

    async def __aexit__(self, *_: object) -> None:
        """Give it back."""
        self.free.release()


class Lanes:
    """What the requests of one event loop wait in."""

    def __init__(self, limits: Limits, prefetch: bool, metrics: Metrics) -> None:
        self.draws = Draws(limits.queue, prefetch, metrics)
        self.tiles = Lane(TILES_AT_ONCE, 4 * limits.queue)
        self.large = Lane(LARGE_AT_ONCE, limits.queue)


class Gate:
    """ASGI middleware."""

    def __init__(
        self,
        app: ASGIApp,
        find: Callable[[str | None, int | None], World],
        lanes: Callable[[], Lanes],
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        """Stand before `app`; `find` gives the world of a name and seed, `lanes` those of the event loop."""
        self._app, self._find, self._lanes = app, find, lanes
        self._limits, self._metrics = limits, metrics
        self._flights: dict[str, Flight] = {}
        self._kept: OrderedDict[str, Answer] = OrderedDict()
        self._kept_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        ask = self._ask(scope) if scope["type"] == "http" else None
        if ask is None:
            await self._app(scope, receive, send)
            return
        if scope["method"] == "POST":
            body = await _body(receive, self._limits.body)
            if body is None:
                self._metrics.refused.labels("large").inc()
                text = f"the body is larger than {self._limits.body} bytes"
                await _say(413, text)(scope, receive, send)
                return
            ask.body = body
        answer = await self._answer(ask, receive)
        if answer is not None:  # else nobody is left to answer
            await _send(answer, ask, send)

    def _ask(self, scope: Scope) -> Ask | None:
        """What is asked for, if it has to pass the gate; mistakes are left for the application to explain."""
        path, method = scope["path"], scope["method"]
        tile = TILE_PATH.fullmatch(path)
        if not (tile or LARGE_PATH.match(path)) or method not in ("GET", "HEAD", "POST"):
            return None
        query = parse_qs(scope["query_string"].decode("latin-1"))
        try:
            seed = query.get("seed")
            world = self._find(
                query.get("world", [None])[-1],
                None if seed is None else int(seed[-1]),
            )
            size = int(query.get("tilesize", [str(TILE)])[-1])
        except (InvalidInput, ValueError):
            return None
        if tile is None:
            return Ask(scope, world, None)
        z, x, y = (int(number) for number in tile.groups())
        if not (z <= FINEST_LEVEL and x < 2**z and y < 2**z and size in TILE_SIZES):
            return None
        finer = min((size // TILE).bit_length() - 1, FINEST_LEVEL - z)  # 512 px are those of z + 1
        side = TILE << finer
        return Ask(scope, world, (z + finer, x * side, y * side, side))

    async def _answer(self, ask: Ask, receive: Receive) -> Answer | None:
        key = ask.key
        wanted = Headers(scope=ask.scope).get("if-none-match", "")
        if ask.scope["method"] != "POST" and key in re.findall(r'"([^"]*)"', wanted):
            self._metrics.answers.labels("unchanged").inc()
            return Answer(304, [], b"")
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            self._metrics.answers.labels("kept").inc()
            return kept
        flight = self._flights.get(key)
        self._metrics.answers.labels("made" if flight is None else "shared").inc()
        if flight is None:
            ticket = Ticket()
            task = asyncio.create_task(self._make(ask, ticket, key))
            flight = self._flights[key] = Flight(task, ticket)
        return await self._wait(flight, key, receive)

    async def _wait(self, flight: Flight, key: str, receive: Receive) -> Answer | None:
        """Wait for an answer, but not longer than the client does, nor than the limit."""
        gone = asyncio.create_task(_until_gone(receive))
        flight.waiting += 1
        try:
            await asyncio.wait(
                {flight.task, gone},
                timeout=self._limits.seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if flight.task.done():
                return flight.task.result()
            if gone.done():
                self._metrics.refused.labels("gone").inc()
                return None
            self._metrics.refused.labels("late").inc()
            seconds = f"{self._limits.seconds:g} s"
            return _whole(
                _say(504, f"this took longer than {seconds}; ask for less, or again in a moment")
            )
        finally:
            gone.cancel()
            flight.waiting -= 1
            if flight.waiting == 0 and not flight.task.done():
                flight.ticket.wanted = False
                flight.task.cancel()
                self._flights.pop(key, None)

    async def _make(self, ask: Ask, ticket: Ticket, key: str) -> Answer:
        current.set(ticket)
        lanes = self._lanes()
        try:
            if ask.tile is None:
                async with lanes.large:
                    answer = await self._run(ask)
            else:
                level, x, y, size = ask.tile
                blocks = ask.world.lacking(level, x, y, size, size)
                await asyncio.gather(*(lanes.draws.make(ask.world, block) for block in blocks))
                async with lanes.tiles:
                    answer = await self._run(ask)
                lanes.draws.look_around(ask.world, ask.world.blocks(level, x, y, size, size))
            if answer.status == 200:
                self._keep(key, answer)
            return answer
        except Busy as error:
            self._metrics.refused.labels("busy").inc()
            return _whole(_say(503, str(error), {"Retry-After": str(RETRY_SECONDS)}))
        except Abandoned as error:
            return _whole(_say(503, str(error)))
        finally:
            if (flight := self._flights.get(key)) and flight.ticket is ticket:
                del self._flights[key]

    async def _run(self, ask: Ask) -> Answer:
        """The application's answer, whole; it never learns of a client that went away."""
        answer = Answer(500, [], b"")
        parts: list[bytes] = []
        asked = False

        async def receive() -> Message:
            nonlocal asked
            if asked:
                await asyncio.Event().wait()
            asked = True
            return {"type": "http.request", "body": ask.body, "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status, answer.headers = message["status"], list(message["headers"])
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        scope = dict(ask.scope)
        scope["method"] = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._app(scope, receive, send)
        answer.body = b"".join(parts)
        return answer

    def _keep(self, key: str, answer: Answer) -> None:
        if len(answer.body) > KEPT_LARGEST:
            return
        self._kept[key] = answer
        self._kept_bytes += len(answer.body)
        while self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1].body)


async def _send(answer: Answer, ask: Ask, send: Send) -> None:
    start: dict[str, Any] = {
        "type": "http.response.start",
        "status": answer.status,
        "headers": list(answer.headers),
    }
    headers = MutableHeaders(scope=start)
    if answer.status in (200, 304) and ask.scope["method"] != "POST":
        weak = "" if headers.get("content-type", "image/").startswith("image/") else "W/"  # gzip
        headers["ETag"] = f'{weak}"{ask.key}"'
        headers["Cache-Control"] = CACHE_CONTROL
    else:
        headers["Cache-Control"] = "no-store"
    await send(start)
    body = b"" if ask.scope["method"] == "HEAD" else answer.body
    await send({"type": "http.response.body", "body": body})


def _say(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": text}, status, headers)


def _whole(response: Response) -> Answer:
    return Answer(response.status_code, list(response.raw_headers), bytes(response.body))


async def _body(receive: Receive, limit: int) -> bytes | None:
    """The whole body, None when it is too large."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > limit:
            return None
    return b"".join(parts)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
