"""Does an image change in the right direction when one number changes? Same noise, one field moved.

For every seed the field takes each of its values; the rank correlation of a measure with the field is the seed's
answer. How many seeds agree in sign, and what chance would do (sign test), is reported whatever comes out; beside it
stands the same correlation among the real training images that know the field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from terraloom.evaluation.chips import SIDE, square, stacked
from terraloom.evaluation.painter import Paint
from terraloom.metadata import Metadata
from terraloom.training.captioned import Captioned, TextPack

Metrics = dict[str, Any]
Floats = npt.NDArray[np.float64]
Measure = Callable[[Tensor], Floats]
FEWEST = 12  # real images with the field known that are worth a correlation
MOST = 600  # of them, evenly chosen
PLAIN = "a satellite image"


def white(images: Tensor) -> Floats:
    """Percent of bright pixels without colour (snow, cloud): all channels above 150, within 40 of each other."""
    low, high = images.amin(1).int(), images.amax(1).int()
    share = ((low > 150) & (high - low < 40)).float().mean((1, 2))
    return np.asarray(100 * share.numpy(), np.float64)


def brightness(images: Tensor) -> Floats:
    """Mean of all channels, of 255."""
    return np.asarray(images.float().mean((1, 2, 3)).numpy(), np.float64)


def greenness(images: Tensor) -> Floats:
    """Mean green less the mean of red and blue, of 255."""
    red, green, blue = images.float().mean((2, 3)).T
    return np.asarray((green - (red + blue) / 2).numpy(), np.float64)


def contrast(images: Tensor) -> Floats:
    """Standard deviation of the grey image, of 255."""
    return np.asarray(images.float().mean(1).std((1, 2)).numpy(), np.float64)


def slope(images: Tensor) -> Floats:
    """Exponent of the grey image's radial power spectrum, 2 to 28 cycles per 64 px; nearer to 0 is more detail."""
    grey = images.float().mean(1)
    window = torch.hann_window(SIDE, periodic=False)
    grey = (grey - grey.mean((1, 2), keepdim=True)) * window[:, None] * window
    power = torch.fft.fft2(grey).abs().square().flatten(1)
    f = torch.fft.fftfreq(SIDE, 1 / SIDE)
    radius = (f[:, None].square() + f.square()).sqrt().round().long().flatten()
    rings = torch.zeros(len(images), int(radius.max()) + 1).index_add_(1, radius, power)
    rings = rings / torch.bincount(radius)
    used = torch.arange(2, 29)
    x, y = used.float().log(), (rings[:, used] + 1e-3).log()
    x = x - x.mean()
    return np.asarray(((y * x).sum(1) / x.square().sum()).numpy(), np.float64)


MEASURES: dict[str, Measure] = {
    "white": white,
    "brightness": brightness,
    "greenness": greenness,
    "contrast": contrast,
    "slope": slope,
}


@dataclass(frozen=True)
class Response:
    """One field, moved."""

    name: str
    values: tuple[Metadata, ...]  # in the order in which the measure should move
    measure: str  # key of MEASURES
    sign: int  # the direction wanted: 1 up, -1 down
    prompt: str = PLAIN
    sets: tuple[str, ...] = ()  # where real images know the field
    key: Callable[[Captioned], float | None] = lambda row: None  # what orders them


def _lats(*lats: float, lon: float, gsd: float) -> tuple[Metadata, ...]:
    return tuple(Metadata(lon=lon, lat=lat, gsd=gsd, date="2004-08") for lat in lats)


def _north(row: Captioned) -> float | None:
    return None if row.lat is None or row.lat < 0 else row.lat


def _south(row: Captioned) -> float | None:
    return None if row.lat is None or row.lat > 0 else -row.lat


def _sahara(row: Captioned) -> float | None:
    inside = (
        row.lat is not None and row.lon is not None and 0 <= row.lat <= 24 and -15 <= row.lon <= 33
    )
    return row.lat if inside else None


