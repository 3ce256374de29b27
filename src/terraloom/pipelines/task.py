"""From scenes to Cloud-Optimized GeoTIFFs: several draws of one image, their spread, and what the files say.

Draws share everything but their noise. Strips of all draws are made together, so that memory holds one strip of each
and a run that was killed goes on for all of them.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np

from terraloom.errors import InvalidInput, TerraloomError
from terraloom.io.dates import date_in
from terraloom.io.provenance import WEIGHTS, synthetic_tags
from terraloom.io.raster import Raster
from terraloom.io.staging import refuse, targets
from terraloom.io.strips import Strip, Target, write_strips
from terraloom.noise import SEED_END
from terraloom.pipelines.frames_to_image import FramesToImage
from terraloom.pipelines.scenes import Scene
from terraloom.pipelines.windows import Lattice

Progress = Callable[[int, int], None]
Path_ = str | PathLike[str]
Source = Raster | Path_ | Sequence[Path_]

MOST = 100  # draws
CREDITS = f"Drawn by Terraloom from the images named in its tags, whose rights remain. {WEIGHTS}"


class Task:
    """What the three tasks share: a model, and how their scenes become files.

    Args:
        pipe: a small model for dated images.

    Raises:
        InvalidInput: the model is DiffusionSat's; its `FramesToImage` draws single images, not scenes.
    """

    def __init__(self, pipe: FramesToImage) -> None:
        if pipe.vae is not None:
            raise InvalidInput("whole scenes need a small model, e.g. 'frames'")
        self.pipe = pipe

    @classmethod
    def from_pretrained(cls, name_or_folder: Path_ = "frames") -> Self:
        """With a shipped model by its name, or one from a folder.

        Raises:
            BadCheckpoint: there is no such model, or its files are damaged.
        """
        return cls(FramesToImage.from_pretrained(name_or_folder))

    def write(
        self,
        scene: Scene,
        path: Path,
        *,
        seed: int = 0,
        num: int = 1,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> list[Path]:
        """Write `num` draws of a scene, and with more than one their standard deviation as FILE-std.tif.

        The bytes of draw i are those of a single draw with seed + i.

        Args:
            scene: what to draw.
            path: of the file, or what several are called after: FILE-0.tif, FILE-1.tif ...
            seed: of the first draw.
            num: draws.
            overwrite: replace existing files.
            progress: called with (windows drawn, in all).

        Raises:
            InvalidInput: a seed or a number outside its range, or a path that cannot be written.
            TerraloomError: when writing fails, for instance because the disk is full.
        """
        check(seed, num)
        files = self._targets(scene, path, seed, num)
        lattice = Lattice(scene.grid.width, scene.grid.height)
        a_row = len(lattice.columns) * num
        total = a_row * scene.rows

        def draw(first: int) -> Iterator[Sequence[Strip]]:
            done = a_row * first

            def step() -> None:
                nonlocal done
                done = min(done + 1, total)
                if progress is not None:
                    progress(done, total)

            draws = [scene.strips(self.pipe, seed + i, first, step) for i in range(num)]
            for strips in zip(*draws, strict=True):
                yield strips if num == 1 else [*strips, spread(strips)]

        key = scene.identity(self.pipe, seed)
        return write_strips(files, f"{key}x{num}", draw, overwrite=overwrite)

    def _targets(self, scene: Scene, path: Path, seed: int, num: int) -> list[Target]:
        """The files of all draws, and of their spread."""
        raster = scene.raster
        scaling = tuple(raster.scaling(band) for band in scene.bands)
        target = Target(
            path=path,
            grid=scene.grid,
            bands=scene.bands,
            dtype=raster.dtype,
            nodata=raster.nodata,
            masked=raster.masked,
            tags=tags(scene, self.pipe, seed),
            scaling=None if set(scaling) == {(1.0, 0.0)} else scaling,
        )
        found = [
            replace(target, path=file, tags=tags(scene, self.pipe, seed + i))
            for i, file in enumerate(targets(path, num))
        ]
        if num > 1:
            deviation = {
                "path": spread_file(path),
                "dtype": np.dtype(np.float32),
                "nodata": float("nan"),
                "tags": {**target.tags, "TERRALOOM_DEVIATION_OF": str(num)},
                "scaling": None if target.scaling is None else tuple((s, 0.0) for s, _ in scaling),
            }
            found.append(replace(target, masked=False, **deviation))  # type: ignore[arg-type]
        return found


def check(seed: int, num: int) -> None:
    """Refuse a seed or a number of draws that cannot be.

    Raises:
        InvalidInput: either of the two.
    """
    if not 1 <= num <= MOST:
        raise InvalidInput(f"{num} draws are not possible; ask for 1 to {MOST}")
    if not 0 <= seed <= SEED_END - num:
        raise InvalidInput(f"seed {seed} is outside 0 to 2**63 - {num}")


def spread_file(path: Path) -> Path:
    """FILE-std.tif beside FILE.tif."""
    return path.with_stem(f"{path.stem}-std")


def check_files(paths: Sequence[Path], num: int, overwrite: bool) -> None:
    """Refuse files before anything is drawn, see `terraloom.io.staging.refuse`."""
    for path in paths:
        for file in [*targets(path, num), *([spread_file(path)] if num > 1 else [])]:
            refuse(file, overwrite)


def check_sequence(path: Path, overwrite: bool) -> None:
    """Refuse a .gif or .zarr before anything is drawn for it.

    Raises:
        InvalidInput: it exists and may not be replaced, or has no folder to be in.
        TerraloomError: the extra `zarr` is not installed.
    """
    if path.suffix.lower() != ".zarr":
        refuse(path, overwrite)
        return
    if path.exists() and not overwrite:
        raise InvalidInput(f"{path} exists already; allow overwriting or give another name")
    if not path.parent.is_dir():
        raise InvalidInput(f"the folder {path.parent} does not exist; create it first")
    if find_spec("zarr") is None:
        raise TerraloomError("writing Zarr needs more packages: pip install 'terraloom[zarr]'")


@contextmanager
def between(out: Path, told: object) -> Iterator[Path]:
    """A hidden folder beside a file for what it is made from, gone when that is done.

    After a failure what is in it stays, for the next run with the same `told`.
    """
    key = hashlib.sha256(repr(told).encode()).hexdigest()[:16]
    folder = out.parent / f".{out.name}.{key}.between"
    folder.mkdir(exist_ok=True)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):  # it is not empty
            folder.rmdir()
        raise
    shutil.rmtree(folder)


def spread(strips: Sequence[Strip]) -> Strip:
    """Standard deviation of several draws at every pixel, in stored units, float32; NaN where unknown."""
    known = strips[0][1]
    values = np.std([pixels.astype(np.float64) for pixels, _ in strips], axis=0)
    return np.where(known, values, np.nan).astype(np.float32), known


def opened(source: Source, bands: str | None = None) -> Raster:
    """A scene from files; a date may stand behind a name, as in A.tif@2021-06-15.

    Raises:
        InvalidInput: see `Raster.open`.
    """
    if isinstance(source, Raster):
        return source
    if isinstance(source, str) and not Path(source).exists():
        name, at, date = source.rpartition("@")
        if at and date_in(date):
            return Raster.open(name, bands, date)
    return Raster.open(source, bands)  # type: ignore[arg-type]  # any path that `Path` takes


def tags(scene: Scene, pipe: FramesToImage, seed: int) -> dict[str, Any]:
    """What a file says of itself, see docs/provenance.md."""
    seen = [f"{_called(r)}{'@' + r.date if r.date else ''}" for r in scene.inputs()]
    return {
        **synthetic_tags(CREDITS),
        "TERRALOOM_TASK": scene.task,
        "TERRALOOM_FROM": ", ".join(seen),
        "TERRALOOM_SEED": str(seed),
        "TERRALOOM_MODEL": pipe.digest,
        "TERRALOOM_MODEL_NAME": pipe.name,
        **scene.tags(),
        **scene.metadata.to_tags(),
    }


def _called(raster: Raster) -> str:
    """The name of a scene's file, or of the folder of its files."""
    first = raster.paths[0]
    return first.name if len(raster.paths) == 1 else first.absolute().parent.name
