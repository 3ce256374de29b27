"""One straight line per band from a scene's units to what networks see, about [-1, 1], and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from terraloom.data.stacks import ENDS
from terraloom.errors import InvalidInput
from terraloom.io.raster import Raster
from terraloom.io.source import Known

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Stretch:
    """The values that become -1 and 1, for each band."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def normal(self, values: Floats, known: Known) -> Floats:
        """Units of the file -> about [-1, 1], not cut off, 0 where unknown; both (bands, h, w)."""
        low, high = self._ends()
        normal = (values - low) / (high - low) * 2 - 1
        return np.where(known, normal, 0).astype(np.float32)

    def units(self, normal: Floats) -> npt.NDArray[np.float64]:
        """About [-1, 1] -> units of the file, (bands, h, w)."""
        low, high = self._ends()
        values: npt.NDArray[np.float64] = low + (normal.astype(np.float64) + 1) / 2 * (high - low)
        return values

    def __getitem__(self, bands: slice) -> Stretch:
        """Of some of the bands."""
        return Stretch(self.low[bands], self.high[bands])

    def _ends(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        low, high = (np.array(ends)[:, None, None] for ends in (self.low, self.high))
        return low, high


def stretch_of(rasters: Sequence[Raster], bands: Sequence[str]) -> Stretch:
    """The stretch that several dates of a scene share; 8-bit bands have 0 to 255, others percentiles of known pixels.

    Args:
        rasters: scenes in one unit (see `same_grid`); those that lack a band do not count for it.
        bands: names.

    Raises:
        InvalidInput: a band that no scene has, or that is unknown everywhere.
    """
    ends = [_ends(rasters, band) for band in bands]
    return Stretch(tuple(low for low, _ in ends), tuple(high for _, high in ends))


def _ends(rasters: Sequence[Raster], band: str) -> tuple[float, float]:
    having = [raster for raster in rasters if band in raster.bands]
    if not having:
        rasters[0].require(band)
    if all(raster.source(band).dtype == np.uint8 for raster in having):
        return 0.0, 255.0
    values = np.concatenate([raster.sample(band) for raster in having])
    if not len(values):
        raise InvalidInput(f"band {band} of {having[0].paths[0]} has no known pixel")
    low, high = (float(end) for end in np.percentile(values, ENDS))
    return low, max(high, low + max(abs(low), 1) * 1e-6)  # flat bands too have two ends
