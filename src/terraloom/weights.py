"""Checkpoints: a folder of `config.json`, `model.safetensors` (bfloat16) and `card.md`.

`config.json` names the kind of model and its shape; weights are safetensors, so loading runs no code. A text-to-image
model is a folder in diffusers' layout instead: `model_index.json` and one folder for each part. Nothing here imports
torch before a model is built or saved.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terraloom.errors import BadCheckpoint

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from terraloom.models.satellite_unet import SatelliteUNet

SHIPPED = Path(__file__).parent / "assets" / "weights"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "card.md"
INDEX, UNET_WEIGHTS, TRAINING = (
    "model_index.json",
    "unet/diffusion_pytorch_model.safetensors",
    "training.json",
)
SHORT_NAMES = {"terraloom/small": "text"}  # as on a model hub -> folder

# kind -> module (imported when needed), class of its configuration, class of the network
KINDS = {
    "cascade": ("terraloom.models.cascade", "CascadeConfig", "CascadeUNet"),
    "metaearth": ("terraloom.models.metaearth", "MetaEarthConfig", "MetaEarthUNet"),
}


@dataclass(frozen=True)
class Checkpoint:
    """A folder with weights, its configuration read and its weights hashed."""

    path: Path
    config: dict[str, Any]  # kind, config (shape of the network), range (of pixel values), training
    digest: str  # first 16 hex digits of the sha256 of the weights, the kind and the network's configuration
    card: str  # Markdown: data, licence, recipe, measured figures; may be empty

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.name

    @property
    def kind(self) -> str:
        """A key of `KINDS`, or "pipeline"."""
        return str(self.config["kind"])


def available() -> list[Checkpoint]:
    """The checkpoints that come with the package, pipelines too, by name."""
    folders = sorted(SHIPPED.glob("*"))
    single = [find(folder) for folder in folders if (folder / CONFIG).is_file()]
    pipelines = [find_pipeline(folder) for folder in folders if (folder / INDEX).is_file()]
    return sorted(single + pipelines, key=lambda checkpoint: checkpoint.name)


def find_pipeline(name_or_path: str | Path) -> Checkpoint:
    """A text-to-image model by its folder, or by its name when it is a shipped one ("text", "terraloom/small").

    Its `kind` is "pipeline", its `config["config"]` that of the UNet.

    Raises:
        BadCheckpoint: there is none, or its files say nothing usable.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        folder = SHIPPED / SHORT_NAMES.get(str(name_or_path), name_or_path)
    if not (folder / INDEX).is_file():
        names = ", ".join(sorted(p.parent.name for p in SHIPPED.glob(f"*/{INDEX}"))) or "none"
        raise BadCheckpoint(
            f"no text-to-image model {str(name_or_path)!r}: give a folder with {INDEX} or a shipped name ({names})"
        )
    unet, card = folder / "unet" / CONFIG, folder / CARD
    weights = folder / UNET_WEIGHTS
    for path in (unet, weights):
        if not path.is_file():
            raise BadCheckpoint(f"text-to-image model {folder} has no {path.relative_to(folder)}")
    training = _read_json(folder / TRAINING) if (folder / TRAINING).is_file() else {}
    config = {"kind": "pipeline", "config": _read_json(unet), "training": training}
    text = card.read_text("utf-8") if card.is_file() else ""
    return Checkpoint(folder, config, _digest(weights, config), text)


