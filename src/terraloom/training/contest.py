"""One round between generator and critic, and the critic's file beside a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

FILE = "critic.safetensors"
MISTOLD = 0.5  # what a real image under a wrong condition counts, beside a generated one
Shown = tuple[Any, ...]  # arguments of a critic: features (a list), the image, what it is judged by


def contest(
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    real: Shown,
    fake: Shown,
    sync: Any,
    mistold: Shown | None = None,
) -> tuple[Tensor, float]:
    """Update the critic (hinge loss), then ask its opinion of the generated images.

    Args:
        critic: gives a list of score maps, higher is more real.
        optimizer: of the critic.
        real: what the critic is shown of real images.
        fake: what it is shown of generated ones; gradients flow to its features and image.
        sync: averages gradients over processes.
        mistold: real images under what is not true of them. They count as generated, half as much: a critic that is
            never shown any need not look at what an image is judged by (GAN-CLS, Reed et al. 2016, arXiv 1605.05396).

    Returns:
        The mean score of the generated images, a scalar with gradient, and the critic's loss per score map.
    """
    device = real[1].device.type
    features, image, *told = fake
    with torch.autocast(device, torch.bfloat16):
        on_real = critic(*real)
        on_fake = critic([f.detach() for f in features], image.detach(), *told)
        on_mistold = [] if mistold is None else critic(*mistold)
    hinge = torch.stack(
        [
            F.relu(1 - r.float()).mean() + F.relu(1 + f.float()).mean()
            for r, f in zip(on_real, on_fake, strict=True)
        ]
    ).sum()
    for m in on_mistold:
        hinge = hinge + MISTOLD * F.relu(1 + m.float()).mean()
    optimizer.zero_grad(set_to_none=True)
    hinge.backward()  # type: ignore[no-untyped-call]
    sync(critic.parameters())
    optimizer.step()
    critic.requires_grad_(False)
    with torch.autocast(device, torch.bfloat16):
        opinion = critic(*fake)
    critic.requires_grad_(True)
    score = torch.stack([o.float().mean() for o in opinion]).mean()
    return score, hinge.item() / len(on_real)


def save_critic(critic: nn.Module, folder: Path) -> None:
    """Write the critic's weights in bfloat16 into a checkpoint's folder, so that training can go on from there."""
    part = folder / ".critic.part"
    save_file({k: v.contiguous().to(torch.bfloat16) for k, v in critic.state_dict().items()}, part)
    part.replace(folder / FILE)


def load_critic(critic: nn.Module, folder: Path) -> None:
    """Fill the critic from a checkpoint's folder, where there is one."""
    if (path := folder / FILE).exists():
        critic.load_state_dict({k: v.float() for k, v in load_file(path).items()})
