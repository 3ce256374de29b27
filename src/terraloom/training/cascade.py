"""Training the cascade: draws of the sampler against real images, or a flow over detail.

A step is one of three, by the recipe's shares for its kind:
    score    the sampler runs twice, as at run time, and both draws' energy score against the truth is lowered
             (terraloom.training.scores): of pixels and of two frozen networks' features (terraloom.training.looks)
    polish   the sampler runs once, and critics judge it (terraloom.training.polish)
    flow     the detail of real images (`terraloom.models.waves.detail_of`) is noised and regressed at a random sigma,
             and where little noise is left features of the image that is seen (`terraloom.training.likeness`)
The first two have a gradient through the sampler's last evaluation; with `sigmas = [1.0]` that is the only one. Scores
compare place with place, so alone they forget what a city looks like where none was seen: that is the critic's part.
Five kinds of steps, chosen at random by the recipe's shares; they differ in the low-resolution image:
    paired, small   the degraded reduction of the same image
    even            one of an image that is even at large, paler still: an even grey that is a city must become one
    drawn           what the network itself draws from the parent's own low-resolution image
    chain           a real image of *another* level or sensor, or what the network drew from one, under the detail of a
                    real image of that gsd and land cover. This is what happens at run time. Only where the parent is
                    even is there anything to learn: elsewhere the detail would have to follow what the parent shows.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terraloom.data.packed import Pack
from terraloom.diffusion.flow import noised, walked, walked_by_adams
from terraloom.models.cascade import CascadeConfig, CascadeUNet
from terraloom.models.critic import Features
from terraloom.models.waves import bicubic4, detail_of, image_of, reduce4
from terraloom.training.average import update_average
from terraloom.training.batches import (
    FINEST_MASKED_GSD,
    Batch,
    Batches,
    crop_at,
    degraded_pair,
    evenest,
    flattened,
    leaping_pair,
    quantise,
    quarters,
)
from terraloom.training.contest import load_critic, save_critic
from terraloom.training.fusing import fuse
from terraloom.training.likeness import looks_apart, misses
from terraloom.training.looks import Looks
from terraloom.training.parents import OWN_STEPS, Drawer, evenness, own_parents
from terraloom.training.patterns import colour_bands, repeated
from terraloom.training.polish import Polish
from terraloom.training.processes import alike
from terraloom.training.ready import begin, ready_network, wrap_crops
from terraloom.training.recipe import pace, shares_of
from terraloom.training.scores import energy_score, patches
from terraloom.weights import COARSE, COARSE_GSD

# first low-resolution side of a chain by depth, for outputs of 128 and of 256 px; later ones are cut as below
CHAIN_SIDES = {128: {1: 32, 2: 16, 3: 12, 4: 8}, 256: {1: 64, 2: 32, 3: 20, 4: 12}}
CUTS = {
    8: 12,
    12: 20,
    16: 32,
    20: 32,
    32: 64,
}  # side of a low-resolution image -> side cut from its output
SMALL_JUDGES = 0.4  # share of chains that end in 64 px, where most labelled images are (EuroSAT)
EVENEST = 4  # even images are one in so many,
PALER = (0.3, 1.0)  # and keep such a part of their parent's contrast
PURE, CLEANEST = 0.15, 0.02  # share of images shown as noise alone; the least noise that is shown
CLEAR, MOST_SEEN = 0.4, 8  # sigma below which looks count, and of how many images


@dataclass(frozen=True)
class Lesson:
    """What one step is about."""

    asked: Batch  # hr is the low-resolution image
    real: Batch  # images that the answers are to look like
    truth: Tensor  # (B, waves, h, w) the detail of `real`
    weight: Tensor  # (B, 1, h, w) what it is worth in the place of the answer


class CascadeTask:
    """What the loop trains: the network, its running average and, for polishing, a critic."""

    is_flow = True  # its network is to be asked often

    def __init__(self, recipe: dict[str, Any], pack: Pack, device: torch.device) -> None:
        self.recipe, self.device, self.data = recipe, device, recipe["data"]
        model = CascadeUNet(CascadeConfig(**recipe["model"]))
        self.model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs
        wrap_crops(self.model)
        fuse(self.model, device)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.modules: dict[str, nn.Module] = {"model": self.model, "ema": self.ema}
        rate = recipe["optimizer"]["lr"]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "model": torch.optim.AdamW(
                self.model.parameters(), rate, betas=(0.9, 0.99), weight_decay=0.01
            )
        }
        self.features = Features().to(device)
        self.features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs
        self.shares, self.scored, self.polished = (
            shares_of(recipe, name) for name in ("shares", "score", "polish")
        )
        self.looks: Looks | None = None
        if any(self.scored.values()):
            self.looks = Looks(self.features, device)
        self.polish: Polish | None = None
        if any(self.polished.values()):
            classes = self.model.config.cover_classes
            self.polish = Polish(classes, self.features, recipe, device)
            self.modules["critic"] = self.polish.critic
            self.optimizers["critic"] = self.polish.optimizer
            # its own moments: the critic's gradients are far larger and would drown the regression's
            self.optimizers["polish"] = torch.optim.AdamW(
                self.model.parameters(), rate, betas=(0.5, 0.99), weight_decay=0.01
            )
        known = self.model.config
        self.batches = Batches(pack, self.data, known.cover_classes, known.lines)
        self.coarse: CascadeUNet | None = None
        self.coarse_training: dict[str, Any] = {}
        if folder := recipe.get("coarse"):
            self.coarse, self.coarse_training = ready_network(folder, "coarse")
            self.coarse.to(device)

    def step(self, step: int, rng: np.random.Generator, sync: Any) -> dict[str, float]:
        """One update; returns the losses and "images"."""
        chooser = alike(step)  # critics' steps hold collective calls
        kind, chance = self.kind(chooser), chooser.random()
        polish = self.polish is not None and chance < self.polished.get(kind, 0)
        score = self.looks is not None and 1 - chance <= self.scored.get(kind, 0)
        lesson = self._chain(rng) if kind == "chain" else None
        if lesson is None:
            kind = "paired" if kind == "chain" else kind
            lesson = self.real(kind, rng)
        logs: dict[str, float] = {"images": float(len(lesson.truth))}
        if polish and self.polish is not None:
            drawn = self._generate(lesson.asked, rng, learn=True)
            loss = self.polish.loss(kind, drawn, lesson.asked, lesson.real, sync, logs)
        elif score and self.looks is not None:
            parts = self._score(self.looks, kind, lesson, rng)
            logs |= {f"{kind} {k}": v.item() for k, v in parts.items()}
            loss = torch.stack([self.recipe["losses"][k] * v for k, v in parts.items()]).sum()
        else:
            loss, looks = self._flow(
                lesson, rng, looks=kind != "chain"
            )  # no image is the answer there
            logs |= {kind: loss.item(), "likeness": looks.item()}
            loss = loss + self.recipe["losses"]["likeness"] * looks
        self.update(step, loss, self.optimizers["polish" if polish else "model"], sync)
        return logs

    def kind(self, chooser: np.random.Generator) -> str:
        """What a step is about, by the recipe's shares."""
        kinds, shares = zip(*self.shares.items(), strict=True)
        return str(chooser.choice(kinds, p=np.array(shares) / sum(shares)))

    def update(self, step: int, loss: Tensor, optimizer: torch.optim.Optimizer, sync: Any) -> None:
        """One step of an optimizer down a loss, and of the running average."""
        rate = float(self.recipe["optimizer"]["lr"]) * pace(self.recipe, step)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        sync(self.model.parameters())
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        optimizer.step()
        update_average(self.ema, self.model, self.recipe["optimizer"]["ema"], step)

    def real(self, kind: str, rng: np.random.Generator) -> Lesson:
        """Real images and their own low-resolution images."""
        small, even = kind == "small", kind == "even"
        size, count = (64, self.data["small_batch"]) if small else self._size(rng)
        batch = self.batches.paired(rng, count * (EVENEST if even else 1), size, small)
        if even:
            batch = evenest(batch, count)
            lr, hr = degraded_pair(batch.hr, rng)
            lr, hr = flattened(hr, lr, rng, *PALER)
        elif self.model.config.leap:
            lr, hr = leaping_pair(batch.hr, rng)
        elif kind == "drawn":
            near = self._drawer(self.ema, rng)
            lr = own_parents(batch, near, self._drawer(self.coarse, rng) if self.coarse else near)
            hr = batch.hr + bicubic4(lr - reduce4(batch.hr))
        else:
            lr, hr = degraded_pair(batch.hr, rng)
        real = replace(batch, hr=hr).to(self.device)
        asked = replace(real, hr=lr.to(self.device))
        truth = detail_of(real.hr, asked.hr, self.model.config.waves)
        return Lesson(asked, real, truth, torch.ones_like(truth[:, :1]))

    def _drawer(self, net: CascadeUNet, rng: np.random.Generator) -> Drawer:
        """Draws with a network: a flow under training is asked finely, any other on its own path."""

        def draw(here: Batch) -> Tensor:
            asked = here.to(self.device)

            def see(x: Tensor, sigma: float) -> Tensor:
                return self.see(asked, x, x.new_full((len(x),), sigma), net)

            eps = self.noise(asked.hr, rng)
            if net is self.ema and self.is_flow:
                seen = walked_by_adams(see, eps, OWN_STEPS)[-1]
            else:
                seen = walked(see, eps, net.config.sigmas)
            return image_of(seen, asked.hr).cpu()

        return draw

    def _size(self, rng: np.random.Generator) -> tuple[int, int]:
        """Side and number of crops: a few wide ones show what long-range patterns a large canvas would get."""
        wide = rng.random() < self.data["wide"]
        return (256, self.data["batch"] // 4) if wide else (128, self.data["batch"])

    def _chain(self, rng: np.random.Generator) -> Lesson | None:
        """Real images under the low-resolution images of others; None if there is no real one of that level."""
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
                while real is None and size > 64:  # most labelled images are small
                    size, here = size // 2, quarters(here)
                    real = self.batches.like(rng, here.cover, here.gsd, size)
                if real is None:
                    return None
                real, here = real.to(self.device), here.to(self.device)
                truth = detail_of(real.hr, reduce4(real.hr))
                return Lesson(here, real, truth, evenness(here.hr))
            net = self.coarse if gsd.median() >= COARSE_GSD else None
            out = quantise(self._generate(here.to(self.device), rng, net=net)).cpu()
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

    def _flow(self, lesson: Lesson, rng: np.random.Generator, looks: bool) -> tuple[Tensor, Tensor]:
        """What the seen detail misses (see `misses`), and how unlike the true image it looks.

        Looks, if asked for, count where little noise is left: the mean of all sharp images that a noisy one may be is
        blurred, and unlike each of them.
        """
        truth = lesson.truth
        count = len(truth)
        sigma = rng.normal(self.recipe["schedule"]["middle"], 1.2, count)
        sigma = np.where(rng.random(count) < PURE, 1.0, 1 / (1 + np.exp(-sigma)))
        s = torch.from_numpy(sigma.clip(CLEANEST, 1).astype(np.float32)).to(self.device)
        seen = self.see(lesson.asked, noised(truth, self.noise(truth[:, :3], rng), s), s)
        regression = misses(seen, truth, s, lesson.weight, lesson.asked.hr).mean()
        near = torch.nonzero(s < CLEAR)[:MOST_SEEN, 0]
        if not looks or len(near) == 0:
            return regression, regression.new_zeros(())
        lr = lesson.asked.hr[near]
        images = image_of(seen[near], lr), image_of(truth[near], lr)
        return regression, looks_apart(self.features, *images).mean()

    def _score(
        self, looks: Looks, kind: str, lesson: Lesson, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Energy score of two draws against the true detail on the parent that was asked, and what repeats too much."""
        spread = self.recipe["losses"]["spread"][kind]
        truth = image_of(lesson.truth, lesson.asked.hr)
        drawn = self._generate(lesson.asked.twice(), rng, learn=True)
        one, two = drawn.chunk(2)
        worth = lesson.weight.mean((1, 2, 3))
        scores = {
            "pixel": energy_score(patches(one), patches(two), patches(truth), spread),
            "texture": looks.texture(one, two, truth, spread),
            "perceptual": looks.perceptual(one, two, truth, spread, rng),
        }
        smooth = bicubic4(lesson.asked.hr)
        pattern = repeated(drawn - smooth.repeat(2, 1, 1, 1), truth - smooth)
        power = F.smooth_l1_loss(colour_bands(drawn).log(), colour_bands(truth).log().repeat(2, 1))
        sums = {k: (worth * v).mean() for k, v in scores.items()}
        beyond = F.relu(drawn.abs() - 1).mean()  # what is cut off there changes its colour
        return sums | {"lattice": pattern, "band": power, "bounds": beyond}

    def noise(self, lr: Tensor, rng: np.random.Generator) -> Tensor:
        """Noise of waves for low-resolution images (B, 3, h, w)."""
        count, _, h, w = lr.shape
        waves = self.model.config.waves
        noise = rng.standard_normal((count, waves, h, w), dtype=np.float32)
        return torch.from_numpy(noise).to(self.device)

    def see(self, asked: Batch, x: Tensor, sigma: Tensor, net: CascadeUNet | None = None) -> Tensor:
        """The detail that a network, the one under training if none is given, sees in x at sigma (B,)."""
        rows = asked.gsd[:, None].expand(-1, asked.hr.shape[-2])
        with torch.autocast(self.device.type, torch.bfloat16):
            seen: Tensor = (net or self.model)(asked.hr, asked.cover, asked.ground, rows, x, sigma)
        return seen.float()

    def _generate(
        self,
        asked: Batch,
        rng: np.random.Generator,
        learn: bool = False,
        net: CascadeUNet | None = None,
    ) -> Tensor:
        """What a network (see `see`) draws, (B, 3, 4h, 4w); `learn`: with gradient of the last evaluation."""
        sigmas = (net or self.model).config.sigmas

        def see(x: Tensor, sigma: float) -> Tensor:
            with torch.set_grad_enabled(learn and sigma == sigmas[-1]):
                return self.see(asked, x, x.new_full((len(x),), sigma), net)

        return image_of(walked(see, self.noise(asked.hr, rng), sigmas), asked.hr)

    def export(self, folder: Path, training: dict[str, Any]) -> None:
        """Write the averaged weights as a checkpoint, and the critic beside them."""
        from terraloom.weights import save_model

        save_model(self.ema, folder, extra=training)
        if self.coarse is not None:
            save_model(self.coarse, folder / COARSE, extra=self.coarse_training)
        if self.polish is not None:
            save_critic(self.polish.critic, folder)

    def warm_start(self, folder: Path) -> None:
        """Begin from a checkpoint's weights (and critic, where there is one)."""
        from terraloom.weights import find, load_model

        state = load_model(find(folder)).state_dict()
        for net in (self.model, self.ema):
            begin(net, state)
        if self.polish is not None:
            load_critic(self.polish.critic, folder)
