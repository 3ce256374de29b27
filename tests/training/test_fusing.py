"""Compiled passes give what plain ones do, and a machine that cannot compile trains as before."""

from __future__ import annotations

import shutil

import pytest
import torch
from cascade_model import tiny

from terraloom.models.cascade import CascadeUNet, activated
from terraloom.training import fusing


def gradients(model: CascadeUNet) -> list[torch.Tensor]:
    told = (
        torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8), torch.full((1, 8, 8), 12), torch.zeros(1, 6, 8, 8),
        torch.full((1, 8), 30.0), torch.linspace(-2, 2, 45 * 64).reshape(1, 45, 8, 8), torch.tensor([0.5]),
    )  # fmt: skip
    model(*told).square().mean().backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.filterwarnings("ignore")  # torch warns itself on its way in
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_fused_blocks_learn_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_COMPILE_DISABLE")
    monkeypatch.setattr("torch._dynamo.config.disable", False)
    fusing._compiled.cache_clear()
    fused, plain = tiny(0), tiny(0)
    fusing.fuse(fused, torch.device("cpu"))
    assert fused.down[0][0].activated is not activated
    for a, b in zip(gradients(fused), gradients(plain), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    fusing._compiled.cache_clear()


def test_without_a_compiler_blocks_stay_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("no compiler")

    monkeypatch.delenv("TORCH_COMPILE_DISABLE")
    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    fusing._compiled.cache_clear()
    plain = tiny(0)
    fusing.fuse(plain, torch.device("cpu"))
    assert plain.down[0][0].activated is activated
    fusing._compiled.cache_clear()
