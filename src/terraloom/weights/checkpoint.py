"""What a checkpoint is: a folder, its configuration, a digest of what decides pixels, and a card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHIPPED = Path(__file__).parent.parent / "assets" / "weights"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "card.md"
COARSE = "coarse"  # folder within a cascade's: the checkpoint that draws its coarse levels
COARSE_LEVEL = 12  # the finest of those (zoom)
COARSE_GSD = 19.2  # metres: what stands outside a map is drawn as those levels are from here on
LEAP = "leap"  # folder within a cascade's: the checkpoint that draws `LEAP_LEVEL` from two above it at once
LEAP_LEVEL = 14  # zoom; the level between is what the finer one is on average
FINEST = "finest"  # folder within a cascade's: the checkpoint that draws its finest levels
FINEST_FROM, FINEST_TO = 16, 18  # the coarsest and the finest of those (zooms)


@dataclass(frozen=True)
class Checkpoint:
    """A folder with weights, its configuration read and its weights hashed."""

    path: Path
    config: dict[str, Any]  # kind, config (shape of the network), range (of pixel values), training
    digest: str  # first 16 hex digits of the sha256 of the weights, the kind and the network's configuration
    card: str  # Markdown: data, licence, recipe, measured figures; may be empty
    coarse: Checkpoint | None = None  # what draws levels down to `COARSE_LEVEL` instead
    leap: Checkpoint | None = None  # what draws `LEAP_LEVEL` instead
    finest: Checkpoint | None = None  # what draws levels from `FINEST_FROM` on instead

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.name

    @property
    def kind(self) -> str:
        """A key of `KINDS`, "pipeline" (text to image) or "frames" (dated images to image)."""
        return str(self.config["kind"])

    @property
    def leaps(self) -> bool:
        """Whether its network draws two levels at once."""
        return bool(self.config["config"].get("leap"))

    def at(self, level: int) -> Checkpoint:
        """The checkpoint whose network draws a level."""
        if self.coarse is not None and level <= COARSE_LEVEL:
            return self.coarse
        if self.leap is not None and level == LEAP_LEVEL:
            return self.leap
        return self.finest if self.finest is not None and level >= FINEST_FROM else self

    def parent(self, level: int) -> int | None:
        """The level that a level finer than the base map's is drawn from; None for means of finer ones."""
        if level % 2 or self._leaps_to(level + 2):
            return None
        return level - (4 if self._leaps_to(level) else 2)

    def _leaps_to(self, level: int) -> bool:
        """Whether a level is drawn from two above it: the leap's, and the finest if that network leaps too."""
        return level in (LEAP_LEVEL, FINEST_TO) and self.at(level).leaps

    def codes(self, level: int) -> int:
        """How many codes of land cover and use the network that draws a level knows (terraloom.data.uses)."""
        return int(self.at(level).config["config"].get("cover_classes", 0))

    def inner(self) -> list[Checkpoint]:
        """The checkpoints within its folder."""
        return [part for part in (self.coarse, self.leap, self.finest) if part is not None]


def checkpoint(
    folder: Path,
    config: dict[str, Any],
    weights: Iterable[Path],
    coarse: Checkpoint | None = None,
    leap: Checkpoint | None = None,
    finest: Checkpoint | None = None,
) -> Checkpoint:
    """A folder's checkpoint: its card read, its weights hashed with kind and shape (they decide pixels as well)."""
    card = folder / CARD
    digest = hashlib.sha256()
    for path in weights:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    digest.update(json.dumps([config["kind"], config["config"]], sort_keys=True).encode())
    for name, part in ((COARSE, coarse), (LEAP, leap), (FINEST, finest)):
        if part is not None:  # the first one's name was not told apart before there was another
            digest.update((part.digest if name == COARSE else name + part.digest).encode())
    text = card.read_text("utf-8") if card.is_file() else ""
    return Checkpoint(folder, config, digest.hexdigest()[:16], text, coarse, leap, finest)