def find(name_or_path: str | Path) -> Checkpoint:
    """A checkpoint by its folder, or by its name when it is a shipped one.

    Raises:
        BadCheckpoint: there is none, or its `config.json` says nothing usable.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        folder = SHIPPED / name_or_path
    if not folder.is_dir():
        names = ", ".join(sorted(p.parent.name for p in SHIPPED.glob(f"*/{CONFIG}"))) or "none"
        raise BadCheckpoint(
            f"no checkpoint {str(name_or_path)!r}: give a folder or a shipped name ({names})"
        )
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise BadCheckpoint(f"checkpoint {folder} has no {name}")
    card, config = folder / CARD, _read_config(folder / CONFIG)
    return Checkpoint(
        folder,
        config,
        _digest(folder / WEIGHTS, config),
        card.read_text("utf-8") if card.is_file() else "",
    )


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
    tensors = _read_tensors(checkpoint.path / WEIGHTS)
    _compare(checkpoint, {k: tuple(v.shape) for k, v in model.state_dict().items()}, tensors)
    wanted = dtype or torch.float32
    model.load_state_dict({k: v.to(device, wanted) for k, v in tensors.items()}, assign=True)
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
    from safetensors.torch import save_file

    kind = next((k for k, names in KINDS.items() if names[2] == type(model).__name__), None)
    if kind is None:
        raise BadCheckpoint(
            f"cannot save a {type(model).__name__}; known kinds are {', '.join(KINDS)}"
        )
    tensors = _portable(model)
    shape: Any = model.config
    config = {"kind": kind, "config": shape.to_json(), "range": "[-1, 1]", "training": extra or {}}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # one entry only: safetensors writes several in random order, and the digest would change
    stamp = {"sha256": _fingerprint(tensors)}
    _write(folder / WEIGHTS, lambda part: save_file(tensors, part, metadata=stamp))
    _write(folder / CARD, lambda part: part.write_text(card, "utf-8"))
    _write(
        folder / CONFIG, lambda part: part.write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    )
    return find(folder)


def save_pipeline(
    unet: SatelliteUNet, folder: str | Path, card: str = "", training: dict[str, Any] | None = None
) -> Path:
    """Write a small text-to-image model in the layout of diffusers, as `TextToImage.from_pretrained` reads it.

    The network's weights in bfloat16, the schedule of flow matching, the pixel autoencoder; the text encoder is a
    package of its own. Each file is replaced whole or not at all.

    Args:
        unet: is not changed.
        folder: made when missing.
        card: Markdown for `card.md`.
        training: facts for `training.json`.
    """
    import diffusers
    from safetensors.torch import save_file

    from terraloom.models.autoencoder import PixelAutoencoder

    folder, tensors = Path(folder), _portable(unet)
    parts = {
        "unet": unet,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(),  # type: ignore[no-untyped-call]
        "vae": PixelAutoencoder(),
    }
    index: dict[str, Any] = {
        "_class_name": "TextToImage",
        "_diffusers_version": diffusers.__version__,
    }
    files = {TRAINING: training or {}}
    for name, part in parts.items():
        config = json.loads(part.to_json_string())
        config.pop("_name_or_path", None)  # where it was read from is nobody's business
        files[f"{name}/{part.config_name}"] = config
        module = type(part).__module__
        index[name] = (
            "diffusers" if module.startswith("diffusers.") else module,
            type(part).__name__,
        )
        (folder / name).mkdir(parents=True, exist_ok=True)
    stamp = {"sha256": _fingerprint(tensors)}
    _write(folder / UNET_WEIGHTS, lambda part: save_file(tensors, part, metadata=stamp))
    _write(folder / CARD, lambda part: part.write_text(card, "utf-8"))
    for name, content in {**files, INDEX: index}.items():
        _write(folder / name, partial(Path.write_text, data=json.dumps(content, indent=2) + "\n"))
    return folder


def _portable(model: nn.Module) -> dict[str, Tensor]:
    """A network's weights as they are stored: bfloat16, on the CPU."""
    import torch

    return {
        k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in model.state_dict().items()
    }


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
    config = _read_json(path)
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict):
        raise BadCheckpoint(f'{path} is not a checkpoint\'s: it needs "kind" and "config"')
    if config.get("kind") not in KINDS:
        raise BadCheckpoint(
            f"{path}: unknown kind {config.get('kind')!r}; known are {', '.join(KINDS)}"
        )
    return config


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"cannot read {path}: {error}") from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
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


def _compare(
    checkpoint: Checkpoint, shapes: dict[str, tuple[int, ...]], tensors: dict[str, Tensor]
) -> None:
    """Refuse weights that are not exactly those of the network."""
    where = f"weights {checkpoint.path / WEIGHTS} do not fit a {checkpoint.kind} of {CONFIG}"
    missing, unknown = sorted(shapes.keys() - tensors), sorted(tensors.keys() - shapes)
    if missing:
        raise BadCheckpoint(f"{where}: {len(missing)} tensors missing, the first is {missing[0]}")
    if unknown:
        raise BadCheckpoint(f"{where}: {len(unknown)} unknown tensors, the first is {unknown[0]}")
    for key, shape in shapes.items():
        if tuple(tensors[key].shape) != shape:
            raise BadCheckpoint(f"{where}: {key} is {tuple(tensors[key].shape)}, should be {shape}")


def _digest(path: Path, config: dict[str, Any]) -> str:
    """Of everything that decides pixels: weights, kind and shape (MetaEarth's number of evaluations is in it)."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(json.dumps([config["kind"], config["config"]], sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target, then rename; leave nothing behind on any exception."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
