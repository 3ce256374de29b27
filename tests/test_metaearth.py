"""MetaEarth's network: conditions reach every output, and both published sizes build and train a step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from terraloom.data.packed import Pack, Sample
from terraloom.diffusion.ddpm import Schedule, eps_loss
from terraloom.models.metaearth import MetaEarthConfig, MetaEarthUNet, frequencies
from terraloom.training.loop import run
from terraloom.training.metaearth import MetaEarthTask
from terraloom.training.recipe import load_recipe
from terraloom.weights import find, load_model, save_model
from terraloom.world import World

RECIPES = Path(__file__).parent.parent / "recipes"
TINY = MetaEarthConfig(
    widths=(32, 32, 32, 32), embed=32, lr_width=32, lr_growth=8, lr_blocks=1, evaluations=2
)


def published(recipe: str) -> MetaEarthConfig:
    return MetaEarthConfig(**load_recipe(RECIPES / recipe)["model"])


def count(config: MetaEarthConfig) -> float:
    with torch.device("meta"):
        return sum(p.numel() for p in MetaEarthUNet(config).parameters()) / 1e6


def inputs(side: int = 32, batch: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 3, side, side, generator=g)
    lr = torch.rand(batch, 3, side // 4, side // 4, generator=g) * 2 - 1
    return x, torch.full((batch,), 400), lr, torch.full((batch, side // 4), 10.0)


@pytest.fixture
def model() -> MetaEarthUNet:
    """A tiny network with its zero-initialised layers made random, as training would."""
    torch.manual_seed(0)
    model = MetaEarthUNet(TINY).eval()
    for p in model.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.05)
    return model


def test_sizes() -> None:
    assert 4 < count(published("metaearth.toml")) < 5.5
    assert 600 < count(published("metaearth_paper.toml")) < 650


def test_the_papers_size_takes_a_training_step_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = MetaEarthUNet(published("metaearth_paper.toml"))
        optimiser = torch.optim.AdamW(model.parameters(), lr=2e-6)
        x0, lr = torch.empty(2, 3, 256, 256), torch.empty(2, 3, 64, 64)
        t, gsd = torch.zeros(2, dtype=torch.long), torch.ones(2, 64)
        loss = eps_loss(model, Schedule(), x0, t, torch.empty_like(x0), lr, gsd)
        loss.backward()
        optimiser.step()
    assert loss.shape == () and loss.is_meta
    assert all(p.grad is not None for p in model.parameters())


def test_frequencies_are_the_transformer_encoding() -> None:
    f = frequencies(torch.tensor([0.0, 3.0]), 8)
    assert torch.equal(f[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    rates = 1e4 ** (-torch.arange(4) / 4)
    torch.testing.assert_close(f[1], torch.cat([(3 * rates).sin(), (3 * rates).cos()]))


def test_every_condition_changes_the_answer(model: MetaEarthUNet) -> None:
    x, t, lr, gsd = inputs()
    with torch.inference_mode():
        y = model(x, t, lr, gsd)
        others = [model(x, t - 300, lr, gsd), model(x, t, -lr, gsd), model(x, t, lr, 16 * gsd)]
        assert y.shape == x.shape
        assert all((y - other).abs().mean() > 1e-4 for other in others)
        assert torch.equal(model.denoise(x, t, model.encode(lr), gsd), y)


def test_images_of_a_batch_do_not_mix(model: MetaEarthUNet) -> None:
    x, t, lr, gsd = inputs()
    with torch.inference_mode():
        both = model(x, t, lr, gsd)
        alone = model(x[1:], t[1:], lr[1:], gsd[1:])
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-4)


def smooth_image() -> Tensor:
    line = torch.linspace(-0.7, 0.7, 16)
    return torch.stack([line[None] * line[:, None], line.expand(16, 16), -line.expand(16, 16)])


RECIPE = """
kind = "metaearth"
[model]
widths = [32, 32]
attention = [1]
embed = 32
lr_width = 32
lr_growth = 8
lr_blocks = 1
[optimizer]
lr = 1e-3
ema = 0.99
[data]
batch = 2
side = 16
unknown_cover = 0.0
sources = [["a", 1, 1.0]]
small_sources = []
chains = []
"""


@pytest.fixture
def pack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pack]:
    """One image in memory, whatever file is asked for."""
    pixels = (smooth_image().permute(1, 2, 0) + 1).mul(127.5).to(torch.uint8).numpy()
    cells = np.zeros((4, 4), np.uint8)
    pack = Pack({"a": [Sample("a", pixels, cells, cells, 10.0)]})
    monkeypatch.setattr(Pack, "load", classmethod(lambda cls, path: pack))
    yield pack
    torch.set_flush_denormal(False)  # the loop sets it; later tests want all floats


def test_the_loop_trains_resumes_exactly_and_exports(pack: Pack, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE)
    whole = run(recipe, tmp_path / "pack", tmp_path / "whole", steps=4)
    run(recipe, tmp_path / "pack", tmp_path / "parts", steps=2)
    parts = run(recipe, tmp_path / "pack", tmp_path / "parts", steps=4)
    assert find(whole).kind == "metaearth"
    assert find(whole).digest == find(parts).digest
    assert find(whole).config["training"]["images"] == 8


def test_training_lowers_the_loss_and_a_checkpoint_can_be_trained_on(
    pack: Pack, tmp_path: Path
) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE)
    task = MetaEarthTask(load_recipe(recipe), pack, torch.device("cpu"))
    rng = np.random.default_rng(0)
    losses = [task.step(k, rng, lambda parameters: None)["loss"] for k in range(80)]
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:5])
    task.export(tmp_path / "weights", {})
    again = MetaEarthTask(load_recipe(recipe), pack, torch.device("cpu"))
    again.warm_start(tmp_path / "weights")
    for a, b in zip(again.model.parameters(), task.ema.parameters(), strict=True):
        assert torch.equal(a, b.bfloat16().float())


def test_a_world_of_metaearth(model: MetaEarthUNet, tiny_base: Path, tmp_path: Path) -> None:
    """Cells do not depend on block size, order or what else was asked for; the seed decides."""
    folder = save_model(model, tmp_path / "weights").path
    assert load_model(find(folder)).config == TINY

    def world(seed: int, block: int) -> World:
        return World(seed, model=folder, base=tiny_base, cache=False, block=block)

    first, second = world(0, 128), world(0, 256)
    assert first.spec.engine == "torch" and first.spec.halo == 64
    whole = second.level(8, 33024, 25600, 256, 256)
    corner = first.level(8, 33152, 25728, 128, 128)
    assert np.array_equal(whole[:, 128:, 128:], corner)
    assert whole.std() > 5
    assert (world(1, 128).level(8, 33152, 25728, 128, 128) != corner).mean() > 0.5
