"""Files that appear whole or not at all: written in a hidden folder beside the target, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from terraloom.errors import InvalidInput, TerraloomError


def targets(path: Path, count: int) -> list[Path]:
    """The file of one image, or of several: river.png, or river-0.png, river-1.png ..."""
    if count == 1:
        return [path]
    return [path.with_stem(f"{path.stem}-{i}") for i in range(count)]


def refuse(path: Path, overwrite: bool) -> None:
    """Say no to a target before anything is done for it.

    Raises:
        InvalidInput: a folder, an existing file without `overwrite`, or no folder to be in.
    """
    try:
        if path.is_dir():
            raise InvalidInput(f"{path} is a folder; give the name of a file")
        if path.exists() and not overwrite:
            raise InvalidInput(f"{path} exists already; allow overwriting or give another name")
        if not path.parent.is_dir():
            raise InvalidInput(f"the folder {path.parent} does not exist; create it first")
    except OSError as error:
        raise InvalidInput(
            f"cannot write in {path.parent}: {error.strerror}; choose another"
        ) from error


@contextmanager
def staging(path: str | Path, overwrite: bool) -> Iterator[Path]:
    """A hidden folder beside `path`; what is in its file `done` at the end becomes `path`.

    Raises:
        InvalidInput: on a path that cannot be written, or an existing file without `overwrite`.
        TerraloomError: when the finished file may not take its place.
    """
    path = Path(path)
    refuse(path, overwrite)
    try:
        hidden = tempfile.TemporaryDirectory(
            prefix=f".{path.name}.{os.getpid()}.", suffix=".part", dir=path.parent
        )
    except OSError as error:
        raise InvalidInput(
            f"cannot write in {path.parent}: {error.strerror}; choose another"
        ) from error
    with hidden as folder:
        yield Path(folder)
        with writing(path, Path(folder)):
            os.replace(Path(folder) / "done", path)


@contextmanager
def writing(path: str | Path, folder: Path) -> Iterator[None]:
    """Turn whatever GDAL, Pillow or the system raise while they write into one sentence."""
    try:
        yield
    except Exception as error:  # GDAL's own errors share no public base class
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        free = shutil.disk_usage(folder).free / 1e6
        raise TerraloomError(
            f"cannot write {path}: {cause}; the disk has {free:.0f} MB left, is that enough?"
        ) from error
