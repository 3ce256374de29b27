"""FramesToImage: the small model's draw, and DiffusionSat's loop written out by hand beside it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from frames_model import tiny_networks
from letters import Tokenizer
from torch import Tensor

from terraloom.errors import BadCheckpoint, InvalidInput
from terraloom.metadata import Metadata
from terraloom.models.controlnet2d import ControlNet2D
from terraloom.models.controlnet3d import ControlNet3D
from terraloom.models.frames import CHANNELS, Frames, draw
from terraloom.models.satellite_unet import SatelliteUNet
from terraloom.pipelines import FramesToImage
from terraloom.pipelines.loading import quick_dtype  # noqa: E402
from terraloom.weights import find_frames

PLACE = Metadata(lon=5, lat=52, gsd=1, date="2021-06-01")
SHAPE: dict[str, Any] = dict(
    sample_size=16,
    block_out_channels=(32, 64),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=1,
    cross_attention_dim=32,
    attention_head_dim=(4, 8),
    use_linear_projection=True,
)


def frames(rows: int = 2, dates: int = 2, side: int = 32) -> Frames:
    rng = torch.Generator().manual_seed(1)
    new = lambda *shape: torch.randn(shape, generator=rng)  # noqa: E731
    free = torch.ones(rows, 1, side, side)
    free[:, :, : side // 2] = 0
    told = torch.rand((rows, 7, dates), generator=rng) * 1000
    present = torch.ones(rows, dates, dtype=torch.bool)
    pixels = new(rows, CHANNELS, dates, side, side)
    return Frames(pixels, present, told, told[:, :, 0], new(rows, 3, side, side), free)


@pytest.fixture(scope="module")
def small() -> FramesToImage:
    return FramesToImage(*tiny_networks())


# --- the small model


def test_it_is_one_draw_for_every_row(small: FramesToImage) -> None:
    given, noise = frames(), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    drawn = small.draw(given, noise)
    assert drawn.dtype == torch.float32
    quick = quick_dtype()
    with torch.no_grad(), torch.autocast("cpu", quick, enabled=quick != torch.float32):
        whole = draw(small.unet, small.controlnet, given, noise)
    assert (drawn - whole).abs().max() < 1e-4
    assert torch.equal(drawn[:, :, :16], given.base[:, :, :16])
    assert (drawn[:, :, 16:] - given.base[:, :, 16:]).abs().mean() > 0.01
    second = given.each(lambda part: part[1:])
    assert torch.equal(small.draw(second, noise[1:])[0], drawn[1])


def test_a_call_follows_its_seed(small: FramesToImage) -> None:
    both = small(frames(), seed=5, output_type="latent", return_dict=False)[0]
    second = frames().each(lambda part: part[1:])
    alone = small(second, seed=6, output_type="latent", return_dict=False)[0]
    assert torch.equal(both[1], alone[0])
    images: Any = small(frames(), seed=5).images
    assert [image.size for image in images] == [(32, 32)] * 2
    shown = np.asarray(images[0], np.float32).transpose(2, 0, 1) / 127.5 - 1
    assert np.abs(shown - both[0].clamp(-1, 1).numpy()).max() < 0.5 / 127.5 + 1e-4


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda p: p.draw(frames(side=40), torch.zeros(2, 3, 40, 40)), "multiples of 16"),
        (lambda p: p.draw(frames(), torch.zeros(1, 3, 32, 32)), "noise has shape"),
        (lambda p: p(torch.zeros(1, 3, 2, 32, 32)), "small model"),
        (lambda p: p(frames(), seed=1, generator=torch.Generator()), "both seed and generator"),
        (lambda p: p(frames(), output_type="jpeg"), "output_type 'jpeg'"),
    ],
)
def test_what_a_small_model_cannot_take(small: FramesToImage, ask: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        ask(small)


def test_saved_and_loaded_it_draws_the_same(small: FramesToImage, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path / "mine")
    again = FramesToImage.from_pretrained(tmp_path / "mine")
    assert (again.name, again.digest) == ("mine", find_frames(tmp_path / "mine").digest)
    assert (small.name, small.digest) == ("custom", "")
    a, b = (p(frames(), seed=5, output_type="latent").images for p in (small, again))
    assert (a - b).abs().max() < 1e-4  # layout in memory may differ, and with it the order of sums
    loaded = diffusers.DiffusionPipeline.from_pretrained(
        tmp_path / "mine", custom_pipeline=str(tmp_path / "mine"), trust_remote_code=True
    )
    assert type(loaded) is FramesToImage
    assert (loaded(frames(), seed=5, output_type="latent").images - a).abs().max() < 1e-4


def test_no_such_model() -> None:
    with pytest.raises(BadCheckpoint, match="no model for dated images 'atlantis'"):
        FramesToImage.from_pretrained("atlantis")


# --- DiffusionSat's


@cache
def official(control: str) -> FramesToImage:
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
        unet = SatelliteUNet(**SHAPE)
        widths = {"conditioning_embedding_out_channels": (16, 32)}
        net: Any
        if control == "3D":
            more = {"use_temporal_transformer": True, "conditioning_channels": 3}
            net = ControlNet3D.from_unet(unet, **widths, **more)
        else:
            more = {"conditioning_channels": 10, "conditioning_scale": 2}
            net = ControlNet2D.from_unet(unet, **widths, **more)
        with torch.no_grad():
            for part in (unet, net):  # as they begin, ControlNets give zeros
                for parameter in part.parameters():
                    parameter.add_(0.05 * torch.randn_like(parameter))
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction",
    )  # fmt: skip
    pipe = FramesToImage(unet.eval(), net.eval(), scheduler, vae.eval(), clip.eval(), Tokenizer())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def by_hand(
    pipe: FramesToImage, images: Tensor, told: Tensor, prompt: str, steps: int, guidance: float
) -> Tensor:
    """The reference's loop for one image: the unconditional half knows no prompt and seven zeros."""
    side = images.shape[-1] // 2 * pipe.controlnet.config.get("conditioning_scale", 1)
    x = torch.randn((1, 4, side, side), generator=torch.Generator().manual_seed(3))
    ids = [Tokenizer()(text, True, True).input_ids for text in ("", prompt)]
    text = torch.cat([pipe.text_encoder(torch.tensor([i]))[0] for i in ids])
    metadata = torch.from_numpy(PLACE.vector("diffusionsat"))
    metadata, cond = (torch.stack([torch.zeros_like(m), m]) for m in (metadata, told))
    if guidance == 1:
        text, metadata, cond = text[1:], metadata[1:], cond[1:]
    pipe.scheduler.set_timesteps(steps)
    for t in pipe.scheduler.timesteps:
        rows = x.expand(len(text), -1, -1, -1)
        down, middle = pipe.controlnet(
            rows, t, text, images.expand(len(text), *images.shape[1:]),
            metadata=metadata, cond_metadata=cond, return_dict=False,
        )  # fmt: skip
        out = pipe.unet(
            rows, t, text, metadata=metadata,
            down_block_additional_residuals=down, mid_block_additional_residual=middle,
        ).sample  # fmt: skip
        if guidance != 1:
            out = out[:1] + guidance * (out[1:] - out[:1])
        x = pipe.scheduler.step(out, t, x).prev_sample
    return x


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("control", ["3D", "2D"])
@torch.no_grad()
def test_official_weights_are_sampled_as_by_hand(control: str, guidance: float) -> None:
    pipe = official(control)
    new = torch.Generator().manual_seed(4)
    bands, dates = (3, 3) if control == "3D" else (10, 1)
    images = torch.rand((1, bands, dates, 16, 16), generator=new)
    seen = [Metadata(lon=5, lat=52, gsd=10, date=f"20{16 + i}") for i in range(dates)]
    told = torch.stack([torch.from_numpy(m.vector("diffusionsat")) for m in seen], 1)
    drawn = pipe(
        images, "farm", metadata=PLACE, cond_metadata=seen, num_inference_steps=4,
        guidance_scale=guidance, seed=3, output_type="latent", return_dict=False,
    )[0]  # fmt: skip
    flat = images if control == "3D" else images[:, :, 0]
    expected = by_hand(pipe, flat, told, "farm", 4, guidance)
    assert (drawn - expected).abs().max() < 1e-4 * expected.abs().max()
    unsteered = pipe(
        images, "farm", metadata=PLACE, cond_metadata=seen, num_inference_steps=4,
        guidance_scale=guidance, seed=3, output_type="latent", controlnet_conditioning_scale=0.0,
    )  # fmt: skip
    assert (unsteered.images - expected).abs().max() > 0.01


