"""Training text and metadata to image: the flow's algebra, exact resume, sharpening, adapters."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file
from safetensors.torch import load_file

from terraloom.diffusion.flow import flow_loss, noised, seen_image, sigmas

pytest.importorskip("diffusers")
pytest.importorskip("efficientnet_lite_pytorch")

from terraloom.models.autoencoder import PixelAutoencoder  # noqa: E402
from terraloom.models.critic import Features  # noqa: E402
from terraloom.models.satellite_unet import SatelliteUNet  # noqa: E402
from terraloom.training.likeness import looked_at, unlikeness  # noqa: E402
from terraloom.training.loop import run  # noqa: E402

RECIPE = """
kind = "text"
seed = 3
[model]
sample_size = 32
in_channels = 12
out_channels = 12
block_out_channels = [32, 32]
layers_per_block = 1
down_block_types = ["DownBlock2D", "CrossAttnDownBlock2D"]
up_block_types = ["CrossAttnUpBlock2D", "UpBlock2D"]
attention_head_dim = [1, 1]
cross_attention_dim = 384
class_embed_type = "projection"
projection_class_embeddings_input_dim = 384
use_linear_projection = true
missing = "learned"
[optimizer]
lr = 1e-3
critic_lr = 1e-3
sharpening_lr = 1e-3
ema = 0.9
accumulate = 2
[schedule]
warmup_steps = 2
sharpening = 1.0
evaluations = 2
total_steps = 5
[losses]
critic = 0.5
feature = 0.1
[data]
batch = 3
sharpening_batch = 2
text_drop = 0.1
metadata_drop = 0.1
field_drop = 0.1
sources = [["eurosat", 1, 1.0]]
"""


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    images, rows = [], []
    for k in range(6):
        file = io.BytesIO()
        pixels = rng.integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(file, "WEBP", quality=80)
        images.append(np.frombuffer(file.getvalue(), np.uint8))
        rows.append(
            {"set": "eurosat", "val": k == 5, "gsd": 10.0, "lon": None, "lat": None,
             "region": [-10, 36, 30, 61], "cloud_cover": 0.1, "date": "2019-07", "label": "Forest",
             "captions": [1], "place": f"p{k}"}
        )  # fmt: skip
    index = {"version": 1, "quality": 80, "rows": rows, "captions": ["", "a forest"]}
    path = tmp_path / "text.safetensors"
    save_file(
        {
            "index": np.frombuffer(json.dumps(index).encode(), np.uint8),
            "images": np.concatenate(images),
            "image_ends": np.cumsum([len(i) for i in images]),
            "tokens": rng.standard_normal((2, 24, 384)).astype(np.float16),
            "pooled": rng.standard_normal((2, 384)).astype(np.float16),
        },
        path,
    )
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


@given(st.floats(0.01, 1), st.integers(0, 100))
def test_the_true_velocity_points_to_the_image(sigma: float, seed: int) -> None:
    x, eps = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    s = torch.full((2,), sigma)
    assert torch.allclose(seen_image(noised(x, eps, s), eps - x, s), x, atol=1e-5)
    assert float(flow_loss(eps - x, x, eps)) == 0


def test_sigmas_begin_at_noise_and_a_shift_keeps_them_there() -> None:
    assert torch.allclose(sigmas(4), torch.tensor([1, 0.75, 0.5, 0.25]))
    shifted = sigmas(4, 3.0)
    assert shifted[0] == 1 and bool((shifted[1:] > sigmas(4)[1:]).all())
    assert bool((shifted.diff() < 0).all())


def test_latents_are_pixels_rearranged() -> None:
    images = torch.randn(2, 3, 8, 8)
    vae = PixelAutoencoder()
    assert vae.encode(images).shape == (2, 12, 4, 4)
    assert torch.equal(vae.decode(vae.encode(images)).sample, images)


def test_resumed_run_repeats_the_uninterrupted_one(
    pack: Path, recipe: Path, tmp_path: Path
) -> None:
    run(recipe, pack, tmp_path / "whole", steps=4)
    run(recipe, pack, tmp_path / "parts", steps=2)
    run(recipe, pack, tmp_path / "parts", steps=4)
    whole, parts = (
        {f.name: load_file(f) for f in (tmp_path / n / "state").glob("*.safetensors")}
        for n in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    for name, tensors in whole.items():
        assert all(torch.equal(v, parts[name][k]) for k, v in tensors.items())


def test_a_run_leaves_pipeline_sheet_and_figures(pack: Path, recipe: Path, tmp_path: Path) -> None:
    folder = run(recipe, pack, tmp_path / "out", steps=3)
    assert SatelliteUNet.from_pretrained(folder, subfolder="unet").config["missing"] == "learned"
    with Image.open(folder / "samples.png") as sheet:
        assert sheet.size == (5 * 64, 12 * 64)
    lines = [json.loads(v) for v in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["images"] == 2 * (3 + 3 + 2)
    assert {"flow", "feature", "hinge", "score"} <= lines[-1].keys()
    assert list((tmp_path / "out" / "tensorboard").glob("events*"))
    assert (folder / "critic.safetensors").stat().st_size > 0


def test_training_ends_with_the_last_of_total_steps(
    pack: Path, recipe: Path, tmp_path: Path
) -> None:
    def weights(steps: int) -> dict[str, torch.Tensor]:
        run(recipe, pack, tmp_path / "out", steps=steps)
        files = (tmp_path / "out" / "state").glob("*.safetensors")
        read = {k: v for f in files for k, v in load_file(f).items()}
        return {k: v for k, v in read.items() if k.startswith("module/model/")}

    before, last, after = (weights(steps) for steps in (4, 5, 6))
    assert any(not torch.equal(v, last[k]) for k, v in before.items())
    assert all(torch.equal(v, after[k]) for k, v in last.items())
    lines = (tmp_path / "out" / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 5


def test_unlikeness_is_zero_for_the_same_images_and_grows_with_noise() -> None:
    features = Features()
    real, noise = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    true = looked_at(features, real)
    assert torch.equal(unlikeness(true, true), torch.zeros(2))
    little, much = (unlikeness(looked_at(features, real + s * noise), true) for s in (0.1, 0.5))
    assert bool(((0 < little) & (little < much)).all())


def test_adapters_change_the_weights_they_are_told_to(
    pack: Path, recipe: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    begun = run(recipe, pack, tmp_path / "begun", steps=1)
    text = recipe.read_text().replace("sharpening = 1.0", "sharpening = 0.0")
    recipe.write_text(text + '[lora]\nrank = 2\ntargets = ["to_q", "to_v"]\n')
    tuned = run(recipe, pack, tmp_path / "tuned", steps=3, start=begun)
    before, after = (
        SatelliteUNet.from_pretrained(f, subfolder="unet").state_dict() for f in (begun, tuned)
    )
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed and all(".to_q." in k or ".to_v." in k for k in changed)
