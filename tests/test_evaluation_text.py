"""Evaluation of text models: measures of known answer, reports on a painter that obeys and on one that does not."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file
from torch import Tensor

from terraloom.errors import BadPack
from terraloom.evaluation import frechet, neighbours, readers, responses, text, text_card
from terraloom.evaluation.chips import DOMAINS, EUROSAT, UCMERCED, Domain, chips, square
from terraloom.evaluation.painter import asked
from terraloom.metadata import Metadata
from terraloom.training.captioned import TextPack

COUNTS = text.Counts(each=4, seeds=4, distance=20, wide=1)


def picture(rng: np.random.Generator, domain: Domain, k: int) -> np.ndarray:
    """An image that shows its class: colours of its own in blocks, and some noise."""
    palette = np.random.default_rng(100 * domain.reduction + k).integers(0, 256, (2, 3))
    cell = 8 * domain.reduction
    mask = rng.integers(0, 2, (8, 8)).repeat(cell, 0).repeat(cell, 1)
    return np.clip(palette[mask] + rng.normal(0, 12, (8 * cell, 8 * cell, 3)), 0, 255).astype(
        np.uint8
    )


def webp(rgb: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "WEBP", quality=95)
    return file.getvalue()


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text pack as `terraloom data pack --text` writes it, all classes of both sets, and tiles with a latitude."""
    rng = np.random.default_rng(0)
    captions = [""]
    rows, images = [], []

    def add(name: str, rgb: np.ndarray, val: bool, **known: object) -> None:
        images.append(webp(rgb))
        blank = dict.fromkeys(("lon", "lat", "region", "cloud_cover", "date", "label"))
        rows.append({"set": name, "val": val, "captions": [0], "place": "", **blank, **known})

    for domain in DOMAINS:
        for k, name in enumerate(domain.classes):
            captions.append(domain.prompts[name][0])
            for i in range(9):
                rgb = picture(rng, domain, k)
                gsd = domain.gsd / domain.reduction
                told = {"gsd": gsd, "label": name, "captions": [len(captions) - 1]}
                add(domain.set, rgb, i % 3 == 0, **told)
    for k in range(40):  # snow in the north
        rgb = np.full((64, 64, 3), 40, np.uint8)
        rgb[: int(1.5 * k)] = 230
        add("bluemarble6", rgb, False, gsd=2400.0, lon=-42.0, lat=2.0 * k, date="2004-08")
    path = tmp_path_factory.mktemp("pack") / "text.safetensors"
    index = {"version": 1, "quality": 95, "rows": rows, "captions": captions}
    save_file(
        {
            "index": np.frombuffer(json.dumps(index).encode(), np.uint8),
            "images": np.frombuffer(b"".join(images), np.uint8),
            "image_ends": np.cumsum([len(b) for b in images]),
            "tokens": np.zeros((len(captions), 24, 384), np.float16),
            "pooled": np.zeros((len(captions), 384), np.float16),
        },
        path,
    )
    return path


