"""Pipelines as folders in the layout of diffusers: text to image, and dated images to image ("frames").

`model_index.json` names the class and its parts, each part has a folder with its configuration; small networks are in
bfloat16 with a fingerprint, see `terraloom.tensors`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terraloom import tensors
from terraloom.errors import BadCheckpoint
from terraloom.tensors import read_json, write_whole
from terraloom.weights import checkpoint as shipped
from terraloom.weights.checkpoint import CARD, CONFIG, Checkpoint, checkpoint
from terraloom.weights.single import find

if TYPE_CHECKING:
    import torch
    from torch import nn

    from terraloom.models.controlnet3d import ControlNet3D
    from terraloom.models.satellite_unet import SatelliteUNet

# how the small text-to-image model is sampled; docs/decisions.md, 2026-11-27
SHIFT = 0.8
GUIDED: dict[str, Any] = {"steps": 8, "guidance": 6.0, "projected": True}
INDEX, TRAINING = "model_index.json", "training.json"
PART = "diffusion_pytorch_model.safetensors"
TEXT, FRAMES = "TextToImage", "FramesToImage"  # classes in terraloom.pipelines
SHORT_NAMES = {
    "terraloom/small": "text",
    "terraloom/frames": "frames",
}  # as on a model hub -> folder
WORDS = {TEXT: "text-to-image model", FRAMES: "model for dated images"}


def loader(name: str) -> str:
    """A module that lets `DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, ...)` find our class.

    diffusers runs the modules of all folders in one namespace, and wants one pipeline in it.
    """
    (other,) = {TEXT, FRAMES} - {name}
    return (
        '"""For diffusers, which looks for the class of a pipeline here."""\n\n'
        f'from terraloom.pipelines import {name}\n\n__all__ = ["{name}"]\n'
        f'globals().pop("{other}", None)  # diffusers keeps one namespace for the modules of all folders\n'
    )


LOADER = loader(TEXT)


def available() -> list[Checkpoint]:
    """The checkpoints that come with the package, pipelines too, by name."""
    folders = sorted(shipped.SHIPPED.glob("*"))
    found = [find(folder) for folder in folders if (folder / CONFIG).is_file()]
    for folder in folders:
        if (folder / INDEX).is_file():
            found.append(find_frames(folder) if _class(folder) == FRAMES else find_pipeline(folder))
    return sorted(found, key=lambda checkpoint: checkpoint.name)


def is_pipeline(name_or_path: str | Path) -> bool:
    """Whether a name or folder means a text-to-image model, neither a single network nor one for dated images."""
    folder = _folder(name_or_path)
    return (folder / INDEX).is_file() and _class(folder) != FRAMES


def find_pipeline(name_or_path: str | Path) -> Checkpoint:
    """A text-to-image model by its folder, or by its name when it is a shipped one ("text", "terraloom/small").

    Its `kind` is "pipeline", its `config["config"]` that of the UNet.

    Raises:
        BadCheckpoint: there is none, or its files say nothing usable.
    """
    folder = _known(name_or_path, TEXT)
    (unet,) = _parts(folder, TEXT, ["unet"])
    return _checkpoint(folder, "pipeline", read_json(unet / CONFIG), [unet / PART])


def find_frames(name_or_path: str | Path) -> Checkpoint:
    """A model for dated images by its folder, or by its name when it is shipped ("frames", "terraloom/frames").

    Its `kind` is "frames", its `config["config"]` those of "unet" and "controlnet".

    Raises:
        BadCheckpoint: there is none, or its files say nothing usable.
    """
    folder = _known(name_or_path, FRAMES)
    parts = _parts(folder, FRAMES, ["unet", "controlnet"])
    config = {part.name: read_json(part / CONFIG) for part in parts}
    return _checkpoint(folder, "frames", config, [part / PART for part in parts])


def load_unet(checkpoint: Checkpoint, dtype: torch.dtype | None = None) -> SatelliteUNet:
    """Build the network of a text-to-image model, float32 unless given, in evaluation mode.

    Args:
        checkpoint: what `find_pipeline` gave.
        dtype: of the weights.

    Raises:
        BadCheckpoint: see `load_model`.
    """
    from terraloom.models.satellite_unet import SatelliteUNet

    config = checkpoint.config["config"]
    unet: SatelliteUNet = _network(SatelliteUNet, checkpoint.path, "unet", config, dtype)
    return unet


def load_frames(
    model: Checkpoint | str | Path, dtype: torch.dtype | None = None
) -> tuple[SatelliteUNet, ControlNet3D]:
    """Build the networks of a model for dated images, float32 unless given, in evaluation mode.

    Args:
        model: what `find_frames` gave or takes.
        dtype: of the weights.

    Raises:
        BadCheckpoint: see `load_model`.
    """
    from terraloom.models.controlnet3d import ControlNet3D
    from terraloom.models.satellite_unet import SatelliteUNet

    found = model if isinstance(model, Checkpoint) else find_frames(model)
    config, path = found.config["config"], found.path
    return (
        _network(SatelliteUNet, path, "unet", config["unet"], dtype),
        _network(ControlNet3D, path, "controlnet", config["controlnet"], dtype),
    )


def save_pipeline(
    unet: SatelliteUNet,
    folder: str | Path,
    card: str = "",
    training: dict[str, Any] | None = None,
    few_steps: int | None = None,
) -> Path:
    """Write a small text-to-image model in the layout of diffusers, as `TextToImage.from_pretrained` reads it.

    The network's weights in bfloat16, a second-order solver of the flow (UniPC, Zhao et al. 2023, arXiv
    2302.04867), the pixel autoencoder; the text encoder is a package of its own. Each file is replaced whole or not at
    all.

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

    scheduler: Any
    if few_steps is None:
        scheduler = diffusers.UniPCMultistepScheduler(  # type: ignore[no-untyped-call]
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT
        )
        defaults = GUIDED
    else:
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)  # type: ignore[no-untyped-call]
        defaults = {"steps": few_steps, "guidance": 1.0}
    parts = {"unet": unet, "scheduler": scheduler, "vae": PixelAutoencoder()}
    return _save(TEXT, Path(folder), parts, ["unet"], card, training, defaults)