def test_official_pictures_have_the_size_asked_for() -> None:
    pipe = official("2D")
    images = torch.rand((2, 10, 1, 8, 12), generator=torch.Generator().manual_seed(4))
    drawn: Any = pipe(images, ["farm", "city"], num_inference_steps=2, seed=0).images
    assert [image.size for image in drawn] == [(24, 16)] * 2
    second: Any = pipe(images[1:], "city", num_inference_steps=2, seed=1).images
    assert np.array_equal(drawn[1], second[0])


@pytest.mark.parametrize(
    ("shape", "others", "words"),
    [
        ((1, 3, 16, 16), {}, "images, bands, dates"),
        ((1, 4, 2, 16, 16), {}, "4 bands; this ControlNet takes 3"),
        ((1, 3, 2, 16, 15), {}, "multiples of 2"),
        ((1, 3, 2, 16, 16), {"height": 32, "width": 32}, "must be 32 x 32"),
        ((1, 3, 2, 16, 16), {"prompt": ["a", "b"]}, "2 prompts for 1"),
        ((1, 3, 2, 16, 16), {"num_inference_steps": 0}, "num_inference_steps 0"),
        ((1, 3, 2, 16, 16), {"prompt": "farm", "guidance_scale": -1.0}, "guidance_scale"),
    ],
)
def test_what_official_weights_cannot_take(
    shape: tuple[int, ...], others: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        official("3D")(torch.zeros(shape), **others)
    with pytest.raises(InvalidInput, match="small models"):
        official("3D")(frames())


def test_parts_of_a_latent_model_come_together() -> None:
    with pytest.raises(InvalidInput, match="needed together"):
        FramesToImage(*tiny_networks(), scheduler=diffusers.DDIMScheduler())
