"""Training state on disk: safetensors shards of at most 15 MB and a JSON, replaced atomically.

Small shards travel where large files do not, and nothing is pickled.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from terraloom.errors import BadCheckpoint

SHARD_BYTES = 15_000_000


def save_state(
    folder: Path,
    modules: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
    done: dict[str, Any],
) -> None:
    """Write everything a run needs to go on exactly; the old state stays until the new one is whole."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for name, module in modules.items():
        tensors |= {f"module/{name}/{k}": v for k, v in module.state_dict().items()}
    for name, optimizer in optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                tensors[f"optimizer/{name}/{index}/{key}"] = torch.as_tensor(value)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    shard: dict[str, Tensor] = {}
    shards, size = 0, 0
    for key, value in tensors.items():
        value = value.detach().cpu().contiguous().clone()
        if shard and size + value.nbytes > SHARD_BYTES:
            save_file(shard, part / f"{shards:03d}.safetensors")
            shard, size, shards = {}, 0, shards + 1
        shard[key] = value
        size += value.nbytes
    save_file(shard, part / f"{shards:03d}.safetensors")
    (part / "done.json").write_text(json.dumps({**done, **scalars}))
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_state(
    folder: Path, modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer]
) -> dict[str, Any]:
    """Fill modules and optimizers; returns the counters.

    Raises:
        BadCheckpoint: the state is damaged or belongs to another recipe.
    """
    try:
        tensors: dict[str, Tensor] = {}
        for shard in sorted(folder.glob("*.safetensors")):
            tensors |= load_file(shard)
        done: dict[str, Any] = json.loads((folder / "done.json").read_text())
        for name, module in modules.items():
            module.load_state_dict(_part(tensors, f"module/{name}/"))
        for name, optimizer in optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in _part(tensors, f"optimizer/{name}/").items():
                index, field = key.split("/")
                state.setdefault(int(index), {})[field] = value
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})
    except Exception as error:
        raise BadCheckpoint(
            f"cannot resume from {folder}: {error}; remove it or train without --resume"
        ) from error
    return done


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
