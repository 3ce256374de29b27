"""The map: `terraloom serve`."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from terraloom.commands.planet import Engine, Model
from terraloom.console import say
from terraloom.errors import InvalidInput

if TYPE_CHECKING:
    from terraloom.serve.settings import Settings

PACKAGES = ("uvicorn", "titiler.core", "titiler.extensions", "prometheus_client", "xstatic")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    seeds: Annotated[str, typer.Option(help="Allowed seeds: 0-9999 or 0,7,40-49.")] = "0-9999",
    world: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TIF", help="Another world, on your own base map.", show_default=False
        ),
    ] = None,
    model: Model = "cascade",
    text_model: Annotated[
        str, typer.Option(help="Text-to-image model: shipped name or folder.")
    ] = "terraloom/small",
    engine: Engine = "auto",
    block: Annotated[
        int, typer.Option(help="Pixels drawn at once; small answers sooner, large draws more.")
    ] = 256,
    cors: Annotated[str, typer.Option(help="Origins that may read answers, or *.")] = "*",
    prefetch: Annotated[
        bool, typer.Option("--prefetch/--no-prefetch", help="Draw neighbours when idle.")
    ] = True,
) -> None:
    """Serve the planet: a map in the browser, tiles for QGIS, COGs, JSON. Needs the extra `serve`."""
    from terraloom.serve.settings import SHIPPED_WORLD, Settings, parse_seeds

    check_installed()
    settings = Settings(
        worlds={SHIPPED_WORLD: None, **dict(named(text) for text in world or [])},
        seeds=parse_seeds(seeds),
        model=model,
        text_model=text_model,
        engine=engine,
        block=block,
        origins=tuple(origin.strip() for origin in cors.split(",")),
        prefetch=prefetch,
    )
    run(settings, host, port)


def run(settings: Settings, host: str, port: int) -> None:
    """Serve until told to stop; what is being answered is finished first."""
    import uvicorn

    from terraloom.serve.app import create_app
    from terraloom.serve.guard import JsonLines

    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.getLogger("titiler").setLevel(logging.WARNING)
    app = create_app(settings)
    say(f"A synthetic planet at http://{host}:{port}/ (Ctrl-C to stop)")
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,  # the application logs requests itself
        server_header=False,
        timeout_graceful_shutdown=20,
    )


def named(text: str) -> tuple[str, Path]:
    """Name and file of "NAME=TIF".

    Raises:
        InvalidInput: it is something else.
    """
    name, sign, path = text.partition("=")
    if not sign or not path:
        raise InvalidInput(f"--world {text!r} is not NAME=TIF, such as mars=mars.tif")
    return name, Path(path)


def check_installed() -> None:
    """Refuse without the extra.

    Raises:
        InvalidInput: a package is missing.
    """
    for name in PACKAGES:
        if find_spec(name.split(".")[0]) is None:
            raise InvalidInput(f"{name} is not installed: pip install 'terraloom[serve]'")
