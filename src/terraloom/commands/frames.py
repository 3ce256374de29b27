"""Scenes in, scenes out: super-resolution, in-painting and forecasting."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from terraloom.commands.options import Overwrite, check_target
from terraloom.console import hushed_libraries, progress_bar
from terraloom.errors import TerraloomError

Scene = Annotated[
    list[str],
    typer.Argument(help="A GeoTIFF, a folder of single-band files, or the files of one scene."),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="File to write: .tif (COG).")]
Bands = Annotated[
    str | None,
    typer.Option(help="Names the files lack: red=3,green=2,blue=1,nir=4.", show_default=False),
]
Seed = Annotated[int, typer.Option(help="Of the first draw; the next ones count on.")]
Num = Annotated[
    int, typer.Option(help="Draws, named FILE-0, FILE-1 ..., and their deviation, FILE-std.")
]
Model = Annotated[str, typer.Option(help="Name of shipped weights, or a pipeline folder.")]
Align = Annotated[bool, typer.Option("--align", help="Warp what lies on another grid.")]


def superres(
    scene: Scene,
    output: Output,
    times: Annotated[
        int, typer.Option(help="How much finer: 4, or 16 for 8-bit colours by the cascade.")
    ] = 4,
    bands: Bands = None,
    seed: Seed = 0,
    num: Num = 1,
    model: Model = "frames",
    overwrite: Overwrite = False,
) -> None:
    """Draw a scene's red, green and blue four times finer; its other bands help."""
    ready(output, num, model, overwrite)
    from terraloom.pipelines.super_resolve import SuperResolve

    with progress_bar(output.name) as progress, hushed_libraries():
        task = SuperResolve.from_pretrained(model)
        files = task.run(
            scene[0] if len(scene) == 1 else scene,
            output,
            bands=bands,
            times=times,
            seed=seed,
            num=num,
            overwrite=overwrite,
            progress=progress,
        )
    for file in files:
        typer.echo(file)


def inpaint(
    scene: Scene,
    output: Output,
    mask: Annotated[
        str | None,
        typer.Option(
            help="Raster or GeoJSON of what to fill; qa: by the scene's quality band; auto: clouds a network finds.",
            show_default="pixels without data",
        ),
    ] = None,
    other: Annotated[
        list[str] | None,
        typer.Option(help="Another date of the place: FILE or FILE@2021-06-15; may be repeated."),
    ] = None,
    align: Align = False,
    bands: Bands = None,
    seed: Seed = 0,
    num: Num = 1,
    model: Model = "frames",
    overwrite: Overwrite = False,
) -> None:
    """Fill a hole of a scene, such as clouds; all other pixels stay as they are, bit by bit."""
    ready(output, num, model, overwrite)
    from terraloom.pipelines.inpaint import Inpaint

    with progress_bar(output.name) as progress, hushed_libraries():
        task = Inpaint.from_pretrained(model)
        files = task.run(
            scene[0] if len(scene) == 1 else scene,
            mask,
            output,
            other or (),
            bands=bands,
            align=align,
            seed=seed,
            num=num,
            overwrite=overwrite,
            progress=progress,
        )
    for file in files:
        typer.echo(file)


def forecast(
    scenes: Annotated[
        list[str],
        typer.Argument(
            help="Dates of a place in any order: FILE, FILE@2021-06-15 where it does not tell, or a folder of bands."
        ),
    ],
    date: Annotated[
        list[str], typer.Option(help="To draw: 2022, 2022-05 or 2022-05-01; may be repeated.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="File to write: .tif (COG); .gif or .zarr holds all dates."
        ),
    ],
    align: Align = False,
    bands: Bands = None,
    seed: Seed = 0,
    num: Num = 1,
    model: Model = "frames",
    overwrite: Overwrite = False,
) -> None:
    """Draw a place on another date, before, between or after those given; several dates: FILE-DATE.tif."""
    ready(output, num, model, overwrite or len(date) > 1, (".tif", ".tiff", ".gif", ".zarr"))
    from terraloom.pipelines.forecast import Forecast

    with progress_bar(output.name) as progress, hushed_libraries():
        task = Forecast.from_pretrained(model)
        files = task.run(
            scenes,
            date,
            output,
            bands=bands,
            align=align,
            seed=seed,
            num=num,
            overwrite=overwrite,
            progress=progress,
        )
    for file in files:
        typer.echo(file)


def ready(
    path: Path, num: int, model: str, overwrite: bool, endings: tuple[str, ...] = (".tif", ".tiff")
) -> None:
    """Refuse a file and a model that cannot be before anything slow is imported.

    Raises:
        InvalidInput: another ending, no such folder, or a file that exists and may not be replaced.
        BadCheckpoint: no such model.
        TerraloomError: the extra `text` is not installed.
    """
    from terraloom.weights import find_frames

    check_target(path, overwrite or num > 1, endings)
    find_frames(model)
    if find_spec("diffusers") is None:
        raise TerraloomError("this needs more packages: pip install 'terraloom[text]'")
