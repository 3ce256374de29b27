"""The checkpoints that are there, and others' pickles made safe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

weights = typer.Typer(invoke_without_command=True, help="List the checkpoints, or convert others.")


@weights.callback()
def default(context: typer.Context) -> None:
    """List the checkpoints that come with the package, or convert others'."""
    if context.invoked_subcommand is None:
        listing()


@weights.command("list")
def listing() -> None:
    """List the checkpoints that come with the package."""
    from terraloom.weights import available

    for checkpoint in available():
        typer.echo(f"{checkpoint.name}  {checkpoint.kind}  {checkpoint.digest}  {checkpoint.path}")


@weights.command("convert")
def convert(
    source: Annotated[Path, typer.Argument(help="Folder of an official DiffusionSat checkpoint.")],
    target: Annotated[Path, typer.Argument(help="Folder to make.")],
) -> None:
    """Turn an official DiffusionSat checkpoint into safetensors; no code in it is ever run."""
    from terraloom.official import convert as write

    write(source, target)
    typer.echo(target)
