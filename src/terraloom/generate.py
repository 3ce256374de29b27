"""From a prompt to image files: what `terraloom generate` does.

Every image is drawn alone from its own seed, so image i of several is the image of seed + i, and files appear one by
one. A GeoTIFF lies with its middle on the metadata's point, its pixels as large as the metadata's gsd.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS

from terraloom.errors import InvalidInput, TerraloomError
from terraloom.io.picture import SUFFIXES, write_picture
from terraloom.io.provenance import WEIGHTS, synthetic_tags
from terraloom.io.scene import around, write_scene
from terraloom.io.staging import targets as targets
from terraloom.metadata import Metadata
from terraloom.weights import find_pipeline

if TYPE_CHECKING:
    from terraloom.pipelines import TextToImage

Progress = Callable[[int, int], None]
Pixels = npt.NDArray[np.uint8]

MAX_PROMPT = 2000  # characters; text encoders read far less
MAX_COUNT = 1000
SEED_END = 2**63
CREDITS = f"Synthetic image made by Terraloom with the weights named in its tags. {WEIGHTS}"


@dataclass(frozen=True)
class Order:
    """What to draw; None leaves a value to the model.

    Raises:
        InvalidInput: a prompt that is empty or too long, a seed or a count outside its range.
    """

    prompt: str
    metadata: Metadata = Metadata()
    size: int = 256  # pixels, both sides
    steps: int | None = None
    guidance: float | None = None
    metadata_guidance: float | None = None
    negative: str = ""
    seed: int = 0  # of the first image; the next ones count on
    count: int = 1

    def __post_init__(self) -> None:
        """Refuse what no model could draw."""
        for name, text in (("prompt", self.prompt), ("negative prompt", self.negative)):
            if len(text) > MAX_PROMPT:
                raise InvalidInput(
                    f"a {name} of {len(text)} characters is too long; at most {MAX_PROMPT}"
                )
            if not text.isprintable():
                raise InvalidInput(f"the {name} holds a character that cannot be printed")
        if not self.prompt.strip():
            raise InvalidInput("the prompt is empty; say what to draw, e.g. 'a river'")
        if not 1 <= self.count <= MAX_COUNT:
            raise InvalidInput(f"{self.count} images are not possible; ask for 1 to {MAX_COUNT}")
        if not 0 <= self.seed <= SEED_END - self.count:
            raise InvalidInput(f"seed {self.seed} is outside 0 to 2**63 - 1")


def place(order: Order, crs: Any = None) -> tuple[Affine, CRS]:
    """Where the image of an order lies, see `terraloom.io.scene.around`.

    Raises:
        InvalidInput: the metadata lack the point or the gsd, or the CRS cannot show the point.
    """
    known = order.metadata
    if known.lon is None or known.lat is None or known.gsd is None:
        raise InvalidInput("a GeoTIFF needs --lon, --lat and --gsd; without them write a .png")
    return around(known.lon, known.lat, known.gsd, order.size, order.size, crs)


def generate(
    order: Order,
    path: Path,
    *,
    model: str | Path = "text",
    crs: Any = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Draw and write an order's images: .tif as Cloud-Optimized GeoTIFF, .png or .webp as pictures.

    Args:
        order: what to draw.
        path: file, or what the files of several images are called after, see `targets`.
        model: name of shipped weights, a pipeline folder or an official DiffusionSat one.
        crs: of GeoTIFFs, anything rasterio understands; None is the UTM zone of the point.
        overwrite: replace existing files.
        progress: called with (network evaluations done, in all).

    Returns:
        The files, in the order of their seeds.

    Raises:
        InvalidInput: see `place` and `TextToImage.__call__`; a path that cannot be written.
        BadCheckpoint: a model that is not there or damaged.
        TerraloomError: the extra `text` is not installed.
    """
    where = place(order, crs) if path.suffix.lower() not in SUFFIXES else None
    if not Path(model).is_dir():
        find_pipeline(model)  # an unknown name is refused before anything slow is imported
    if find_spec("diffusers") is None:
        raise TerraloomError(
            "drawing from words needs more packages: pip install 'terraloom[text]'"
        )
    from terraloom.pipelines import TextToImage

    pipe = TextToImage.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]  # diffusers' own
    files = targets(path, order.count)
    for i, file in enumerate(files):
        rgb = draw(pipe, order, i, progress)
        tags = provenance(pipe, order, order.seed + i)
        if where is None:
            write_picture(file, rgb, tags, overwrite=overwrite)
        else:
            write_scene(file, rgb, *where, tags, overwrite=overwrite)
    return files


def draw(
    pipe: TextToImage, order: Order, number: int = 0, progress: Progress | None = None
) -> Pixels:
    """Image `number` of an order, uint8 (3, size, size); `progress` as in `generate`."""

    def after(pipe: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if progress is not None:
            steps = pipe.num_timesteps
            progress(number * steps + step + 1, order.count * steps)
        return tensors

    (images,) = pipe(
        order.prompt,
        metadata=order.metadata,
        height=order.size,
        width=order.size,
        num_inference_steps=order.steps,
        guidance_scale=order.guidance,
        metadata_guidance_scale=order.metadata_guidance,
        negative_prompt=order.negative,
        seed=order.seed + number,
        return_dict=False,
        callback_on_step_end=after,
    )
    return np.moveaxis(np.asarray(images[0].convert("RGB"), np.uint8), 2, 0)


def provenance(pipe: TextToImage, order: Order, seed: int) -> dict[str, str]:
    """Tags that say what an image is, what was asked for and what drew it; see docs/provenance.md."""
    tags = {
        **synthetic_tags(CREDITS),
        "TERRALOOM_PROMPT": order.prompt,
        "TERRALOOM_SEED": str(seed),
        "TERRALOOM_STEPS": str(pipe.config.steps if order.steps is None else order.steps),
        "TERRALOOM_GUIDANCE": f"{pipe.guidance_scale:g}",
        "TERRALOOM_MODEL": pipe.digest,
        "TERRALOOM_MODEL_NAME": pipe.name,
        **order.metadata.to_tags(),
    }
    if order.negative:
        tags["TERRALOOM_NEGATIVE"] = order.negative
    if order.metadata_guidance is not None:
        tags["TERRALOOM_METADATA_GUIDANCE"] = f"{order.metadata_guidance:g}"
    return tags