@pytest.fixture(scope="module")
def real(pack: Path) -> text.Real:
    pytest.importorskip("efficientnet_lite_pytorch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "CNN_STEPS", 40)
        return text.real_images(pack)


def painter(obeys: bool):
    """Draws the class that is asked for, or never anything but noise; snow by latitude, cloud by cloud cover."""
    words = {p: (d, d.classes.index(c)) for d in DOMAINS for c in d.classes for p in d.prompts[c]}

    def paint(
        prompts: Sequence[str], told: Sequence[Metadata], seeds: Sequence[int], side: int = 64
    ) -> Tensor:
        drawn = []
        for prompt, m, seed in zip(prompts, told, seeds, strict=True):
            rng = np.random.default_rng(seed)
            rgb = rng.integers(0, 140, (64, 64, 3)).astype(np.uint8)
            if obeys:
                if prompt in words:
                    domain, k = words[prompt]
                    rgb = square(picture(rng, domain, k), domain.reduction).copy()
                if prompt == "open water":
                    rgb[:] = 60
                rgb[: int(abs(m.lat or 0) / 2)] = 220
                rgb[:, : int(60 * (m.cloud_cover or 0))] = 255
                if m.lon is not None:
                    rgb[0] = 7
            drawn.append(np.tile(rgb, (side // 64, side // 64, 1)))
        return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()

    return paint


def test_every_class_has_different_prompts() -> None:
    assert len(EUROSAT.classes) == 10 and len(UCMERCED.classes) == 21
    for domain in DOMAINS:
        every = [p for wording in domain.prompts.values() for p in wording]
        assert len(set(every)) == len(every)


def test_prompts_are_asked_evenly_and_seeds_never_repeat() -> None:
    prompts, labels, seeds = asked(EUROSAT, 20, seed=3)
    assert np.bincount(labels).tolist() == [20] * 10
    assert all(prompts.count(p) == 5 for p in prompts)
    other = asked(UCMERCED, 20, seed=3)[2] + asked(EUROSAT, 20, seed=4)[2]
    assert len(set(seeds)) == 200 and not set(seeds) & set(other)


def test_chips_are_reduced_to_what_the_model_draws(pack: Path) -> None:
    held = chips(TextPack.load(pack, validation=True), UCMERCED)
    assert held.images.shape == (63, 3, 64, 64) and held.images.dtype == torch.uint8
    assert [UCMERCED.classes[k] for k in held.labels] == [row.label for row in held.rows]
    rgb = np.zeros((256, 256, 3), np.uint8)
    rgb[::2] = 100
    assert (square(rgb, 4) == 50).all()


def test_packs_without_a_set_or_with_unknown_classes_are_refused(pack: Path) -> None:
    whole = TextPack.load(pack)
    rows = [row for row in whole.rows if row.set == "eurosat"]
    with pytest.raises(BadPack, match="no images of ucmerced"):
        chips(TextPack(rows, whole.captions, whole.tokens, whole.pooled), UCMERCED)
    strange = TextPack(rows, [], whole.tokens, whole.pooled)
    other = Domain("eurosat", 1, 10.0, {"Forest": EUROSAT.prompts["Forest"]})
    with pytest.raises(BadPack, match="has classes"):
        chips(strange, other)


def test_readers_learn_classes_and_are_kept(
    real: text.Real, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear = real.readers[0]
    for k in range(len(DOMAINS)):
        read = linear.read(linear.embed(real.held[k].images), k)
        assert (read == real.held[k].labels).float().mean() > 0.9
    monkeypatch.setattr(readers, "CNN_STEPS", 40)
    monkeypatch.setattr(readers, "trained_cnn", None)  # a second training would fail
    monkeypatch.setattr(readers, "_regression", None)
    again = readers.readers(real.learned, [10, 21])
    images = real.held[0].images
    for one, other in zip(real.readers, again, strict=True):
        assert torch.equal(one.embed(images), other.embed(images))
        assert torch.equal(one.read(one.embed(images), 0), other.read(other.embed(images), 0))


def test_cnn_learns(real: text.Real) -> None:
    net = readers.trained_cnn(real.learned[:1], [10], 60)
    read = net.read(net.embed(real.held[0].images), 0)
    assert (read == real.held[0].labels).float().mean() > 0.6


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 12), st.floats(0, 3), st.floats(0.5, 2))
def test_frechet_of_known_gaussians(d: int, away: float, scale: float) -> None:
    """|mu|^2 + d (1 - s)^2 for N(0, 1) and N(mu, s^2)."""
    rng = np.random.default_rng(d)
    x = rng.standard_normal((20000, d))
    y = rng.standard_normal((20000, d)) * scale + away
    assert frechet.frechet(x, y) == pytest.approx(
        d * away**2 + d * (1 - scale) ** 2, abs=0.1 + 0.05 * d * (1 + away)
    )
    assert frechet.frechet(x, x) == pytest.approx(0, abs=1e-6)


def test_kernel_distance_is_unbiased_and_sees_a_shift() -> None:
    rng = np.random.default_rng(0)
    small = [frechet.kernel(*rng.standard_normal((2, 20, 8))) for _ in range(200)]
    assert abs(np.mean(small)) < 3 * np.std(small) / 200**0.5 + 1e-3
    x, y = rng.standard_normal((2, 300, 8))
    assert 0 < frechet.distances(x, y)["kid_scatter"] < 0.1
    assert frechet.kernel(x, y + 0.5) > 20 * abs(frechet.kernel(x, y))


def test_measures_of_known_images() -> None:
    snow = torch.full((1, 3, 64, 64), 30, dtype=torch.uint8)
    snow[:, :, :16] = 220
    assert responses.white(snow) == pytest.approx(25)
    green = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    green[:, 1] = 90
    assert responses.greenness(green) == pytest.approx(90)
    assert responses.white(green) == 0 and responses.contrast(green) == 0
    assert responses.brightness(green) == pytest.approx(30)


@pytest.mark.parametrize("exponent", [-3.0, -2.0, -1.0])
def test_slope_of_noise_with_a_known_spectrum(exponent: float) -> None:
    generator = torch.Generator().manual_seed(0)
    f = torch.fft.fftfreq(64, 1 / 64)
    radius = (f[:, None].square() + f.square()).sqrt().clamp_min(1)
    white = torch.fft.fft2(torch.randn(64, 64, 64, generator=generator))
    grey = torch.fft.ifft2(white * radius ** (exponent / 2)).real
    images = (
        (128 + 30 * grey / grey.std()).clamp(0, 255).round().byte()[:, None].expand(-1, 3, -1, -1)
    )
    assert responses.slope(images).mean() == pytest.approx(exponent, abs=0.25)


def test_sign_test() -> None:
    assert responses.sign_test(10, 10) == pytest.approx(2 / 1024)
    assert responses.sign_test(0, 10) == responses.sign_test(10, 10)
    assert responses.sign_test(5, 10) == 1


def test_rank_correlation() -> None:
    assert responses.rank_correlation([1, 2, 3], [10, 100, 1000]) == pytest.approx(1)
    assert responses.rank_correlation([1, 2, 3], [9, 4, 0]) == pytest.approx(-1)
    assert responses.rank_correlation([1, 1, 2, 2], [0, 1, 0, 1]) == pytest.approx(0)
    assert responses.rank_correlation([1, 2], [3, 3]) == 0


def test_copies_are_found_however_they_are_turned() -> None:
    rng = np.random.default_rng(0)
    known = torch.from_numpy(rng.integers(0, 256, (40, 3, 64, 64)).astype(np.uint8))
    queries = torch.rot90(known[7:9], 1, (2, 3)).flip(3)
    distance, number = neighbours.nearest_pixels(queries, known)
    assert number[:, 0].tolist() == [7, 8] and (distance[:, 0] < 1e-3).all()
    assert all(len(set(row)) == 3 for row in number.tolist())
    fresh = torch.from_numpy(rng.integers(0, 256, (40, 3, 64, 64)).astype(np.uint8))
    bound = neighbours.nearest_pixels(fresh, known)[0][:, 0]
    assert neighbours.summary(distance[:, 0], bound)["below"] == 1
    assert neighbours.summary(bound, bound)["below"] < 0.1


def test_report_of_a_painter_that_obeys(real: text.Real, tmp_path: Path) -> None:
    m = text.measure(painter(obeys=True), real, tmp_path, 0, COUNTS)
    assert json.loads(json.dumps(m)) == m
    for domain in DOMAINS:
        row = m["classes"][domain.set]["EfficientNet-Lite0"]
        assert row["generated"] > 0.8 and row["real"] > 0.9
        assert row["captions"] is not None and row["other_words"] > 0.8
        assert sum(map(sum, row["confusion"])) == 4 * len(domain.classes)
    north = m["responses"]["snow with latitude, north"]
    assert north["right"] == 4 and north["means"] == sorted(north["means"])
    assert north["real"] > 0.9 and north["real_images"] == 40
    assert m["responses"]["cloud with cloud_cover"]["right"] == 4
    assert m["responses"]["cloud with cloud_cover"]["real"] is None
    month = m["responses"]["snow with month, July to January at 50 north"]
    assert month["right"] == month["wrong"] == 0 and month["p"] == 1  # the painter ignores it
    assert m["words"]["a city against open water, 30 m"]["right"] == 4
    for reader in real.readers:
        rows = m["distance"][reader.name]
        assert rows["generated"]["fid"] < 2 * rows["real, other half"]["fid"]
    assert m["missing"]["lon"]["least"] > 0 and m["missing"]["date"]["mean"] == 0
    assert {p.name for p in tmp_path.iterdir()} == {
        "eurosat.webp", "ucmerced.webp", "responses.webp", "words.webp", "missing.webp", "neighbours.webp",
        "wide.webp",
    }  # fmt: skip
    card = text_card.body(m)
    assert m["wide"]["EfficientNet-Lite0"]["generated"] > 0.5  # of ten pictures, each repeated
    assert card.count("![") == 7 and "| SeaLake |" in card and "cloud with cloud_cover" in card


def test_report_of_a_painter_of_noise(real: text.Real, tmp_path: Path) -> None:
    m = text.measure(painter(obeys=False), real, tmp_path, 0, COUNTS)
    for domain in DOMAINS:
        for reader in real.readers:
            assert m["classes"][domain.set][reader.name]["generated"] <= 0.3
            assert m["wide"][reader.name]["generated"] <= 0.3
    assert all(row["right"] == 0 for row in m["responses"].values())
    for reader in real.readers:
        rows = m["distance"][reader.name]
        assert rows["generated"]["kid"] > 5 * abs(rows["real, held out"]["kid"])
        assert rows["generated"]["fid"] > 2 * rows["real, other half"]["fid"]
