"""Contact sheets: chains of places, single levels beside bicubic and the real image, and plain tables of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from terraloom.evaluation.rollout import VIEW, Link

Pixels = npt.NDArray[np.uint8]
TILE = 128  # pixels, side of a tile in a table of small images
MARGIN = 18  # pixels of text above each column and below each row


def chain_sheet(rows: list[tuple[str, list[Link]]], path: Path) -> None:
    """One chain a row, from the base map down; every column four times finer.

    Several checkpoints or seeds are compared by giving the same place several rows.
    """
    heads = ["base map"] + [f"z{link.level}, {link.gsd:.3g} m" for link in rows[0][1]]
    tiles = [[_grown(links[0].parent), *(link.rgb for link in links)] for _, links in rows]
    _save(tiles, heads, [name for name, _ in rows], path)


def level_sheet(rows: list[tuple[Any, ...]], path: Path) -> None:
    """Rows of (name, low resolution, bicubic, ours, real), tensors (3, h, w) in [-1, 1]."""
    tiles = [[_grown(_bytes(t)) for t in tensors] for _, *tensors in rows]
    _save(tiles, ["input", "bicubic", "ours", "real"], [name for name, *_ in rows], path)


def table_sheet(
    rows: list[tuple[str, list[Pixels]]], heads: list[str], path: Path, side: int = TILE
) -> None:
    """Rows of (caption, images), each (3, h, w) and shown `side` px wide."""
    tiles = [[_grown(rgb, side) for rgb in images] for _, images in rows]
    _save(tiles, heads, [name for name, _ in rows], path, side)


def _grown(rgb: Pixels, side: int = VIEW) -> Pixels:
    """Pixels repeated to `side` px, (3, h, w) -> (3, side, side)."""
    image = Image.fromarray(_hwc(rgb)).resize((side, side), Image.Resampling.NEAREST)
    return np.asarray(image).transpose(2, 0, 1)


def _hwc(rgb: Pixels) -> Pixels:
    return np.ascontiguousarray(rgb.transpose(1, 2, 0))


def _bytes(t: Any) -> Pixels:
    pixels: Pixels = ((t.clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    return pixels


def _save(
    rows: list[list[Pixels]], heads: list[str], names: list[str], path: Path, side: int = VIEW
) -> None:
    """Tiles of `side` px with captions; the file's ending decides the format."""
    width, height = len(heads) * side, len(rows) * (side + MARGIN) + MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for k, head in enumerate(heads):
        pen.text((k * side + 3, 1), head, "black", font)
    for j, (tiles, name) in enumerate(zip(rows, names, strict=True)):
        top = MARGIN + j * (side + MARGIN)
        for k, tile in enumerate(tiles):
            sheet.paste(Image.fromarray(_hwc(tile)), (k * side, top))
        pen.text((3, top + side + 1), name, "black", font)
    part = path.with_name(f".part.{path.name}")
    try:
        sheet.save(part, quality=88)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
