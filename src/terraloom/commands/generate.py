"""Text and metadata to image."""

from __future__ import annotations

from typing import Annotated

import typer

from terraloom.commands.options import Output, Overwrite, check_target
from terraloom.console import hushed_libraries, progress_bar
from terraloom.errors import InvalidInput

Number = float | None


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw, in English.")],
    output: Output,
    lon: Annotated[Number, typer.Option(help="Degrees east.", show_default=False)] = None,
    lat: Annotated[Number, typer.Option(help="Degrees north.", show_default=False)] = None,
    gsd: Annotated[Number, typer.Option(help="Metres per pixel.", show_default=False)] = None,
    cloud_cover: Annotated[
        str | None, typer.Option(help="0 to 1, or 40%.", show_default=False)
    ] = None,
    date: Annotated[
        str | None, typer.Option(help="2021, 2021-06 or 2021-06-15.", show_default=False)
    ] = None,
    size: Annotated[int, typer.Option(help="Pixels, both sides.")] = 256,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps.", show_default="the model's")
    ] = None,
    guidance: Annotated[
        Number, typer.Option(help="Weight of the prompt.", show_default="the model's")
    ] = None,
    metadata_guidance: Annotated[
        Number, typer.Option(help="Weight of the metadata.", show_default="that of the prompt")
    ] = None,
    negative: Annotated[str, typer.Option(help="What to keep away from.")] = "",
    num: Annotated[int, typer.Option(help="Images, named FILE-0, FILE-1 ...")] = 1,
    seed: Annotated[int, typer.Option(help="Of the first image; the next ones count on.")] = 0,
    model: Annotated[
        str, typer.Option(help="Name of shipped weights, or a pipeline folder.")
    ] = "text",
    crs: Annotated[
        str | None,
        typer.Option(help="CRS of a .tif, e.g. EPSG:3857.", show_default="the UTM zone"),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw an image from words and metadata: a .tif lies at --lon, --lat with pixels of --gsd."""
    from terraloom.generate import Order, place, targets
    from terraloom.generate import generate as draw
    from terraloom.metadata import Metadata

    metadata = Metadata(lon, lat, gsd, share(cloud_cover), date)

    order = Order(prompt, metadata, size, steps, guidance, metadata_guidance, negative, seed, num)
    for file in targets(output, num):
        check_target(file, overwrite)
    if output.suffix.lower() == ".tif":
        place(order, crs)
    elif crs is not None:
        raise InvalidInput(f"{output} has no CRS; --crs is for .tif files")
    with progress_bar(output.name) as progress, hushed_libraries():
        files = draw(order, output, model=model, crs=crs, overwrite=overwrite, progress=progress)
    for file in files:
        typer.echo(file)


def share(text: str | None) -> float | None:
    """A cloud cover of 0 to 1 from "0.4" or "40%".

    Raises:
        InvalidInput: no number, or outside 0 to 1.
    """
    if text is None:
        return None
    percent = text.rstrip().endswith("%")
    try:
        value = float(text.rstrip().removesuffix("%"))
    except ValueError:
        raise InvalidInput(f"cloud cover {text!r} is not a number like 0.4 or 40%") from None
    value = value / 100 if percent else value
    if not 0 <= value <= 1:
        raise InvalidInput(f"cloud cover {text} is outside 0 to 1, that is 0% to 100%")
    return value
