"""Weights in files: safetensors with a fingerprint, JSON beside them, each written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terraloom.errors import BadCheckpoint

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def save(model: nn.Module, path: Path) -> None:
    """Write a network's weights in bfloat16."""
    import torch
    from safetensors.torch import save_file

    tensors = {
        k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in model.state_dict().items()
    }
    # one entry only: safetensors writes several in random order, and the digest would change
    stamp = {"sha256": _fingerprint(tensors)}
    write_whole(path, lambda part: save_file(tensors, part, metadata=stamp))


def fill(
    model: nn.Module,
    path: Path,
    kind: str,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> None:
    """Give a network, which may be on the meta device, the weights of a file.

    Args:
        model: of exactly the shape of the weights.
        path: a safetensors file.
        kind: of network, for messages.
        device: where the weights go.
        dtype: of the weights; float32 unless given.

    Raises:
        BadCheckpoint: weights truncated, altered after `save`, or of another shape.
    """
    import torch

    tensors = _read(path)
    compare(kind, path, {k: tuple(v.shape) for k, v in model.state_dict().items()}, tensors)
    wanted = dtype or torch.float32
    model.load_state_dict({k: v.to(device, wanted) for k, v in tensors.items()}, assign=True)


def _read(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, compared with the fingerprint it was saved with."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            expected = (file.metadata() or {}).get("sha256")
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise BadCheckpoint(
            f"weights {path} are damaged ({error}); copy or install them again"
        ) from error
    if expected and expected != _fingerprint(tensors):
        raise BadCheckpoint(f"weights {path} were altered after saving; copy or install them again")
    return tensors


def _fingerprint(tensors: dict[str, Tensor]) -> str:
    """sha256 over names and bytes, which the file carries: safetensors itself has no checksum."""
    import torch

    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode())
        digest.update(tensors[key].contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def compare(
    kind: str, path: Path, shapes: dict[str, tuple[int, ...]], tensors: dict[str, Tensor]
) -> None:
    """Refuse weights that are not exactly those of the network, with `BadCheckpoint`."""
    where = f"weights {path} do not fit a {kind} of config.json"
    missing, unknown = sorted(shapes.keys() - tensors), sorted(tensors.keys() - shapes)
    if missing:
        raise BadCheckpoint(f"{where}: {len(missing)} tensors missing, the first is {missing[0]}")
    if unknown:
        raise BadCheckpoint(f"{where}: {len(unknown)} unknown tensors, the first is {unknown[0]}")
    for key, shape in shapes.items():
        if tuple(tensors[key].shape) != shape:
            raise BadCheckpoint(f"{where}: {key} is {tuple(tensors[key].shape)}, should be {shape}")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        BadCheckpoint: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"cannot read {path}: {error}") from error


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target, then rename; leave nothing behind on any exception."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