def save_frames(
    unet: SatelliteUNet,
    control: ControlNet3D,
    folder: str | Path,
    card: str = "",
    training: dict[str, Any] | None = None,
) -> Path:
    """Write a small model for dated images (terraloom.models.frames), as `FramesToImage.from_pretrained` reads it.

    Both networks' weights in bfloat16; each file is replaced whole or not at all.

    Args:
        unet: is not changed.
        control: of the UNet's shape; is not changed.
        folder: made when missing.
        card: Markdown for `card.md`.
        training: facts for `training.json`.
    """
    parts = {"unet": unet, "controlnet": control}
    return _save(FRAMES, Path(folder), parts, list(parts), card, training, {})


def _save(
    kind: str,
    folder: Path,
    parts: Mapping[str, Any],
    weighty: list[str],
    card: str,
    training: dict[str, Any] | None,
    defaults: dict[str, Any],
) -> Path:
    """Write parts with their configurations, those named `weighty` with weights, and the index last."""
    import diffusers

    index = {"_class_name": kind, "_diffusers_version": diffusers.__version__, **defaults}
    files: dict[str, Any] = {TRAINING: training or {}}
    for name, part in parts.items():
        config = json.loads(part.to_json_string())
        config.pop("_name_or_path", None)  # where it was read from is nobody's business
        files[f"{name}/{part.config_name}"] = config
        module = type(part).__module__
        library = "diffusers" if module.startswith("diffusers.") else module
        index[name] = (library, type(part).__name__)
        (folder / name).mkdir(parents=True, exist_ok=True)
        if name in weighty:
            tensors.save(part, folder / name / PART)
    texts = {CARD: card, "pipeline.py": loader(kind)}
    texts |= {k: json.dumps(v, indent=2) + "\n" for k, v in {**files, INDEX: index}.items()}
    for name, text in texts.items():
        write_whole(folder / name, partial(Path.write_text, data=text, encoding="utf-8"))
    return folder


def _folder(name_or_path: str | Path) -> Path:
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder
    return shipped.SHIPPED / SHORT_NAMES.get(str(name_or_path), name_or_path)


def _class(folder: Path) -> str:
    """`FRAMES`, or `TEXT` for any other pipeline (diffusers writes a custom one's class as a list)."""
    index = read_json(folder / INDEX)
    named = isinstance(index, dict) and FRAMES in str(index.get("_class_name"))
    return FRAMES if named else TEXT


def _known(name_or_path: str | Path, kind: str) -> Path:
    """The folder of a pipeline of this class."""
    folder = _folder(name_or_path)
    indices = shipped.SHIPPED.glob(f"*/{INDEX}")
    if not (folder / INDEX).is_file():
        names = sorted(p.parent.name for p in indices if _class(p.parent) == kind)
        raise BadCheckpoint(
            f"no {WORDS[kind]} {str(name_or_path)!r}: give a folder with {INDEX} or a shipped name "
            f"({', '.join(names) or 'none'})"
        )
    if _class(folder) != kind:
        raise BadCheckpoint(
            f"{str(name_or_path)!r} is a {WORDS[_class(folder)]}; a {WORDS[kind]} is needed"
        )
    return folder


def _parts(folder: Path, kind: str, names: list[str]) -> list[Path]:
    """Folders of networks, complete."""
    for name in names:
        for file in (CONFIG, PART):
            if not (folder / name / file).is_file():
                raise BadCheckpoint(f"{WORDS[kind]} {folder} has no {name}/{file}")
    return [folder / name for name in names]


def _checkpoint(folder: Path, kind: str, config: dict[str, Any], weights: list[Path]) -> Checkpoint:
    training = read_json(folder / TRAINING) if (folder / TRAINING).is_file() else {}
    return checkpoint(folder, {"kind": kind, "config": config, "training": training}, weights)


def _network(kind: Any, folder: Path, part: str, config: Any, dtype: torch.dtype | None) -> Any:
    """A network of diffusers from its configuration, with the weights of its folder."""
    import torch

    try:
        with torch.device("meta"):  # shapes only: no time is spent on random weights
            net: nn.Module = kind.from_config(config)
    except (TypeError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise BadCheckpoint(
            f"checkpoint {folder}: {part}/{CONFIG} describes no network ({error})"
        ) from error
    words = {"unet": "satellite UNet", "controlnet": "3D ControlNet"}
    tensors.fill(net, folder / part / PART, words[part], "cpu", dtype)
    return net.eval()
