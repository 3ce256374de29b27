"""Imagery that no model here was trained on: thirds of scenes, a third of the Landsat places, last dates.

Sentinel-2: the right third of the scene (coast and much open sea). Landsat 8: the lower third. NAIP: the last date but
one; the last one is reserved and never read. Landsat tiles: every third place, their dates with stretches matched
(terraloom.data.stack_pack). Peru: the last date.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from terraloom.data import stack_pack
from terraloom.data.stacks import Dated
from terraloom.errors import InvalidInput
from terraloom.models.frames import COLOURS
from terraloom.training.frame_batches import years

SETS = (
    "sentinel2_multispectral", "landsat8_multispectral", "naip", "landsat", "landsat_peru_series",
)  # fmt: skip

Window = tuple[slice, slice]


@dataclass(frozen=True)
class HeldOut:
    """What is read of the imagery sets."""

    sentinel2: Dated
    landsat8: Dated
    naip: list[Dated]  # by date, the last one is the target
    landsat: list[list[Dated]]  # places, by date
    peru: list[Dated]

    @classmethod
    def read(cls, data_dir: Path) -> HeldOut:
        """Read the five sets.

        Raises:
            InvalidInput: see `check`.
        """
        check(data_dir)
        places: dict[str, list[Dated]] = {}
        for image in stack_pack.read_landsat(data_dir):
            if stack_pack.held_out_series(image.place):
                places.setdefault(image.place, []).append(image)
        by_date = [sorted(places[name], key=years) for name in sorted(places)]
        return cls(
            _scene(data_dir, "sentinel2_multispectral", stack_pack.SENTINEL2, 2, 10.0),
            _scene(data_dir, "landsat8_multispectral", stack_pack.LANDSAT8, 1, 30.0),
            stack_pack.read_naip(data_dir),
            by_date,
            stack_pack.read_peru(data_dir),
        )


def check(data_dir: Path) -> None:
    """Refuse a folder without the sets.

    Raises:
        InvalidInput: one of them is missing.
    """
    if missing := [name for name in SETS if not (data_dir / f"{name}.tar").is_file()]:
        raise InvalidInput(f"{data_dir} lacks {missing}; point --data at the imagery sets")


def _scene(data_dir: Path, name: str, roles: dict[str, str], axis: int, gsd: float) -> Dated:
    """The held-out third in the files' own units, stretched as the whole scene is."""
    scene = stack_pack.read_scene(data_dir, name, roles)
    ends = stack_pack.stretches(scene.values, scene.known)
    middle, half = (tuple(map(float, column)) for column in zip(*ends, strict=True))
    edge = int(scene.values.shape[axis] * stack_pack.TRAINED) + 1
    part: Any = scene.values[:, :, edge:] if axis == 2 else scene.values[:, edge:]
    return Dated(name, name, scene.bands, scene.coarseness, gsd, part, zero=middle, unit=half)


def windows(image: Dated, side: int) -> Iterator[Window]:
    """As many whole windows as fit, side by side, in the middle of the image."""
    h, w = image.pixels.shape[1:]
    top, left = (h % side) // 2, (w % side) // 2
    for y in range(top, h - side + 1, side):
        for x in range(left, w - side + 1, side):
            yield slice(y, y + side), slice(x, x + side)


def evenly(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of them, spread over the list."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def land_share(image: Dated, window: Window) -> float:
    """Share of pixels that are not dark in the short-wave infrared as water is."""
    green, swir = (image.pixels[image.bands.index(b)][window] for b in ("green", "swir16"))
    return float((4.0 * swir > green).mean())


def colours(image: Dated, window: Window) -> Tensor:
    """Red, green and blue of a window, or the first three bands, stretched."""
    names = stack_pack.RGB if set(stack_pack.RGB) <= set(image.bands) else image.bands[:COLOURS]
    return torch.from_numpy(image.stretched(window)[[image.bands.index(c) for c in names]])


def nearest(place: list[Dated], target: int) -> list[Dated]:
    """The other dates, the nearest in time first."""
    when = years(place[target])
    others = [image for i, image in enumerate(place) if i != target]
    return sorted(others, key=lambda image: abs(years(image) - when))


def places(held: HeldOut, region: str, count: int) -> list[list[Dated]]:
    """Landsat places of "congo" or "tokyo", spread over all of them."""
    return evenly([p for p in held.landsat if p[0].place.startswith(region)], count)
