"""What a pipeline gives back: pictures, arrays or tensors."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image

from terraloom.errors import InvalidInput
from terraloom.pipelines.size import Pixels

Output = Literal["pil", "np", "pt", "latent"]


def check(output_type: str, tensor_inputs: Collection[str], known: Collection[str]) -> None:
    """Refuse an output that does not exist, and tensors that no callback can be given.

    Raises:
        InvalidInput: either of the two.
    """
    if output_type not in get_args(Output):
        raise InvalidInput(
            f"output_type {output_type!r} is unknown; choose from {', '.join(get_args(Output))}"
        )
    unknown = sorted(set(tensor_inputs) - set(known))
    if unknown:
        raise InvalidInput(
            f"callback_on_step_end_tensor_inputs {unknown} are unknown; choose from {list(known)}"
        )


def convert(images: list[Pixels], output_type: str) -> Any:
    """uint8 (3, h, w) each -> PIL images, float32 (n, h, w, 3) or a tensor (n, 3, h, w) of 0..1."""
    if output_type == "pil":
        return [Image.fromarray(np.moveaxis(image, 0, 2)) for image in images]
    unit = np.stack(images).astype(np.float32) / 255
    return torch.from_numpy(unit) if output_type == "pt" else np.moveaxis(unit, 1, 3)
