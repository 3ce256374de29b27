"""Training the cascade: one step, hard consistency, projected critics, and the network's own outputs as inputs.

Four kinds of steps, chosen at random by the recipe's shares:
    paired, small   real image and its degraded reduction; distances, band power and critics
    chain           a real image of another level or sensor is carried down one to three levels by the network itself;
                    only the last step learns, judged by critics and band power against real images of that gsd and
                    land cover. This is what happens at run time, and where a chain must not fade or run away.
    flat            a nearly constant input with its land cover told: an even grey that is a city must become one
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terraloom.data.packed import Pack
from terraloom.models.cascade import CascadeConfig, CascadeUNet, bicubic4, reduce4
from terraloom.models.critic import Critic, Features
from terraloom.training.average import update_average
from terraloom.training.batches import (
    FINEST_MASKED_GSD,
    Batch,
    Batches,
    crop_at,
    degraded_pair,
    flattened,
    quantise,
)
from terraloom.training.contest import contest, load_critic, save_critic

BANDS = ((0.03, 0.125), (0.125, 0.25), (0.25, 0.5))  # cycles per pixel
# first low-resolution side of a chain by depth, for outputs of 128 and of 256 px; later ones are cut as below
CHAIN_SIDES = {128: {1: 32, 2: 16, 3: 12}, 256: {1: 64, 2: 32, 3: 20}}
CUTS = {
    12: 20,
    16: 32,
    20: 32,
    32: 64,
}  # side of a low-resolution image -> side cut from its output
LATTICES = ((4, 8), (8, 8), (16, 4))  # period in pixels, cells averaged per side
SMALL_JUDGES = 0.4  # share of chains judged on 64 px, where most labelled images are (EuroSAT)


def band_power(x: Tensor) -> Tensor:
    """Power of the grey image in three radial bands, (B, 3, n, n) -> (B, 3)."""
    n = x.shape[-1]
    grey = x.float().mean(1)
    power = torch.fft.rfft2(grey - grey.mean((1, 2), keepdim=True)).abs() ** 2 / n**4
    fy = torch.fft.fftfreq(n, device=x.device)[:, None]
    fx = torch.fft.rfftfreq(n, device=x.device)[None]
    r = (fy**2 + fx**2).sqrt()
    return torch.stack([(power * ((r >= a) & (r < b))).sum((1, 2)) for a, b in BANDS], 1) + 1e-7


def colour_bands(x: Tensor) -> Tensor:
    """Band power of grey, red - green and blue - yellow, (B, 3, n, n) -> (B, 9).

    Grey alone lets a network fill a band with coloured speckle.
    """
    r, g, b = x.float().chunk(3, 1)
    return torch.cat([band_power(x), band_power(r - g), band_power(b - (r + g) / 2)], 1)


def lattice_share(detail: Tensor) -> Tensor:
    """How much of the detail repeats with the network's own periods, (B, 3, n, n) -> (3,) for 4, 8 and 16 px.

    A network on a lattice can answer an even input with one pattern in every cell. The share is the power of the
    mean cell of a neighbourhood over the power of all; independent noise has 1/64, 1/64 and 1/16.
    """
    shares = []
    for period, cells in LATTICES:
        folded = F.pixel_unshuffle(detail, period)
        shares.append(F.avg_pool2d(folded, cells).square().mean() / (folded.square().mean() + 1e-6))
    return torch.stack(shares)


def dots_share(detail: Tensor) -> Tensor:
    """How much of the *size* of the detail repeats with the network's periods, (B, 3, n, n) -> (3,).

    Strokes at one place of every cell with a random sign escape `lattice_share`; their size does not.
    """
    size = detail.abs().mean(1, keepdim=True)
    shares = []
    for period, cells in LATTICES:
        folded = F.pixel_unshuffle(size, period)
        mean = F.avg_pool2d(folded, cells).var(1).mean((1, 2))
        total = folded.var(1).mean((1, 2))
        shares.append((mean / (total + 1e-6)).mean())  # per image: even ones show it most
    return torch.stack(shares)


def quarters(batch: Batch) -> Batch:
    """Every image cut in four, (B, ...) -> (4 B, ...)."""

    def cut(x: Tensor) -> Tensor:
        return torch.cat([part for half in x.chunk(2, -1) for part in half.chunk(2, -2)])

    return Batch(cut(batch.hr), cut(batch.cover), cut(batch.ground), batch.gsd.repeat(4))


class CascadeTask:
    """What the loop trains: generator, its running average, critic."""

    def __init__(self, recipe: dict[str, Any], pack: Pack, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.losses, self.data = recipe["losses"], recipe["data"]
        model = CascadeUNet(CascadeConfig(**recipe["model"]))
        self.model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs
        for layer in self.model.modules():  # a crop's rim must not tell the network where it is: in
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):  # a world nothing does
                layer.padding_mode = "circular"
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.critic = Critic(model.config.cover_classes).to(device)
        self.features = Features().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs
        self.modules: dict[str, nn.Module] = {
            "model": self.model,
            "ema": self.ema,
            "critic": self.critic,
        }
        o = recipe["optimizer"]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "model": torch.optim.Adam(self.model.parameters(), o["lr"], betas=(0.5, 0.99)),
            "critic": torch.optim.Adam(self.critic.parameters(), o["critic_lr"], betas=(0.0, 0.99)),
        }
        self.batches = Batches(pack, self.data)

    def step(self, step: int, rng: np.random.Generator, sync: Any) -> dict[str, float]:
        """One update of generator and critic; returns the losses and "images"."""
        shares = self.recipe["schedule"]["shares"]
        kind = str(
            rng.choice(list(shares), p=np.array(list(shares.values())) / sum(shares.values()))
        )
        drawn = self._chain(rng) if kind == "chain" else None
        if drawn is None:
            kind = "paired" if kind == "chain" else kind
            drawn = self._real(kind, rng)
        asked, real = drawn
        fake = self._generate(asked, rng)
        if kind == "chain":  # the parent fixes the mean colour, not the network: judge without it
            shift = fake.detach().mean((2, 3), keepdim=True) - real.hr.mean((2, 3), keepdim=True)
            real = replace(real, hr=(real.hr + shift).clamp(-1, 1))
        logs = self._update(kind, fake, asked, real, sync, step)
        return {**logs, "images": float(len(fake))}

    def _real(self, kind: str, rng: np.random.Generator) -> tuple[Batch, Batch]:
        """(what is asked for: hr is its low-resolution image; the real crops that belong to it)."""
        small = kind == "small"
        size, count = (64, self.data["small_batch"]) if small else self._size(rng)
        batch = self.batches.paired(rng, count, size, small)
        lr, hr = degraded_pair(batch.hr, rng)
        if kind == "flat":
            lr, hr = flattened(hr, lr, rng)
        real = replace(batch, hr=hr).to(self.device)
        return replace(real, hr=lr.to(self.device)), real

    def _size(self, rng: np.random.Generator) -> tuple[int, int]:
        """Side and number of crops: a few wide ones show what long-range patterns a large canvas would get."""
        wide = rng.random() < self.data["wide"]
        return (256, self.data["batch"] // 4) if wide else (128, self.data["batch"])

    def _chain(self, rng: np.random.Generator) -> tuple[Batch, Batch] | None:
        """(own outputs as low-resolution images, real crops to be judged against), None if there are no such."""
        size, count = self._size(rng)
        here, levels = self.batches.chain(rng, count, CHAIN_SIDES[size])
        here = replace(
            here,
            hr=quantise(here.hr),
            cover=here.cover.repeat_interleave(4, 1).repeat_interleave(4, 2),
            ground=here.ground.repeat_interleave(4, 2).repeat_interleave(4, 3),
        )
        for left in range(levels, 0, -1):
            gsd = here.gsd / 4
            masked = here.ground * (gsd >= FINEST_MASKED_GSD)[:, None, None, None]
            here = replace(here, gsd=gsd, ground=masked)
            if left == 1:
                if size == 128 and rng.random() < SMALL_JUDGES:
                    size, here = 64, quarters(here)
                real = self.batches.like(rng, here.cover, here.gsd, size)
                return (here.to(self.device), real.to(self.device)) if real else None
            with torch.no_grad():
                out = quantise(self._generate(here.to(self.device), rng)).cpu()
            side = CUTS[here.hr.shape[-1]]
            y0, x0 = (int(v) for v in rng.integers(0, out.shape[-1] - side + 1, 2))
            rows, cols = ((torch.arange(v, v + side) // 4) for v in (y0, x0))
            here = replace(
                here,
                hr=crop_at(out, y0, x0, side),
                cover=here.cover[:, rows][:, :, cols],
                ground=here.ground[:, :, rows][:, :, :, cols],
            )
        raise AssertionError("a chain has at least one level")

    def _generate(self, asked: Batch, rng: np.random.Generator) -> Tensor:
        """One evaluation of the network under training; `asked.hr` is the low-resolution image."""
        lr = asked.hr
        n = lr.shape[-1] * 4
        noise = torch.from_numpy(rng.standard_normal((len(lr), 1, n, n), dtype=np.float32)).to(
            self.device
        )
        rows = asked.gsd[:, None].expand(-1, lr.shape[-2])
        with torch.autocast(self.device.type, torch.bfloat16):
            out: Tensor = self.model(lr, asked.cover, asked.ground, rows, noise)
        return out.float()

    def _update(
        self, kind: str, fake: Tensor, asked: Batch, real: Batch, sync: Any, step: int
    ) -> dict[str, float]:
        w, cast = self.losses, torch.autocast(self.device.type, torch.bfloat16)
        hr = real.hr
        with cast:
            seen = [
                f.float() for f in self.features(fake.contiguous(memory_format=torch.channels_last))
            ]
            with torch.no_grad():
                true = [
                    f.float()
                    for f in self.features(hr.contiguous(memory_format=torch.channels_last))
                ]
        adversarial = step >= self.recipe["schedule"]["warmup_steps"]
        # per image; in a chain the real one is of the same land cover, so each class finds its own contrast
        band = F.smooth_l1_loss(colour_bands(fake).log(), colour_bands(hr).log())
        loss, logs = w["band"] * band, {f"{kind}_band": band.item()}
        drawn, photographed = fake - bicubic4(asked.hr), hr - bicubic4(reduce4(hr))
        repeated = lattice_share(drawn) - lattice_share(photographed)
        dots = dots_share(drawn) - dots_share(photographed)
        loss = loss + w["lattice"] * (repeated.clamp(min=0) + dots.clamp(min=0)).sum()
        logs |= {f"{kind}_lattice": repeated.sum().item(), f"{kind}_dots": dots.sum().item()}
        if kind in ("paired", "small"):
            boost = 1.0 if adversarial else 5.0
            pixel = (fake - hr).abs().mean()
            feature = torch.stack(
                [_relative(a, b) for a, b in zip(seen[:4], true[:4], strict=True)]
            ).mean()
            loss = loss + w["pixel"] * boost * pixel + w["feature"] * feature
            logs |= {"pixel": pixel.item(), "feature": feature.item()}
        else:  # nothing to compare pixel by pixel
            loss = 2 * loss
        if adversarial:
            loss = loss + w["critic"] * self._critic(
                kind, fake, asked, real, seen, true, sync, logs
            )
        self.optimizers["model"].zero_grad(set_to_none=True)
        loss.backward()
        sync(self.model.parameters())
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizers["model"].step()
        update_average(self.ema, self.model, self.recipe["optimizer"]["ema"], step)
        return logs

    def _critic(
        self, kind: str, fake: Tensor, asked: Batch, real: Batch, seen: list[Tensor],
        true: list[Tensor], sync: Any, logs: dict[str, float],
    ) -> Tensor:  # fmt: skip
        """Update the critic (hinge loss), then its opinion of the generated images."""
        smooth, smooth_real = bicubic4(asked.hr), bicubic4(reduce4(real.hr))
        score, hinge = contest(
            self.critic,
            self.optimizers["critic"],
            (true, real.hr, smooth_real, real.cover, real.gsd),
            (seen, fake, smooth, asked.cover, asked.gsd),
            sync,
        )
        logs |= {f"{kind}_hinge": hinge, f"{kind}_score": score.item()}
        return -score

    def export(self, folder: Path, training: dict[str, Any]) -> None:
        """Write the averaged weights as a checkpoint, and the critic beside them."""
        from terraloom.weights import save_model

        save_model(self.ema, folder, extra=training)
        save_critic(self.critic, folder)

    def warm_start(self, folder: Path) -> None:
        """Begin from a checkpoint's weights (and critic, where there is one)."""
        from terraloom.weights import find, load_model

        state = load_model(find(folder)).state_dict()
        for net in (self.model, self.ema):
            net.load_state_dict(state)
        load_critic(self.critic, folder)


def _relative(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of features relative to each channel's size."""
    return ((a - b).abs() / (b.abs().mean((0, 2, 3), keepdim=True) + 0.05)).mean()