def _winter(row: Captioned) -> float | None:
    """Months from July, 0 to 6, north of 35 degrees."""
    if row.lat is None or row.lat < 35 or row.date is None or len(row.date) < 7:
        return None
    away = abs(int(row.date[5:7]) - 7)
    return float(min(away, 12 - away))


BLUE = ("bluemarble6", "bluemarble8")
RESPONSES = (
    Response(
        "snow with latitude, north", _lats(10, 30, 50, 65, 76, lon=-42, gsd=1200), "white", 1, sets=BLUE, key=_north
    ),
    Response(
        "snow with latitude, south", _lats(-10, -30, -50, -65, -76, lon=20, gsd=1200), "white", 1, sets=BLUE, key=_south
    ),
    Response(
        "green fades from the Congo to the Sahara", _lats(0, 6, 12, 18, 24, lon=20, gsd=1200), "greenness", -1,
        sets=BLUE, key=_sahara,
    ),
    Response(
        "snow with month, July to January at 50 north",
        tuple(Metadata(lon=15, lat=50, gsd=30, date=d) for d in ("2018-07", "2018-09", "2018-11", "2019-01")),
        "white", 1, sets=("world_scenes", "sentinel2_chips"), key=_winter,
    ),
    Response(
        "snow with month, July to January at 58 north, 1.2 km",
        tuple(Metadata(lon=60, lat=58, gsd=1200, date=d) for d in ("2004-07", "2004-09", "2004-11", "2005-01")),
        "white", 1, sets=("seasons6", "seasons8"), key=_winter,
    ),
    Response(
        "cloud with cloud_cover",
        tuple(Metadata(lon=15.3, lat=-4.3, gsd=38, cloud_cover=c) for c in (0, 0.1, 0.2, 0.4, 0.8)),
        "white", 1, sets=("landsat",), key=lambda row: row.cloud_cover,
    ),
    Response(
        "spectrum slope with gsd, 1.2 m to 2.4 km", tuple(Metadata(gsd=g) for g in (1.2, 3, 10, 38, 600, 2400)),
        "slope", 1, sets=("ucmerced", "planet3m", "eurosat", "landsat", *BLUE), key=lambda row: row.gsd,
    ),
)  # fmt: skip
WORDS = (  # (words, other words, measure of which the first has more, gsd)
    ("snow and ice", "a forest", "brightness", 600),
    ("a desert", "a rain forest", "brightness", 600),
    ("a rain forest", "a desert", "greenness", 600),
    ("farmland", "open water", "contrast", 30),
    ("a city", "open water", "contrast", 30),
    ("an industrial area", "a pasture", "contrast", 10),
    ("a pasture", "a lake", "greenness", 10),
)
ZEROS: dict[str, Metadata] = {
    "lon": Metadata(lon=0),
    "lat": Metadata(lat=0),
    "cloud_cover": Metadata(cloud_cover=0),
    "gsd": Metadata(gsd=0.1),  # 0 on the network's scale; 0 m is no gsd
    "date": Metadata(date="1980"),  # 0 on the network's scale
}


def sign_test(agree: int, count: int) -> float:
    """Two-sided probability of a split at least as uneven, were both signs equally likely."""
    tail = sum(comb(count, k) for k in range(max(agree, count - agree), count + 1))
    return min(1.0, float(2 * tail / 2**count))


