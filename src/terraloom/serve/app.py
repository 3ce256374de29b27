"""The application: titiler's tile server over worlds, and what it lacks; see docs/serve.md for its addresses."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import morecantile
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from morecantile import TileMatrixSet
from morecantile.defaults import TileMatrixSets
from morecantile.errors import MorecantileError
from rio_tiler import errors as rio
from rio_tiler.models import ImageData
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from titiler.core import dependencies as titiler
from titiler.core.factory import TilerFactory
from titiler.core.utils import render_image
from titiler.extensions.wmts import wmtsExtension
from xstatic.pkg import leaflet

from terraloom.data import places
from terraloom.errors import InvalidInput, TerraloomError
from terraloom.grid import FINEST_LEVEL, check_bbox, coarsest_gsd, window_of
from terraloom.serve import parameters
from terraloom.serve.gate import Gate, Lanes
from terraloom.serve.generate import Generator, NoTextModel, router
from terraloom.serve.guard import Guard
from terraloom.serve.metrics import Metrics
from terraloom.serve.planets import Planets
from terraloom.serve.reader import WorldReader
from terraloom.serve.settings import Settings
from terraloom.serve.work import check_wanted
from terraloom.world import World
from terraloom.world.world import CREDITS

PAGE = Path(__file__).parent / "page"
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'self'"
)
EXPOSED = ("ETag", "Content-Bbox", "Content-Crs", "Retry-After")
STATUS: dict[type[Exception], int] = {
    InvalidInput: 400,
    TerraloomError: 500,
    NoTextModel: 503,
    MorecantileError: 400,
    rio.RioTilerError: 400,
    rio.TileOutsideBounds: 404,
    rio.PointOutsideBounds: 404,
    rio.MaxArraySizeError: 413,
}


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application of one server; its worlds are opened now, their engine starts when it is first needed.

    Raises:
        InvalidInput, BadCheckpoint: see `World`.
    """
    settings = settings or Settings()
    planets, metrics, generator = Planets(settings), Metrics(), Generator(settings.text_model)
    metrics.watch_drawn(lambda: planets.drawn)
    lanes: list[Lanes] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        lanes[:] = [Lanes(settings.limits, settings.prefetch, metrics)]
        work = asyncio.create_task(lanes[0].draws.run())
        if settings.prefetch:
            lanes[0].draws.warm(planets.find())
        yield
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work

    app = FastAPI(
        title="Terraloom",
        description="A synthetic planet: not an observation, no evidence of anything.",
        version=version("terraloom"),
        docs_url=None,  # its page comes from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.planets, app.state.metrics = planets, metrics
    os.environ.setdefault("TITILER_DEFAULT_ATTRIBUTION", CREDITS)

    app.include_router(_tiler(settings).router, dependencies=[Depends(parameters.check_zooms)])
    app.include_router(router(generator))
    _add_own(app, settings, generator)
    _add_page(app)
    _say_errors(app)
    app.dependency_overrides |= {
        titiler.CRSParams: parameters.crs_of,
        titiler.CoordCRSParams: parameters.coord_crs_of,
        titiler.DstCRSParams: parameters.dst_crs_of,
        titiler.CoverScaleParams: parameters.cover_scale_of,
    }
    app.add_middleware(
        Gate, find=planets.find, lanes=lambda: lanes[0], limits=settings.limits, metrics=metrics
    )
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=6)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(settings.origins),
        allow_methods=["GET", "HEAD", "POST"],
        allow_headers=["Content-Type"],
        expose_headers=list(EXPOSED),
    )
    app.add_middleware(Guard, metrics=metrics)
    return app


def world_of(
    request: Request,
    world: Annotated[str | None, Query(max_length=32, description="Name of the world.")] = None,
    seed: Annotated[int | None, Query(ge=0, lt=2**63, description="Which planet.")] = None,
) -> World:
    """The world that a request is about."""
    found: World = request.app.state.planets.find(world, seed)
    return found


AskedWorld = Annotated[World, Depends(world_of)]


