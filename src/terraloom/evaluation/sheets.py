"""Contact sheets: chains of places, and single levels beside bicubic and the real image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from terraloom.evaluation.rollout import VIEW, Link

Pixels = npt.NDArray[np.uint8]
MARGIN = 18  # pixels of text above each column and between rows


def chain_sheet(chains: dict[str, list[Link]], path: Path) -> None:
    """One place a row, from the base map down; every column four times finer."""
    first = next(iter(chains.values()))
    heads = ["base map"] + [f"z{link.level}, {link.gsd:.3g} m" for link in first]
    rows = []
    for links in chains.values():
        base = Image.fromarray(_hwc(links[0].parent)).resize((VIEW, VIEW), Image.Resampling.NEAREST)
        rows.append([np.asarray(base), *(_hwc(link.rgb) for link in links)])
    _save(rows, heads, list(chains), path)


def level_sheet(rows: list[tuple[str, Tensor, Tensor, Tensor, Tensor]], path: Path) -> None:
    """Rows of (name, low resolution, bicubic, ours, real), tensors (3, h, w) in [-1, 1]."""
    tiles = [
        [
            np.asarray(Image.fromarray(_bytes(t)).resize((VIEW, VIEW), Image.Resampling.NEAREST))
            for t in tensors
        ]
        for _, *tensors in rows
    ]
    _save(tiles, ["input", "bicubic", "ours", "real"], [name for name, *_ in rows], path)


def _hwc(rgb: Pixels) -> Pixels:
    return np.ascontiguousarray(rgb.transpose(1, 2, 0))


def _bytes(t: Tensor) -> Pixels:
    return _hwc(((t.clamp(-1, 1) + 1) * 127.5).round().byte().numpy())


def _save(rows: list[list[Pixels]], heads: list[str], names: list[str], path: Path) -> None:
    """Tiles of VIEW px with captions; the file's ending decides the format."""
    width, height = len(heads) * VIEW, len(rows) * (VIEW + MARGIN) + MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for k, head in enumerate(heads):
        pen.text((k * VIEW + 3, 1), head, "black", font)
    for j, (tiles, name) in enumerate(zip(rows, names, strict=True)):
        top = MARGIN + j * (VIEW + MARGIN)
        for k, tile in enumerate(tiles):
            sheet.paste(Image.fromarray(tile), (k * VIEW, top))
        pen.text((3, top + VIEW + 1), name, "black", font)
    part = path.with_name(f".part.{path.name}")
    sheet.save(part, quality=88)
    part.replace(path)
