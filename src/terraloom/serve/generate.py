"""POST /generate: words and numbers to an image, by the text model if it is there."""

from __future__ import annotations

import tempfile
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field
from rasterio.transform import array_bounds
from rasterio.warp import transform_bounds

from terraloom import weights
from terraloom.errors import BadCheckpoint, InvalidInput, TerraloomError
from terraloom.metadata import Metadata

Pixels = npt.NDArray[np.uint8]

CRS84 = "<http://www.opengis.net/def/crs/OGC/1.3/CRS84>"
NEEDED = ("diffusers", "transformers")
NO_EXTRA, NO_MODEL = "this server cannot generate from text", "this server has no text model"
TYPES = {"png": "image/png", "tif": "image/tiff; application=geotiff; profile=cloud-optimized"}


class NoTextModel(TerraloomError):
    """The text model is not installed."""


class Wish(BaseModel):
    """What to generate, and where it lies."""

    prompt: Annotated[str, Field(min_length=1, max_length=300, description="What is seen.")]
    lon: Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]
    lat: Annotated[float, Field(ge=-85, le=85, allow_inf_nan=False)]
    gsd: Annotated[float, Field(ge=0.3, le=5000, allow_inf_nan=False, description="m / pixel")] = 10
    cloud_cover: Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)] = None
    date: Annotated[
        str | None, Field(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$", description="2021 or 2021-06-15")
    ] = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    size: Annotated[int, Field(ge=64, le=512, multiple_of=64, description="Pixels a side.")] = 256
    steps: Annotated[int | None, Field(ge=1, le=50)] = None
    guidance_scale: Annotated[float | None, Field(ge=0, le=20, allow_inf_nan=False)] = None

    @property
    def metadata(self) -> Metadata:
        """The numbers that the model reads."""
        return Metadata(self.lon, self.lat, self.gsd, self.cloud_cover, self.date)


class Generator:
    """The text model, loaded when first asked; one image at a time."""

    def __init__(self, name: str) -> None:
        """Remember which: a shipped one's name, or a folder."""
        self._name = name
        self._pipeline: Any = None
        self._lock = threading.Lock()

    @property
    def missing(self) -> str | None:
        """Why there is no text model, None when there is one."""
        lacking = [name for name in NEEDED if find_spec(name) is None]
        if lacking:
            return (
                f"{NO_EXTRA}: {', '.join(lacking)} is not installed (pip install 'terraloom[text]')"
            )
        try:
            weights.find_pipeline(self._name)
        except TerraloomError as error:
            return f"{NO_MODEL}: {error}"
        return None

    def __call__(self, wish: Wish, kind: Literal["png", "tif"]) -> tuple[bytes, str]:
        """An image file, and its bounds in degrees as text: west,south,east,north.

        Raises:
            NoTextModel: it is not installed.
            InvalidInput: what the model refuses.
        """
        from terraloom.io.picture import write_picture
        from terraloom.io.scene import around, write_scene

        rgb, tags = self._draw(wish)
        transform, crs = around(wish.lon, wish.lat, wish.gsd, rgb.shape[2], rgb.shape[1], 3857)
        bounds = transform_bounds(
            crs, "EPSG:4326", *array_bounds(rgb.shape[1], rgb.shape[2], transform)
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"image.{kind}"
            if kind == "png":
                write_picture(path, rgb, tags)
            else:
                write_scene(path, rgb, transform, crs, tags)
            return path.read_bytes(), ",".join(f"{value:.7f}" for value in bounds)

    def _draw(self, wish: Wish) -> tuple[Pixels, dict[str, str]]:
        """Pixels, uint8 (3, height, width), and the tags that say what they are."""
        from terraloom.generate import Order, draw, provenance

        order = Order(
            wish.prompt, wish.metadata, wish.size, wish.steps, wish.guidance_scale, seed=wish.seed
        )
        pipeline = self._load()
        with self._lock:
            rgb = draw(pipeline, order)
            tags = provenance(pipeline, order, order.seed)
        return np.ascontiguousarray(rgb), tags

    def _load(self) -> Any:
        with self._lock:
            if self._pipeline is None:
                if self.missing is not None:  # known without loading anything
                    raise NoTextModel(self.missing)
                try:
                    from terraloom.pipelines import TextToImage

                    self._pipeline = TextToImage.from_pretrained(self._name)
                    self._pipeline.set_progress_bar_config(disable=True)
                except ImportError as error:
                    raise NoTextModel(f"{NO_EXTRA}: {error}") from error
                except (BadCheckpoint, InvalidInput, OSError) as error:
                    raise NoTextModel(f"{NO_MODEL}: {error}") from error
            return self._pipeline


def router(generator: Generator) -> APIRouter:
    """The endpoint."""
    routes = APIRouter()

    @routes.post(
        "/generate",
        response_class=Response,
        responses={
            200: {"content": {"image/png": {}, "image/tiff": {}}, "description": "The image."},
            503: {"description": "There is no text model on this server."},
        },
    )
    def generate(
        wish: Wish,
        format: Annotated[Literal["png", "tif"], Query(description="PNG or GeoTIFF.")] = "png",
    ) -> Response:
        """Generate an image from text and metadata; Content-Bbox says where it lies, in degrees."""
        content, bounds = generator(wish, format)
        headers = {"Content-Bbox": bounds, "Content-Crs": CRS84}
        if format == "tif":
            headers["Content-Disposition"] = 'attachment; filename="synthetic.tif"'
        return Response(content, media_type=TYPES[format], headers=headers)

    return routes
