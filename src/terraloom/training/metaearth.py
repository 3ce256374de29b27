"""Training MetaEarth's denoising diffusion: predict the noise in an image, given its degraded reduction by 4.

One loss (`terraloom.diffusion.ddpm.eps_loss`), times uniform over the schedule, AdamW, averaged weights. Land cover
and maps are not used: MetaEarth has none.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from terraloom.data.packed import Pack
from terraloom.diffusion.ddpm import Schedule, eps_loss
from terraloom.models.metaearth import MetaEarthConfig, MetaEarthUNet
from terraloom.models.waves import reduce4
from terraloom.training.average import update_average
from terraloom.training.batches import Batches, degrade


class MetaEarthTask:
    """What the loop trains: the denoiser and its running average."""

    def __init__(self, recipe: dict[str, Any], pack: Pack, device: torch.device) -> None:
        self.recipe, self.device, self.schedule = recipe, device, Schedule()
        self.model = MetaEarthUNet(MetaEarthConfig(**recipe["model"])).to(device)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.modules: dict[str, nn.Module] = {"model": self.model, "ema": self.ema}
        rate = recipe["optimizer"]["lr"]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "model": torch.optim.AdamW(self.model.parameters(), rate)
        }
        self.batches = Batches(pack, recipe["data"])

    def step(self, step: int, rng: np.random.Generator, sync: Any) -> dict[str, float]:
        """One update; returns the loss and "images"."""
        data = self.recipe["data"]
        batch = self.batches.paired(rng, data["batch"], data["side"], small=False)
        lr = degrade(reduce4(batch.hr), rng)
        eps = torch.from_numpy(rng.standard_normal(tuple(batch.hr.shape), dtype=np.float32))
        t = torch.from_numpy(rng.integers(0, self.schedule.steps, len(eps)))
        inputs: list[Tensor] = [
            x.to(self.device) for x in (batch.hr, t, eps, lr, batch.gsd[:, None])
        ]
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = eps_loss(self.model, self.schedule, *inputs)
        self.optimizers["model"].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        sync(self.model.parameters())
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizers["model"].step()
        update_average(self.ema, self.model, self.recipe["optimizer"]["ema"], step)
        return {"loss": loss.item(), "images": float(len(eps))}

    def export(self, folder: Path, training: dict[str, Any]) -> None:
        """Write the averaged weights as a checkpoint."""
        from terraloom.weights import save_model

        save_model(self.ema, folder, extra=training)

    def warm_start(self, folder: Path) -> None:
        """Begin from a checkpoint's weights."""
        from terraloom.weights import find, load_model

        state = load_model(find(folder)).state_dict()
        for net in (self.model, self.ema):
            net.load_state_dict(state)
