"""Lists of images: text files of one JSON object a line, whose errors say where they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from terraloom.errors import InvalidInput

Row = dict[str, Any]


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Put where it happened before the message of an InvalidInput."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from error


def rows_of(path: Path) -> Iterator[tuple[str, Row]]:
    """Where a line stands, for `naming`, and its object; empty lines are passed over.

    Raises:
        InvalidInput: the file cannot be read, or a line is no JSON object.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path}, line {number}"
            with naming(where):
                row = _object(line)
            yield where, row


def _object(line: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InvalidInput(f"is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise InvalidInput("is not a JSON object")
    return row
