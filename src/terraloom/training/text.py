"""Training text and metadata to image: rectified flow on captioned chips, then few-step sharpening.

A step is a regression of the velocity (`terraloom.diffusion.flow`), with times from a logit-normal distribution
(Esser et al. 2024, section 3.1), and where little noise is left also of features of the image that the network sees
(`terraloom.training.likeness`): the mean of all sharp images that a noisy one may be is blurred, and far from each of
them there. A share of the steps sees fewer, wider crops (`data.wide`), so the network draws images larger than its
chips in one piece. With `total_steps` the learning rate falls evenly to zero over their last third. After
`warmup_steps` a share of the steps is adversarial (`terraloom.training.sharpen`). Words and metadata are dropped by the
batches, so one network knows all mixtures of given and missing. A recipe with a [lora] section trains low-rank
adapters (PEFT) of a checkpoint instead.
"""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from terraloom.diffusion.flow import STEPS, flow_loss, noised, restarted, seen_image, sigmas
from terraloom.models.autoencoder import PixelAutoencoder
from terraloom.models.critic import Features
from terraloom.models.satellite_unet import SatelliteUNet
from terraloom.training.average import update_average
from terraloom.training.captioned import TextBatch, TextBatches, TextPack
from terraloom.training.contest import load_critic, save_critic
from terraloom.training.likeness import MAPS, looked_at, unlikeness
from terraloom.training.processes import alike
from terraloom.training.recipe import pace
from terraloom.training.sharpen import Sharpening

SHOWN = 12  # rows of the contact sheet
CLEAR = 0.7  # sigma from which on features say nothing of what is seen


