"""Loading diffusers' folders without their noise, and what a pipeline knows of the folder that it came from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import logging
from safetensors import SafetensorError

from terraloom.errors import BadCheckpoint
from terraloom.weights import Checkpoint


class LocalPipeline(DiffusionPipeline):
    """A pipeline that says which folder its weights are from; what both of Terraloom's share."""

    _loader: ClassVar[str]  # `pipeline.py`, where diffusers looks for the class
    _source: Checkpoint | None = None

    def save_pretrained(self, save_directory: str | PathLike[str], **others: Any) -> None:  # type: ignore[override]
        """Write all parts and `model_index.json`, and `pipeline.py` for `DiffusionPipeline.from_pretrained`."""
        super().save_pretrained(save_directory, **others)
        (Path(save_directory) / "pipeline.py").write_text(self._loader, "utf-8")

    @property
    def name(self) -> str:
        """Of the folder that the model was loaded from, else "custom"."""
        return self._source.name if self._source else "custom"

    @property
    def digest(self) -> str:
        """First 16 hex digits of the weights and their shape, "" when the model was not loaded from a small folder."""
        return self._source.digest if self._source else ""


def quick_dtype() -> torch.dtype:
    """bfloat16 where the machine multiplies it natively, which takes half the time; else float32."""
    known: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.9 and newer
    native = any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if native or torch.cuda.is_available() else torch.float32


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
