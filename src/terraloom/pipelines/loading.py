"""Loading diffusers' folders without their noise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusers.utils import logging
from safetensors import SafetensorError

from terraloom.errors import BadCheckpoint


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """No progress bar, and one sentence for whatever a damaged folder makes diffusers raise.

    Raises:
        BadCheckpoint: a part is missing or damaged.
    """
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise BadCheckpoint(f"cannot load the model in {folder}: {reason}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
