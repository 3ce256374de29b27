"""DiffusionSat's official checkpoints, read as their authors' archives unpack and written as safetensors.

An archive holds a whole pipeline (unet, vae, text_encoder, tokenizer, scheduler, model_index.json) and further states
of the UNet, `checkpoint-100000/unet` or the like. Weights are pickles: only tensors are taken from them, no code in
them runs. The VAE has names of its time, which change here; the UNet's are today's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terraloom import tensors
from terraloom.errors import BadCheckpoint, InvalidInput, TerraloomError
from terraloom.official.parts import READERS, controlnet
from terraloom.weights import CONFIG, FRAMES, INDEX, LOADER, TEXT

if TYPE_CHECKING:
    import torch

    from terraloom.models.controlnet import MetadataControlNet

# what the authors' notebook draws with
DEFAULTS = {"steps": 50, "guidance": 7.5}


def is_official(folder: str | Path) -> bool:
    """Whether a folder is laid out as an official checkpoint: somebody else's pipeline with a UNet."""
    folder = Path(folder)
    if not (folder / INDEX).is_file() or not _unets(folder):
        return False
    index = tensors.read_json(folder / INDEX)
    named = str(index.get("_class_name")) if isinstance(index, dict) else ""
    return bool(named) and not any(ours in named for ours in (TEXT, FRAMES))


def load_official(
    folder: str | Path, checkpoint: str | None = None, dtype: torch.dtype | None = None
) -> dict[str, Any]:
    """The parts of a pipeline: unet, vae, text_encoder, tokenizer, scheduler; networks in evaluation mode.

    Args:
        folder: an unpacked archive.
        checkpoint: folder in it whose UNet is taken, e.g. "checkpoint-150000", or "." for that of the pipeline itself.
            Default: the latest checkpoint, as the authors' notebooks do, else the pipeline's.
        dtype: of the weights; float32 unless given.

    Raises:
        BadCheckpoint: a part is missing, damaged, a pickle of more than tensors, or of another shape; or the metadata
            part of the UNet would be lost.
    """
    import torch

    folders = _folders(Path(folder), checkpoint)
    return {name: READERS[name](path, dtype or torch.float32) for name, path in folders.items()}


def load_controlnet(folder: str | Path, dtype: torch.dtype | None = None) -> MetadataControlNet:
    """The ControlNet of an archive, 2D or 3D, in evaluation mode.

    Args:
        folder: an unpacked archive, or its folder `controlnet`.
        dtype: of the weights; float32 unless given.

    Raises:
        BadCheckpoint: as `load_official`.
    """
    import torch

    folder = Path(folder)
    inner = folder / "controlnet"
    net: MetadataControlNet = controlnet(
        inner if inner.is_dir() else folder, dtype or torch.float32
    )
    return net


def convert(
    source: str | Path,
    target: str | Path,
    checkpoint: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write an official checkpoint as safetensors, in the layout that `TextToImage.from_pretrained` reads.

    The precision stays as it is. One part at a time is in memory; the folder appears whole or not at all.

    Args:
        source: an unpacked archive; is not changed.
        target: folder to make.
        checkpoint: see `load_official`.
        progress: called with (parts done, parts in all).

    Returns:
        `target`.

    Raises:
        InvalidInput: `target` exists, or its parent does not.
        BadCheckpoint: see `load_official`.
        TerraloomError: the disk is full or may not be written.
    """
    import diffusers

    target = Path(target)
    folders = _folders(Path(source), checkpoint)
    index: dict[str, Any] = {
        "_class_name": TEXT,
        "_diffusers_version": diffusers.__version__,
        **DEFAULTS,
    }
    with _whole_folder(target) as hidden:
        for done, (name, folder) in enumerate(folders.items()):
            if progress is not None:
                progress(done, len(folders))
            part = READERS[name](folder, None)
            with _writing(target), _no_bar():
                part.save_pretrained(hidden / name)
            library = type(part).__module__.split(".")[0]
            module = type(part).__module__ if library == "terraloom" else library
            index[name] = [module, type(part).__name__]
            del part
        (hidden / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
        (hidden / "pipeline.py").write_text(LOADER, "utf-8")
    if progress is not None:
        progress(len(folders), len(folders))
    return target


def _folders(folder: Path, checkpoint: str | None) -> dict[str, Path]:
    """Where each part is."""
    if not (folder / INDEX).is_file():
        raise BadCheckpoint(
            f"{folder} has no {INDEX}; give the folder that an archive of DiffusionSat unpacks to"
        )
    unets = _unets(folder)
    names = ", ".join(unets) or "none"
    if checkpoint is None:
        checkpoint = next(iter(unets), ".")
    if checkpoint not in unets:
        raise BadCheckpoint(f"{folder} has no UNet in {checkpoint!r}; it has {names}")
    folders = {name: folder / name for name in READERS} | {"unet": unets[checkpoint]}
    for name, path in folders.items():
        if not path.is_dir():
            raise BadCheckpoint(f"{folder} has no {name}; unpack the whole archive")
    return folders


def _unets(folder: Path) -> dict[str, Path]:
    """UNets of an archive by name, the latest checkpoint first, the pipeline's own (".") last."""
    numbered = {
        path.name: path / "unet"
        for path in folder.glob("checkpoint-*")
        if re.fullmatch(r"checkpoint-\d+", path.name)
    }
    latest = sorted(numbered, key=lambda name: -int(name.split("-")[1]))
    found = {name: numbered[name] for name in latest} | {".": folder / "unet"}
    return {name: path for name, path in found.items() if (path / CONFIG).is_file()}


@contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target`, which takes its place at the end and is gone on any exception."""
    if target.exists():
        raise InvalidInput(f"{target} exists already; give another name")
    if not target.absolute().parent.is_dir():
        raise InvalidInput(f"the folder {target.absolute().parent} does not exist; create it first")
    hidden = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with _writing(target):
            hidden.mkdir()
        yield hidden
        with _writing(target):
            os.replace(hidden, target)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """What safetensors and the system raise while they write, as one sentence."""
    try:
        yield
    except Exception as error:
        free = shutil.disk_usage(target.absolute().parent).free / 1e6
        raise TerraloomError(
            f"cannot write {target}: {error}; the disk has {free:.0f} MB left"
        ) from error


@contextmanager
def _no_bar() -> Iterator[None]:
    """No progress bar of transformers: the caller has its own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
