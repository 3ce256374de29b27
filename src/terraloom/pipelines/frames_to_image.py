"""FramesToImage: an image from dated, multispectral images of its place, by the small model or DiffusionSat's own.

The small model (terraloom.models.frames) draws in one evaluation. DiffusionSat's ControlNets (section 3.2 of arXiv
2312.03606) steer Stable Diffusion through the steps of its scheduler: 50 without guidance, as their authors have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from terraloom.errors import InvalidInput
from terraloom.metadata import Metadata
from terraloom.models.controlnet2d import ControlNet2D
from terraloom.models.controlnet3d import ControlNet3D
from terraloom.models.frames import COLOURS, PERIOD, Frames, draw
from terraloom.models.satellite_unet import SatelliteUNet
from terraloom.official import load_controlnet, load_official
from terraloom.pipelines import output, prompts, sampling
from terraloom.pipelines.guidance import Scales, conditions
from terraloom.pipelines.loading import LocalPipeline, quick_dtype
from terraloom.pipelines.size import Pixels
from terraloom.pipelines.steered import Steered, check_frames, vectors
from terraloom.weights import FRAMES, find_frames, load_frames, loader

STEPS, GUIDANCE = 50, 1.0
PROMPT = "a satellite image"


class FramesToImage(LocalPipeline):
    """Dated images of a place -> an image of it at another date, of another sensor or where pixels are missing.

    Without a VAE the networks are a small model's, which works on pixels and takes `Frames`. With one they are
    DiffusionSat's. diffusers' own loader finds this class with
    `DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)`.

    Args:
        unet: a `SatelliteUNet`.
        controlnet: made for it, `ControlNet3D`, or `ControlNet2D` with a VAE.
        scheduler: any of diffusers' that fits the network; may be swapped later.
        vae: `AutoencoderKL`.
        text_encoder: a `CLIPTextModel`.
        tokenizer: of the `CLIPTextModel`.

    Raises:
        InvalidInput: some of the four parts that DiffusionSat needs are there, but not all.
    """

    _loader = loader(FRAMES)
    _optional_components = ["scheduler", "vae", "text_encoder", "tokenizer"]
    model_cpu_offload_seq: Any = "text_encoder->unet->vae"

    unet: Any
    controlnet: Any
    scheduler: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any

    def __init__(
        self,
        unet: SatelliteUNet,
        controlnet: ControlNet3D | ControlNet2D,
        scheduler: Any = None,
        vae: AutoencoderKL | None = None,
        text_encoder: nn.Module | None = None,
        tokenizer: Any = None,
    ) -> None:
        super().__init__()
        latent = (scheduler, vae, text_encoder, tokenizer)
        if len({part is None for part in latent}) != 1:
            raise InvalidInput("scheduler, vae, text_encoder and tokenizer are needed together")
        for conv in (*unet.modules(), *controlnet.modules()):
            if isinstance(
                conv, nn.Conv2d
            ):  # twice as fast on a CPU; not for the frames' 3D convolutions
                conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.register_modules(  # type: ignore[no-untyped-call]
            unet=unet,
            controlnet=controlnet,
            scheduler=scheduler,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
        )

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name_or_folder: str | PathLike[str] = "terraloom/frames",
        base: str | PathLike[str] | None = None,
        torch_dtype: torch.dtype | None = None,
    ) -> FramesToImage:
        """Load a small model by name or from a folder, or DiffusionSat's ControlNet; nothing is ever downloaded.

        Args:
            name_or_folder: "terraloom/frames" (or "frames"), a folder of `save_pretrained`, or with `base` an unpacked
                official ControlNet.
            base: the unpacked official checkpoint that the ControlNet was trained for.
            torch_dtype: of the weights; float32 unless given.

        Raises:
            BadCheckpoint: there is no such model, or its files are missing, damaged or of another shape.
        """
        if base is not None:
            parts = load_official(Path(base), dtype=torch_dtype)
            return cls(controlnet=load_controlnet(Path(name_or_folder), torch_dtype), **parts)  # type: ignore[arg-type]
        source = find_frames(Path(name_or_folder))
        pipe = cls(*load_frames(source, torch_dtype))
        pipe._source = source
        return pipe

    @torch.no_grad()
    def draw(self, frames: Frames, noise: Tensor) -> Tensor:
        """What `terraloom.models.frames.draw` gives, by a small model, a row at a time in one shape of its tensors.

        Args:
            frames: (B, ...), sides multiples of 16.
            noise: (B, 3, H, W) standard normal.

        Returns:
            (B, 3, H, W) float32 in the frames' units, not clipped. A row does not depend on the others.

        Raises:
            InvalidInput: another shape, or the model is not a small one.
        """
        if self.vae is not None:
            raise InvalidInput("Frames are for small models; DiffusionSat's take a tensor")
        shape = tuple(frames.base.shape)
        if any(side % PERIOD for side in shape[2:]):
            raise InvalidInput(f"{shape[3]} x {shape[2]} px: both must be multiples of {PERIOD}")
        if tuple(noise.shape) != shape:
            raise InvalidInput(f"noise has shape {tuple(noise.shape)}; {shape} is needed")
        device = self._execution_device
        drawn = []
        quick = quick_dtype()
        with torch.autocast(device.type, quick, enabled=quick != torch.float32):  # as in training
            for i in range(len(noise)):
                row = frames.each(lambda part, i=i: part[i : i + 1].to(device))  # type: ignore[misc]
                own = noise[i : i + 1].float().to(device)
                drawn.append(draw(self.unet, self.controlnet, row, own))
        return torch.cat(drawn)

    @torch.no_grad()
    def __call__(
        self,
        frames: Frames | Tensor,
        prompt: str | Sequence[str] = PROMPT,
        *,
        negative_prompt: str | Sequence[str] | None = None,
        metadata: Metadata | Sequence[Metadata | None] | None = None,
        cond_metadata: Sequence[Metadata | None] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = STEPS,
        guidance_scale: float = GUIDANCE,
        controlnet_conditioning_scale: float = 1.0,
        seed: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: output.Output = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw one image for every row of `frames`.

        Args:
            frames: `Frames` for a small model, which they tell everything. For DiffusionSat's: (B, bands, T, H, W) in
                [0, 1], oldest first.
            prompt: what the image shows; for all rows, or one for each. This and what follows is for DiffusionSat's.
            negative_prompt: what to lead away from; needs a guidance above 1.
            metadata: of the image to draw.
            cond_metadata: of the T frames, the same for all rows.
            height: pixels; those of the frames (times the reduction of a 2D ControlNet) unless given.
            width: likewise.
            num_inference_steps: denoising steps.
            guidance_scale: how strongly prompt and metadata count; 1 is no guidance.
            controlnet_conditioning_scale: how strongly the frames count.
            seed: row i has the bytes of a call of its own with seed + i.
            generator: instead of a seed, one for all rows or a list with one for each.
            output_type: "pil"; "np" (n, h, w, 3) or "pt" (n, 3, h, w), float32 0..1, of [-1, 1] in the frames' units;
                "latent": as the networks leave it.
            return_dict: whether to return an object with `images`, or a tuple.

        Raises:
            InvalidInput: an argument outside its range, or of the other kind of model.
        """
        output.check(output_type, [], [])
        count = len(frames.base) if isinstance(frames, Frames) else len(frames)
        source = sampling.generators(seed, generator, count)
        result: Any
        if isinstance(frames, Frames):
            shape = (count, COLOURS, *frames.base.shape[2:])
            noise = randn_tensor(shape, source, self._execution_device, torch.float32)
            result = self.draw(frames, noise)
        else:
            if self.vae is None:
                raise InvalidInput(
                    "this is a small model; it takes a terraloom.models.frames.Frames"
                )
            size = self._canvas(frames, height, width)
            told = None if cond_metadata is None else vectors(list(cond_metadata))
            result = []
            images = prompts.wanted(_for_each(prompt, count), negative_prompt, metadata)
            for i, image in enumerate(images):
                net = Steered(
                    self.unet, self.controlnet, frames[i], told, controlnet_conditioning_scale
                )
                own = source[i : i + 1] if isinstance(source, list) else source
                result.append(
                    self._steps(net, image, size, num_inference_steps, guidance_scale, own)
                )
            result = torch.cat(result)
        if output_type != "latent":
            result = output.convert(self._decoded(result), output_type)
        self.maybe_free_model_hooks()  # type: ignore[no-untyped-call]
        return ImagePipelineOutput(result) if return_dict else (result,)

    def _canvas(self, frames: Tensor, height: int | None, width: int | None) -> tuple[int, ...]:
        """Shape of an image's latents."""
        scale = getattr(self.controlnet.config, "conditioning_scale", 1)
        size = [frames.shape[-2] * scale, frames.shape[-1] * scale]
        size = [
            own if given is None else given
            for own, given in zip(size, (height, width), strict=True)
        ]
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        if any(n <= 0 or n % factor for n in size):
            raise InvalidInput(f"{size[1]} x {size[0]} px: both must be multiples of {factor}")
        check_frames(frames, self.controlnet, size[0], size[1])
        return (1, self.unet.config.in_channels, size[0] // factor, size[1] // factor)

    def _steps(
        self,
        net: Steered,
        image: prompts.Wanted,
        shape: tuple[int, ...],
        steps: int,
        guidance: float,
        source: sampling.Generators,
    ) -> Tensor:
        """One image's latents."""
        device = self._execution_device
        times = sampling.timesteps(self.scheduler, steps, device)
        read = prompts.encode(self.tokenizer, self.text_encoder, [image.prompt, image.negative])
        known = image.metadata or Metadata()
        numbers = torch.from_numpy(known.vector("diffusionsat")) if image.metadata else None
        if numbers is None and net.config.get("use_metadata", False):
            numbers = torch.full((7,), torch.nan)
        told = conditions(
            Scales(guidance, guidance), read[image.prompt], read[image.negative], numbers
        )
        x = randn_tensor(shape, source, device, torch.float32)
        x = x * getattr(self.scheduler, "init_noise_sigma", 1.0)
        for t in self.progress_bar(times):
            x = sampling.advance(self.scheduler, net, x, t, [told], source)
        latents: Tensor = x
        return latents

    def _decoded(self, x: Tensor) -> list[Pixels]:
        """uint8 (3, H, W) each."""
        if self.vae is not None:
            scaled = (x / self.vae.config.scaling_factor).to(self.vae.dtype)
            x = torch.cat([self.vae.decode(row, return_dict=False)[0] for row in scaled.split(1)])
        pixels = ((x.float() + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()
        return [np.ascontiguousarray(image) for image in pixels]


def _for_each(prompt: str | Sequence[str], count: int) -> list[str]:
    texts = [prompt] * count if isinstance(prompt, str) else list(prompt)
    if len(texts) != count:
        raise InvalidInput(f"{len(texts)} prompts for {count} images; give one, or {count}")
    return texts