def _tiler(settings: Settings) -> TilerFactory:
    """Tiles, TileJSON, WMTS, box, feature, point, statistics."""
    quad = morecantile.tms.get("WebMercatorQuad")
    levels = quad.tileMatrices[: FINEST_LEVEL + 1]  # WMTS clients take the last for the finest
    quad = TileMatrixSet.model_validate({**quad.model_dump(), "tileMatrices": levels})

    class Reader(WorldReader):
        def __attrs_post_init__(self) -> None:
            super().__attrs_post_init__()
            self.max_pixels = settings.limits.pixels

    return TilerFactory(
        reader=Reader,
        path_dependency=world_of,
        layer_dependency=parameters.Layers,
        dataset_dependency=titiler.DefaultDependency,
        tile_dependency=parameters.TileOptions,
        stats_dependency=parameters.Statistics,
        histogram_dependency=parameters.Histogram,
        process_dependency=lambda: None,
        colormap_dependency=lambda: None,
        render_dependency=parameters.Rendering,
        render_func=_encoded,
        supported_tms=TileMatrixSets({"WebMercatorQuad": quad}),
        add_viewer=False,
        extensions=[wmtsExtension(layer_identifier_provider=lambda w: f"terraloom-{w.spec.seed}")],
    )


def _encoded(image: ImageData, add_mask: bool = True, **options: Any) -> tuple[bytes, str]:
    """titiler's image file, without an alpha channel that hides nothing.

    The place is told even to formats that do not keep it: rasterio warns of images without one, and what rio-tiler does
    to be quiet about it (`warnings.catch_warnings`) works for one thread at a time.
    """
    found: tuple[bytes, str] = render_image(
        image,
        add_mask=add_mask and not image.mask.all(),
        transform=image.transform,
        **options,
    )
    return found


def _add_own(app: FastAPI, settings: Settings, generator: Generator) -> None:
    """What titiler lacks."""

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the server lives."""
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(app.state.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/spec")
    def spec(world: AskedWorld) -> dict[str, Any]:
        """What this world is, and what may be asked of the server."""
        limits = settings.limits
        return {
            "synthetic": True,
            "id": world.id,
            "spec": asdict(world.spec),
            "worlds": list(settings.worlds),
            "seeds": [[some.start, some.stop - 1] for some in settings.seeds],
            "limits": {"pixels": limits.pixels, "body": limits.body, "seconds": limits.seconds},
            "text_model": generator.missing or True,
            "credits": CREDITS,
            "version": version("terraloom"),
        }

    @app.get("/cog.tif", response_class=Response, responses={200: {"content": {COG: {}}}})
    def cog(
        world: AskedWorld,
        bbox: Annotated[str, Query(max_length=200, description="West,south,east,north; degrees.")],
        gsd: Annotated[float, Query(gt=0, le=2e5, allow_inf_nan=False, description="m / pixel.")],
    ) -> Response:
        """A box as a Cloud-Optimized GeoTIFF in Web Mercator."""
        try:
            box = check_bbox([float(part) for part in bbox.split(",")])
        except InvalidInput:
            raise
        except ValueError:
            raise InvalidInput(f"bbox {bbox!r} is not west,south,east,north") from None
        finest = window_of(box, 18)
        pixels = finest.width * finest.height * (coarsest_gsd(box, 18) / gsd) ** 2
        if pixels > settings.limits.pixels:
            raise rio.MaxArraySizeError(
                f"this box has {pixels / 1e6:.0f} megapixels at {gsd:g} m; at most "
                f"{settings.limits.pixels / 1e6:.0f} are given at once: ask for less, or coarser"
            )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "box.tif"
            world.export(box, gsd, path, progress=lambda done, total: check_wanted())
            name = f"synthetic-{world.spec.seed}-{box[0]:.3f}_{box[1]:.3f}-{gsd:g}m.tif"
            return Response(
                path.read_bytes(),
                media_type=COG,
                headers={"Content-Disposition": f'attachment; filename="{name}"'},
            )


def _add_page(app: FastAPI) -> None:
    """The map."""
    names = places.packed()

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Content-Security-Policy": POLICY})

    @app.get("/places.json", include_in_schema=False)
    async def place_names() -> Response:
        headers = {"Cache-Control": "public, max-age=86400"}
        return Response(names, media_type="application/json", headers=headers)

    app.mount("/page", StaticFiles(directory=PAGE))
    app.mount("/leaflet", StaticFiles(directory=leaflet.BASE_DIR))


def _say_errors(app: FastAPI) -> None:
    """Every mistake is answered by one sentence in `detail`."""

    def handler(status: int) -> Callable[[Request, Exception], JSONResponse]:
        def say(request: Request, error: Exception) -> JSONResponse:
            return JSONResponse({"detail": " ".join(str(error).split())[:500]}, status)

        return say

    for kind, status in STATUS.items():
        app.add_exception_handler(kind, handler(status))

    def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        parts = [
            f"{' '.join(str(step) for step in problem['loc'][1:]) or 'body'}: {problem['msg']}"
            for problem in error.errors()
        ]
        return JSONResponse({"detail": "; ".join(parts)[:1000]}, 422)

    app.add_exception_handler(RequestValidationError, invalid)
