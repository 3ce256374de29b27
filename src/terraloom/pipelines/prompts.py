"""What is asked for, checked; and what a network reads of prompts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from terraloom.errors import InvalidInput
from terraloom.metadata import Metadata
from terraloom.models.text_encoder import SentenceEncoder
from terraloom.pipelines.guidance import Text

LONGEST = 2000  # characters; far more than any text encoder reads


@dataclass(frozen=True)
class Wanted:
    """One image to be drawn."""

    prompt: str
    negative: str  # "" says nothing
    metadata: Metadata | None


def wanted(
    prompt: str | Sequence[str],
    negative: str | Sequence[str] | None = None,
    metadata: Metadata | Sequence[Metadata | None] | None = None,
    copies: int = 1,
) -> list[Wanted]:
    """The images of a call: `copies` of the first prompt, then of the second ...

    Args:
        prompt: one or several.
        negative: for all prompts, or one for each.
        metadata: likewise.
        copies: images of each prompt.

    Raises:
        InvalidInput: no prompt, an empty one or one of more than `LONGEST` characters, negative prompts or metadata of
            another number than the prompts, or a value of the wrong type.
    """
    texts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise InvalidInput(
            f"prompt {prompt!r} is empty; say what to draw: 'a river through farmland'"
        )
    negatives = _each("negative prompts", negative or "", str, len(texts))
    places = _each("metadata", metadata, Metadata | None, len(texts))
    for text in (*texts, *negatives):
        if len(text) > LONGEST:
            raise InvalidInput(f"a prompt of {len(text)} characters is too long; at most {LONGEST}")
    if not (isinstance(copies, int) and copies >= 1):
        raise InvalidInput(f"num_images_per_prompt {copies!r} is not an integer of 1 or more")
    rows = zip(texts, negatives, places, strict=True)
    return [Wanted(*row) for row in rows for _ in range(copies)]


def _each(what: str, given: Any, kind: Any, count: int) -> list[Any]:
    """One value for every prompt."""
    values = [given] * count if isinstance(given, kind) else list(given)
    if len(values) != count:
        raise InvalidInput(
            f"{len(values)} {what} for {count} prompts; give one, or as many as prompts"
        )
    for value in values:
        if not isinstance(value, kind):
            raise InvalidInput(f"{what}: {value!r} is not a {kind}")
    return values


def encode(tokenizer: Any, text_encoder: Any, texts: Sequence[str]) -> dict[str, Text]:
    """What networks read of prompts: CLIP's last hidden states, as Stable Diffusion 2 does, or `SentenceEncoder`.

    Each is encoded alone, so its numbers do not depend on the others.

    Args:
        tokenizer: of CLIP, or None.
        text_encoder: a transformers `CLIPTextModel`, or None.
        texts: each is encoded once, however often it is there.
    """
    read = _sentence if text_encoder is None else _clip
    return {text: read(tokenizer, text_encoder, text) for text in dict.fromkeys(texts)}


def _sentence(tokenizer: None, text_encoder: None, text: str) -> Text:
    encoder = SentenceEncoder()
    _warn_unread(encoder.unread(text))
    states, pooled = encoder.encode([text])
    return states[0], pooled[0]


def _clip(tokenizer: Any, text_encoder: Any, text: str) -> Text:
    length = tokenizer.model_max_length
    ids = tokenizer(text, padding="max_length", max_length=length, truncation=True).input_ids
    whole = tokenizer(text, truncation=False).input_ids
    _warn_unread(tokenizer.decode(whole[length - 1 : -1]) if len(whole) > length else "")
    states = text_encoder(torch.tensor([ids], device=text_encoder.device))[0]
    return states[0], None


def _warn_unread(end: str) -> None:
    if end:
        warnings.warn(f"the end of the prompt is not read: {end.strip()!r}", stacklevel=2)