def rank_correlation(x: Iterable[float], y: Iterable[float]) -> float:
    """Spearman's, ties at their mean rank; 0 when one side does not vary."""
    a, b = (_ranks(np.asarray(list(v), np.float64)) for v in (x, y))
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(v: Floats) -> Floats:
    _, inverse, counts = np.unique(v, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return np.asarray(ranks[inverse], np.float64)


def field_responses(
    paint: Paint, pack: TextPack, seeds: list[int]
) -> tuple[Metrics, dict[str, Tensor]]:
    """All of RESPONSES: figures, and the images, uint8 (values, seeds, 3, h, w)."""
    rows: Metrics = {}
    pictures: dict[str, Tensor] = {}
    for r in RESPONSES:
        n, many = len(r.values), len(seeds)
        told = [m for m in r.values for _ in seeds]
        images = paint([r.prompt] * n * many, told, seeds * n)
        measured = MEASURES[r.measure](images).reshape(n, many)
        answers = [r.sign * rank_correlation(range(n), column) for column in measured.T]
        rows[r.name] = _row(r.measure, r.sign, measured, answers) | _real(r, pack)
        pictures[r.name] = images.view(n, many, *images.shape[1:])
    return rows, pictures


def _row(measure: str, sign: int, measured: Floats, answers: list[float]) -> Metrics:
    signs = [a for a in answers if a != 0]
    right = sum(a > 0 for a in signs)
    return {
        "measure": measure,
        "wanted": "up" if sign > 0 else "down",
        "means": [round(float(v), 2) for v in measured.mean(1)],
        "seeds": len(answers),
        "right": right,
        "wrong": len(signs) - right,
        "p": round(sign_test(right, len(signs)), 4) if signs else 1.0,
    }


def _real(r: Response, pack: TextPack) -> Metrics:
    """The same correlation among real images, in the direction wanted."""
    rows = [
        (key, row)
        for row in pack.rows
        if row.set in r.sets and (key := r.key(row)) is not None and min(row.rgb.shape[:2]) >= SIDE
    ]
    rows = rows[:: max(1, -(-len(rows) // MOST))]
    if len(rows) < FEWEST or len({key for key, _ in rows}) < 2:
        return {"real": None, "real_images": len(rows)}
    measured = MEASURES[r.measure](stacked([square(row.rgb) for _, row in rows]))
    found = r.sign * rank_correlation([key for key, _ in rows], measured)
    return {"real": round(found, 2), "real_images": len(rows)}


def word_responses(paint: Paint, seeds: list[int]) -> tuple[Metrics, dict[str, Tensor]]:
    """All of WORDS: figures, and the images, uint8 (2, seeds, 3, h, w)."""
    rows: Metrics = {}
    pictures: dict[str, Tensor] = {}
    for more, less, measure, gsd in WORDS:
        many = len(seeds)
        told = [Metadata(gsd=gsd)] * 2 * many
        images = paint([less] * many + [more] * many, told, seeds * 2)
        measured = MEASURES[measure](images).reshape(2, many)
        name = f"{more} against {less}, {gsd} m"
        rows[name] = _row(measure, 1, measured, np.sign(measured[1] - measured[0]).tolist())
        pictures[name] = images.view(2, many, *images.shape[1:])
    return rows, pictures


def missing_responses(paint: Paint, seeds: list[int]) -> tuple[Metrics, Tensor]:
    """Each field missing against zero, everything else missing: mean absolute difference of pixels, of 255."""
    many, fields = len(seeds), list(ZEROS)
    told = [Metadata()] * many + [ZEROS[f] for f in fields for _ in seeds]
    images = paint([PLAIN] * len(told), told, seeds * (1 + len(fields)))
    images = images.view(1 + len(fields), many, *images.shape[1:])
    away = (images[1:].int() - images[:1].int()).abs().float().mean((2, 3, 4))
    rows = {
        f: {"mean": round(float(a.mean()), 2), "least": round(float(a.min()), 2)}
        for f, a in zip(fields, away, strict=True)
    }
    return rows, images


def value_text(told: Metadata, moved: tuple[Metadata, ...]) -> str:
    """The fields of `told` that are not the same in all of `moved`."""
    parts = [
        f"{name} {getattr(told, name)}"
        for name in ("lon", "lat", "gsd", "cloud_cover", "date")
        if len({getattr(m, name) for m in moved}) > 1
    ]
    return ", ".join(parts)
