"""The `terraloom` command: registers the verbs of `terraloom.commands`, each a thin skin over one function.

Heavy imports (torch, GDAL) happen inside the commands, so that `terraloom --help` is instant.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

from terraloom.commands import frames, planet, training
from terraloom.commands.generate import generate
from terraloom.commands.serve import serve
from terraloom.commands.weights import weights
from terraloom.console import INTERRUPTED, Commands, show_warning

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Synthetic satellite imagery of the whole planet, at any place and resolution.",
    epilog="Everything it draws is synthetic: not an observation, no evidence of anything.",
)
VERBS: tuple[Callable[..., None], ...] = (
    planet.demo,
    generate,
    frames.superres,
    frames.inpaint,
    frames.forecast,
    planet.zoom,
    planet.tile,
    serve,
    planet.info,
    training.train,
    training.evaluate,
)
for verb in VERBS:
    app.command()(verb)
app.add_typer(training.data, name="data")
app.add_typer(weights, name="weights")


def show_version(wanted: bool) -> None:
    """Print the version and stop, when asked to."""
    if wanted:
        import terraloom

        typer.echo(f"terraloom {terraloom.__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Take what holds for all commands; `Commands.invoke` reads `debug`."""


def main() -> None:
    """Entry point of the `terraloom` command."""
    warnings.showwarning = show_warning
    try:
        app()
    except SystemExit as end:
        if (
            end.code == INTERRUPTED
        ):  # CPython would end by the signal where it met an import, not by this code
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        raise


if __name__ == "__main__":
    main()
