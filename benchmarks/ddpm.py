"""The rival of the text model: a class-conditional DDPM out of diffusers' parts, as its tutorials build one.

`UNet2DModel` on 64 px pixels, EuroSAT's ten classes as its only condition, noise prediction, cosine schedule, sampled
by DDIM in 50 steps. Trained on the same chips for as many minutes of a processor as it is given (a busy machine takes
nothing from it); a second call goes on.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from torch import Tensor

from terraloom.evaluation.chips import SIDE, Chips, unit

WIDTHS = (64, 96, 192, 320)  # 18.8 M parameters; the text model has 19.2 M
BATCH, RATE, EMA, STEPS = 32, 5e-4, 0.999, 50
SAVE = 120  # seconds between saves


def network(classes: int, widths: tuple[int, ...] = WIDTHS) -> UNet2DModel:
    """Attention at the coarsest scale only, as the text model has it."""
    plain = len(widths) - 1
    net = UNet2DModel(
        sample_size=SIDE,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
        num_class_embeds=classes,
    )
    net.to(memory_format=torch.channels_last)
    return net


def noise_schedule() -> DDPMScheduler:
    """1000 steps, cosine (Nichol and Dhariwal 2021)."""
    return DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2")


class Rival:
    """The network under training, its average and how long it trained."""

    def __init__(self, folder: Path, classes: int, widths: tuple[int, ...] = WIDTHS) -> None:
        """Begin, or go on from what `folder` holds."""
        torch.manual_seed(0)
        self.path = folder / "ddpm.pt"
        self.net = network(classes, widths)
        self.ema = copy.deepcopy(self.net).requires_grad_(False).eval()
        self.optimizer = torch.optim.AdamW(self.net.parameters(), RATE, weight_decay=0.01)
        self.seconds, self.images = 0.0, 0
        if self.path.exists():
            state = torch.load(self.path, weights_only=True)
            self.net.load_state_dict(state["net"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.seconds, self.images = state["seconds"], state["images"]

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        parts = {"net": self.net, "ema": self.ema, "optimizer": self.optimizer}
        state: dict[str, Any] = {name: part_.state_dict() for name, part_ in parts.items()}
        torch.save(state | {"seconds": self.seconds, "images": self.images}, part)
        part.replace(self.path)

    def train(self, chips: Chips, minutes: float) -> None:
        """Until `minutes` of a processor are spent, counted from this call."""
        schedule, generator = noise_schedule(), torch.Generator().manual_seed(self.images)
        begun = saved = last = time.process_time()
        while (now := time.process_time()) - begun < 60 * minutes:
            self.seconds, last = self.seconds + now - last, now
            if now - saved > SAVE:
                self.save()
                saved = now
            loss = self._step(chips, schedule, generator)
            if self.images % (100 * BATCH) == 0:
                print(f"{self.images} images, {self.seconds:.0f} s, loss {loss:.4f}", flush=True)
        self.seconds += time.process_time() - last
        self.save()

    def _step(self, chips: Chips, schedule: DDPMScheduler, generator: torch.Generator) -> float:
        picks = torch.randint(len(chips.labels), (BATCH,), generator=generator)
        x = unit(chips.images[picks])
        if torch.rand((), generator=generator) < 0.5:
            x = x.flip(3)
        x = torch.rot90(x, int(torch.randint(4, (), generator=generator)), (2, 3))
        eps = torch.randn(x.shape, generator=generator)
        t = torch.randint(1000, (BATCH,), generator=generator)
        noisy = schedule.add_noise(x, eps, t).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            out = self.net(noisy, t, class_labels=chips.labels[picks]).sample
        loss = F.mse_loss(out.float(), eps)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.images += BATCH
        decay = min(EMA, (1 + self.images / BATCH) / (10 + self.images / BATCH))
        with torch.no_grad():
            for a, b in zip(self.ema.parameters(), self.net.parameters(), strict=True):
                a.lerp_(b, 1 - decay)
        return loss.item()

    @torch.inference_mode()
    def sample(self, labels: Tensor, seed: int = 0) -> Tensor:
        """uint8 (n, 3, SIDE, SIDE), one image of each label."""
        schedule = DDIMScheduler.from_config(noise_schedule().config)
        schedule.set_timesteps(STEPS)
        generator = torch.Generator().manual_seed(seed)
        drawn = []
        for some in torch.split(labels, BATCH):
            x = torch.randn(len(some), 3, SIDE, SIDE, generator=generator)
            for t in schedule.timesteps:
                with torch.autocast("cpu", torch.bfloat16):  # as in training
                    out = self.ema(
                        x.contiguous(memory_format=torch.channels_last), t, class_labels=some
                    )
                x = schedule.step(out.sample.float(), t, x).prev_sample
            drawn.append(((x.clamp(-1, 1) + 1) * 127.5).round().byte())
        return torch.cat(drawn).contiguous()
