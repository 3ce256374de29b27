"""The folder of a model for dated images: what is saved is loaded; what is damaged or of another kind is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from frames_model import tiny_networks
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from terraloom import weights
from terraloom.cli import app
from terraloom.errors import BadCheckpoint
from terraloom.official import is_official
from terraloom.weights import find_frames, find_pipeline, is_pipeline, load_frames, save_frames


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "frames"
    return save_frames(*tiny_networks(), folder, card="# Tiny", training={"images": 3})


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def same(a: nn.Module, b: nn.Module) -> bool:
    others = b.state_dict()
    return all(torch.equal(v, others[k].bfloat16().float()) for k, v in a.state_dict().items())


def test_saved_networks_come_back(saved: Path) -> None:
    found = find_frames(saved)
    assert (found.name, found.kind, found.card) == ("frames", "frames", "# Tiny")
    assert found.config["training"] == {"images": 3}
    unet, control = load_frames(found)
    assert not unet.training and not control.training
    before = tiny_networks()
    assert same(unet, before[0]) and same(control, before[1])
    assert load_frames(found, torch.bfloat16)[1].dtype == torch.bfloat16


def test_the_layout_is_that_of_diffusers(saved: Path) -> None:
    names = sorted(p.relative_to(saved).as_posix() for p in saved.rglob("*") if p.is_file())
    assert names == [
        "card.md", "controlnet/config.json", "controlnet/diffusion_pytorch_model.safetensors",
        "model_index.json", "pipeline.py", "training.json", "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]  # fmt: skip
    for part in ("unet", "controlnet"):
        tensors = load_file(saved / part / "diffusion_pytorch_model.safetensors")
        assert {t.dtype for t in tensors.values()} == {torch.bfloat16}
    index = json.loads((saved / "model_index.json").read_text())
    assert index["_class_name"] == "FramesToImage"
    assert index["controlnet"] == ["terraloom.models.controlnet3d", "ControlNet3D"]


def test_the_digest_is_of_both_networks(folder: Path) -> None:
    before = find_frames(folder).digest
    unet, control = tiny_networks()
    assert find_frames(save_frames(unet, control, folder)).digest == before
    with torch.no_grad():
        next(control.parameters()).add_(1)
    assert find_frames(save_frames(unet, control, folder)).digest != before


def test_it_is_listed_with_the_shipped_ones(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.checkpoint, "SHIPPED", saved.parent)
    assert [(c.name, c.kind) for c in weights.available()] == [("frames", "frames")]
    assert find_frames("terraloom/frames").path == saved
    done = CliRunner().invoke(app, ["weights", "list"])
    assert done.stdout.startswith(f"frames  frames  {find_frames(saved).digest}"), done.output


def test_it_is_no_text_model(saved: Path) -> None:
    assert not is_pipeline(saved) and not is_official(saved)
    with pytest.raises(BadCheckpoint, match="is a model for dated images; a text-to-image model"):
        find_pipeline(saved)


def test_missing_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="no model for dated images 'nowhere'"):
        find_frames("nowhere")
    with pytest.raises(BadCheckpoint, match=r"model_index\.json"):
        find_frames(tmp_path)


@pytest.mark.parametrize("part", ["unet", "controlnet"])
def test_damaged_parts_are_refused(folder: Path, part: str) -> None:
    path = folder / part / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadCheckpoint, match="damaged"):
        load_frames(find_frames(folder))
    path.unlink()
    with pytest.raises(BadCheckpoint, match=f"has no {part}/"):
        find_frames(folder)


def test_a_control_of_another_shape_is_refused(folder: Path) -> None:
    config = folder / "controlnet" / "config.json"
    shape = json.loads(config.read_text())
    config.write_text(json.dumps({**shape, "conditioning_channels": 5}))
    with pytest.raises(BadCheckpoint, match="3D ControlNet"):
        load_frames(find_frames(folder))
    config.write_text(json.dumps({**shape, "block_out_channels": "wide"}))
    with pytest.raises(BadCheckpoint, match="describes no network"):
        load_frames(find_frames(folder))
