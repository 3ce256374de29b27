"""Parts of an official checkpoint, each from its folder: names as they are today, weights complete, no code run."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terraloom import tensors
from terraloom.errors import BadCheckpoint
from terraloom.weights import CONFIG

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

THEIRS = ("SatUNet", "SatelliteUNet")
# the VAE's attention, as old diffusers named it
RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _unet(folder: Path, dtype: torch.dtype | None) -> Any:
    """A `SatelliteUNet` that keeps its metadata part, or none."""
    from terraloom.models.satellite_unet import SatelliteUNet

    config, state = _config(folder), _weights(folder)
    told = any(key.startswith("metadata_embedding.") for key in state)
    expected = config.get("_class_name") in THEIRS and config.get("use_metadata", True)
    if told and not expected:
        raise BadCheckpoint(
            f"{folder} has weights for metadata, but its {CONFIG} describes a {config.get('_class_name')} without:"
            ' they would be lost; set "_class_name" to "SatUNet" and "use_metadata" to true'
        )
    if expected and not told:
        raise BadCheckpoint(
            f"{folder} has no weights for metadata, though its {CONFIG} asks for them"
        )
    if config.get("_class_name") not in THEIRS:
        raise BadCheckpoint(f"{folder} has a {config.get('_class_name')}; a SatUNet is needed")
    return _network(SatelliteUNet, config, folder, state, dtype)


def _vae(folder: Path, dtype: torch.dtype | None) -> Any:
    """An `AutoencoderKL`."""
    from diffusers import AutoencoderKL

    old = re.compile(rf"(\.attentions\.\d+)\.({'|'.join(RENAMED)})\.")
    state = {
        old.sub(lambda m: f"{m[1]}.{RENAMED[m[2]]}.", key): value
        for key, value in _weights(folder).items()
    }
    return _network(AutoencoderKL, _config(folder), folder, state, dtype)


def _text_encoder(folder: Path, dtype: torch.dtype | None) -> Any:
    """A `CLIPTextModel`."""
    from transformers import CLIPTextConfig, CLIPTextModel

    with _bad_config(folder):
        net = CLIPTextModel(CLIPTextConfig(**_config(folder)))
    own, state = net.state_dict(), _weights(folder)
    # transformers has had names with and without this prefix, and a tensor that counts positions
    prefix = "text_model."
    bare = {k.removeprefix(prefix): v for k, v in state.items() if not k.endswith("position_ids")}
    names = {key.removeprefix(prefix): key for key in own}
    _fill(net, {names.get(k, k): v for k, v in bare.items()}, folder, dtype)
    return net


def _tokenizer(folder: Path, dtype: torch.dtype | None) -> Any:
    """A `CLIPTokenizer`."""
    from transformers import CLIPTokenizer

    with _bad_config(folder):
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def _scheduler(folder: Path, dtype: torch.dtype | None) -> Any:
    """A scheduler of diffusers, whatever the checkpoint names: what the network predicts is told there."""
    import diffusers

    config = _config(folder, "scheduler_config.json")
    kind = getattr(diffusers, str(config.get("_class_name")), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise BadCheckpoint(f"{folder} has a scheduler {config.get('_class_name')!r}, unknown here")
    with _bad_config(folder):
        made: Any = kind
        return made.from_config(config)


def controlnet(folder: Path, dtype: torch.dtype | None) -> Any:
    """A `ControlNet2D` or `ControlNet3D`."""
    from terraloom.models.controlnet2d import ControlNet2D
    from terraloom.models.controlnet3d import ControlNet3D

    kinds = {"ControlNetModel": ControlNet2D, "ControlNetModel3D": ControlNet3D}
    kinds |= {kind.__name__: kind for kind in (ControlNet2D, ControlNet3D)}
    config = _config(folder)
    kind = kinds.get(str(config.get("_class_name")))
    if kind is None:
        raise BadCheckpoint(
            f"{folder} has a {config.get('_class_name')}; a DiffusionSat ControlNet is needed"
        )
    return _network(kind, config, folder, _weights(folder), dtype)


READERS: dict[str, Callable[[Path, Any], Any]] = {
    "unet": _unet,
    "vae": _vae,
    "text_encoder": _text_encoder,
    "tokenizer": _tokenizer,
    "scheduler": _scheduler,
}


def _config(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    config = tensors.read_json(folder / name)
    if not isinstance(config, dict):
        raise BadCheckpoint(f"{folder / name} does not describe a part of a pipeline")
    return config


def _weights(folder: Path) -> dict[str, Tensor]:
    """Tensors of a part by name, mapped from disk where the file allows."""
    for name in ("diffusion_pytorch_model", "model", "pytorch_model"):
        for read, suffix in ((_safetensors, "safetensors"), (_pickled, "bin")):
            path = folder / f"{name}.{suffix}"
            if path.is_file():
                return read(path)
    raise BadCheckpoint(f"{folder} has no weights (diffusion_pytorch_model.bin or the like)")


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BadCheckpoint(f"weights {path} are damaged ({error}); unpack them again") from error


def _pickled(path: Path) -> dict[str, Tensor]:
    """Tensors of a pickle; `weights_only` builds nothing else, so what else it holds is refused, not run."""
    import torch

    try:
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except Exception as error:  # damaged bytes can raise anything while they are unpickled
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadCheckpoint(
            f"weights {path} are damaged or hold more than tensors, which is never run ({reason[:200]})"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
    ):
        raise BadCheckpoint(f"weights {path} are not a table of tensors")
    return dict(state)


def _network(
    kind: Any,
    config: dict[str, Any],
    folder: Path,
    state: dict[str, Tensor],
    dtype: torch.dtype | None,
) -> Any:
    """A network of diffusers with exactly these weights."""
    import torch

    with _bad_config(folder), torch.device("meta"):  # no time is spent on random weights
        net = kind.from_config(config)
    _fill(net, state, folder, dtype)
    return net


def _fill(
    net: nn.Module, state: dict[str, Tensor], folder: Path, dtype: torch.dtype | None
) -> None:
    """Give a network its weights, in the precision that they have unless `dtype` is given."""
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    tensors.compare(type(net).__name__, folder, shapes, state)
    net.load_state_dict({k: v.to(dtype or v.dtype) for k, v in state.items()}, assign=True)
    net.eval()


@contextmanager
def _bad_config(folder: Path) -> Iterator[None]:
    """Whatever a wrong configuration raises inside diffusers and transformers, as `BadCheckpoint`."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BadCheckpoint(f"{folder} describes nothing that can be made ({reason})") from error
