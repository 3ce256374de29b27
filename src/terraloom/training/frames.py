"""Training on frames: super-resolution, in-painting and forecasting by one network, two draws a time.

Every step draws a batch of one task, two images for each row from different noise, and lowers their energy score
(terraloom.training.scores) against the truth, of pixel patches, of a pretrained network's features and, in a random
part of the image, of the perceptual distance's (terraloom.models.perceptual; its VGG-16 is dear). Only a share
of the draws' distance counts, `losses.spread` by task: with all of it a young network fakes variety, see decisions.md.
With `losses.draws = 1` it is trained to the mean squared error instead: a regression, to compare with.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from terraloom.data.stacks import Stacks
from terraloom.models.critic import Features
from terraloom.models.frames import Frames, draw, networks
from terraloom.models.waves import reduce4
from terraloom.training.average import update_average
from terraloom.training.frame_batches import TASKS, Batch, FrameBatches
from terraloom.training.looks import Looks
from terraloom.training.patterns import repeated
from terraloom.training.recipe import pace
from terraloom.training.scores import energy_score, patches

SHOWN = 4  # rows of a task on the contact sheet
LEAST = 0.1  # share of free pixels that a row's loss is divided by, at least


class FramesTask:
    """What the loop trains: UNet and ControlNet together, and their running average."""

    def __init__(self, recipe: dict[str, Any], pack: Path, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        both = dict(zip(("unet", "control"), networks(recipe["model"]), strict=True))
        self.model = nn.ModuleDict(both).to(device)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.modules: dict[str, nn.Module] = {"model": self.model, "ema": self.ema}
        o = recipe["optimizer"]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "model": torch.optim.AdamW(
                self.model.parameters(), o["lr"], betas=(0.9, 0.99), weight_decay=0.01
            )
        }
        features = Features().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        seen = recipe["losses"].get("perceptual", [0.0] * len(TASKS))
        self.perceptual = dict(zip(TASKS, seen, strict=True))
        self.looks = Looks(features, device, perceptual=max(seen) > 0)
        shares = dict(zip(TASKS, recipe["data"]["shares"], strict=True))
        self.shares = {task: share for task, share in shares.items() if share > 0}
        self.batches = FrameBatches(Stacks.load(pack), recipe["data"], self.shares)
        self.held_out = Stacks.load(pack, validation=True)

    def step(self, step: int, rng: np.random.Generator, sync: Any) -> dict[str, float]:
        """One update; returns the loss of its task and "images"."""
        weights = np.array(list(self.shares.values()))
        task = list(self.shares)[int(rng.choice(len(weights), p=weights / weights.sum()))]
        batch = self.batches.draw(rng, task, int(self.recipe["data"]["batch"])).to(self.device)
        loss, logs = self._loss(batch, rng)
        self.optimizers["model"].param_groups[0]["lr"] = self._rate(step)
        self.optimizers["model"].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        sync(self.model.parameters())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        logs["skipped"] = float(
            not torch.isfinite(norm)
        )  # one such gradient would be the end of all weights
        if not logs["skipped"]:
            self.optimizers["model"].step()
            update_average(self.ema, self.model, self.recipe["optimizer"]["ema"], step)
        return {f"{task} {k}": v for k, v in logs.items()} | {"images": float(len(batch.truth))}

    def _rate(self, step: int) -> float:
        """Learning rate: up over the first steps, then as the recipe says."""
        o = self.recipe["optimizer"]
        return float(o["lr"] * min(pace(self.recipe, step), (step + 1) / o["warmup"]))

    def _loss(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        weights = self.recipe["losses"]
        if weights["draws"] == 1:
            loss = F.mse_loss(self._drawn(self.model, batch.frames, rng), batch.truth)
            return loss, {"mse": loss.item()}
        one, two = self._drawn(
            self.model, batch.frames.each(lambda rows: torch.cat([rows, rows])), rng
        ).chunk(2)
        spread = weights["spread"][TASKS.index(batch.task)]
        free = batch.frames.free.mean((1, 2, 3)).clamp(min=LEAST)
        pixel = energy_score(patches(one), patches(two), patches(batch.truth), spread)
        if batch.frames.coarse is None:  # super-resolution has these means right already
            a, b, c = (patches(reduce4(image)) for image in (one, two, batch.truth))
            pixel = pixel + energy_score(a, b, c, spread)
        truth = batch.truth
        parts = {"pixel": pixel, "texture": self.looks.texture(one, two, truth, spread)}
        factors = weights | {"perceptual": self.perceptual[batch.task]}
        if factors["perceptual"] > 0:
            parts["perceptual"] = self.looks.perceptual(one, two, truth, spread, rng)
        losses = {k: (v / free).mean() for k, v in parts.items()}
        if weights.get("lattice", 0) > 0:
            drawn = torch.cat([one, two]) - batch.frames.base.repeat(2, 1, 1, 1)
            losses["lattice"] = repeated(drawn, batch.truth - batch.frames.base)
        total = torch.stack([factors[k] * v for k, v in losses.items()]).sum()
        return total, {k: v.item() for k, v in losses.items()}

    def _drawn(self, model: nn.ModuleDict, frames: Frames, rng: np.random.Generator) -> Tensor:
        shape = tuple(frames.base.shape)
        noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            unet: Any = model["unet"]
            control: Any = model["control"]
            return draw(unet, control, frames, noise).float()

    def contact_sheet(self) -> Image.Image | None:
        """Held-out places, a row each: base, a frame, two draws, truth; task by task. `None` without any."""
        told = {"field_drop": 0.0, "metadata_drop": 0.0, "band_drop": 0.0}
        rows = []
        for i, task in enumerate(self.shares):
            sources = [s for s in self.recipe["data"][task] if s[0] in self.held_out.places]
            if not sources:
                continue
            data = {**self.recipe["data"], **told, task: sources}
            batches = FrameBatches(self.held_out, data, (task,))
            batch = batches.draw(np.random.default_rng(i), task, SHOWN).to(self.device)
            with torch.no_grad():
                draws = [
                    self._drawn(self.ema, batch.frames, np.random.default_rng(k)) for k in (0, 1)
                ]
            base = batch.frames.base * (1 - batch.frames.free * (task == "inpaint"))
            columns = [base, batch.frames.pixels[:, :3, 0], *draws, batch.truth]
            rows += [torch.cat([c[k] for c in columns], 2) for k in range(SHOWN)]
        if not rows:
            return None
        sheet = ((torch.cat(rows, 1).clamp(-1, 1) + 1) * 127.5).round().byte()
        return Image.fromarray(sheet.permute(1, 2, 0).cpu().numpy())

    def export(self, folder: Path, training: dict[str, Any]) -> None:
        """Write the averaged weights as a pipeline folder, samples.png beside them."""
        from terraloom.weights import save_frames

        networks: Any = self.ema
        save_frames(networks["unet"], networks["control"], folder, training=training)
        if sheet := self.contact_sheet():
            sheet.save(folder / "samples.png")

    def warm_start(self, folder: Path) -> None:
        """Begin from a pipeline folder's weights."""
        from terraloom.weights import load_frames

        for name, net in zip(("unet", "control"), load_frames(folder), strict=True):
            for model in (self.model, self.ema):
                model[name].load_state_dict(net.state_dict())
