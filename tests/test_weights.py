"""Checkpoints: what is saved is loaded; what is damaged is refused in one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from terraloom.errors import BadCheckpoint
from terraloom.models.cascade import CascadeConfig, CascadeUNet
from terraloom.weights import (
    available,
    configuration,
    find,
    find_frames,
    find_pipeline,
    load_frames,
    load_model,
    load_unet,
    save_model,
)


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    model = CascadeUNet(CascadeConfig(widths=(8, 16), depth=1, embed=8))
    saved = save_model(model, tmp_path / "a" / "b", card="# Card", extra={"steps": 7})
    found = find(tmp_path / "a" / "b")
    assert found == saved
    assert (found.name, found.kind, found.card) == ("b", "cascade", "# Card")
    assert found.config["training"] == {"steps": 7}
    assert configuration(found) == model.config
    loaded = load_model(found)
    assert not loaded.training
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, model.state_dict()[name].bfloat16().float())
    assert load_model(found, dtype=torch.bfloat16).state_dict()[name].dtype == torch.bfloat16


def test_on_disk_are_three_files_and_bfloat16(tiny_checkpoint: Path) -> None:
    assert sorted(p.name for p in tiny_checkpoint.iterdir()) == [
        "card.md",
        "config.json",
        "model.safetensors",
    ]
    tensors = load_file(tiny_checkpoint / "model.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.bfloat16}


def test_digest_is_of_the_weights(folder: Path) -> None:
    before = find(folder)
    assert len(before.digest) == 16
    model = load_model(before)
    assert save_model(model, folder / "same").digest == before.digest
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert save_model(model, folder / "other").digest != before.digest


def test_saving_over_a_checkpoint_replaces_it(folder: Path) -> None:
    model = CascadeUNet(CascadeConfig(widths=(8,), depth=1, embed=8))
    saved = save_model(model, folder)
    assert load_model(saved).state_dict().keys() == model.state_dict().keys()
    assert len(list(folder.iterdir())) == 3


def test_a_failed_save_leaves_the_old_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = find(folder)

    def interrupted(*_: object, **__: object) -> None:
        Path(_[1]).write_bytes(b"half")  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_model(load_model(before), folder)
    assert find(folder) == before
    assert len(list(folder.iterdir())) == 3


def test_missing_checkpoints_are_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(BadCheckpoint, match="no checkpoint 'nowhere'"):
        find("nowhere")
    with pytest.raises(BadCheckpoint, match="has no config.json"):
        find(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match="has no model.safetensors"):
        find(folder)


@pytest.mark.parametrize("kept", [0, 5, 300, -1])
def test_truncated_weights_are_refused(folder: Path, kept: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(BadCheckpoint, match="damaged"):
        load_model(find(folder))


def test_one_flipped_bit_is_noticed(folder: Path) -> None:
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-100] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BadCheckpoint, match="altered"):
        load_model(find(folder))


def test_a_pickle_is_not_a_checkpoint(folder: Path) -> None:
    torch.save({"a": torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(BadCheckpoint, match="damaged"):
        load_model(find(folder))


def test_tensors_of_another_model_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    save_file({k: v for k, v in tensors.items() if k != "stem.bias"}, weights)
    with pytest.raises(BadCheckpoint, match="1 tensors missing, the first is stem.bias"):
        load_model(find(folder))
    save_file({**tensors, "more": torch.zeros(1)}, weights)
    with pytest.raises(BadCheckpoint, match="unknown tensors, the first is more"):
        load_model(find(folder))
    save_file({**tensors, "stem.bias": torch.zeros(3)}, weights)
    with pytest.raises(BadCheckpoint, match=r"stem.bias is \(3,\), should be \(8,\)"):
        load_model(find(folder))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "cannot read"),
        ("[]", "is not a checkpoint's"),
        ('{"kind": "cascade"}', "is not a checkpoint's"),
        ('{"kind": "dalle", "config": {}}', "unknown kind 'dalle'"),
        ('{"kind": "cascade", "config": {"colour": 1}}', "bad config.json"),
        ('{"kind": "cascade", "config": {"widths": 3}}', "bad config.json"),
        ('{"kind": "cascade", "config": {"widths": ["x"]}}', "describes no network"),
        ('{"kind": "metaearth", "config": {}}', "do not fit a metaearth"),
    ],
)
def test_a_bad_config_is_refused(folder: Path, text: str, complaint: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(BadCheckpoint, match=complaint):
        load_model(find(folder))


def test_config_is_plain_json(tiny_checkpoint: Path) -> None:
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    assert config["kind"] == "cascade"
    assert config["range"] == "[-1, 1]"
    assert config["config"]["widths"] == [8, 16, 16]


def test_only_known_kinds_are_saved(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="cannot save a Linear"):
        save_model(torch.nn.Linear(1, 1), tmp_path)


def test_metaearth_is_a_kind(tmp_path: Path) -> None:
    from terraloom.models.metaearth import MetaEarthConfig, MetaEarthUNet

    model = MetaEarthUNet(MetaEarthConfig(widths=(32, 32), attention=(1,), embed=32))
    saved = save_model(model, tmp_path)
    assert configuration(saved) == model.config
    assert load_model(saved).state_dict().keys() == model.state_dict().keys()


def test_shipped_checkpoints_load() -> None:
    shipped = available()
    if not shipped:
        pytest.skip("no shipped weights in this checkout")
    for checkpoint in shipped:
        assert checkpoint.card
        if checkpoint.kind == "pipeline":
            pytest.importorskip("diffusers")
            assert find_pipeline(checkpoint.name) == checkpoint
            load_unet(checkpoint)
        elif checkpoint.kind == "frames":
            pytest.importorskip("diffusers")
            assert find_frames(checkpoint.name) == checkpoint
            load_frames(checkpoint)
        else:
            assert find(checkpoint.name) == checkpoint
            load_model(checkpoint)
