"""Official checkpoints: a tiny one in the layout of the archives is read, converted, and refused where it must be."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fingerprint import COND_METADATA, FRAMES, LATENT, METADATA, TEXT, TIMES, TINY
from torch import Tensor, nn

from terraloom.errors import BadCheckpoint, InvalidInput, TerraloomError
from terraloom.models.controlnet2d import ControlNet2D
from terraloom.models.controlnet3d import ControlNet3D
from terraloom.models.satellite_unet import SatelliteUNet
from terraloom.official import convert, is_official, load_controlnet, load_official

BIN = "diffusion_pytorch_model.bin"
# names of today -> of the diffusers that the authors used
OLD_VAE = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
SCHEDULE = dict(
    _class_name="DDIMScheduler",
    _diffusers_version="0.17.0.dev0",
    beta_end=0.012,
    beta_schedule="scaled_linear",
    beta_start=0.00085,
    clip_sample=False,
    num_train_timesteps=1000,
    prediction_type="v_prediction",
    set_alpha_to_one=False,
    skip_prk_steps=True,
    steps_offset=1,
    trained_betas=None,
)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def write_unet(folder: Path, net: SatelliteUNet) -> None:
    config = {k: v for k, v in dict(net.config).items() if not k.startswith("_")}
    del config["missing"]  # the authors' class has no such key
    config |= {"_class_name": "SatUNet", "_diffusers_version": "0.17.0.dev0"}
    write_json(folder / "config.json", config)
    torch.save(net.state_dict(), folder / BIN)


def old_vae(net: nn.Module) -> dict[str, Tensor]:
    state = {}
    for key, value in net.state_dict().items():
        for new, old in OLD_VAE.items():
            key = key.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        state[key] = value
    return state


def write_tokenizer(folder: Path) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    special = ["<|startoftext|>", "<|endoftext|>"]
    words = ["!", *letters, *(f"{c}</w>" for c in letters), "ri", "ve", "ver</w>", *special]
    write_json(folder / "vocab.json", {word: i for i, word in enumerate(words)})
    (folder / "merges.txt").write_text("#version: 0.2\nr i\nv e\nve r</w>\n", "utf-8")
    names = {"bos_token": special[0], "eos_token": special[1], "unk_token": special[1]}
    write_json(folder / "special_tokens_map.json", {**names, "pad_token": "!"})
    settings = {**names, "pad_token": special[1], "model_max_length": 77}
    write_json(folder / "tokenizer_config.json", {**settings, "tokenizer_class": "CLIPTokenizer"})


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    """Networks with random weights."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(5)
    clip = CLIPTextConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=60,
        bos_token_id=56,
        eos_token_id=57,
        pad_token_id=57,
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    unets = [SatelliteUNet(**TINY).eval() for _ in range(3)]
    return {"unets": unets, "vae": vae.eval(), "text_encoder": CLIPTextModel(clip).eval()}


