"""Drawing the planet: demo, zoom, tile; and what is installed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terraloom.commands.options import Output, Overwrite, check_target
from terraloom.console import as_text, hushed_libraries, progress_bar, say
from terraloom.errors import InvalidInput

if TYPE_CHECKING:
    from terraloom.grid import BBox
    from terraloom.world import World

Seed = Annotated[int, typer.Option(help="Which of the possible planets.")]
Model = Annotated[str, typer.Option(help="Name of shipped weights, or a checkpoint folder.")]
Base = Annotated[
    Path | None,
    typer.Option(help="Your own GeoTIFF as the base map, in any CRS.", show_default=False),
]
Cover = Annotated[
    Path | None,
    typer.Option(help="Your own land cover (IGBP classes) as a GeoTIFF.", show_default=False),
]
Engine = Annotated[str, typer.Option(help="auto, openvino or torch.")]


def demo(
    place: Annotated[
        str, typer.Option(help="nile, tokyo, alps, amazon, iowa, london, ...")
    ] = "nile",
    seed: Seed = 0,
    out_dir: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out"),
) -> None:
    """Draw a real place at 10 m and a zoom strip from 2.4 km to 2.4 m."""
    from terraloom.demo import draw, place_named

    spot = place_named(place)
    title, name = spot.title, place.lower()
    start = time.perf_counter()
    say(f"Drawing {title} at 10 m, and a zoom strip from 2.4 km to 2.4 m ...")
    with progress_bar(title) as progress:
        scene = draw(world_of(seed), place, out_dir, progress)
    for path in (scene.cog, scene.png, scene.strip):
        typer.echo(path)
    say(
        f"Done in {time.perf_counter() - start:.0f} s. The first is a GeoTIFF for QGIS; open the PNGs."
    )
    say("All of it is synthetic, not a photograph. Now try:")
    other = "tokyo" if name == "nile" else "nile"
    west, south = spot.lon - 0.01, spot.lat - 0.01
    box = f"{west:.2f},{south:.2f},{west + 0.02:.2f},{south + 0.02:.2f}"
    say(f"  terraloom demo --place {other} --seed 7")
    say(f"  terraloom zoom --bbox={box} --gsd 0.6 -o {name}.tif")
    say("(in this folder: .venv/bin/terraloom ...)")


def zoom(
    bbox: Annotated[str, typer.Option(metavar="W,S,E,N", help="Degrees; W > E crosses 180.")],
    output: Output,
    gsd: Annotated[float | None, typer.Option(help="Metres per pixel.", show_default=False)] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Longest side in pixels, instead of --gsd.", show_default=False),
    ] = None,
    crs: Annotated[
        str | None, typer.Option(help="CRS of the output, e.g. EPSG:32636.", show_default=False)
    ] = None,
    seed: Seed = 0,
    model: Model = "cascade",
    base: Base = None,
    cover: Cover = None,
    engine: Engine = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Draw a place: a Cloud-Optimized GeoTIFF of any size, or a picture."""
    box = numbers(bbox)
    pixel = gsd_of(box, gsd, size, crs)
    check_target(output, overwrite)
    world = world_of(seed, model=model, base=base, cover=cover, engine=engine)
    save(world, box, pixel, output, crs, overwrite)


def tile(
    z: Annotated[int, typer.Argument(help="Zoom, 0 to 18.")],
    x: Annotated[int, typer.Argument(help="Column.")],
    y: Annotated[int, typer.Argument(help="Row, 0 in the north.")],
    output: Output,
    seed: Seed = 0,
    model: Model = "cascade",
    base: Base = None,
    cover: Cover = None,
    engine: Engine = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Draw one 256 px tile of a web map (XYZ)."""
    from terraloom.grid import TILE, Window, bbox_of, coarsest_gsd

    box = bbox_of(Window(z, TILE * x, TILE * y, TILE, TILE))
    if not 0 <= x < 2**z:  # World wraps columns; a map's tile has one name
        raise InvalidInput(
            f"tile column {x} does not exist at zoom {z}; columns are 0 to {2**z - 1}"
        )
    check_target(output, overwrite)
    world = world_of(seed, model=model, base=base, cover=cover, engine=engine)
    save(world, box, coarsest_gsd(box, z), output, None, overwrite)


def info(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Say what is installed: versions, engines, weights, base map, cache. Good for bug reports."""
    from terraloom.info import installation

    found = installation()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        for key, value in found.items():
            typer.echo(f"{key:<12} {as_text(value)}")


def world_of(seed: int, **options: Any) -> World:
    """The world of a seed, its cache in the user's cache folder."""
    from terraloom.world import World

    return World(seed, **options)


def numbers(bbox: str) -> BBox:
    """A bbox from its text.

    Raises:
        InvalidInput: see `terraloom.grid.check_bbox`.
    """
    from terraloom.grid import check_bbox

    try:
        return check_bbox([float(part) for part in bbox.split(",")])
    except InvalidInput:
        raise
    except ValueError:
        raise InvalidInput(f"bbox {bbox!r} is not four numbers: west,south,east,north") from None


def gsd_of(bbox: BBox, gsd: float | None, size: int | None, crs: str | None) -> float:
    """Metres per pixel, given as such or by the pixels of the longest side.

    Raises:
        InvalidInput: both or none are given, or a size that is not allowed.
    """
    from terraloom.grid import FINEST_LEVEL, coarsest_gsd, window_of

    if (gsd is None) == (size is None):
        raise InvalidInput("give --gsd (metres per pixel) or --size (pixels), one of them")
    if gsd is not None:
        return gsd
    assert size is not None
    if size < 2:
        raise InvalidInput(f"size {size} is not allowed; give at least 2 pixels")
    if crs is not None:
        raise InvalidInput("--size works in Web Mercator only; give --gsd with --crs")
    finest = window_of(bbox, FINEST_LEVEL)
    pixels = max(finest.width, finest.height)
    return (
        coarsest_gsd(bbox, FINEST_LEVEL) * pixels / (size - 1)
    )  # edges lie inside a first and last pixel


def save(
    world: World, bbox: BBox, gsd: float, path: Path, crs: str | None, overwrite: bool
) -> None:
    """Write a place in the format that the file's name asks for, and print the name."""
    if path.suffix.lower() != ".tif":
        from terraloom.io.picture import write_picture

        raster = world.read(bbox, gsd, crs)
        write_picture(
            path, raster.data, {**world.tags, "TERRALOOM_GSD": f"{gsd:g}"}, overwrite=overwrite
        )
    else:
        with progress_bar(path.name) as progress, hushed_libraries():
            world.export(bbox, gsd, path, crs, overwrite, progress)
    typer.echo(path)
