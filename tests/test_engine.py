"""Engines: the same image from each, and a result that never leaves its input."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from terraloom.errors import InvalidInput
from terraloom.grid import drawn_level
from terraloom.models.waves import reduce4
from terraloom.weights import SHIPPED, Checkpoint, configuration, find, save_model
from terraloom.world import engine as engines

SIDE, HALO = 256, 96


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return find(tiny_checkpoint)


def inputs(seed: int = 0, cells: int = SIDE // 4) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    lr = rng.integers(0, 256, (3, cells, cells)).astype(np.float32) / 127.5 - 1
    cover = rng.integers(0, 19, (cells, cells), np.uint8)
    ground = rng.integers(0, 2, (6, cells, cells)).astype(np.float32)
    gsd = np.linspace(10, 12, cells, dtype=np.float32)
    noise = rng.standard_normal((3, 4 * cells, 4 * cells), np.float32)
    return lr, cover, ground, gsd, noise


@pytest.fixture(scope="module")
def drawn(checkpoint: Checkpoint) -> np.ndarray:
    return engines.start("torch", "f32", checkpoint, SIDE, HALO, 0)(engines.Given(*inputs()))


def test_the_core_comes_out_as_uint8(drawn: np.ndarray) -> None:
    assert drawn.shape == (3, SIDE - 2 * HALO, SIDE - 2 * HALO)
    assert drawn.dtype == np.uint8
    assert drawn.std() > 20


@pytest.fixture(scope="module")
def by_openvino(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """The same block by OpenVINO in each precision of this CPU; empty where it is not installed."""
    if not find_spec("openvino"):
        return {}
    precisions = {"f32", engines.choose("openvino", checkpoint)[1]}
    return {
        p: engines.start("openvino", p, checkpoint, SIDE, HALO, 0)(engines.Given(*inputs()))
        for p in precisions
    }


@pytest.mark.parametrize("which", range(5))
def test_every_input_reaches_the_image(
    checkpoint: Checkpoint, which: int, drawn: np.ndarray
) -> None:
    changed = list(inputs())
    changed[which] = inputs(1)[which] if which != 3 else changed[3] * 4
    other = engines.start("torch", "f32", checkpoint, SIDE, HALO, 0)(engines.Given(*changed))
    assert (other != drawn).mean() > 0.05


def means(pixels: np.ndarray) -> np.ndarray:
    c, h, w = pixels.shape
    return pixels.reshape(c, h // 4, 4, w // 4, 4).mean((2, 4))


def test_output_reduced_by_four_is_the_input(
    drawn: np.ndarray, by_openvino: dict[str, np.ndarray]
) -> None:
    lr = (inputs()[0][:, HALO // 4 : -HALO // 4, HALO // 4 : -HALO // 4] + 1) * 127.5
    for core in (drawn, *by_openvino.values()):
        assert np.abs(means(core) - lr).max() <= 0.5 + 1e-3


def test_openvino_draws_what_torch_draws(
    drawn: np.ndarray, by_openvino: dict[str, np.ndarray]
) -> None:
    if not by_openvino:
        pytest.skip("openvino is not installed")
    assert np.abs(by_openvino["f32"].astype(int) - drawn).max() <= 1
    assert (by_openvino["f32"] != drawn).mean() < 1e-3
    for quick in by_openvino.values():
        assert np.abs(quick.astype(int) - drawn).mean() < 2


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**31), contrast=st.floats(0, 5), level=st.floats(-1, 1))
def test_pixels_are_consistent_however_wild_the_network(
    seed: int, contrast: float, level: float
) -> None:
    g = torch.Generator().manual_seed(seed)
    lr = (level + 0.1 * torch.randn(1, 3, 8, 8, generator=g)).clamp(-1, 1)
    lr = ((lr + 1) * 127.5).round() / 127.5 - 1
    y = torch.randn(1, 3, 32, 32, generator=g) * contrast
    pixels = engines.to_pixels(y, lr)
    assert pixels.dtype == torch.uint8
    assert (reduce4(pixels.float()) - (lr + 1) * 127.5).abs().max() <= 0.5 + 1e-3


def test_pixels_in_range_are_only_projected() -> None:
    g = torch.Generator().manual_seed(0)
    lr = torch.rand(1, 3, 8, 8, generator=g) - 0.5
    y = torch.nn.functional.interpolate(lr, scale_factor=4) + 0.1 * torch.randn(
        1, 3, 32, 32, generator=g
    )
    y += torch.nn.functional.interpolate(lr - reduce4(y), scale_factor=4)
    assert torch.equal(engines.to_pixels(y, lr), ((y + 1) * 127.5).round().to(torch.uint8))


def test_choosing(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engines.choose("torch", checkpoint) == ("torch", "f32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert engines.choose("auto", checkpoint) == ("cuda", "f32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidInput, match="no GPU"):
        engines.choose("cuda", checkpoint)
    with pytest.raises(InvalidInput, match="'tpu' is unknown; choose from auto, cuda"):
        engines.choose("tpu", checkpoint)
    monkeypatch.setattr(engines, "find_spec", lambda _: None)
    assert engines.choose("auto", checkpoint) == ("torch", "f32")
    with pytest.raises(InvalidInput, match="not installed"):
        engines.choose("openvino", checkpoint)


def test_auto_prefers_openvino_on_a_cpu(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    name, precision = engines.choose("auto", checkpoint)
    assert name == "openvino"
    assert precision in ("f32", "bf16")


def test_metaearth_is_drawn_by_its_own_windows(tmp_path: Path) -> None:
    from terraloom.models.metaearth import MetaEarthConfig, MetaEarthUNet

    config = MetaEarthConfig(widths=(32,) * 4, attention=(), embed=32, lr_blocks=1, evaluations=1)
    saved = save_model(MetaEarthUNet(config), tmp_path)
    assert engines.geometry(saved) == engines.Geometry(exact=64, usual=64, period=128)
    assert engines.choose("auto", saved)[0] in ("torch", "cuda")
    with pytest.raises(InvalidInput, match="cannot run a metaearth"):
        engines.choose("openvino", saved)
    draw = engines.start("torch", "f32", saved, 256, 64, 5)
    assert draw(engines.Given(*inputs())).shape == (3, 128, 128)


@pytest.mark.gpu
def test_a_gpu_draws_what_the_cpu_draws(checkpoint: Checkpoint, drawn: np.ndarray) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    on_gpu = engines.start("cuda", "f32", checkpoint, SIDE, HALO, 0)(engines.Given(*inputs()))
    assert np.abs(on_gpu.astype(int) - drawn).max() <= 1


def reduced4(rgb: np.ndarray) -> np.ndarray:
    height, width = (n // 4 for n in rgb.shape[1:])
    return rgb.reshape(3, height, 4, width, 4).mean((2, 4))


@pytest.mark.weights
@pytest.mark.parametrize(
    ("gsd", "green", "contrast", "changed"),
    [(150.0, 110, 30.73, 1.5e-2), (10.0, 90, 19.32, 1.5e-2), (0.6, 120, 20.58, 1.5e-2)],
)
def test_the_usual_halo_of_shipped_weights_suffices(
    gsd: float, green: int, contrast: float, changed: float
) -> None:
    if not (SHIPPED / "cascade").is_dir():
        pytest.skip("no shipped weights in this checkout")
    whole_cascade, side, exact = find("cascade"), 128, 224
    evaluations = len(configuration(whole_cascade).sigmas)
    usual = 64
    assert engines.geometry(whole_cascade) == engines.Geometry(
        evaluations * exact + engines.BEYOND, usual, 16
    )
    level = drawn_level(gsd)
    shipped = whole_cascade.at(level)
    rng, cells = np.random.default_rng(0), (side + 2 * exact) // 4
    given = cells // 4
    coarse = rng.normal(0, 25, (3, given // 4, given // 4)).repeat(4, 1).repeat(4, 2)
    lr = (
        coarse
        + rng.normal(0, 6, (3, given, given))
        + np.array([green - 10, green, green - 30])[:, None, None]
    )
    lr = np.clip(np.rint(lr), 0, 255).astype(np.float32) / 127.5 - 1
    cover = np.full((cells, cells), 12, np.uint8)
    ground = np.zeros((6, cells, cells), np.float32)
    noise = rng.standard_normal((3, 4 * cells, 4 * cells), np.float32)
    whole = lr, cover, ground, np.full(cells, gsd, np.float32), noise
    cut, wide = (
        slice((exact - usual) // 4, (usual - exact) // 4),
        slice(exact - usual, usual - exact),
    )
    inner = slice(cut.start // 4, cut.stop // 4)
    part = (
        lr[:, inner, inner],
        cover[cut, cut],
        ground[:, cut, cut],
        whole[3][cut],
        noise[:, wide, wide],
    )
    everything = engines.start("torch", "f32", shipped, side + 2 * exact, exact, 0)(
        engines.Given(*whole)
    )
    drawn = engines.start("torch", "f32", shipped, side + 2 * usual, usual, 0)(engines.Given(*part))
    difference = np.abs(drawn.astype(int) - everything)
    assert difference.max() <= 1
    assert (difference > 0).mean() < changed
    detail = everything - reduced4(everything).repeat(4, 1).repeat(4, 2)
    assert detail.std() == pytest.approx(contrast, rel=0.05)  # what these weights drew in cells
