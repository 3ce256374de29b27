"""WorldSpec: everything that decides the pixels of a world, and the id that is made of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

FORMAT = 2  # raised when the same spec starts to give other pixels


@dataclass(frozen=True)
class WorldSpec:
    """What the pixels of a world depend on; two worlds with equal specs are equal.

    Within one engine, precision and set of library versions that means equal bytes; a GPU, another CPU or another
    number of threads may differ by 1/255 here and there.
    """

    seed: int
    base: str  # digest of the base map
    ground: str  # digest of land cover and map layers
    model: str  # digest of the weights
    block: int  # pixels, side of the blocks that are drawn at once
    halo: int  # pixels drawn around each block and dropped
    engine: str  # cuda, openvino or torch
    precision: str  # f32 or bf16
    format: int = FORMAT

    @property
    def id(self) -> str:
        """12 hex digits of the sha256 of the fields: part of every cache key, file tag and ETag."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
