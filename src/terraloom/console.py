"""What a person at a terminal sees: errors as one sentence, progress, exit codes.

stdout carries the product (paths, a table or one JSON document) and nothing else; progress and errors go to stderr.
Exit codes: 0 done, 2 bad input or a file that cannot be read or written, 130 Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from terraloom.errors import TerraloomError

Progress = Callable[[int, int], None]
STDERR = 2
INTERRUPTED = 130  # exit code, as shells have it


class Commands(TyperGroup):
    """Turns what goes wrong in any command into one sentence and an exit code."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # typer's own context
        """Run the command; exit 2 on bad input or a failed file, 130 on Ctrl-C."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader of stdout went away; typer ends quietly
        except KeyboardInterrupt:
            typer.echo("Stopped by Ctrl-C; no unfinished file is left.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except (TerraloomError, ValueError, OSError, MemoryError) as error:
            if ctx.params.get("debug"):
                raise
            typer.echo(f"terraloom: {sentence(error)}", err=True)
            raise typer.Exit(2) from None


def sentence(error: Exception) -> str:
    """What went wrong, on one line."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror.lower()}"
    if isinstance(error, MemoryError):
        return "out of memory; ask for a smaller area or a coarser gsd"
    return " ".join(str(error).split()) or type(error).__name__


def say(text: str) -> None:
    """Tell the person at the terminal; stdout stays for the product."""
    typer.echo(text, err=True)


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """A Python warning on one line, without the place in the code; see `warnings.showwarning`."""
    say(f"terraloom: warning: {message}")


def as_text(value: object) -> str:
    """A value of `installation()` on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """A bar on stderr, silent when stderr is no terminal."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def hushed_libraries() -> Iterator[None]:
    """Keep C libraries off the terminal: libtiff prints what GDAL raises as well. Python's stderr goes on."""
    try:
        mine = sys.stderr.fileno() == STDERR
    except (OSError, ValueError):  # not a file, as in tests
        mine = False
    if not mine:
        yield
        return
    terminal, python = os.dup(STDERR), sys.stderr
    with open(os.devnull, "w") as nowhere, open(terminal, "w", buffering=1) as sys.stderr:
        os.dup2(nowhere.fileno(), STDERR)
        try:
            yield
        finally:
            os.dup2(terminal, STDERR)
            sys.stderr = python
