"""Land use: which uses a land cover has, and where a planet puts them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terraloom.data.layout import laid_out
from terraloom.data.packed import Pack, Sample, write_pack
from terraloom.data.uses import (
    CODES,
    COVER_OF,
    SHARES,
    SITE_SHARES,
    SITES,
    UNKNOWN_COVER,
    USES,
    WITH_SITES,
    WITH_USES,
)
from terraloom.noise import NoiseField


def test_every_code_has_a_land_cover_and_shares_are_of_the_same_kind() -> None:
    assert len(COVER_OF) == WITH_SITES == 50 and WITH_USES == 29
    assert (COVER_OF[: UNKNOWN_COVER + 1] == np.arange(UNKNOWN_COVER + 1)).all()
    for name, code in CODES.items():
        assert COVER_OF[code] == (USES | SITES)[name]
    for use, sites in SITE_SHARES.items():
        assert use in USES and set(sites) <= set(SITES) and sum(sites.values()) == pytest.approx(1)
    for cover, shares in SHARES.items():
        assert sum(shares.values()) == pytest.approx(1)
        if cover in (0, 12, 13):  # and most of it is of its own land cover
            assert sum(v for k, v in shares.items() if USES[k] == cover) >= 0.8


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**40), st.integers(-200, 2**12), st.integers(-90, 2**12),
    st.integers(0, 40), st.integers(0, 40), st.sampled_from([12, 14, 16]),
)  # fmt: skip
def test_a_use_depends_on_its_place_alone(
    seed: int, x: int, y: int, right: int, down: int, level: int
) -> None:
    noise = NoiseField(seed)
    cover = (
        np.random.default_rng(seed % 97).choice([0, 10, 12, 13, 15, 18], (60, 70)).astype(np.uint8)
    )
    whole = laid_out(cover, noise, level, x, y, WITH_USES)
    part = laid_out(cover[down:, right:], noise, level, x + right, y + down, WITH_USES)
    assert np.array_equal(whole[down:, right:], part)
    kept = (cover == 15) | (cover == UNKNOWN_COVER)
    assert np.array_equal(whole[kept], cover[kept])
    for code, land in zip(whole[~kept], cover[~kept], strict=True):
        assert int(code) in {CODES[name] for name in SHARES[int(land)]}
    assert np.array_equal(laid_out(cover, noise, 10, x, y, WITH_SITES), cover)  # too coarse
    if level == 14:
        assert np.array_equal(laid_out(cover, noise, level, x, y, WITH_SITES), whole)
    if level == 16:
        sites = laid_out(cover, noise, level, x, y, WITH_SITES)
        assert np.array_equal(
            sites[down:, right:],
            laid_out(cover[down:, right:], noise, level, x + right, y + down, WITH_SITES),
        )
        assert not ((sites > UNKNOWN_COVER) & (sites < WITH_USES)).any()
        crops = whole == CODES["AnnualCrop"]
        assert (sites[crops] == CODES["agricultural"]).all()
        assert (sites[whole == CODES["Pasture"]] == 10).all()


def test_uses_have_their_shares_and_come_in_patches() -> None:
    found = laid_out(np.full((1024, 1024), 13, np.uint8), NoiseField(3), 12, 4096, 1024, WITH_USES)
    for name, share in SHARES[13].items():
        assert (found == CODES[name]).mean() == pytest.approx(share, abs=0.04)
    same = (found[:, 1:] == found[:, :-1]).mean()
    assert same > 0.93  # a patch is 16 cells wide
    assert not np.array_equal(
        found,
        laid_out(np.full((1024, 1024), 13, np.uint8), NoiseField(4), 12, 4096, 1024, WITH_USES),
    )
    left, right = (
        laid_out(np.full((8, 8), 13, np.uint8), NoiseField(3), 12, x, 64, WITH_USES)
        for x in (-8, 2**20 - 8)
    )
    assert np.array_equal(left, right)  # it wraps


def test_a_pack_keeps_uses_beside_land_cover(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    cover, mask = np.full((16, 16), 13, np.uint8), np.zeros((16, 16), np.uint8)
    use = np.full((16, 16), CODES["Highway"], np.uint8)
    samples = [
        Sample("a", rgb, cover, mask, 10.0, "p", use),
        Sample("a", rgb, cover, mask, 10.0, "q"),
    ]
    write_pack(tmp_path / "pack", samples, [False, False])
    one, two = Pack.load(tmp_path / "pack").sets["a"]
    assert np.array_equal(one.cover, cover) and np.array_equal(two.cover, cover)
    assert one.use is not None and np.array_equal(one.use, use)
    assert two.use is not None and np.array_equal(two.use, cover)
