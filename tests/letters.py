"""In the place of CLIP's tokenizer, whose vocabulary no test has."""

from __future__ import annotations

from typing import Any


class Tokenizer:
    """In the place of CLIP's: letters."""

    model_max_length = 9

    def __call__(self, text: str, truncation: bool, padding: Any = False, **others: Any) -> Any:
        ids = [1, *(ord(c) % 50 + 3 for c in text), 2]
        if truncation and len(ids) > 9:
            ids = [*ids[:8], 2]
        if padding:
            ids += [0] * (9 - len(ids))
        return type("Encoded", (), {"input_ids": ids})()

    def decode(self, ids: list[int]) -> str:
        return f"{len(ids)} more"
