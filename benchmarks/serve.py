"""Latency of the tile server, and 50 clients for a minute; beside it titiler on a static COG of the same place.

    .venv/bin/python benchmarks/serve.py [--count 200] [--seconds 60] [--out serve.json]

Times are the server's own (its log), so they hold no client; "cached" is an answer in memory, "drawn" one whose block
is on disk but which has to be cut and encoded. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests

CLIENTS = 50
LON, LAT = 30.83, 28.72  # the lower Nile
OURS = """
import sys
from terraloom.commands.serve import run
from terraloom.serve.settings import Settings
run(Settings(cache=sys.argv[2], block=int(sys.argv[3]), prefetch=False), "127.0.0.1", int(sys.argv[1]))
"""
THEIRS = """
import sys, uvicorn
from fastapi import FastAPI
from titiler.core.factory import TilerFactory
from terraloom.serve.guard import Guard, JsonLines
from terraloom.serve.metrics import Metrics
import logging
handler = logging.StreamHandler(); handler.setFormatter(JsonLines())
logging.basicConfig(handlers=[handler], level=logging.INFO)
logging.getLogger("titiler").setLevel(logging.WARNING)
app = FastAPI(); app.include_router(TilerFactory(path_dependency=lambda: sys.argv[2]).router)
app.add_middleware(Guard, metrics=Metrics())
uvicorn.run(app, port=int(sys.argv[1]), log_config=None, access_log=False)
"""


@contextmanager
def server(program: str, folder: Path, *arguments: str) -> Iterator[tuple[str, Path, int]]:
    """Address, log and process id of a server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / f"{port}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(port), *arguments], stderr=sink
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                requests.get(f"{address}/tiles", timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        yield address, log, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def tile_at(z: int, dx: int = 0, dy: int = 0) -> tuple[int, int, int]:
    n = 2**z
    lat = np.radians(LAT)
    x, y = (LON + 180) / 360 * n, (1 - np.arcsinh(np.tan(lat)) / np.pi) / 2 * n
    return z, int(x) + dx, int(y) + dy


def path_of(tile: tuple[int, int, int], query: str = "") -> str:
    return f"/tiles/WebMercatorQuad/{tile[0]}/{tile[1]}/{tile[2]}.jpg{query}"


def timed(address: str, log: Path, pid: int, paths: list[str]) -> dict[str, float]:
    """The server's milliseconds, and those of its cores, which other work on the machine does not stretch."""
    start, before = log.stat().st_size, cpu_seconds(pid)
    with requests.Session() as session:
        for path in paths:
            session.get(address + path, timeout=300).raise_for_status()
    time.sleep(0.3)
    lines = log.read_bytes()[start:].decode().splitlines()
    found = figures([json.loads(line)["ms"] for line in lines if "/tiles/" in line])
    spent = 1000 * (cpu_seconds(pid) - before) / len(paths)
    return {**found, "core_ms_each": round(spent, 1)}


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def crowd(address: str, log: Path, pid: int, paths: list[str], seconds: float) -> dict[str, Any]:
    """What happens when 50 clients ask for these, in any order, for so long."""
    errors, done, end = [0], [0], time.monotonic() + seconds
    begin, memory = log.stat().st_size, []

    def client(number: int) -> None:
        dice = random.Random(number)
        with requests.Session() as session:
            while time.monotonic() < end:
                answer = session.get(address + dice.choice(paths), timeout=300)
                errors[0] += answer.status_code != 200
                done[0] += 1

    threads = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        memory.append(psutil.Process(pid).memory_info().rss / 1e6)
        time.sleep(1)
    lines = log.read_bytes()[begin:].decode().splitlines()
    times = [json.loads(line)["ms"] for line in lines if "/tiles/" in line]
    third = max(len(memory) // 3, 1)
    return {
        "requests": done[0],
        "errors": errors[0],
        "per_second": round(done[0] / seconds),
        **figures(times),
        "memory_mb": [
            round(np.median(memory[third : 2 * third])),
            round(np.median(memory[-third:])),
        ],
    }


def figures(times: list[float]) -> dict[str, float]:
    return {
        "median_ms": round(float(np.median(times)), 1),
        "p95_ms": round(float(np.percentile(times, 95)), 1),
        "count": len(times),
    }


def metric(address: str, name: str) -> float:
    return float(re.findall(rf"^{name} (\S+)$", requests.get(f"{address}/metrics").text, re.M)[0])


def ours(folder: Path, block: int, count: int, seconds: float, far_count: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    cache, step = folder / "cache", block // 256  # tiles of one block
    with server(OURS, folder, str(cache), str(block)) as (address, log, pid):
        wide = int(np.ceil(count**0.5))
        cold = [tile_at(12, step * i, step * j) for i in range(wide) for j in range(wide)][:count]
        parents = {(10, x >> 2, y >> 2) for _, x, y in cold}
        around = {
            (10, x + dx, y + dy) for _, x, y in parents for dx in (-1, 0, 1) for dy in (-1, 0, 1)
        }
        timed(address, log, pid, [path_of(tile) for tile in sorted(around)])
        found["cold z12, parents cached"] = timed(address, log, pid, [path_of(t) for t in cold])
        found["cached"] = timed(address, log, pid, [path_of(t) for t in cold])
        drawn = [path_of(tile, "?bidx=1&bidx=2&bidx=3") for tile in cold]
        found["drawn z12"] = timed(address, log, pid, drawn)
        far = [tile_at(18, 5000 * (i % 14), 5000 * (i // 14)) for i in range(far_count)]
        found["fully cold z18"] = timed(address, log, pid, [path_of(t) for t in far])
        view = [tile_at(12, i, j) for i in range(-8, 2 * wide) for j in range(-8, 2 * wide)]
        view += [tile_at(14, i, j) for i in range(16) for j in range(16)]
        found[f"{CLIENTS} clients"] = crowd(address, log, pid, [path_of(t) for t in view], seconds)
        blocks = [p for p in cache.rglob("*.block") if int(p.parent.name) > 6]
        found["blocks"] = {
            "drawn": metric(address, "terraloom_blocks_drawn_total"),
            "kept": len(blocks),
        }
    return found


def theirs(folder: Path, block: int, count: int, seconds: float) -> dict[str, Any]:
    from terraloom.world import World

    cog = World(0, cache=folder / "cache", block=block).export(
        (LON, LAT - 0.6, LON + 0.6, LAT), 38.2 * np.cos(np.radians(LAT)), folder / "static.tif"
    )
    with server(THEIRS, folder, str(cog)) as (address, log, pid):
        view = [path_of(tile_at(12, 1 + i % 5, 1 + i // 5 % 5)) for i in range(count)]
        return {
            "tile": timed(address, log, pid, view),
            f"{CLIENTS} clients": crowd(address, log, pid, view, seconds),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--block", type=int, default=256)
    parser.add_argument("--far", type=int, default=200, help="cold tiles of z18")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        load = os.getloadavg()[0]
        arguments = (Path(name), options.block, options.count, options.seconds)
        found = {
            "load": load,
            "terraloom": ours(*arguments, options.far),
            "titiler, static COG": theirs(*arguments),
        }
    if options.out:
        options.out.write_text(json.dumps(found, indent=2), "utf-8")
    print(f"Load {load:.1f} when it began, blocks of {options.block} px.\n")
    print("| server | tiles | median ms | p95 ms | count | |\n|---|---|---|---|---|---|")
    for who, rows in found.items():
        for what, row in rows.items() if isinstance(rows, dict) else ():
            rest = ", ".join(
                f"{k} {v}" for k, v in row.items() if k not in ("median_ms", "p95_ms", "count")
            )
            cells = [str(row.get(k, "")) for k in ("median_ms", "p95_ms", "count")]
            print(f"| {who} | {what} | {' | '.join(cells)} | {rest} |")


if __name__ == "__main__":
    main()
