"""A single network as a folder: find, load, save."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terraloom import tensors
from terraloom.errors import BadCheckpoint
from terraloom.tensors import read_json, write_whole
from terraloom.weights import checkpoint as shipped
from terraloom.weights.checkpoint import (
    CARD,
    COARSE,
    CONFIG,
    WEIGHTS,
    Checkpoint,
    checkpoint,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

# kind -> module (imported when needed), class of its configuration, class of the network
KINDS = {
    "cascade": ("terraloom.models.cascade", "CascadeConfig", "CascadeUNet"),
    "metaearth": ("terraloom.models.metaearth", "MetaEarthConfig", "MetaEarthUNet"),
}


def find(name_or_path: str | Path) -> Checkpoint:
    """A checkpoint by its folder, or by its name when it is a shipped one.

    With it comes the one within its folder, for coarse levels.

    Raises:
        BadCheckpoint: there is none, or its `config.json` says nothing usable.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        folder = shipped.SHIPPED / name_or_path
    if not folder.is_dir():
        names = (
            ", ".join(sorted(p.parent.name for p in shipped.SHIPPED.glob(f"*/{CONFIG}"))) or "none"
        )
        raise BadCheckpoint(
            f"no checkpoint {str(name_or_path)!r}: give a folder or a shipped name ({names})"
        )
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise BadCheckpoint(f"checkpoint {folder} has no {name}")
    config = _read_config(folder / CONFIG)
    coarse = None
    if config["kind"] == "cascade" and (folder / COARSE).is_dir():
        coarse = find(folder / COARSE)
        if coarse.kind != "cascade":
            raise BadCheckpoint(
                f"{folder / COARSE} is a {coarse.kind} model; a cascade's {COARSE} one is a cascade"
            )
    found = checkpoint(folder, config, [folder / WEIGHTS], coarse)
    if coarse is not None and found.leaps != coarse.leaps:
        raise BadCheckpoint(
            f"{(found if found.leaps else coarse).path} draws two levels at once, the other one of {folder} and its "
            f"{COARSE} network does not: both must, or neither"
        )
    return found


def configuration(checkpoint: Checkpoint) -> Any:
    """The shape of a checkpoint's network, e.g. a `CascadeConfig`.

    Raises:
        BadCheckpoint: `config.json` has unknown fields or impossible values.
    """
    return _classes(checkpoint)[0](**checkpoint.config["config"])


def load_model(
    checkpoint: Checkpoint, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> nn.Module:
    """Build a checkpoint's network with its weights, in evaluation mode.

    Args:
        checkpoint: what `find` gave.
        device: where the weights go.
        dtype: of the weights; float32 unless given.

    Raises:
        BadCheckpoint: weights missing, truncated, altered, or of another shape or kind than `config.json` says.
    """
    import torch

    network, config = _classes(checkpoint)[1], configuration(checkpoint)
    try:
        with torch.device("meta"):  # shapes only: no time is spent on random weights
            model: nn.Module = network(config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadCheckpoint(
            f"checkpoint {checkpoint.path}: {CONFIG} describes no network ({error})"
        ) from error
    tensors.fill(model, checkpoint.path / WEIGHTS, checkpoint.kind, device, dtype)
    return model.eval()


def save_model(
    model: nn.Module, folder: str | Path, card: str = "", extra: dict[str, Any] | None = None
) -> Checkpoint:
    """Write a checkpoint; each file is replaced whole or not at all.

    Args:
        model: a network of one of `KINDS`, with a `config` that has `to_json()`.
        folder: made when missing.
        card: Markdown for `card.md`.
        extra: goes to `config.json` as "training".

    Raises:
        BadCheckpoint: a model of no known kind.
    """
    kind = next((k for k, names in KINDS.items() if names[2] == type(model).__name__), None)
    if kind is None:
        raise BadCheckpoint(
            f"cannot save a {type(model).__name__}; known kinds are {', '.join(KINDS)}"
        )
    shape: Any = model.config
    config = {"kind": kind, "config": shape.to_json(), "range": "[-1, 1]", "training": extra or {}}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors.save(model, folder / WEIGHTS)
    write_whole(folder / CARD, lambda part: part.write_text(card, "utf-8"))
    write_whole(
        folder / CONFIG, lambda part: part.write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    )
    return find(folder)


def _classes(checkpoint: Checkpoint) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(configuration, network) of a checkpoint's kind, the first reporting wrong fields as `BadCheckpoint`."""
    module_name, config_name, network_name = KINDS[checkpoint.kind]
    module = import_module(module_name)

    def build(**fields: Any) -> Any:
        try:
            return getattr(module, config_name)(**fields)
        except (TypeError, ValueError) as error:
            raise BadCheckpoint(f"checkpoint {checkpoint.path}: bad {CONFIG} ({error})") from error

    return build, getattr(module, network_name)


def _read_config(path: Path) -> dict[str, Any]:
    config = read_json(path)
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict):
        raise BadCheckpoint(f'{path} is not a checkpoint\'s: it needs "kind" and "config"')
    if config.get("kind") not in KINDS:
        raise BadCheckpoint(
            f"{path}: unknown kind {config.get('kind')!r}; known are {', '.join(KINDS)}"
        )
    return config
