"""ControlNets: DiffusionSat's outputs to the digit, its sizes, and frames that are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel
from diffusers.models.controlnets.controlnet import ControlNetOutput
from fingerprint import (
    BANDS,
    COND_METADATA,
    FRAMES,
    LATENT,
    METADATA,
    SMALL,
    TEXT,
    TIMES,
    TINY,
    expect,
    fix_weights,
    wave,
)
from torch import Tensor

from terraloom.errors import InvalidInput
from terraloom.models.controlnet2d import ControlNet2D
from terraloom.models.controlnet3d import ControlNet3D
from terraloom.models.satellite_unet import OFFICIAL, SatelliteUNet
from terraloom.models.temporal import TemporalAttention, mix

MEANS_3D = (
    *(0.66234, 0.19687, 0.27647, 0.17317, 0.30504, 0.23487, 0.18063),
    *(0.30205, 0.50940, 0.38085, 0.46870, 0.59612, 0.65930),
)
MEANS_2D = (
    *(0.03724, 0.06499, 0.09278, 0.05683, 0.10931, 0.09484, 0.07167),
    *(0.11868, 0.17782, 0.12942, 0.15531, 0.20286, 0.23210),
)
WITHOUT_SIZE = {k: v for k, v in OFFICIAL.items() if k != "sample_size"}


@pytest.fixture(scope="module")
def unet() -> SatelliteUNet:
    net = SatelliteUNet(**TINY)
    fix_weights(net)
    return net


@pytest.fixture(scope="module")
def net3d(unet: SatelliteUNet) -> ControlNet3D:
    net = ControlNet3D.from_unet(unet, use_temporal_transformer=True)
    fix_weights(net)
    return net


@pytest.fixture(scope="module")
def net2d(unet: SatelliteUNet) -> ControlNet2D:
    net = ControlNet2D.from_unet(unet, conditioning_channels=10, conditioning_scale=2)
    fix_weights(net)
    return net


def run3d(net: ControlNet3D, frames: Tensor, cond: Tensor | None, **others: Any) -> list[Tensor]:
    with torch.no_grad():
        out = net(LATENT, TIMES, TEXT, frames, metadata=METADATA, cond_metadata=cond, **others)
    return everything(out)


def everything(out: ControlNetOutput) -> list[Tensor]:
    return [*out.down_block_res_samples, out.mid_block_res_sample]


@torch.no_grad()
def steered(unet: SatelliteUNet, residuals: list[Tensor]) -> Tensor:
    out: Tensor = unet(
        LATENT,
        TIMES,
        TEXT,
        metadata=METADATA,
        down_block_additional_residuals=residuals[:-1],
        mid_block_additional_residual=residuals[-1],
    ).sample
    return out


def same_means(residuals: list[Tensor], means: tuple[float, ...]) -> None:
    found = torch.stack([r.abs().mean() for r in residuals])
    assert (found - torch.tensor(means)).abs().max() < 1e-4


def test_fingerprint_3d(unet: SatelliteUNet, net3d: ControlNet3D) -> None:
    assert len(net3d.state_dict()) == 482
    residuals = run3d(net3d, FRAMES, COND_METADATA)
    first = -0.62268, -0.30052, -0.42866, -0.49656, 0.28342, 0.51912
    expect(residuals[0], -0.094608, 0.662341, first)
    same_means(residuals, MEANS_3D)
    values = -0.09651, -0.10801, -0.38439, -0.17034, 0.47490, -0.15039
    expect(steered(unet, residuals), -0.024851, 0.297691, values)


@torch.no_grad()
def test_fingerprint_2d(unet: SatelliteUNet, net2d: ControlNet2D) -> None:
    assert len(net2d.state_dict()) == 366
    cond = COND_METADATA[..., :1]
    residuals = everything(net2d(LATENT, TIMES, TEXT, BANDS, metadata=METADATA, cond_metadata=cond))
    first = 0.04278, 0.05485, 0.05853, 0.06216, 0.04480, 0.03762
    expect(residuals[0], 0.009489, 0.037245, first)
    same_means(residuals, MEANS_2D)
    values = -0.03595, 0.07136, -0.32715, -0.03846, 0.25614, 0.11087
    expect(steered(unet, residuals), -0.034547, 0.284206, values)


def test_official_sizes() -> None:
    with torch.device("meta"):
        temporal = ControlNet3D(use_temporal_transformer=True, **WITHOUT_SIZE)
        frames = ControlNet3D(**WITHOUT_SIZE)
        flat = ControlNet2D(conditioning_channels=10, conditioning_scale=2, **WITHOUT_SIZE)
        plain = ControlNetModel(conditioning_channels=10, **WITHOUT_SIZE)
    assert count(temporal) == (433_183_100, 484)
    assert count(frames) == (380_246_512, 368)
    assert count(flat)[0] == 378_583_168
    assert count(temporal.controlnet_cond_embedding)[0] == 2_750_832
    assert flat.state_dict().keys() - plain.state_dict().keys() == {
        k for k in flat.state_dict() if k.startswith("metadata_embedding.")
    }
    attention = {
        i: (count(block)[0], block.num_attention_heads, block.attention_head_dim)
        for i, block in enumerate(temporal.temporal_blocks)
        if isinstance(block, TemporalAttention)
    }
    assert attention == {
        0: (5_580_736, 8, 64),
        3: (2_259_520, 64, 5),
        6: (9_024_640, 64, 10),
        9: (36_071_680, 64, 20),
    }


def count(net: torch.nn.Module) -> tuple[int, int]:
    state = net.state_dict()
    return sum(v.numel() for v in state.values()), len(state)


@torch.no_grad()
def test_a_fresh_net_changes_nothing(unet: SatelliteUNet) -> None:
    net3d = ControlNet3D.from_unet(unet, use_temporal_transformer=True)
    assert not any(r.any() for r in run3d(net3d, FRAMES, COND_METADATA))
    net2d = ControlNet2D.from_unet(unet, conditioning_channels=10, conditioning_scale=2)
    out = net2d(LATENT, TIMES, TEXT, BANDS, metadata=METADATA)
    assert not any(r.any() for r in everything(out))
    own, theirs = net3d.state_dict(), unet.state_dict()
    shared = own.keys() & theirs.keys()
    prefixes = "conv_in", "time_embedding", "metadata_embedding", "down_blocks", "mid_block"
    assert shared == {k for k in theirs if k.startswith(prefixes)}
    assert all(torch.equal(own[k], theirs[k]) for k in shared)


def test_missing_frames_at_the_end_equal_a_shorter_set(net3d: ControlNet3D) -> None:
    short = run3d(net3d, FRAMES[:, :, :2], COND_METADATA[..., :2])
    frames, cond = FRAMES.clone(), COND_METADATA.clone()
    frames[:, :, 2], cond[..., 2] = torch.nan, torch.nan
    mask = torch.tensor([[True, True, False]] * 2)
    for a, b in zip(short, run3d(net3d, frames, cond, frame_mask=mask), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    unmasked = run3d(net3d, torch.nan_to_num(frames), torch.nan_to_num(cond))
    assert (short[0] - unmasked[0]).abs().max() > 0.01


@pytest.mark.parametrize("rows", [[[1, 0, 1], [0, 1, 1]], [[0, 1, 0], [1, 1, 1]]])
def test_nothing_of_a_missing_frame_gets_through(
    net3d: ControlNet3D, rows: list[list[int]]
) -> None:
    mask = torch.tensor(rows).bool()
    other, cond = FRAMES.clone(), COND_METADATA.clone()
    other.movedim(1, 2)[~mask] = wave((3, 128, 128), 0.7) * 1e4
    cond.movedim(1, 2)[~mask] = 999.0
    a = run3d(net3d, FRAMES, COND_METADATA, frame_mask=mask)
    b = run3d(net3d, other, cond, frame_mask=mask)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_no_frames_at_all_leave_the_unet_alone(net3d: ControlNet3D) -> None:
    mask = torch.tensor([[False] * 3, [True] * 3])
    residuals = run3d(net3d, FRAMES, COND_METADATA, frame_mask=mask)
    full = run3d(net3d, FRAMES, COND_METADATA)
    for r, f in zip(residuals, full, strict=True):
        assert not r[0].any() and torch.allclose(r[1], f[1], atol=1e-5)


def test_all_frames_there_is_the_same_as_no_mask(net3d: ControlNet3D) -> None:
    ones = torch.ones(2, 3, dtype=torch.bool)
    a = run3d(net3d, FRAMES, COND_METADATA)
    b = run3d(net3d, FRAMES, COND_METADATA, frame_mask=ones)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_one_row_of_metadata_stands_for_all_frames(net3d: ControlNet3D) -> None:
    row = COND_METADATA[..., 0]
    a = run3d(net3d, FRAMES, row)
    b = run3d(net3d, FRAMES, row[..., None].expand(-1, -1, 3))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert (a[-1] - run3d(net3d, FRAMES, None)[-1]).abs().max() > 1e-3


@torch.no_grad()
def test_the_scale_of_2d_conditioning(unet: SatelliteUNet) -> None:
    for scale in (1, 2, 4, 8):
        net = ControlNet2D.from_unet(unet, conditioning_scale=scale)
        side = 128 // scale
        out = net(LATENT, TIMES, TEXT, torch.rand(2, 3, side, side), metadata=METADATA)
        assert out.down_block_res_samples[0].shape == (2, 32, 16, 16)
    with pytest.raises(InvalidInput, match="power of two from 1 to 8"):
        ControlNet2D.from_unet(unet, conditioning_scale=3)


def test_scale_guess_mode_and_tuple(net3d: ControlNet3D) -> None:
    full = run3d(net3d, FRAMES, COND_METADATA)
    half = run3d(net3d, FRAMES, COND_METADATA, conditioning_scale=0.5)
    guess = run3d(net3d, FRAMES, COND_METADATA, guess_mode=True)
    for i, (f, h, g) in enumerate(zip(full, half, guess, strict=True)):
        assert torch.allclose(0.5 * f, h)
        assert torch.allclose(f * 10 ** (i / 12 - 1), g, atol=1e-6)
    with torch.no_grad():
        skips, middle = net3d(LATENT, TIMES, TEXT, FRAMES, metadata=METADATA, return_dict=False)
    assert len(skips) == 12 and middle.shape == full[-1].shape


def test_the_mixing_weight_learns_outside_its_range() -> None:
    on, off = torch.tensor([3.0]), torch.tensor([1.0])
    for value, result in ((-0.2, 1.0), (0.25, 1.5), (1.4, 3.0)):
        weight = torch.tensor(value, requires_grad=True)
        mixed = mix(weight, on, off)
        mixed.sum().backward()
        assert mixed.item() == pytest.approx(result)
        assert weight.grad is not None and weight.grad.item() == 2


def test_small_nets_train_and_come_back(tmp_path: Path) -> None:
    """The small text model's shape: pooled text, learned missing values, latents at half the size."""
    torch.manual_seed(0)
    narrow = {**SMALL, "block_out_channels": (32, 32, 64), "attention_head_dim": (1, 1, 2)}
    unet = SatelliteUNet(**narrow)
    net = ControlNet3D.from_unet(
        unet,
        conditioning_channels=5,
        conditioning_embedding_out_channels=(16, 32),
        use_temporal_transformer=True,
    )
    fix_weights(net)
    net.enable_gradient_checkpointing()
    net.train()
    frames = torch.rand(2, 5, 3, 32, 32)
    cond = torch.rand(2, 7, 3) * 1000
    cond[0, 0] = torch.nan
    inputs = torch.randn(2, 12, 16, 16), torch.rand(2) * 1000, torch.randn(2, 5, 384)
    more: dict[str, Any] = dict(
        class_labels=torch.randn(2, 384),
        cond_metadata=cond,
        frame_mask=torch.tensor([[True, True, False], [True, True, True]]),
    )
    residuals = everything(net(*inputs, frames, **more))
    sum(r.square().mean() for r in residuals).backward()  # type: ignore[union-attr]
    for name, p in net.named_parameters():
        if p.requires_grad:
            assert p.grad is not None and p.grad.isfinite().all() and p.grad.any(), name
    net.save_pretrained(tmp_path)
    again, report = ControlNet3D.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    with torch.no_grad():
        for a, b in zip(residuals, everything(again(*inputs, frames, **more)), strict=True):
            assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"controlnet_cond": FRAMES[:, :, 0]},
        {"controlnet_cond": FRAMES[:1]},
        {"frame_mask": torch.ones(2, 2, dtype=torch.bool)},
        {"cond_metadata": COND_METADATA[..., :2]},
        {"metadata": METADATA[:1]},
    ],
)
def test_wrong_shapes_are_refused(net3d: ControlNet3D, change: dict[str, Tensor]) -> None:
    given: dict[str, Any] = {"controlnet_cond": FRAMES, "metadata": METADATA, **change}
    with pytest.raises(InvalidInput):
        net3d(LATENT, TIMES, TEXT, **given)
