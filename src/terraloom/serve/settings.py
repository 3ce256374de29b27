"""What a server serves and how much of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from terraloom.errors import InvalidInput

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
SHIPPED_WORLD = "earth"


@dataclass(frozen=True)
class Limits:
    """What one client may ask for, and how many may wait."""

    pixels: int = 4096 * 4096  # of one image
    body: int = 1 << 20  # bytes of one request
    seconds: float = 120.0  # for one answer
    queue: int = 64  # blocks, and large images, that wait to be drawn


@dataclass(frozen=True)
class Settings:
    """One server.

    Raises:
        InvalidInput: a name of a world that cannot stand in an address.
    """

    worlds: Mapping[str, Path | None] = field(
        default_factory=lambda: {SHIPPED_WORLD: None}
    )  # name -> base map
    seeds: tuple[range, ...] = (range(10_000),)  # the allowed ones
    model: str | Path = "cascade"
    text_model: str = "terraloom/small"
    engine: str = "auto"
    block: int = 256  # pixels; smaller ones answer sooner, larger ones draw more per second
    halo: int | None = None
    cache: str | Path | bool | None = None
    origins: tuple[str, ...] = ("*",)  # that may read answers in a browser (CORS)
    prefetch: bool = True
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Check the names."""
        if not self.worlds:
            raise InvalidInput("a server needs at least one world")
        for name in self.worlds:
            if not NAME.fullmatch(name):
                raise InvalidInput(
                    f"world {name!r} is not a good name; use up to 32 of a-z, 0-9, - and _"
                )

    def allows(self, seed: int) -> bool:
        """Whether a seed is on the list."""
        return any(seed in some for some in self.seeds)


def parse_seeds(text: str) -> tuple[range, ...]:
    """Seeds from "0-9999" or "0,7,40-49".

    Raises:
        InvalidInput: the text is something else.
    """
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,19})(?:-(\d{1,19}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < 2**63:
            raise InvalidInput(f"seeds {text!r} are not like 0-9999 or 0,7,40-49")
        found.append(range(first, last + 1))
    return tuple(found)
