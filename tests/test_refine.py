"""A single image refined by a cascade: size, means, seeds, edges, bad input; sizes out of one base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from terraloom.errors import BadCheckpoint, InvalidInput
from terraloom.metadata import Metadata

pytest.importorskip("diffusers")

from terraloom.pipelines.refine import refine
from terraloom.pipelines.size import Size

IMAGE = np.random.default_rng(0).integers(60, 190, (3, 20, 12), np.uint8)


@pytest.fixture
def cascade(tiny_checkpoint: Path) -> dict[str, Any]:
    return {"model": tiny_checkpoint, "engine": "torch"}


def means(image: np.ndarray) -> np.ndarray:
    _, h, w = image.shape
    return image.reshape(3, h // 4, 4, w // 4, 4).mean((2, 4))


def test_every_level_keeps_its_input(cascade: dict[str, Any]) -> None:
    once = refine(IMAGE, 10, 1, seed=1, **cascade)
    assert once.shape == (3, 80, 48) and once.dtype == np.uint8
    assert np.abs(means(once) - IMAGE).max() <= 0.5 + 1e-6
    twice = refine(IMAGE, 10, 2, seed=1, **cascade)
    assert twice.shape == (3, 320, 192)
    assert np.abs(means(twice) - once).max() <= 0.5 + 1e-6


def test_same_bytes_for_a_seed_and_others_for_another(cascade: dict[str, Any]) -> None:
    one, same, other = (refine(IMAGE, 10, 1, seed=s, **cascade) for s in (7, 7, 8))
    assert np.array_equal(one, same)
    assert np.abs(one.astype(int) - other).mean() > 1


def test_gsd_cover_and_ground_reach_the_network(cascade: dict[str, Any]) -> None:
    plain = refine(IMAGE, 10, 1, seed=1, **cascade)
    ground = np.zeros((6, 20, 12), np.float32)
    ground[1] = 1
    others = {
        "gsd": refine(IMAGE, 300, 1, seed=1, **cascade),
        "cover": refine(IMAGE, 10, 1, seed=1, cover=13, **cascade),
        "ground": refine(IMAGE, 10, 1, seed=1, ground=ground, **cascade),
    }
    for name, other in others.items():
        assert not np.array_equal(plain, other), name
    field = np.full((20, 12), 13, np.uint8)
    assert np.array_equal(others["cover"], refine(IMAGE, 10, 1, seed=1, cover=field, **cascade))


def test_surroundings_are_the_image_mirrored(cascade: dict[str, Any]) -> None:
    """An image beside its own mirror image sees what it sees alone; beside something else it does not."""
    alone = refine(IMAGE, 10, 1, seed=3, **cascade)
    beside = refine(np.concatenate([IMAGE, IMAGE[:, :, ::-1]], 2), 10, 1, seed=3, **cascade)
    other = refine(np.concatenate([IMAGE, 255 - IMAGE], 2), 10, 1, seed=3, **cascade)
    same = (np.abs(image[:, :, :48].astype(int) - alone).max() for image in (beside, other))
    assert next(same) <= 1
    assert next(same) > 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": IMAGE[0]}, "uint8"),
        ({"image": IMAGE.astype(np.float32)}, "uint8"),
        ({"gsd": 0}, "gsd"),
        ({"gsd": float("nan")}, "gsd"),
        ({"levels": 0}, "levels"),
        ({"levels": 5}, "4096"),
        ({"seed": -1}, "seed"),
        ({"cover": np.zeros((3, 3), np.uint8)}, "cover"),
        ({"engine": "steam"}, "engine"),
    ],
)
def test_bad_input(cascade: dict[str, Any], change: dict[str, Any], message: str) -> None:
    arguments = {"image": IMAGE, "gsd": 10, "levels": 1, "seed": 1, **cascade, **change}
    with pytest.raises(InvalidInput, match=message):
        refine(**arguments)


def test_no_such_cascade() -> None:
    with pytest.raises(BadCheckpoint, match="no checkpoint"):
        refine(IMAGE, 10, 1, seed=1, model="atlantis")


@given(st.integers(16, 256), st.integers(16, 256))
def test_any_size_shows_the_ground_of_its_base(height: int, width: int) -> None:
    size = Size(height, width, 16, 8)
    longest = max(height, width)
    known = size.of_base(Metadata(gsd=3.0, lat=5.0))
    assert known is not None and known.lat == 5.0
    assert known.gsd == pytest.approx(
        3.0 * max(1.0, longest / 64)
    )  # up to 64 px are drawn as they are
    h, w = size.base
    assert h % 8 == w % 8 == 0 and max(h, w) <= 64
    assert -1e-6 <= h * size.coarser - height < 8 * size.coarser
    factor = 4 if size.refined else 1
    column = np.arange(w * factor) * 255 / (w * factor)
    image = size.finish(np.broadcast_to(column, (3, h * factor, w * factor)).astype(np.uint8))
    assert image.shape == (3, height, width)
    left = (w - width / size.coarser) / w  # share of the width that is cut off
    shown = (int(image[0, 0, -1]) - int(image[0, 0, 0])) / 255
    assert shown == pytest.approx(1 - left, abs=0.15)


@given(st.integers(16, 256), st.integers(16, 256))
def test_a_plan_is_a_chip_of_the_ground_of_its_base(height: int, width: int) -> None:
    size = Size(height, width, 16, 8)
    h, w = size.plan
    assert h % 8 == w % 8 == 0 and max(h, w) == 16
    base = size.base
    assert size.planned == max(base) / 16
    if size.planned > 1:
        ramp = torch.linspace(-1, 1, w).expand(1, 3, h, w)
        over = size.over(ramp)
        assert over.shape[2:] == base
        middle = over[0, 0, base[0] // 2]
        assert float(middle[-1] - middle[0]) == pytest.approx(
            2 * base[1] / (w * size.planned), abs=0.3
        )
    known = size.of_plan(Metadata(gsd=3.0))
    assert known is not None and known.gsd is not None
    assert known.gsd == pytest.approx(3.0 * size.coarser * size.planned**0.5)


def test_metadata_of_the_base_stay_legal() -> None:
    size = Size(1024, 64, 64, 16)
    known = size.of_base(Metadata(gsd=150_000))
    assert known is not None and known.gsd == 200_000
    assert size.of_base(None) is None and size.of_plan(None) is None
    assert size.of_plan(Metadata(gsd=150_000)) == known
    assert size.of_base(Metadata(lat=1)) == Metadata(lat=1)


def test_wide_images_are_guided_less() -> None:
    found = [Size(n, 64, 64, 16).milder(4.5) for n in (64, 128, 256, 1024)]
    assert found == [4.5, 2.75, 1.875, 1.875]
    wide = Size(256, 64, 64, 16)
    assert [wide.bolder(g, 4.5) for g in (1.0, 1.875, 3.0, 6.0)] == [1.0, 4.5, 4.5, 6.0]


@pytest.mark.parametrize("sides", [(63, 64), (64, 1025), (64.0, 64), (0, 0), ("64", 64)])
def test_sizes_out_of_reach(sides: tuple[Any, Any]) -> None:
    with pytest.raises(InvalidInput, match="64 to 1024"):
        Size(*sides, 64, 16)
