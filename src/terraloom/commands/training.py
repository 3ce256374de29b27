"""Making training files, training, and measuring what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from terraloom.commands.options import DataDir, MaxMib, OutFile, ScenesDir
from terraloom.console import progress_bar, say
from terraloom.errors import BadCheckpoint, InvalidInput

data = typer.Typer(no_args_is_help=True, help="Make the files that training and the planet need.")


def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file, e.g. recipes/cascade.toml.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for state, log and the checkpoint.")
    ],
    pack: Annotated[
        Path | None,
        typer.Option(
            help="Training file made by `terraloom data pack` or `text-pack`.", show_default=False
        ),
    ] = None,
    data_folder: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Your own captioned images instead of a pack, for text: folder or shards.",
            show_default=False,
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Stop, saved, after so long.", show_default=False)
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Stop at this step.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where OUT stopped.")] = False,
    start: Annotated[
        Path | None,
        typer.Option(help="Checkpoint folder to begin from.", show_default=False),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; all by default.", show_default=False)
    ] = None,
) -> None:
    """Train a network by a recipe, on CPU or GPU; needs --minutes or --steps."""
    from terraloom.training import run

    if (pack is None) == (data_folder is None):
        raise InvalidInput("give --pack or --data, one of them")
    if not resume and (out / "state").exists():
        raise InvalidInput(f"{out} holds a training state; give --resume or another --out")
    typer.echo(run(recipe, pack, out, minutes, steps, resume, start, threads, data_folder))


def evaluate(
    model: Annotated[str, typer.Argument(help="Name of shipped weights, or a checkpoint folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for figures and sheets.")],
    pack: Annotated[
        Path | None,
        typer.Option(
            help="Training file made by `terraloom data pack` or `text-pack`; not for dated images.",
            show_default=False,
        ),
    ] = None,
    data_folder: Annotated[
        Path | None,
        typer.Option(
            "--data",
            envvar="TERRALOOM_DATA",
            help="Folder of the imagery sets, for a model for dated images.",
            show_default=False,
        ),
    ] = None,
    regression: Annotated[
        Path | None,
        typer.Option(
            help="A model for dated images trained with losses.draws = 1: a rival in super-resolution.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    places: Annotated[int, typer.Option(help="Chains of a cascade to draw, 1 to 40.")] = 40,
    quick: Annotated[bool, typer.Option("--quick", help="Less of it, sooner.")] = False,
) -> None:
    """Measure a model: figures, a card and contact sheets. A model for dated images is measured beside its rivals."""
    from terraloom.weights import find, is_pipeline

    if pack is None or _dated(model):
        if data_folder is None:
            raise InvalidInput(
                "give --pack for a cascade or a text-to-image model, --data for a model for dated images"
            )
        from terraloom.evaluation.frames import evaluate_frames

        evaluate_frames(
            model, data_folder, out, regression=regression, seed=seed, quick=quick, progress=say
        )
    elif is_pipeline(model):
        from terraloom.evaluation.text import evaluate_text

        say("Drawing and measuring; a while ...")
        evaluate_text(model, pack, out, seed=seed, quick=quick)
    else:
        from terraloom.evaluation import evaluate as measure

        find(model)  # an unknown one is refused before anything is said
        say(f"Drawing {places} chains and measuring; a few minutes ...")
        measure(model, pack, out, seed=seed, places=places, quick=quick)
    typer.echo(out)


def _dated(model: str) -> bool:
    """Whether this is a complete model for dated images."""
    from terraloom.weights import find_frames

    try:
        find_frames(model)
    except BadCheckpoint:
        return False
    return True


def _tell(name: str, count: int) -> None:
    say(f"{name}: {count} images")


@data.command("pack")
def data_pack(
    data_dir: DataDir, output: OutFile, max_mib: MaxMib = 45, scenes: ScenesDir = None
) -> None:
    """Pack the imagery sets into one training file."""
    from terraloom.data.pack import build_pack

    build_pack(data_dir, output, max_mib, _tell, scenes)
    typer.echo(output)


@data.command("text-pack")
def data_text_pack(
    data_dir: DataDir,
    output: OutFile,
    max_mib: MaxMib = 45,
    months: Annotated[
        Path | None,
        typer.Option(
            help="Folder of Blue Marble's months, world.200401.3x5400x2700.jpg ...: for seasons.",
            show_default=False,
        ),
    ] = None,
    scenes: ScenesDir = None,
) -> None:
    """Pack the captioned imagery sets and their encoded captions into one file."""
    from terraloom.data.text_pack import build_text_pack

    build_text_pack(data_dir, output, max_mib, _tell, months, scenes)
    typer.echo(output)


@data.command("frames-pack")
def data_frames_pack(
    output: OutFile,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data",
            envvar="TERRALOOM_DATA",
            help="Folder of the imagery sets.",
            show_default=False,
        ),
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(help="Names that your files lack: red=3,green=2,blue=1.", show_default=False),
    ] = None,
    stack: Annotated[
        Path | None,
        typer.Option(
            help="Folder of your own scenes instead: PLACE/2021-06-15.tif ...", show_default=False
        ),
    ] = None,
) -> None:
    """Pack dated, multispectral scenes for training on frames: the imagery sets, or your own."""

    if stack is not None:
        from terraloom.io.stack import build_stack

        build_stack(stack, output, bands, _tell)
    elif data_dir is not None:
        from terraloom.data.stack_pack import build_stacks

        build_stacks(data_dir, output, progress=_tell)
    else:
        raise InvalidInput("give --data or --stack, a folder of imagery")
    typer.echo(output)


@data.command("basemap")
def data_basemap(data_dir: DataDir, output: OutFile) -> None:
    """Build the base map (Blue Marble at zoom 6) as a COG; takes half an hour."""
    from terraloom.data.basemap import build

    for name, error in build(data_dir, output).items():
        typer.echo(f"{name}: {error:.2f} of 255 from means of zoom 8, on tiles held out")
    typer.echo(output)


@data.command("ground")
def data_ground(data_dir: DataDir, output: OutFile) -> None:
    """Build the rasters of what is really there into a folder: land cover and Natural Earth."""
    from terraloom.data.ground_maps import build

    with progress_bar("ground.tif") as progress:
        build(data_dir, output, progress)
    typer.echo(output)