class TextTask:
    """What the loop trains: the denoiser, its running average and, for sharpening, a critic."""

    def __init__(self, recipe: dict[str, Any], pack: TextPack, device: torch.device) -> None:
        self.recipe, self.device, self.vae = recipe, device, PixelAutoencoder()
        self.model = SatelliteUNet(**recipe["model"])
        nn.Module.to(self.model, device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs
        if "lora" in recipe:
            self._add_adapters(recipe["lora"])
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.modules: dict[str, nn.Module] = {"model": self.model, "ema": self.ema}
        o, critical = recipe["optimizer"], recipe["schedule"].get("sharpening", 0) > 0
        self.rates = {"model": o["lr"]}
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "model": torch.optim.AdamW(self.trained, o["lr"], betas=(0.9, 0.99), weight_decay=0.01)
        }
        self.weights = {"flow": 1.0, "feature": float(recipe["losses"].get("feature", 0))}
        self.features: Features | None = None
        if critical or self.weights["feature"] > 0:
            self.features = Features().to(device)
            self.features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs
        self.sharpening: Sharpening | None = None
        if critical and self.features is not None:
            self.sharpening = Sharpening(self.predict, self.features, recipe, device)
            self.modules["critic"] = self.sharpening.critic
            self.optimizers["critic"] = self.sharpening.optimizer
            self.rates["sharpening"] = o["sharpening_lr"]
            # its own moments: the critic's gradients are far larger and would drown the regression's
            self.optimizers["sharpening"] = torch.optim.AdamW(
                self.trained, o["sharpening_lr"], betas=(0.0, 0.99), weight_decay=0.01
            )
        self.side = recipe["model"]["sample_size"] * self.vae.config.factor  # pixels of a chip
        self.batches = TextBatches(pack, recipe["data"])
        self.shown = self._fixed_rows(pack)

    def predict(self, x: Tensor, sigma: Tensor, batch: TextBatch) -> Tensor:
        """Velocity (B, 12, h, w) float32 of the network under training at sigma (B,)."""
        return self._velocity(self.model, x, sigma, batch)

    def _velocity(self, model: nn.Module, x: Tensor, sigma: Tensor, batch: TextBatch) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16):
            out: Tensor = model(
                x.contiguous(memory_format=torch.channels_last),
                STEPS * sigma,
                encoder_hidden_states=batch.tokens,
                class_labels=batch.pooled,
                metadata=batch.metadata,
                return_dict=False,
            )[0]
        return out.float()

    def step(self, step: int, rng: np.random.Generator, sync: Any) -> dict[str, float]:
        """One update, accumulated over `accumulate` batches; returns the losses and "images"."""
        schedule = self.recipe["schedule"]
        sharpen = self.sharpening is not None and step >= schedule["warmup_steps"]
        sharpen = sharpen and alike(step).random() < schedule["sharpening"]
        count = int(self.recipe["optimizer"].get("accumulate", 1))
        logs: dict[str, float] = {"images": 0.0}
        name = "sharpening" if sharpen else "model"
        optimizer = self.optimizers[name]
        for group in optimizer.param_groups:
            group["lr"] = self.rates[name] * pace(self.recipe, step)
        optimizer.zero_grad(set_to_none=True)
        for _ in range(count):
            batch = self._drawn(rng, sharpen).to(self.device)
            if sharpen and self.sharpening is not None:
                loss = self.sharpening.loss(batch, rng, sync, logs)
            else:
                parts = self._flow(batch, rng)
                loss = torch.stack([self.weights[k] * v for k, v in parts.items()]).sum()
                for k, v in parts.items():
                    logs[k] = logs.get(k, 0.0) + v.item() / count
            (loss / count).backward()  # type: ignore[no-untyped-call]
            logs["images"] += len(batch.images)
        sync(self.trained)
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        optimizer.step()
        update_average(self.ema, self.model, self.recipe["optimizer"]["ema"], step)
        return logs

    def _drawn(self, rng: np.random.Generator, sharpen: bool) -> TextBatch:
        """A batch of chips, or of wide crops of as many pixels in all."""
        data = self.recipe["data"]
        if sharpen:
            return self.batches.draw(rng, int(data["sharpening_batch"]))
        wide = int(rng.choice(data["wide"])) if rng.random() < data.get("wide_share", 0) else 1
        return self.batches.draw(rng, max(1, int(data["batch"]) // wide**2), wide * self.side)

    def _flow(self, batch: TextBatch, rng: np.random.Generator) -> dict[str, Tensor]:
        """The losses of a plain step, scalars."""
        x = self.vae.encode(batch.images)
        eps = torch.from_numpy(rng.standard_normal(tuple(x.shape), dtype=np.float32))
        wide = x.shape[-1] / self.recipe["model"]["sample_size"]
        # as much noise hides less of a wider image (Esser et al. 2024, equation 23)
        sigma = torch.from_numpy(rng.standard_normal(len(x), dtype=np.float32) + math.log(wide))
        sigma = sigma.sigmoid()
        eps, sigma = eps.to(self.device), sigma.to(self.device)
        x_sigma = noised(x, eps, sigma)
        velocity = self.predict(x_sigma, sigma, batch)
        losses = {"flow": flow_loss(velocity, x, eps)}
        near = (sigma < CLEAR).nonzero()[: (len(x) + 1) // 2, 0]  # half: a tenth of a step's time
        if self.features is not None and self.weights["feature"] > 0 and len(near):
            seen = self.vae.decode(seen_image(x_sigma, velocity, sigma)[near]).sample
            with torch.no_grad():
                true = looked_at(self.features, batch.images[near])[:MAPS]
            apart = unlikeness(looked_at(self.features, seen)[:MAPS], true)
            losses["feature"] = ((1 - sigma[near] / CLEAR) * apart).mean()
        return losses

    def _fixed_rows(self, pack: TextPack) -> TextBatch:
        """Rows of the contact sheet, the same in every run of a recipe, with words and metadata undropped."""
        whole = {"text_drop": 0.0, "metadata_drop": 0.0, "field_drop": 0.0}
        batches = TextBatches(pack, {**self.recipe["data"], **whole})
        return batches.draw(np.random.default_rng(0), SHOWN).to(self.device)

    def contact_sheet(self) -> Image.Image:
        """A real image and what the averaged weights draw for its words and metadata, a row each."""
        evaluations = self.recipe["schedule"]["evaluations"] if self.sharpening else 20
        path = sigmas(evaluations).to(self.device)
        rng, columns = np.random.default_rng(0), [self.shown.images]
        for _ in range(4):
            noise = rng.standard_normal(tuple(self.vae.encode(self.shown.images).shape))
            x = torch.from_numpy(noise.astype(np.float32)).to(self.device)
            for now, later in pairwise([*path, path.new_zeros(())]):
                with torch.no_grad():
                    velocity = self._velocity(self.ema, x, now.expand(SHOWN), self.shown)
                if self.sharpening:
                    eps = torch.from_numpy(rng.standard_normal(tuple(x.shape), dtype=np.float32))
                    x = restarted(x, velocity, now, later, eps.to(x))
                else:
                    x = x + (later - now) * velocity
            columns.append(self.vae.decode(x).sample)
        sheet = torch.cat([torch.cat(list(c), 1) for c in columns], 2).clamp(-1, 1)
        pixels = ((sheet + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        return Image.fromarray(pixels)

    def _add_adapters(self, lora: dict[str, Any]) -> None:
        from peft import LoraConfig

        self.model.add_adapter(
            LoraConfig(r=lora["rank"], lora_alpha=lora["rank"], target_modules=lora["targets"])
        )

    def export(self, folder: Path, training: dict[str, Any]) -> None:
        """Write the averaged weights as a pipeline folder, adapters merged in; critic and samples.png beside them."""
        from terraloom.weights import save_pipeline

        model = copy.deepcopy(self.ema)
        if "lora" in self.recipe:
            model.fuse_lora()  # type: ignore[no-untyped-call]
            model.unload_lora()  # type: ignore[no-untyped-call]
        few_steps = self.recipe["schedule"]["evaluations"] if self.sharpening else None
        save_pipeline(model, folder, training=training, few_steps=few_steps)
        self.contact_sheet().save(folder / "samples.png")
        if self.sharpening is not None:
            save_critic(self.sharpening.critic, folder)

    def warm_start(self, folder: Path) -> None:
        """Begin from a pipeline folder's weights (and critic, where there is one)."""
        from terraloom.weights import find_pipeline, load_unet

        state = load_unet(find_pipeline(folder)).state_dict()
        for net in (self.model, self.ema):
            adapted = {k.replace(".base_layer", ""): k for k in net.state_dict()}
            net.load_state_dict(
                {adapted[k]: v for k, v in state.items()}, strict="lora" not in self.recipe
            )
        if self.sharpening is not None:
            load_critic(self.sharpening.critic, folder)