@pytest.fixture(scope="module")
def archive(parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive as unpacked: the pipeline, and two further checkpoints of the UNet."""
    root = tmp_path_factory.mktemp("archive") / "finetune_sd21"
    names = ("unet", "checkpoint-50000/unet", "checkpoint-150000/unet")
    for name, net in zip(names, parts["unets"], strict=True):
        write_unet(root / name, net)
    vae = parts["vae"]
    write_json(root / "vae/config.json", {**dict(vae.config), "_class_name": "AutoencoderKL"})
    torch.save(old_vae(vae), root / "vae" / BIN)
    text = parts["text_encoder"]
    write_json(root / "text_encoder/config.json", text.config.to_dict())
    state = {f"text_model.{k}": v for k, v in text.state_dict().items()}
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    torch.save(state, root / "text_encoder/pytorch_model.bin")
    write_tokenizer(root / "tokenizer")
    write_json(root / "scheduler/scheduler_config.json", SCHEDULE)
    index = {
        "_class_name": "DiffusionSatPipeline",
        "_diffusers_version": "0.17.0.dev0",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusionsat", "SatUNet"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(root / "model_index.json", index)
    return root


@pytest.fixture
def copy(archive: Path, tmp_path: Path) -> Path:
    """To be spoilt."""
    return Path(shutil.copytree(archive, tmp_path / "copy"))


@torch.no_grad()
def same(made: dict[str, Any], parts: dict[str, Any], unet: int) -> None:
    """Every part gives what the original gives."""
    original = parts["unets"][unet]
    assert type(made["unet"]) is SatelliteUNet and made["unet"].config["missing"] == "zero"
    a, b = original.state_dict(), made["unet"].state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    c, d = (net(LATENT, TIMES, TEXT, metadata=METADATA).sample for net in (original, made["unet"]))
    assert torch.allclose(c, d, atol=1e-5)  # pipelines turn the network to channels_last
    image = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    for f in (lambda v: v.encode(image).latent_dist.mode(), lambda v: v.decode(LATENT[:1]).sample):
        assert torch.equal(f(parts["vae"]), f(made["vae"]))
    ids = torch.tensor(made["tokenizer"](["a river"], padding="max_length").input_ids)
    assert ids.shape == (1, 77)
    assert ids[0, :6].tolist() == [56, 27, 53, 55, 57, 0]  # <start> a ri ver <end> and padding
    states = [encoder(ids)[0] for encoder in (parts["text_encoder"], made["text_encoder"])]
    assert torch.equal(*states)
    schedule = made["scheduler"]
    assert type(schedule).__name__ == "DDIMScheduler"
    assert schedule.config.prediction_type == "v_prediction" and schedule.config.steps_offset == 1


def test_the_latest_checkpoint_is_read(archive: Path, parts: dict[str, Any]) -> None:
    assert is_official(archive)
    made = load_official(archive)
    same(made, parts, 2)
    assert made["unet"].dtype == torch.float32 and not made["unet"].training
    assert all(not p.is_meta for p in made["unet"].parameters())


@pytest.mark.parametrize(("name", "unet"), [(".", 0), ("checkpoint-50000", 1)])
def test_another_checkpoint(archive: Path, parts: dict[str, Any], name: str, unet: int) -> None:
    same(load_official(archive, name), parts, unet)


def test_dtype(archive: Path) -> None:
    made = load_official(archive, dtype=torch.float16)
    assert {made[name].dtype for name in ("unet", "vae", "text_encoder")} == {torch.float16}


def test_an_archive_of_the_pipeline_alone(copy: Path, parts: dict[str, Any]) -> None:
    for folder in copy.glob("checkpoint-*"):
        shutil.rmtree(folder)
    same(load_official(copy), parts, 0)


def test_safetensors_are_read_too(copy: Path, parts: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    for path in copy.rglob("*.bin"):
        name = "model" if path.stem == "pytorch_model" else path.stem
        save_file(torch.load(path), path.with_name(f"{name}.safetensors"))
        path.write_bytes(b"not looked at")
    same(load_official(copy), parts, 2)


def test_converted(
    archive: Path, parts: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from terraloom.pipelines import TextToImage

    seen: list[tuple[int, int]] = []
    target = convert(
        archive, tmp_path / "ours", progress=lambda done, total: seen.append((done, total))
    )
    assert capfd.readouterr() == ("", "")
    assert seen == [(i, 5) for i in range(6)]
    assert [p.name for p in tmp_path.iterdir()] == ["ours"]
    assert not list(target.rglob("*.bin")) and not is_official(target)
    index = json.loads((target / "model_index.json").read_text())
    assert index["unet"] == ["terraloom.models.satellite_unet", "SatelliteUNet"]
    assert json.loads((target / "unet/config.json").read_text())["_class_name"] == "SatelliteUNet"
    pipe = TextToImage.from_pretrained(target)
    same({name: getattr(pipe, name) for name in pipe.components}, parts, 2)
    assert pipe.config.steps == 50 and pipe.config.guidance == 7.5


def test_diffusers_own_loader_reads_what_is_converted(
    archive: Path, parts: dict[str, Any], tmp_path: Path
) -> None:
    from diffusers import DiffusionPipeline

    target = str(convert(archive, tmp_path / "ours", checkpoint="."))
    pipe = DiffusionPipeline.from_pretrained(target, custom_pipeline=target, trust_remote_code=True)
    assert type(pipe).__name__ == "TextToImage"
    same({name: getattr(pipe, name) for name in pipe.components}, parts, 0)


def test_conversion_is_whole_or_not_at_all(copy: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(copy, tmp_path / "ours", progress=stop)
    (copy / "vae" / BIN).write_bytes((copy / "vae" / BIN).read_bytes()[:-9])
    with pytest.raises(BadCheckpoint, match="vae"):
        convert(copy, tmp_path / "ours")
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]


def test_targets_that_cannot_be(archive: Path, tmp_path: Path, copy: Path) -> None:
    with pytest.raises(InvalidInput, match="exists already"):
        convert(archive, copy)
    with pytest.raises(InvalidInput, match="does not exist"):
        convert(archive, tmp_path / "no" / "where")


def test_a_full_disk_is_one_sentence(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(SatelliteUNet, "save_pretrained", full)
    with pytest.raises(TerraloomError, match="No space left"):
        convert(archive, tmp_path / "ours")
    assert not list(tmp_path.iterdir())


class Bomb:
    """Unpickled as it asks to be, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("part", ["checkpoint-150000/unet", "vae", "text_encoder"])
def test_a_pickle_that_would_run_code_is_refused(
    copy: Path, tmp_path: Path, part: str, zipped: bool
) -> None:
    witness = tmp_path / "witness"
    path = next((copy / part).glob("*.bin"))
    bad = {**torch.load(path), "bomb": Bomb(witness)}
    if zipped:
        torch.save(bad, path)
    else:
        path.write_bytes(pickle.dumps(bad))
    with pytest.raises(BadCheckpoint, match="more than tensors") as caught:
        load_official(copy)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(BadCheckpoint):
        convert(copy, tmp_path / "ours")
    assert not witness.exists()
    torch.load(path, weights_only=False) if zipped else pickle.loads(path.read_bytes())
    assert witness.exists()  # the bomb was live


@pytest.mark.parametrize("keep", [0, 100, 0.5, -1])
def test_truncated_weights_are_refused(copy: Path, keep: float) -> None:
    path = copy / "checkpoint-150000/unet" / BIN
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(BadCheckpoint, match="damaged"):
        load_official(copy)


def test_a_folder_that_would_lose_its_metadata_is_refused(copy: Path) -> None:
    path = copy / "checkpoint-150000/unet/config.json"
    config = json.loads(path.read_text())
    for change in ({"_class_name": "UNet2DConditionModel"}, {"use_metadata": False}):
        write_json(path, {**config, **change})
        with pytest.raises(BadCheckpoint, match="would be lost"):
            load_official(copy)


def test_a_folder_without_metadata_is_refused(copy: Path) -> None:
    weights = copy / "checkpoint-150000/unet" / BIN
    state = torch.load(weights)
    plain = {k: v for k, v in state.items() if not k.startswith("metadata_")}
    torch.save(plain, weights)
    with pytest.raises(BadCheckpoint, match="no weights for metadata"):
        load_official(copy)
    config = weights.with_name("config.json")
    write_json(config, {**json.loads(config.read_text()), "_class_name": "UNet2DConditionModel"})
    with pytest.raises(BadCheckpoint, match="a SatUNet is needed"):
        load_official(copy)


@pytest.mark.parametrize(
    ("part", "key"), [("checkpoint-150000/unet", "conv_in.weight"), ("vae", "quant_conv.bias")]
)
def test_other_shapes_are_refused(copy: Path, part: str, key: str) -> None:
    path = copy / part / BIN
    state = torch.load(path)
    for change, message in (
        ({key: state[key][..., :1]}, "should be"),
        ({"more": state[key]}, "unknown"),
    ):
        torch.save({**state, **change}, path)
        with pytest.raises(BadCheckpoint, match=message):
            load_official(copy)
    torch.save({k: v for k, v in state.items() if k != key}, path)
    with pytest.raises(BadCheckpoint, match="missing"):
        load_official(copy)
    torch.save([state], path)
    with pytest.raises(BadCheckpoint, match="not a table"):
        load_official(copy)


def test_parts_that_are_not_there(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="checkpoint-150000, checkpoint-50000, ."):
        load_official(copy, "checkpoint-7")
    (copy / "checkpoint-150000/unet" / BIN).unlink()
    with pytest.raises(BadCheckpoint, match="no weights"):
        load_official(copy)
    write_json(copy / "scheduler/scheduler_config.json", {"_class_name": "AutoencoderKL"})
    with pytest.raises(BadCheckpoint, match="unknown here"):
        load_official(copy, ".")
    shutil.rmtree(copy / "tokenizer")
    with pytest.raises(BadCheckpoint, match="no tokenizer"):
        load_official(copy, ".")
    (copy / "model_index.json").unlink()
    assert not is_official(copy) and not is_official(tmp_path / "nowhere")
    with pytest.raises(BadCheckpoint, match="no model_index.json"):
        load_official(copy)


@pytest.mark.parametrize(
    ("kind", "name", "more"),
    [
        (ControlNet3D, "ControlNetModel3D", {"use_temporal_transformer": True}),
        (ControlNet2D, "ControlNetModel", {"conditioning_scale": 2}),
    ],
)
def test_controlnets(
    parts: dict[str, Any], tmp_path: Path, kind: Any, name: str, more: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    net = kind.from_unet(parts["unets"][0], conditioning_channels=3, **more).eval()
    for p in net.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.05)
    config = {k: v for k, v in dict(net.config).items() if not k.startswith("_")}
    config["conditioning_in_channels"] = config.pop("conditioning_channels")
    del config["missing"]
    write_json(tmp_path / "controlnet/config.json", {**config, "_class_name": name})
    torch.save(net.state_dict(), tmp_path / "controlnet" / BIN)
    made = load_controlnet(tmp_path)
    frames = FRAMES if kind is ControlNet3D else FRAMES[:, :, 0, ::2, ::2]
    more = {"metadata": METADATA, "cond_metadata": COND_METADATA}
    with torch.no_grad():
        a, b = (n(LATENT, TIMES, TEXT, frames, **more).mid_block_res_sample for n in (net, made))
    assert type(made) is kind and torch.equal(a, b) and a.any()
    write_json(tmp_path / "controlnet/config.json", {**config, "_class_name": "SatUNet"})
    with pytest.raises(BadCheckpoint, match="ControlNet is needed"):
        load_controlnet(tmp_path / "controlnet")
