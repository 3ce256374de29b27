"""Steps from noise to an image with any of diffusers' schedulers; randomness of every image from its own generator."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from terraloom.diffusion.flow import STEPS, seen_image
from terraloom.errors import InvalidInput
from terraloom.pipelines.guidance import Conditions, projected

SEED_END = 2**63
Generators = torch.Generator | list[torch.Generator]


def generators(
    seed: int | None, generator: torch.Generator | list[torch.Generator] | None, count: int
) -> Generators:
    """What the randomness of `count` images comes from.

    A seed gives image i a generator of its own, seeded with seed + i. Without anything the result differs every time.

    Raises:
        InvalidInput: both a seed and generators, a seed outside its range, another number of generators than images.
    """
    if seed is not None:
        if generator is not None:
            raise InvalidInput("both seed and generator are given; give one of them")
        if not (isinstance(seed, int) and 0 <= seed <= SEED_END - count):
            raise InvalidInput(f"seed {seed!r} is not an integer of 0 to 2**63 - {count}")
        return [torch.Generator().manual_seed(seed + i) for i in range(count)]
    if isinstance(generator, list) and len(generator) != count:
        raise InvalidInput(f"{len(generator)} generators for {count} images; give one, or {count}")
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    return generator


def noise_seeds(source: Generators, count: int) -> list[int]:
    """A seed for the cascade's noise of every image."""
    each = source if isinstance(source, list) else [source] * count
    return [int(torch.randint(SEED_END - 1, (), generator=g, device=g.device)) for g in each]


def timesteps(scheduler: Any, steps: int, device: torch.device) -> Tensor:
    """Prepare a scheduler for `steps` steps.

    Flow matching gets sigmas 1, (n - 1) / n ... 1 / n, and then 0: diffusers' own choice would spend the last step on
    sigma 0.001.

    Raises:
        InvalidInput: a number of steps that the scheduler cannot take.
    """
    largest = scheduler.config.num_train_timesteps
    if not (isinstance(steps, int) and 1 <= steps <= largest):
        raise InvalidInput(f"num_inference_steps {steps!r} is not an integer of 1 to {largest}")
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps).tolist(), device=device)
    else:
        scheduler.set_timesteps(steps, device=device)
    times: Tensor = scheduler.timesteps
    return times


def from_sigma(scheduler: Any, times: Tensor, sigma: float) -> Tensor:
    """Of a flow's prepared timesteps those from `sigma` down, the last at least; the scheduler begins there."""
    first = min(int((times > STEPS * sigma).sum()), len(times) - 1)
    if first > 0:  # Heun's go by twos after the first
        first += getattr(scheduler, "order", 1) - 1
    scheduler.set_begin_index(first)
    return times[first:]


def predict(unet: Any, x: Tensor, t: Tensor, told: Conditions, project: bool = False) -> Tensor:
    """The guided prediction for one image, (1, C, h, w) -> (1, C, h, w) float32.

    `project` is for networks of flow matching: guidance is `projected`.
    """
    rows = len(told.factors)
    dtype, device = unet.dtype, unet.device
    more: dict[str, Any] = {}
    if told.pooled is not None and unet.config.class_embed_type is not None:
        more["class_labels"] = told.pooled.to(device, dtype)
    if told.metadata is not None:
        more["metadata"] = told.metadata.to(device)
    output = unet(
        x.expand(rows, -1, -1, -1).to(device, dtype),
        t.expand(rows),
        encoder_hidden_states=told.text.to(device, dtype),
        return_dict=False,
        **more,
    )
    guided = told.combine(output[0])
    if not project:
        return guided
    most = output[0][-1:].float()
    return projected(guided, most, seen_image(x, most, t / STEPS))


def advance(
    scheduler: Any, unet: Any, x: Tensor, t: Tensor, told: list[Conditions], source: Generators,
    project: bool = False,
) -> Tensor:  # fmt: skip
    """One step of all images, (B, C, h, w) -> same, float32.

    The network sees one image at a time, in one shape of its tensors: so an image's bytes do not depend on the others.
    """
    scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
    rows = zip(scaled.split(1), told, strict=True)
    prediction = torch.cat([predict(unet, row, t, known, project) for row, known in rows])
    takes = inspect.signature(scheduler.step).parameters
    more = {"generator": source} if "generator" in takes else {}
    step: Tensor = scheduler.step(prediction, t, x, return_dict=False, **more)[0]
    return step
