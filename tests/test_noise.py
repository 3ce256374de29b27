"""The noise: one value per place whatever window asks, the published generator, and statistics that show no pattern."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import cache
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terraloom.errors import InvalidInput
from terraloom.grid import level_size
from terraloom.noise import NoiseField, _quantiles

SIDE = 1024
Image = npt.NDArray[np.float32]


@cache
def field(
    seed: int = 7, level: int = 12, channel: int = 0, x: int = 0, y: int = 0, side: int = SIDE
) -> Image:
    """Noise of side x side px: standard errors are 1/side or a small multiple of it."""
    noise: Image = NoiseField(seed).window(level, x, y, side, side, channel + 1)[channel]
    return noise


# One value per place


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**63 - 1),
    st.integers(0, 18),
    st.integers(-(2**27), 2**27),
    st.integers(-5000, 2**26 + 5000),
    st.tuples(*[st.integers(1, 700)] * 2),
    st.tuples(*[st.floats(0, 1)] * 4),
    st.integers(-3, 3),
)
def test_any_window_holds_the_same_values(
    seed: int,
    level: int,
    x: int,
    y: int,
    size: tuple[int, int],
    part: tuple[float, float, float, float],
    turns: int,
) -> None:
    width, height = size
    noise = NoiseField(seed)
    whole = noise.window(level, x, y, width, height, 2)
    assert whole.shape == (2, height, width) and whole.dtype == np.float32
    left, top = int(part[0] * (width - 1)), int(part[1] * (height - 1))
    w, h = 1 + int(part[2] * (width - 1 - left)), 1 + int(part[3] * (height - 1 - top))
    again = noise.window(level, x + left + turns * level_size(level), y + top, w, h, 1)
    assert np.array_equal(again[0], whole[0, top : top + h, left : left + w])


def test_the_map_closes_at_the_antimeridian() -> None:
    noise = NoiseField(3)
    for level in (0, 1, 18):
        size = level_size(level)
        across = noise.window(level, size - 40, 9, 100, 20)
        assert np.array_equal(across[..., :40], noise.window(level, -40, 9, 40, 20))
        assert np.array_equal(across[..., 40:], noise.window(level, 0, 9, 60, 20))
    turned = noise.window(0, -256, 0, 768, 256)
    assert np.array_equal(turned[..., :256], turned[..., 256:512])
    assert np.array_equal(turned[..., :256], turned[..., 512:])


def test_rows_off_the_map_are_as_random_as_any() -> None:
    noise = NoiseField(3)
    above, below = noise.window(5, 0, -512, 512, 512)[0], noise.window(5, 0, 0, 512, 512)[0]
    beyond = noise.window(5, 0, level_size(5), 512, 512)[0]
    for a, b in combinations((above, below, beyond, below[::-1]), 2):
        assert abs(correlation(a, b)) < 5 / 512
    assert np.isfinite(noise.window(18, 0, -(2**40), 16, 2)).all()
    assert np.isfinite(noise.window(18, 0, 2**40 - 2, 16, 2)).all()


PROCESS = """
import hashlib, sys
from terraloom.noise import NoiseField
print(hashlib.sha256(NoiseField(2**62 + 5).window(11, -33, -7, 300, 90, 3).tobytes()).hexdigest())
"""


def test_another_process_gives_the_same_bytes() -> None:
    here = NoiseField(2**62 + 5).window(11, -33, -7, 300, 90, 3).tobytes()
    there = subprocess.run(
        [sys.executable, "-c", PROCESS], capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == hashlib.sha256(here).hexdigest()


# The same numbers for ever


def philox(counter: int, key: int) -> int:
    """Philox4x64-10 on Python's integers, from figure 2 and table 2 of the paper: 256 bits out of 256."""
    mask = 2**64 - 1
    a, b, c, d = (counter >> shift & mask for shift in (0, 64, 128, 192))
    k, m = key & mask, key >> 64
    for _ in range(10):
        left, right = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = right >> 64 ^ b ^ k, right & mask, left >> 64 ^ d ^ m, left & mask
        k, m = k + 0x9E3779B97F4A7C15 & mask, m + 0xBB67AE8584CAA73B & mask
    return a | b << 64 | c << 128 | d << 192


