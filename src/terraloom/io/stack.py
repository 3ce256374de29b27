"""A user's own scenes as a training pack: every place a folder of dated scenes, or a scene alone.

    FOLDER/field-7/2021-05-02.tif     several dates of a place: all three tasks
    FOLDER/field-7/2021-06-11.tif
    FOLDER/harbour.tif                one scene: super-resolution and in-painting

Scenes are cut into squares whose pixels are known but for a few; dates of a place are warped to the grid of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from terraloom.data.stacks import LOSSLESS, UNIT, ZERO, Dated, stored, write_stacks
from terraloom.errors import InvalidInput
from terraloom.io.raster import Raster, same_grid
from terraloom.io.scenefiles import SUFFIXES
from terraloom.io.stretch import stretch_of
from terraloom.models.frames import BANDS, filled

SET = "stack"  # what recipes call it
SIDE = 256  # pixels of a square
KNOWN = 0.98  # share of a square's values, at least; dark water often reads as nodata
HELD_OUT = 10  # every tenth square is kept for the contact sheet

Progress = Callable[[str, int], None]
Floats = npt.NDArray[np.float32]


def build_stack(
    folder: Path,
    path: Path,
    bands: str | None = None,
    progress: Progress = lambda name, count: None,
) -> Path:
    """Write the pack of a folder of scenes.

    Args:
        folder: see the module.
        path: the pack to write.
        bands: names that the files lack, see `Raster.open`; the same for all.
        progress: called with the name of each place and the number of its squares.

    Raises:
        InvalidInput: no scene, scenes without common bands, dates missing where a place has several scenes, or
            no square of known pixels.
    """
    entries: list[tuple[Dated, bool, dict[str, Any]]] = []
    for place, files in _places(Path(folder)).items():
        squares = list(_squares(place, files, bands))
        progress(place, len(squares))
        entries += [
            (image, i % HELD_OUT == HELD_OUT - 1, LOSSLESS)
            for i, images in enumerate(squares)
            for image in images
        ]
    if not entries:
        raise InvalidInput(f"{folder} has no {SIDE} x {SIDE} px of known pixels")
    return write_stacks(path, entries)


def _places(folder: Path) -> dict[str, list[Path]]:
    """Scenes of every place."""
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is not a folder; give one of GeoTIFFs, see docs/frames.md")
    found: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        inside = sorted(entry.iterdir()) if entry.is_dir() else [entry]
        files = [f for f in inside if f.suffix.lower() in SUFFIXES]
        if files:
            found[entry.stem] = files
    if not found:
        raise InvalidInput(f"{folder} holds no scenes; they end in {', '.join(SUFFIXES)}")
    return found


def _squares(place: str, files: list[Path], names: str | None) -> Iterator[list[Dated]]:
    """The dates of every square of a place."""
    scenes = [Raster.open(file, names) for file in files]
    if len(scenes) > 1 and any(scene.date is None for scene in scenes):
        lacking = next(s.paths[0] for s in scenes if s.date is None)
        raise InvalidInput(
            f"{lacking} has no date, but {place} has several scenes; put it into the name: 2021-06-15.tif"
        )
    scenes = same_grid(scenes, align=True)
    bands = [b for b in scenes[0].bands if b in BANDS and all(b in s.bands for s in scenes)]
    if len(bands) < 3:
        raise InvalidInput(
            f"the scenes of {place} share the bands {', '.join(bands) or 'none'}; three are needed: "
            "name them, e.g. --bands red=3,green=2,blue=1"
        )
    stretch = stretch_of(scenes, bands)
    whole = scenes[0]
    for y in range(0, whole.height - SIDE + 1, SIDE):
        for x in range(0, whole.width - SIDE + 1, SIDE):
            window = x, y, SIDE, SIDE
            read = [scene.read(window, bands) for scene in scenes]
            if all(known.mean() >= KNOWN for _, known in read):
                name = f"{place}/{y}/{x}"
                yield [
                    _image(name, scene, bands, _whole(stretch.normal(values, known), known))
                    for scene, (values, known) in zip(scenes, read, strict=True)
                ]


def _whole(values: Floats, known: npt.NDArray[np.bool_]) -> Floats:
    """The few unknown pixels of a square filled from around them."""
    bands = torch.from_numpy(values)[:, None], torch.from_numpy(known)[:, None].float()
    return np.asarray(filled(*bands)[:, 0].numpy(), np.float32)


def _image(place: str, scene: Raster, bands: list[str], values: Floats) -> Dated:
    known = scene.metadata
    if known.gsd is None:
        raise InvalidInput(f"{scene.paths[0]} has no CRS, so no pixel size; give GeoTIFFs")
    whole = scene.grid.transform.determinant
    shares = [scene.source(b).grid.transform.determinant / whole for b in bands]
    return Dated(
        set=SET,
        place=place,
        bands=tuple(bands),
        coarseness=tuple(abs(share) ** 0.5 for share in shares),
        gsd=known.gsd,
        pixels=stored(values),
        lon=known.lon,
        lat=known.lat,
        date=scene.date,
        zero=(ZERO,),
        unit=(UNIT,),
    )
