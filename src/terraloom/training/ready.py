"""Networks that a recipe names and does not train, and how networks see crops."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from terraloom.data.uses import COVER_OF, WITH_SITES
from terraloom.errors import InvalidInput
from terraloom.models.cascade import CascadeUNet, wrap
from terraloom.models.waves import LEAP_WAVES, SCALE, WAVES


def ready_network(folder: str, key: str) -> tuple[CascadeUNet, dict[str, Any]]:
    """The network that a recipe names under `key` (of a checkpoint with two, the coarse one) and how it was trained."""
    from terraloom.weights import find, load_model

    found = find(folder)
    found = found.coarse or found
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


def begin(net: CascadeUNet, state: dict[str, Tensor]) -> None:
    """Weights to start from, also of a network that knows less.

    Of one that does not leap, means are not seen at first and told at random. Uses that it does not know are taken for
    their land cover, and lines are not looked at.
    """
    state, known, codes = dict(state), len(state["cover.weight"]), net.config.cover_classes
    if known < codes <= WITH_SITES:
        new = state["cover.weight"][torch.from_numpy(COVER_OF[known:codes]).long()]
        state["cover.weight"] = torch.cat([state["cover.weight"], new])
    if net.config.leap and len(state["head.bias"]) == WAVES:
        fresh = net.state_dict()
        told = 3 + 3 * SCALE * SCALE + WAVES  # channels of the stem before those of means
        stem = torch.zeros_like(fresh["stem.weight"])
        stem[:, :told] = state["stem.weight"][:, :told]
        stem[:, told + LEAP_WAVES - WAVES :] = state["stem.weight"][:, told:]
        head = {
            part: torch.cat([state[part], fresh[part][WAVES:]])
            for part in ("head.weight", "head.bias")
        }
        state |= {"stem.weight": stem, **head}
    more = net.stem.weight.shape[1] - state["stem.weight"].shape[1]
    if net.config.lines and more == SCALE * SCALE:  # they are the last of its channels
        state["stem.weight"] = F.pad(state["stem.weight"], (0, 0, 0, 0, 0, more))
    net.load_state_dict(state)