@pytest.mark.parametrize(
    ("seed", "level", "channel", "x", "y"),
    [
        (0, 0, 0, 0, 0),
        (1, 6, 0, 255, -1),
        (2**63 - 1, 18, 2, 2**26 - 1, 2**26),
        (9, 10, 1, 77, 300),
    ],
)
def test_a_pixel_is_16_bits_of_the_published_generator(
    seed: int, level: int, channel: int, x: int, y: int
) -> None:
    step = (y + 2**40) * 16 + x % 256 // 16 + 1  # numpy counts one up before it draws
    bits = philox(step | channel << 64 | x // 256 << 128, seed | level << 64)
    number = bits >> 16 * (x % 16) & 0xFFFF
    value = NoiseField(seed).window(level, x, y, 1, 1, channel + 1)[channel, 0, 0]
    assert value == _quantiles()[number]


def test_golden_values() -> None:
    got = NoiseField(7).window(10, -2, -1, 4, 2, 2)
    expected = [
        1.2580196,
        0.81979406,
        -0.9537903,
        -0.74554336,
        -0.6336378,
        -1.361226,
        -0.13641444,
        0.4266994,
        0.8495428,
        0.33277908,
        -0.58632225,
        0.60877323,
        0.9628712,
        -1.6013695,
        2.0544698,
        -0.027370218,
    ]
    assert np.array_equal(got, np.array(expected, np.float32).reshape(2, 2, 4))
    noise = NoiseField(2026).window(14, 99, 99, 999, 333, 3)
    digests = [hashlib.sha256(a.astype("<f4").tobytes()).hexdigest() for a in (_quantiles(), noise)]
    assert digests == [
        "8babbcaf96568f10165a1eab530c0e5c92d04de96761b6dbb3dadfa94baba37f",
        "ec137d1bff2583e991c9e8ce898567361eed357bc99599adfacabb33efb80c2c",
    ]


def test_table_is_the_normal_distribution() -> None:
    table = _quantiles().astype(np.float64)
    assert (np.diff(table) > 0).all() and np.array_equal(table, -table[::-1])
    assert (table**2).mean() == pytest.approx(1, abs=1e-8)
    assert (table**4).mean() == pytest.approx(3, rel=0.001)
    assert 4.3 < table.max() < 4.4
    cumulative = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in table[::97]])
    assert np.abs(cumulative - (np.arange(65536)[::97] + 0.5) / 65536).max() < 1e-5
    with pytest.raises(ValueError, match="read-only"):
        _quantiles()[0] = 0


# Statistics


