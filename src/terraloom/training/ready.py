"""Networks that a recipe names and does not train, and how networks see crops."""

from __future__ import annotations

from typing import Any

from terraloom.errors import InvalidInput
from terraloom.models.cascade import CascadeUNet, wrap
from terraloom.weights import COARSE_LEVEL


def ready_network(folder: str, key: str) -> tuple[CascadeUNet, dict[str, Any]]:
    """The network that a recipe names under `key` (of a checkpoint with two, the coarse one) and how it was trained."""
    from terraloom.weights import find, load_model

    found = find(folder).at(COARSE_LEVEL)
    net = load_model(found)
    if not isinstance(net, CascadeUNet):
        raise InvalidInput(f"{key} of the recipe is {folder!r}, which is no cascade")
    return net.requires_grad_(False), found.config.get("training", {})


def wrap_crops(net: CascadeUNet) -> None:
    """Make a network take crops for tiles that repeat: a rim must not tell it where it is, in a world nothing does.

    At the finest resolution, where wrapping around would take as long as the convolutions, the rim reaches ten cells
    and is let be.
    """
    wrap(*net.down[1:], *net.up[:-1])
