"""SatelliteUNet: DiffusionSat's outputs to the digit, its sizes and keys, and metadata that may be missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from fingerprint import LATENT, METADATA, SMALL, TEXT, TIMES, TINY, expect, fix_weights
from torch import Tensor

from terraloom.errors import InvalidInput
from terraloom.models.satellite_unet import OFFICIAL, SatelliteUNet

# as SMALL, made narrow
NARROW = {
    **SMALL,
    "block_out_channels": (32, 32, 64),
    "attention_head_dim": (1, 1, 2),
    "sample_size": 16,
}
NAN = float("nan")


@pytest.fixture(scope="module")
def official() -> SatelliteUNet:
    net = SatelliteUNet(**TINY)
    fix_weights(net)
    return net


@pytest.fixture
def small() -> SatelliteUNet:
    torch.manual_seed(0)
    net = SatelliteUNet(**NARROW).eval()
    torch.nn.init.normal_(net.metadata_missing)
    return net


def inputs(batch: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(3)
    x = torch.randn(batch, 12, 16, 16, generator=g)
    text = torch.randn(batch, 5, 384, generator=g)
    return x, 1000 * torch.rand(batch, generator=g), text, torch.randn(batch, 384, generator=g)


@torch.no_grad()
def test_fingerprint(official: SatelliteUNet) -> None:
    assert len(official.state_dict()) == 712
    values = -0.07386, 0.03601, -0.27156, 0.01501, 0.27862, 0.10686
    expect(official(LATENT, TIMES, TEXT, metadata=METADATA).sample, -0.033326, 0.290638, values)


@torch.no_grad()
def test_fingerprint_of_zero_metadata_and_of_none(official: SatelliteUNet) -> None:
    values = -0.06761, 0.21098, 0.12210, 0.34559, 0.21758, -0.00379
    zero = official(LATENT, TIMES, TEXT, metadata=torch.zeros(2, 7)).sample
    expect(zero, -0.033628, 0.284606, values)
    assert torch.equal(zero, official(LATENT, TIMES, TEXT).sample)
    assert torch.equal(zero, official(LATENT, TIMES, TEXT, metadata=torch.full((2, 7), NAN)).sample)


def test_official_size_and_keys() -> None:
    with torch.device("meta"):
        net = SatelliteUNet(**OFFICIAL)
        base = UNet2DConditionModel(**OFFICIAL)
    state = net.state_dict()
    assert sum(p.numel() for p in net.parameters()) == 880_264_644
    assert len(state) == 714
    metadata = {
        f"metadata_embedding.{i}.linear_{j}.{name}"
        for i in range(7)
        for j in (1, 2)
        for name in ("weight", "bias")
    }
    assert state.keys() == base.state_dict().keys() | metadata
    assert sum(state[k].numel() for k in metadata) == 14_353_920


@torch.no_grad()
def test_a_missing_number_has_its_own_vector(small: SatelliteUNet) -> None:
    x, t, text, pooled = inputs()
    known = torch.full((2, 7), 300.0)

    def run(metadata: Tensor | None) -> Tensor:
        out: Tensor = small(x, t, text, pooled, metadata).sample
        return out

    outputs = [run(known)]
    for field in range(7):
        for value in (NAN, 0.0):
            changed = known.clone()
            changed[1, field] = value
            out = run(changed)
            assert torch.equal(out[0], outputs[0][0])  # the other image is not touched
            outputs.append(out)
    second = [out[1] for out in outputs]
    for i, a in enumerate(second):
        assert all((a - b).abs().max() > 1e-4 for b in second[:i])
    assert torch.equal(run(None), run(torch.full((2, 7), NAN)))
    before = run(known)
    torch.nn.init.normal_(small.metadata_missing)  # of no use where everything is known
    assert torch.equal(before, run(known))


def test_gradients_reach_everything(small: SatelliteUNet) -> None:
    small.train()
    x, t, text, pooled = inputs(4)
    metadata = torch.tensor([[NAN, 1.0] * 4] * 2 + [[2.0, NAN] * 4] * 2)[:, :7]
    small(x, t, text, pooled, metadata).sample.square().mean().backward()
    for name, p in small.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.any(), name


@torch.no_grad()
def test_bf16_and_channels_last(small: SatelliteUNet) -> None:
    x, t, text, pooled = inputs()
    metadata = torch.tensor([[700.0, NAN, 3, 4, 5, 6, 7]] * 2)
    exact = small(x, t, text, pooled, metadata).sample
    small.to(memory_format=torch.channels_last)
    last = small(x.to(memory_format=torch.channels_last), t, text, pooled, metadata).sample
    assert torch.allclose(exact, last, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        rough = small(x, t, text, pooled, metadata).sample
    assert (rough - exact).std() < 0.03 * exact.std()


@torch.no_grad()
def test_half_precision_keeps_coordinates_apart(official: SatelliteUNet) -> None:
    """In float16 itself 712.70 and 712.80 are one number; the sinusoid must see the difference."""
    net = SatelliteUNet(**TINY).to(torch.float16)
    like = torch.zeros((), dtype=torch.float16)
    rows = torch.tensor([[712.70] * 7, [712.80] * 7])
    a, b = net.embed_metadata(rows, 2, like)
    assert a.dtype == torch.float16 and not torch.equal(a, b)


@pytest.mark.parametrize("config", [NARROW, TINY])
def test_saved_and_loaded(tmp_path: Path, config: dict[str, object]) -> None:
    net = SatelliteUNet(**config)
    net.save_pretrained(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").is_file()
    again, report = SatelliteUNet.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert again.config["missing"] == net.config["missing"]
    assert again.state_dict().keys() == net.state_dict().keys()
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in again.state_dict().items())
    assert dict(SatelliteUNet.from_config(again.config).config) == dict(again.config)


@torch.no_grad()
def test_without_metadata_it_is_diffusers_own() -> None:
    net = SatelliteUNet(use_metadata=False, **TINY)
    plain = UNet2DConditionModel(**TINY)
    plain.load_state_dict(net.state_dict())
    assert torch.equal(net(LATENT, TIMES, TEXT).sample, plain(LATENT, TIMES, TEXT).sample)


@pytest.mark.parametrize("shape", [(2, 6), (1, 7), (7,), (2, 7, 1)])
def test_wrong_metadata_is_refused(official: SatelliteUNet, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"\(2, 7\) is needed"):
        official(LATENT, TIMES, TEXT, metadata=torch.zeros(shape))


def test_unknown_kind_of_missing_is_refused() -> None:
    with pytest.raises(InvalidInput, match="forgotten"):
        SatelliteUNet(missing="forgotten", **TINY)
