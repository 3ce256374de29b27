"""Contact sheets of a text model: classes, and rows of the values of one field over the same seeds."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from terraloom.evaluation import responses
from terraloom.evaluation.chips import Domain
from terraloom.evaluation.sheets import table_sheet

SHOWN = 8  # columns


def class_sheet(images: Tensor, domain: Domain, each: int, path: Path) -> None:
    """A row per class; the caption has its first prompts in the order of the columns."""
    shown = min(SHOWN, each)
    rows = [
        (f"{name}: {' | '.join(domain.prompts[name])}", [*part[:shown].numpy()])
        for name, part in zip(domain.classes, torch.split(images, each), strict=True)
    ]
    table_sheet(rows, [f"{k + 1}" for k in range(shown)], path)


def response_sheets(
    pictures: dict[str, Tensor], pairs: dict[str, Tensor], blanks: Tensor, out: Path
) -> None:
    """Rows: values of a field; columns: the same seeds."""
    many = min(SHOWN, blanks.shape[1])
    heads = [f"seed {k + 1}" for k in range(many)]
    rows = []
    for r in responses.RESPONSES:
        for told, images in zip(r.values, pictures[r.name], strict=True):
            caption = f"{r.name}: {responses.value_text(told, r.values)}"
            rows.append((caption, [*images[:many].numpy()]))
    table_sheet(rows, heads, out / "responses.webp")
    words = [
        (f"{w} ({gsd} m)", [*part[:many].numpy()])
        for (more, less, _, gsd), both in zip(responses.WORDS, pairs.values(), strict=True)
        for w, part in zip((less, more), both, strict=True)
    ]
    table_sheet(words, heads, out / "words.webp")
    names = ["all missing", *(f"{f} is zero" for f in responses.ZEROS)]
    gone = [(n, [*part[:many].numpy()]) for n, part in zip(names, blanks, strict=True)]
    table_sheet(gone, heads, out / "missing.webp")
