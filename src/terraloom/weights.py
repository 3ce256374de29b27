"""Checkpoints: a folder of `config.json`, `model.safetensors` (bfloat16) and `card.md`.

`config.json` names the kind of model and its shape; weights are safetensors, so loading runs no code. A text-to-image
model is a folder in diffusers' layout instead: `model_index.json` and one folder for each part. Nothing here imports
torch before a model is built or saved.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from terraloom import tensors
from terraloom.errors import BadCheckpoint
from terraloom.tensors import read_json, write_whole

if TYPE_CHECKING:
    import torch
    from torch import nn

    from terraloom.models.satellite_unet import SatelliteUNet

SHIPPED = Path(__file__).parent / "assets" / "weights"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "card.md"
INDEX, UNET_WEIGHTS, TRAINING = (
    "model_index.json",
    "unet/diffusion_pytorch_model.safetensors",
    "training.json",
)
# what lets `DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)` find our class
LOADER = '''"""For diffusers, which looks for the class of a pipeline here."""

from terraloom.pipelines.text_to_image import TextToImage

__all__ = ["TextToImage"]
'''
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


def is_pipeline(name_or_path: str | Path) -> bool:
    """Whether a name or folder means a text-to-image model, not a single network."""
    return (_pipeline_folder(name_or_path) / INDEX).is_file()


def _pipeline_folder(name_or_path: str | Path) -> Path:
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder
    return SHIPPED / SHORT_NAMES.get(str(name_or_path), name_or_path)


def find_pipeline(name_or_path: str | Path) -> Checkpoint:
    """A text-to-image model by its folder, or by its name when it is a shipped one ("text", "terraloom/small").

    Its `kind` is "pipeline", its `config["config"]` that of the UNet.

    Raises:
        BadCheckpoint: there is none, or its files say nothing usable.
    """
    folder = _pipeline_folder(name_or_path)
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
    training = read_json(folder / TRAINING) if (folder / TRAINING).is_file() else {}
    config = {"kind": "pipeline", "config": read_json(unet), "training": training}
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
    tensors.fill(model, checkpoint.path / WEIGHTS, checkpoint.kind, device, dtype)
    return model.eval()


def load_unet(checkpoint: Checkpoint, dtype: torch.dtype | None = None) -> SatelliteUNet:
    """Build the network of a text-to-image model, float32 unless given, in evaluation mode.

    Args:
        checkpoint: what `find_pipeline` gave.
        dtype: of the weights.

    Raises:
        BadCheckpoint: see `load_model`.
    """
    import torch

    from terraloom.models.satellite_unet import SatelliteUNet

    try:
        with torch.device("meta"):
            unet: Any = SatelliteUNet.from_config(checkpoint.config["config"])
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        raise BadCheckpoint(
            f"checkpoint {checkpoint.path}: unet/{CONFIG} describes no network ({error})"
        ) from error
    tensors.fill(unet, checkpoint.path / UNET_WEIGHTS, "satellite UNet", "cpu", dtype)
    return cast("SatelliteUNet", unet.eval())


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


def save_pipeline(
    unet: SatelliteUNet,
    folder: str | Path,
    card: str = "",
    training: dict[str, Any] | None = None,
    few_steps: int | None = None,
) -> Path:
    """Write a small text-to-image model in the layout of diffusers, as `TextToImage.from_pretrained` reads it.

    The network's weights in bfloat16, the schedule of flow matching, the pixel autoencoder; the text encoder is a
    package of its own. Each file is replaced whole or not at all.

    Args:
        unet: is not changed.
        folder: made when missing.
        card: Markdown for `card.md`.
        training: facts for `training.json`.
        few_steps: of a network sharpened for so many steps (terraloom.training.sharpen): its sampler adds new noise
            at every step, and these steps without guidance become the default.
    """
    import diffusers

    from terraloom.models.autoencoder import PixelAutoencoder

    folder = Path(folder)
    parts = {
        "unet": unet,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(  # type: ignore[no-untyped-call]
            stochastic_sampling=few_steps is not None
        ),
        "vae": PixelAutoencoder(),
    }
    index: dict[str, Any] = {
        "_class_name": "TextToImage",
        "_diffusers_version": diffusers.__version__,
    }
    if few_steps is not None:
        index |= {"steps": few_steps, "guidance": 1.0}
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
    tensors.save(unet, folder / UNET_WEIGHTS)
    for name, text in ((CARD, card), ("pipeline.py", LOADER)):
        write_whole(folder / name, partial(Path.write_text, data=text, encoding="utf-8"))
    for name, content in {**files, INDEX: index}.items():
        write_whole(
            folder / name, partial(Path.write_text, data=json.dumps(content, indent=2) + "\n")
        )
    return folder


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


def _digest(path: Path, config: dict[str, Any]) -> str:
    """Of everything that decides pixels: weights, kind and shape (MetaEarth's number of evaluations is in it)."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(json.dumps([config["kind"], config["config"]], sort_keys=True).encode())
    return digest.hexdigest()[:16]
