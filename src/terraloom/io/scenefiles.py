"""The files of one scene: which there are, and which band is where."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from terraloom.data.geotiff import middle
from terraloom.errors import InvalidInput
from terraloom.io.bands import ALPHA, LABELS, is_aside, named, overridden
from terraloom.io.dates import date_of
from terraloom.io.source import Source, opaque_if_band, opened, sources_of
from terraloom.metadata import Metadata

SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".img")


@dataclass(frozen=True)
class Entry:
    """A band as it lies in its file, before it has a common name."""

    source: Source
    stem: str  # the file's name where it holds this band alone, else empty
    colour: str  # as GDAL has it


def find(
    files: Sequence[Path], bands: str | None, date: str | None
) -> tuple[dict[str, Source], dict[str, Source], Metadata]:
    """Bands by name, labels by name, and cloud cover and date as far as they are told.

    Raises:
        InvalidInput: see `Raster.open`.
    """
    entries: list[Entry] = []
    tags: dict[str, str] = {}
    for path in files:
        with opened(path) as file:
            stem = path.stem if file.count == 1 else ""
            entries += [
                Entry(source, stem, file.colorinterp[source.index - 1].name)
                for source in sources_of(file, path)
            ]
            tags = file.tags() | file.tags(ns="IMAGERY") | tags
    names = [files[0].stem]
    if len(files) > 1:
        names.append(files[0].absolute().parent.name)
    cloud_cover = Metadata.from_tags(tags).cloud_cover
    metadata = Metadata(cloud_cover=cloud_cover, date=date or date_of(tags, names))
    return *_told_apart(entries, bands), metadata


def listed(paths: Sequence[str | Path] | str | Path) -> list[Path]:
    """The raster files of one scene.

    Raises:
        InvalidInput: no file there.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = [p for p in path.iterdir() if p.suffix.lower() in SUFFIXES]
            if not inside:
                raise InvalidInput(f"the folder {path} holds no {' or '.join(SUFFIXES)} file")
            files += sorted(inside, key=_counting)
        elif path.is_file():
            files.append(path)
        else:
            raise InvalidInput(f"{path} does not exist; give a raster file or a folder of them")
    if not files:
        raise InvalidInput("no file was given; a scene needs at least one")
    return files


def _told_apart(
    entries: list[Entry], bands: str | None
) -> tuple[dict[str, Source], dict[str, Source]]:
    """Bands and labels by name; of one band in several pixel sizes the finest.

    Raises:
        InvalidInput: a name twice in one pixel size, or nothing to draw from.
    """
    entries = [e for e in entries if not is_aside(e.stem or e.source.path.stem)] or entries
    names = named(
        [e.source.name or None for e in entries],
        [e.stem for e in entries],
        [e.colour for e in entries],
        _gsd(entries),
    )
    if bands is not None:
        names = overridden(names, bands)
    sources: dict[str, Source] = {}
    labels: dict[str, Source] = {}
    named_bands = [(n, e.source) for n, e in zip(names, entries, strict=True) if n != ALPHA]
    bands_in_use = opaque_if_band([source for _, source in named_bands])
    for (name, _), source in zip(named_bands, bands_in_use, strict=True):
        into = labels if name in LABELS else sources
        if name in into:
            mine, other = (abs(s.grid.transform.determinant) for s in (source, into[name]))
            if mine == other:
                raise InvalidInput(
                    f"band {name} is twice there, in {into[name].path} and {source.path}: "
                    "give the files of one scene, or tell bands apart, e.g. --bands red=3"
                )
            if mine > other:
                continue
        into[name] = source
    if not sources:
        raise InvalidInput(
            f"{entries[0].source.path} holds no image, only {', '.join(labels) or ALPHA}"
        )
    return sources, labels


def _counting(path: Path) -> list[tuple[int, str]]:
    """Orders B2 before B10."""
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", path.name)]


def _gsd(entries: list[Entry]) -> float | None:
    """Metres per pixel of the band in the middle by pixel size, so that no panchromatic one decides."""
    grids = sorted((e.source.grid for e in entries), key=lambda g: abs(g.transform.determinant))
    grid = grids[len(grids) // 2]
    if grid.crs is None:
        return None
    return middle(grid.transform, grid.width, grid.height, grid.crs)[2]
