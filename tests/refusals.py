"""What every refused command has in common."""

from __future__ import annotations

from pathlib import Path

from typer.testing import Result


def refused(result: Result, *words: str) -> None:
    """Exit code 2, one sentence that has these words, nothing on stdout, no file left."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("terraloom: ")
    for word in words:
        assert word in line
    assert "Traceback" not in line and "Error(" not in line
    assert not list(Path.cwd().iterdir())
