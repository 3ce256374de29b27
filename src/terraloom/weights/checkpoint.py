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
BASE = (
    6  # zoom of the base map, as terraloom.grid has it, whose GIS libraries training does without
)
STEP, LEAP = (
    2,
    4,
)  # zooms from one drawn level to the next, x4, and to that of a network which leaps, x16


@dataclass(frozen=True)
class Checkpoint:
    """A folder with weights, its configuration read and its weights hashed."""

    path: Path
    config: dict[str, Any]  # kind, config (shape of the network), range (of pixel values), training
    digest: str  # first 16 hex digits of the sha256 of the weights, the kind and the network's configuration
    card: str  # Markdown: data, licence, recipe, measured figures; may be empty
    coarse: Checkpoint | None = None  # what draws levels down to `COARSE_LEVEL` instead

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
        return self.coarse if self.coarse is not None and level <= COARSE_LEVEL else self

    def parent(self, level: int) -> int | None:
        """The level that a level finer than the base map's is drawn from; None for means of finer ones."""
        step = LEAP if self.leaps else STEP
        return None if (level - BASE) % step else level - step

    def knows(self, level: int) -> tuple[int, bool]:
        """What the network that draws a level can be told: how many codes (terraloom.data.uses), and whether lines."""
        shape = self.at(level).config["config"]
        return int(shape.get("cover_classes", 0)), bool(shape.get("lines", False))


def checkpoint(
    folder: Path,
    config: dict[str, Any],
    weights: Iterable[Path],
    coarse: Checkpoint | None = None,
) -> Checkpoint:
    """A folder's checkpoint: its card read, its weights hashed with kind and shape (they decide pixels as well)."""
    card = folder / CARD
    digest = hashlib.sha256()
    for path in weights:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    digest.update(json.dumps([config["kind"], config["config"]], sort_keys=True).encode())
    if coarse is not None:
        digest.update(coarse.digest.encode())
    text = card.read_text("utf-8") if card.is_file() else ""
    return Checkpoint(folder, config, digest.hexdigest()[:16], text, coarse)
