"""Networks that a recipe names and does not train, and how networks see crops."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from terraloom.errors import InvalidInput
from terraloom.models.cascade import CascadeUNet, wrap
from terraloom.models.waves import LEAP_WAVES, SCALE, WAVES
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


def learn_to_leap(net: CascadeUNet, state: dict[str, Tensor]) -> None:
    """Begin a network that leaps from the weights of one that does not: what it reads and tells of means is new."""
    fresh = net.state_dict()
    told = 3 + 3 * SCALE * SCALE + WAVES  # channels of the stem before those of means
    stem = fresh["stem.weight"].zero_()
    stem[:, :told] = state["stem.weight"][:, :told]
    stem[:, told + LEAP_WAVES - WAVES :] = state["stem.weight"][:, told:]
    for part in ("head.weight", "head.bias"):
        fresh[part][:WAVES] = state[part]
    net.load_state_dict(
        {**state, **{k: fresh[k] for k in ("stem.weight", "head.weight", "head.bias")}}
    )
