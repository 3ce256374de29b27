"""Several dates of a place as one: an animated picture, or a Zarr group with a time axis.

The group follows the CF conventions, so that xarray and rioxarray read it: every band a variable (time, y, x), time as
days with the bounds of partial dates, the CRS in `spatial_ref`. Needs the extra `zarr`.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from terraloom.errors import InvalidInput, TerraloomError
from terraloom.io.bands import COLOURS
from terraloom.io.raster import Raster
from terraloom.io.source import Grid
from terraloom.io.staging import staging, writing
from terraloom.io.stretch import stretch_of
from terraloom.metadata import interval

if TYPE_CHECKING:
    import zarr

SUFFIXES = (".gif", ".zarr")
SIDE = 1024  # pixels, the longer side of an animated picture at most
SECONDS = 1.0  # that a date is shown
CHUNK = 512  # pixels, side of a chunk in Zarr
EPOCH = date(1970, 1, 1)


def write_sequence(
    path: str | Path,
    scenes: Sequence[Raster],
    tags: Mapping[str, str],
    *,
    overwrite: bool = False,
) -> Path:
    """Write the dates of a place, in their order, as the ending of the name says.

    Args:
        path: .gif, an animation of at most 1024 px a side; or .zarr, a folder with all bands as they are stored.
        scenes: dated, on one grid, with the same bands and number type.
        tags: what the file says of itself; a comment in GIF, attributes of the group in Zarr.
        overwrite: replace what is there.

    Raises:
        InvalidInput: another ending, no scene, one without a date or of another grid, a date twice, or a path that
            cannot be written.
        TerraloomError: writing fails, or the extra `zarr` is not installed.
    """
    path, scenes = Path(path), _in_order(scenes)
    if path.suffix.lower() == ".gif":
        return _write_gif(path, scenes, tags, overwrite)
    if path.suffix.lower() == ".zarr":
        return _write_zarr(path, scenes, tags, overwrite)
    raise InvalidInput(f"cannot write {path}; the name must end in {' or '.join(SUFFIXES)}")


def _in_order(scenes: Sequence[Raster]) -> list[Raster]:
    """The scenes by date.

    Raises:
        InvalidInput: they are no sequence.
    """
    if not scenes:
        raise InvalidInput("a sequence needs at least one scene")
    first = scenes[0]
    for scene in scenes:
        if scene.date is None:
            raise InvalidInput(f"{scene.paths[0]} has no date; a sequence needs one of each scene")
        alike = (scene.bands, scene.dtype) == (first.bands, first.dtype)
        if not alike or not scene.grid.same(first.grid):
            raise InvalidInput(
                f"{scene.paths[0]} and {first.paths[0]} differ in grid, bands or number type; they are no sequence"
            )
    ordered = sorted(scenes, key=lambda scene: _days(str(scene.date)))
    for one, two in zip(ordered, ordered[1:], strict=False):
        if one.date == two.date:
            raise InvalidInput(f"the date {one.date} is twice in the sequence")
    return ordered


def _days(text: str) -> tuple[int, int]:
    """First day of a date and the one behind its last, counted from 1970."""
    first, last = (date.fromisoformat(day) for day in interval(text))
    return (first - EPOCH).days, (last - EPOCH).days + 1


def _write_gif(
    path: Path, scenes: Sequence[Raster], tags: Mapping[str, str], overwrite: bool
) -> Path:
    """An animation in one palette, so that what does not change does not flicker."""
    colours = COLOURS if set(COLOURS) <= set(scenes[0].bands) else scenes[0].bands[:1] * 3
    with staging(path, overwrite) as folder:
        pictures = [_picture(scene, colours, scenes) for scene in scenes]
        every = Image.fromarray(np.concatenate([p[:: len(pictures)] for p in pictures]))
        palette = every.quantize(256)
        frames = [
            Image.fromarray(p).quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures
        ]
        with writing(path, folder):
            frames[0].save(
                folder / "done",
                format="GIF",
                save_all=True,
                append_images=frames[1:],
                duration=int(SECONDS * 1000),
                loop=0,
                disposal=1,
                comment=json.dumps({**tags, "dates": [scene.date for scene in scenes]}).encode(),
            )
    return path


def _picture(
    scene: Raster, colours: Sequence[str], scenes: Sequence[Raster]
) -> npt.NDArray[np.uint8]:
    """Colours of a scene, smaller where it is large, (h, w, 3); black where unknown."""
    step = max(1, -(-max(scene.width, scene.height) // SIDE))
    size = (-(-scene.width // step), -(-scene.height // step))
    grid = Grid(scene.crs, scene.transform * scene.transform.scale(step), *size)
    stretch = stretch_of(scenes, colours)
    values, known = scene.regridded(grid).read((0, 0, *size), colours)
    normal = (stretch.normal(values, known).clip(-1, 1) + 1) * 127.5
    return np.moveaxis(np.where(known, normal.round(), 0), 0, 2).astype(np.uint8)


def _write_zarr(
    path: Path, scenes: Sequence[Raster], tags: Mapping[str, str], overwrite: bool
) -> Path:
    """A group, written in a hidden folder beside the target and renamed."""
    if find_spec("zarr") is None:
        raise TerraloomError("writing Zarr needs more packages: pip install 'terraloom[zarr]'")
    import zarr

    if not path.parent.is_dir():
        raise InvalidInput(f"the folder {path.parent} does not exist; create it first")
    if path.exists() and not overwrite:
        raise InvalidInput(f"{path} exists already; allow overwriting or give another name")
    if path.exists() and not (path / "zarr.json").is_file():
        raise InvalidInput(f"{path} is no Zarr group, so it is not replaced; give another name")
    with tempfile.TemporaryDirectory(
        prefix=f".{path.name}.", suffix=".part", dir=path.parent
    ) as hidden:
        folder = Path(hidden)
        with writing(path, folder):
            group = zarr.open_group(folder / "new", mode="w", zarr_format=3)
            _axes(group, scenes, tags)
            for band in scenes[0].bands:
                _variable(group, band, scenes)
            if scenes[0].masked:
                _masks(group, scenes)
            with (
                warnings.catch_warnings()
            ):  # no part of the format's third version yet, but xarray asks for it
                warnings.simplefilter("ignore", UserWarning)
                zarr.consolidate_metadata(folder / "new")
            if path.exists():
                os.replace(path, folder / "old")
            os.replace(folder / "new", path)
    return path


def _axes(group: zarr.Group, scenes: Sequence[Raster], tags: Mapping[str, str]) -> None:
    """What the group says of itself, its CRS and coordinates."""
    first = scenes[0]
    group.attrs.update({"Conventions": "CF-1.11", **tags, "dates": [s.date for s in scenes]})
    days = np.array([_days(str(scene.date)) for scene in scenes], np.int32)
    units = {"units": f"days since {EPOCH}", "calendar": "proleptic_gregorian"}
    _put(
        group,
        "time",
        days[:, 0],
        ("time",),
        {"standard_name": "time", "bounds": "time_bnds", **units},
    )
    _put(group, "time_bnds", days, ("time", "bound"), units)
    t = first.transform
    place = {"GeoTransform": " ".join(repr(float(v)) for v in (t.c, t.a, t.b, t.f, t.d, t.e))}
    if first.crs is not None:
        place["crs_wkt"] = first.crs.to_wkt()
    _put(group, "spatial_ref", np.array(0, np.int32), (), place)
    if t.b == t.d == 0:  # else no axis has coordinates of its own
        degrees = first.crs is not None and first.crs.is_geographic
        for axis, start, step, count, name in (
            ("x", t.c, t.a, first.width, ("longitude", "degrees_east")),
            ("y", t.f, t.e, first.height, ("latitude", "degrees_north")),
        ):
            said = name if degrees else (f"projection_{axis}_coordinate", "m")
            if first.crs is not None and not degrees:
                said = (said[0], first.crs.linear_units)
            attributes = {"standard_name": said[0], "units": said[1], "axis": axis.upper()}
            _put(group, axis, start + step * (np.arange(count) + 0.5), (axis,), attributes)


def _put(
    group: zarr.Group,
    name: str,
    values: npt.NDArray[Any],
    axes: tuple[str, ...],
    about: dict[str, str],
) -> None:
    array = group.create_array(name, data=values, dimension_names=axes or None)
    array.attrs.update(about)


def _variable(group: zarr.Group, band: str, scenes: Sequence[Raster]) -> None:
    """One band of all dates, chunk by chunk, as it is stored; unknown floats are NaN."""
    first = scenes[0]
    shape = (len(scenes), first.height, first.width)
    fill = np.nan if first.dtype.kind == "f" else int(first.nodata or 0)
    array = group.create_array(
        band.replace(" ", "_"),
        shape=shape,
        chunks=(1, min(CHUNK, shape[1]), min(CHUNK, shape[2])),
        dtype=first.dtype,
        fill_value=fill,
        dimension_names=("time", "y", "x"),
    )
    about: dict[str, Any] = {"long_name": band, "grid_mapping": "spatial_ref"}
    if first.dtype.kind != "f" and first.nodata is not None:
        about["_FillValue"] = fill
    scale, offset = first.scaling(band)
    if (scale, offset) != (1.0, 0.0):
        about |= {"scale_factor": scale, "add_offset": offset}
    if first.masked:
        about["ancillary_variables"] = "known"
    array.attrs.update(about)
    for time, scene in enumerate(scenes):
        for y in range(0, shape[1], CHUNK):
            rows = min(CHUNK, shape[1] - y)
            pixels, known = scene.stored((0, y, shape[2], rows), [band])
            array[time, y : y + rows] = np.where(known, pixels, first.dtype.type(fill))[0]


def _masks(group: zarr.Group, scenes: Sequence[Raster]) -> None:
    """Where pixels are known, for files that have a mask and no nodata value."""
    first = scenes[0]
    array = group.create_array(
        "known",
        shape=(len(scenes), first.height, first.width),
        chunks=(1, min(CHUNK, first.height), min(CHUNK, first.width)),
        dtype="uint8",
        fill_value=0,
        dimension_names=("time", "y", "x"),
    )
    array.attrs.update(
        {"flag_values": [0, 1], "flag_meanings": "unknown known", "grid_mapping": "spatial_ref"}
    )
    for time, scene in enumerate(scenes):
        for y in range(0, first.height, CHUNK):
            rows = min(CHUNK, first.height - y)
            _, known = scene.stored((0, y, first.width, rows), scene.bands)
            array[time, y : y + rows] = known.all(0)
