"""A drawn scene made four times finer once more, by the cascade: 8-bit colours alone, as the cascade was trained."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from terraloom.data.ground import LAYERS
from terraloom.data.uses import UNKNOWN_COVER
from terraloom.errors import InvalidInput
from terraloom.io.raster import Raster
from terraloom.io.stretch import stretch_of
from terraloom.models.frames import RGB, filled
from terraloom.models.waves import SCALE
from terraloom.pipelines.frames_to_image import FramesToImage
from terraloom.pipelines.refine import HALO, engine_for
from terraloom.pipelines.scenes import LEVEL, Scene, Strip, finer, fitted, known_limits, read
from terraloom.pipelines.windows import SIDE, Floats
from terraloom.weights import COARSE_GSD, find
from terraloom.world.engine import Given

CASCADE = "refine"
USUAL_GSD = 1.0  # metres, of a scene that does not say


class Cascaded(Scene):
    """Colours four times finer than those of a scene, made up but for their 4 x 4 means.

    Args:
        raster: 8-bit red, green and blue.
        source: what it was drawn from.
    """

    task, bands, noise = "superres", RGB, (3, HALO, LEVEL - 2)

    def __init__(self, raster: Raster, source: Raster) -> None:
        self.raster, self._source = raster, source
        self.grid, self.metadata = finer(raster)
        coarse = (self.metadata.gsd or USUAL_GSD) >= COARSE_GSD
        self._draw = engine_for(CASCADE, "auto", coarse, SIDE + 2 * HALO)

    def inputs(self) -> list[Raster]:
        """What the scene was drawn from."""
        return [self._source]

    def more(self) -> str:
        """The cascade."""
        return self.tags()["TERRALOOM_CASCADE"]

    def tags(self) -> dict[str, str]:
        """The cascade's digest."""
        return {"TERRALOOM_CASCADE": find(CASCADE).digest}

    def window(self, pipe: FramesToImage, left: int, top: int, noise: Tensor) -> Floats:
        """See `Scene`; the model for dated images has no part in it."""
        cells = (SIDE + 2 * HALO) // SCALE
        place = ((left - HALO) // SCALE, (top - HALO) // SCALE, cells, cells)
        values, known = read(self.raster, place, RGB, stretch_of([self.raster], RGB))
        lr = filled(values, known)[:, 0].numpy()
        cover = np.full((cells, cells), UNKNOWN_COVER, np.uint8)
        ground = np.zeros((len(LAYERS), cells, cells), np.float32)
        gsd = np.full(cells, self.metadata.gsd or USUAL_GSD, np.float32)
        drawn = self._draw(Given(lr, cover, ground, gsd, noise[0].numpy()))
        return np.asarray(drawn.astype(np.float32) / 127.5 - 1, np.float32)

    def finish(self, drawn: Floats, top: int) -> Strip:
        """See `Scene`."""
        values = (drawn.astype(np.float64) + 1) * 127.5
        return fitted(self.raster, values, top, known_limits(self.raster))


def eight_bits(raster: Raster) -> None:
    """Refuse what the cascade cannot make finer.

    Raises:
        InvalidInput: another number type than 8 bits.
    """
    if raster.dtype != np.uint8:
        raise InvalidInput(
            f"{raster.paths[0]} holds {raster.dtype}; sixteen times finer is for 8-bit colours alone"
        )
