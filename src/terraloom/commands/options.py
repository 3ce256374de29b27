"""Options and checks that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from terraloom.errors import InvalidInput

SUFFIXES = (".tif", ".png", ".webp")

Output = Annotated[
    Path, typer.Option("--output", "-o", help="File to write: .tif (COG), .png or .webp.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")]
OutFile = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]
DataDir = Annotated[
    Path, typer.Option("--data", envvar="TERRALOOM_DATA", help="Folder of the imagery sets.")
]
ScenesDir = Annotated[
    Path | None,
    typer.Option(
        "--scenes",
        help="Folder of more imagery, with a list: see terraloom.data.scenes.",
        show_default=False,
    ),
]
MaxMib = Annotated[
    float,
    typer.Option(
        "--max-mib", min=1, help="Size of the file, MiB; quality falls and sets are thinned to fit."
    ),
]


def check_target(path: Path, overwrite: bool, endings: Sequence[str] = SUFFIXES) -> None:
    """Refuse a target before weights are loaded and anything is drawn.

    Raises:
        InvalidInput: an unknown format, no such folder, or a file that exists and may not be replaced.
    """
    if path.suffix.lower() not in endings:
        raise InvalidInput(f"cannot write {path}; the name must end in {' or '.join(endings)}")
    if not path.parent.is_dir():
        raise InvalidInput(f"cannot write {path}; the folder {path.parent} does not exist")
    if path.exists() and not overwrite:
        raise InvalidInput(f"{path} exists; give --overwrite to replace it")
