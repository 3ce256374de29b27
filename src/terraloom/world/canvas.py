"""Canvases: the pixel grids that are read and exported.

A Mercator canvas lies on a lattice of its own pixel size from the north-west corner of the map, so one whose pixels
are those of a level is cut from that level unchanged; any other is area-averaged from the next finer level. A warped
canvas lies on multiples of its pixel size in another CRS and is drawn whole: its corners reach beyond the bbox.

Every pixel is computed from its position alone, so a canvas may be drawn in parts of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from terraloom.errors import InvalidInput
from terraloom.grid import check_bbox, level_for
from terraloom.world.blocks import Pyramid
from terraloom.world.mercator import MERCATOR, MercatorCanvas
from terraloom.world.warped import WarpedCanvas

Pixels = npt.NDArray[np.uint8]


class Canvas(Protocol):
    """A georeferenced grid of pixels that can be drawn part by part."""

    @property
    def width(self) -> int:
        """Pixels."""

    @property
    def height(self) -> int:
        """Pixels."""

    @property
    def transform(self) -> Affine:
        """Pixel to `crs`."""

    @property
    def crs(self) -> CRS:
        """Coordinate reference system."""

    def draw(self, column: int, row: int, width: int, height: int) -> Pixels:
        """Pixels of a part, uint8 (3, height, width)."""


def canvas(pyramid: Pyramid, bbox: Sequence[float], gsd: float, crs: Any = None) -> Canvas:
    """The grid that covers a bbox at a ground sampling distance.

    Args:
        pyramid: where pixels come from.
        bbox: west, south, east, north in degrees; west > east crosses the antimeridian.
        gsd: metres per pixel. In Web Mercator it holds where the bbox is nearest to the equator, and pixels are finer
            towards the poles; elsewhere it is the pixel size in units of the CRS (a degree is 111 319.5 m).
        crs: anything rasterio understands; Web Mercator by default.

    Raises:
        InvalidInput: a bad bbox, an unknown CRS, one that cannot show the bbox, or a gsd not above 0 or too fine.
    """
    box = check_bbox(bbox)
    target = MERCATOR if crs is None else parse_crs(crs)
    if target == MERCATOR:
        return MercatorCanvas.around(pyramid, box, gsd)
    level_for(gsd, max(abs(box[1]), abs(box[3])))  # refuses what is too fine anywhere in the bbox
    return WarpedCanvas.around(pyramid, box, gsd, target)


def parse_crs(crs: Any) -> CRS:
    """A CRS from anything rasterio understands.

    Raises:
        InvalidInput: it is unknown, or neither projected nor in degrees.
    """
    try:
        found = CRS.from_user_input(crs)
    except CRSError as error:
        raise InvalidInput(f"the CRS {crs!r} is not known; give one such as EPSG:32631") from error
    if not (found.is_projected or found.is_geographic):
        raise InvalidInput(
            f"the CRS {crs!r} is neither projected nor in degrees; give one such as EPSG:32631"
        )
    return found