def correlation(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Mean product of two fields of mean 0 and variance 1."""
    return float(np.mean(np.multiply(a, b), dtype=np.float64))


@pytest.mark.parametrize(("seed", "level", "channel"), [(0, 6, 0), (7, 12, 1), (2**63 - 1, 18, 2)])
def test_moments(seed: int, level: int, channel: int) -> None:
    values = field(seed, level, channel).astype(np.float64)
    assert abs(values.mean()) < 4 / SIDE
    assert abs(values.var() - 1) < 4 * math.sqrt(2) / SIDE
    assert abs((values**3).mean()) < 4 * math.sqrt(15) / SIDE
    assert abs((values**4).mean() / values.var() ** 2 / 3 - 1) < 0.01
    assert 4.1 < np.abs(values).max() < 4.4
    for axis in (0, 1):  # no row or column is brighter than chance makes it
        lines = values.mean(axis) * math.sqrt(SIDE)
        assert abs(lines.var() - 1) < 4 * math.sqrt(2 / SIDE)
        assert np.abs(lines).max() < 5
    for limit in (1, 2, 3):  # as much lies beyond as a normal has there
        expected = math.erfc(limit / math.sqrt(2)) * SIDE**2
        beyond = (np.abs(values) > limit).sum()
        assert abs(beyond - expected) < 5 * math.sqrt(expected)


def test_fields_are_independent_of_each_other() -> None:
    fields = {
        "here": field(),
        "next level": field(level=13),
        "level after": field(level=14),
        "same ground, next level": field(level=13).repeat(2, 0).repeat(2, 1)[:SIDE, :SIDE],
        "next seed": field(seed=8),
        "seed with another low bit far up": field(seed=7 + 2**40),
        "next channel": field(channel=1),
        "channel after": field(channel=2),
        "elsewhere": field(x=SIDE, y=SIDE),
    }
    for (one, a), (other, b) in combinations(fields.items(), 2):
        limit = 5 * (2 if "same ground" in one + other else 1) / SIDE
        assert abs(correlation(a, b)) < limit, (one, other)
        assert abs(correlation(np.abs(a) - 0.79788, np.abs(b) - 0.79788)) < limit, (one, other)


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 8, 15, 16, 64, 128, 256, 512])
def test_pixels_are_independent_at_any_lag(lag: int) -> None:
    a = field()
    pairs = [
        (a[lag:], a[:-lag]),
        (a[:, lag:], a[:, :-lag]),
        (a[lag:, lag:], a[:-lag, :-lag]),
        (a[lag:, :-lag], a[:-lag, lag:]),
    ]
    for one, other in pairs:
        assert abs(correlation(one, other)) < 5 / SIDE
        assert abs(correlation(one * one - 1, other * other - 1)) < 5 * 2 / SIDE


def test_spectrum_is_white() -> None:
    power = np.abs(np.fft.rfft2(field().astype(np.float64))) ** 2 / SIDE**2
    inner = power[:, 1:-1]  # each of these frequencies once
    ky = np.abs(np.fft.fftfreq(SIDE))[:, None]
    kx = np.fft.rfftfreq(SIDE)[None, 1:-1]
    ring = (np.hypot(ky, kx) * 64).astype(int)
    for number in range(1, 32):
        band = inner[ring == number]
        assert abs(band.mean() - 1) < 5 / math.sqrt(band.size)
    for axis in (0, 1):  # no line of frequencies stands out
        lines = inner.mean(axis)
        assert np.abs(lines - 1).max() < 6 / math.sqrt(inner.shape[axis])
    # Power of white noise falls off exponentially: above 28 lies one frequency in 1.4e12.
    assert inner.max() < 28


def lattice_shares(image: Image, periods: Iterable[int]) -> npt.NDArray[np.float64]:
    """Share of the high-pass variance that a pattern of a period explains, for each period.

    High-pass: the image minus its Gaussian blur of sigma 2. The estimator is that of an analysis of variance: the
    variance of the mean over all repeats of the pattern, less the part that independent pixels would give it.
    """
    k = np.fft.fftfreq(image.shape[0])[:, None] ** 2 + np.fft.rfftfreq(image.shape[1])[None] ** 2
    spectrum = np.fft.rfft2(image) * (1 - np.exp(-2 * (np.pi * 2) ** 2 * k))
    high = np.fft.irfft2(spectrum, s=image.shape).astype(np.float32)
    shares = []
    for period in periods:
        down, across = (side // period for side in high.shape)
        cut = high[: down * period, : across * period]
        folded = cut.reshape(down, period, -1).mean(0).reshape(period, across, period).mean(1)
        total, repeats = float(cut.var()), down * across
        shares.append((float(folded.var()) - total / repeats) / (1 - 1 / repeats) / total)
    return np.array(shares)


def test_no_lattice_of_any_period() -> None:
    # The limit is 0.01; what is left is the noise of the estimator, which falls with the area.
    assert np.abs(lattice_shares(field(), range(32, 513))).max() < 0.005
    assert np.abs(lattice_shares(field(side=4096), (32, 64, 128, 256, 512))).max() < 0.0002


def test_the_lattice_estimator_sees_a_repeated_block() -> None:
    """A block every 128 px as in MetaEarth, alone and at a tenth of the variance; its images show half and more."""
    tiled = np.tile(NoiseField(1).window(12, 0, 0, 128, 128)[0], (8, 8))
    assert lattice_shares(tiled, (128, 256, 512)) == pytest.approx(1, abs=1e-4)
    image = (math.sqrt(0.9) * field() + math.sqrt(0.1) * tiled).astype(np.float32)
    at_128, at_129, at_256 = lattice_shares(image, (128, 129, 256))
    assert at_128 == pytest.approx(0.1, abs=0.01) and at_256 == pytest.approx(0.1, abs=0.01)
    assert abs(at_129) < 0.0015


# Speed, and what is refused


def test_twenty_megasamples_a_second_on_one_core() -> None:
    noise, best = NoiseField(5), math.inf
    for x in range(5):
        start = time.thread_time()
        noise.window(14, 1000 * x + 3, 5, 1100, 1100, 3)
        best = min(best, time.thread_time() - start)
    assert 3 * 1100 * 1100 / best > 20e6


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, "7", None, math.nan])
def test_bad_seeds_are_refused(seed: int) -> None:
    with pytest.raises(InvalidInput, match=r"0 to 2\*\*63 - 1"):
        NoiseField(seed)


def test_seeds_of_numpy_are_seeds() -> None:
    one, other = NoiseField(np.int32(9)), NoiseField(9)  # type: ignore[arg-type]
    assert np.array_equal(one.window(3, 0, 0, 9, 9), other.window(3, 0, 0, 9, 9))
    z, x, y, side = np.uint8(18), np.int32(2**26 - 1), np.int32(-3), np.int8(100)
    window = one.window(z, x, y, side, side)  # type: ignore[arg-type]
    assert np.array_equal(window, one.window(18, 2**26 - 1, -3, 100, 100))


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((19, 0, 0, 1, 1, 1), "level 19"),
        ((3, 0.5, 0, 1, 1, 1), "not all integers"),
        ((3, 0, 0.5, 1, 1, 1), "not all integers"),
        ((3, 0, 0, 1.0, 1, 1), "not all integers"),
        ((3, 0, 0, 0, 1, 1), "empty"),
        ((3, 0, 0, 1, -1, 1), "empty"),
        ((3, 0, 0, 1, 1, 0), "empty"),
        ((3, 0, 2**40, 1, 1, 1), r"2\*\*40"),
        ((3, 0, -(2**40) - 1, 1, 1, 1), r"2\*\*40"),
    ],
)
def test_bad_windows_are_refused(numbers: tuple[int, ...], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        NoiseField(0).window(*numbers)
