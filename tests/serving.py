"""Real servers for tests: in a thread of this process, or in a process of their own."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import uvicorn

PROGRAM = """
import sys, torch, uvicorn
torch.set_num_threads(1)
from terraloom.serve.app import create_app
from terraloom.serve.settings import Settings
model, base, cache, port = sys.argv[1:]
settings = Settings(
    worlds={"earth": base}, model=model, engine="torch", block=256, halo=96, cache=cache, prefetch=False
)
uvicorn.run(create_app(settings), port=int(port), log_level="error", timeout_graceful_shutdown=20)
"""


@contextmanager
def live(app: Any) -> Iterator[str]:
    """The address of a server on a free port of this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)


@contextmanager
def spawned(
    checkpoint: Path, base: Path, cache: Path
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server in a process of its own, and its address; it is killed at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [str(part) for part in (checkpoint, base, cache, port)]
    server = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments])
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            assert server.poll() is None, "the server did not start"
            try:
                requests.get(f"{address}/healthz", timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.05)
        yield server, address
    finally:
        server.kill()
        server.wait()
