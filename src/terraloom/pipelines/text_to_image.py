"""TextToImage: an image from a prompt and metadata, by the small shipped model or DiffusionSat's official ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.import_utils import is_accelerate_available
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from terraloom.diffusion.flow import STEPS, noised
from terraloom.errors import InvalidInput
from terraloom.metadata import Metadata
from terraloom.models.autoencoder import PixelAutoencoder
from terraloom.official import DEFAULTS, is_official, load_official
from terraloom.pipelines import output, prompts, sampling
from terraloom.pipelines.cover import cover_of
from terraloom.pipelines.guidance import Conditions, Scales, Text, conditions
from terraloom.pipelines.loading import LocalPipeline, loading, quick_dtype
from terraloom.pipelines.refine import refine
from terraloom.pipelines.size import USUAL_GSD, Pixels, Size
from terraloom.weights import LOADER, find_pipeline, load_unet

PLANNED = 0.86  # sigma from which a wide image is drawn over its plan; below 0.75 it keeps the plan's large pixels

Changed = Callable[[Metadata | None], Metadata | None]
Callback = Callable[[DiffusionPipeline, int, Tensor, dict[str, Tensor]], dict[str, Tensor]]


class TextToImage(LocalPipeline):
    """Prompt and metadata -> satellite image.

    A model with a `PixelAutoencoder` draws up to four times its chips' side (256 px), and the cascade refines larger
    images (terraloom.pipelines.size); a latent one (the official checkpoints) draws any size directly. diffusers' own
    loader finds this class with `DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder,
    trust_remote_code=True)`.

    Args:
        unet: a `SatelliteUNet`; a UNet without metadata works as well.
        scheduler: any of diffusers' that fits the network; may be swapped later.
        vae: `PixelAutoencoder` or `AutoencoderKL`.
        text_encoder: a `CLIPTextModel`; None means `SentenceEncoder`, whose weights are a package of their own.
        tokenizer: of the `CLIPTextModel`.
        steps: default of `num_inference_steps`.
        guidance: default of `guidance_scale`.
        projected: guidance moves contrast less (terraloom.pipelines.guidance); for flow matching.
    """

    _loader = LOADER
    _optional_components = ["text_encoder", "tokenizer"]
    _callback_tensor_inputs = ["latents"]
    model_cpu_offload_seq: Any = "text_encoder->unet->vae"

    config: Any
    unet: Any
    scheduler: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any

    def __init__(
        self,
        unet: UNet2DConditionModel,
        scheduler: Any,
        vae: PixelAutoencoder | AutoencoderKL,
        text_encoder: nn.Module | None = None,
        tokenizer: Any = None,
        steps: int = 10,
        guidance: float = 3.0,
        projected: bool = False,
    ) -> None:
        super().__init__()
        nn.Module.to(unet, memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on a CPU
        self.register_modules(  # type: ignore[no-untyped-call]
            unet=unet,
            scheduler=scheduler,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
        )
        defaults = {"steps": steps, "guidance": guidance, "projected": projected}
        self.register_to_config(**defaults)  # type: ignore[no-untyped-call]
        self._guidance_scale, self._num_timesteps, self._interrupt = guidance, steps, False

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, name_or_folder: str | PathLike[str] = "terraloom/small", **others: Any
    ) -> TextToImage:
        """Load a shipped model by name, or any from a folder; nothing is ever downloaded.

        Args:
            name_or_folder: "terraloom/small" (or "text"), a folder of `save_pretrained`, or an unpacked official
                DiffusionSat checkpoint.
            others: as in diffusers (`torch_dtype`, or parts that replace those of the folder). Default of the dtype:
                bfloat16 for a small model where the machine is quick at it, else float32.

        Raises:
            BadCheckpoint: there is no such model, or its files are missing, damaged or of another shape.
        """
        dtype = others.get("torch_dtype", others.get("dtype"))
        folder = Path(name_or_folder)
        if is_official(folder):
            given = {k: v for k, v in others.items() if k not in ("torch_dtype", "dtype")}
            return cls(**{**load_official(folder, dtype=dtype), **DEFAULTS, **given})
        source = find_pipeline(folder)
        if source.config["config"].get("_class_name") == "SatelliteUNet":
            small = (
                source.config["config"].get("missing") == "learned"
            )  # official ones stay as they are
            dtype = dtype or (quick_dtype() if small else None)
            others.setdefault("unet", load_unet(source, dtype))
        # diffusers warns when it would like accelerate and does not find it
        frugal = is_accelerate_available()  # type: ignore[no-untyped-call]
        others = {"low_cpu_mem_usage": frugal, **others}
        with loading(source.path):
            pipe: TextToImage = super().from_pretrained(
                source.path, use_safetensors=True, local_files_only=True, **others
            )
        pipe._source = source
        return pipe

    @property
    def guidance_scale(self) -> float:
        """Of the text, in the latest call."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """Steps of the latest call; of a wide image those that are drawn over its plan."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """A callback sets `_interrupt` to end the steps early."""
        return self._interrupt

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        metadata: Metadata | Sequence[Metadata | None] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        metadata_guidance_scale: float | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        num_images_per_prompt: int = 1,
        seed: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: output.Output = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw `num_images_per_prompt` images of the first prompt, then of the second ...

        Args:
            prompt: one or several, at most 2000 characters each.
            metadata: for all prompts or one for each; the gsd is that of the image.
            height: pixels; 64 to 1024 for a pixel model, else a multiple of 8. Default: the network's own.
            width: likewise.
            num_inference_steps: of the scheduler. Default: the model's own.
            guidance_scale: how strongly the prompt counts; 1 is no guidance. Default: the model's own, of a pixel model
                less for images wider than its chips.
            metadata_guidance_scale: likewise for metadata. Default: `guidance_scale`.
            negative_prompt: what to lead away from; for all prompts or one for each.
            num_images_per_prompt: 1 or more.
            seed: image i has the bytes of a call of its own with seed + i.
            generator: instead of a seed, one for all images or a list with one for each.
            latents: instead of noise and plan, (images, channels, h, w) float of the network's size.
            output_type: "pil"; "np" (n, h, w, 3) or "pt" (n, 3, h, w), float32 0..1; "latent", not refined.
            return_dict: whether to return an object with `images`, or a tuple.
            callback_on_step_end: f(pipe, step, timestep, {"latents": ...}); what it returns replaces them.
            callback_on_step_end_tensor_inputs: what it is given, "latents" or nothing.

        Raises:
            InvalidInput: an argument outside its range.
        """
        images = prompts.wanted(prompt, negative_prompt, metadata, num_images_per_prompt)
        output.check(output_type, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        size, shape = self._canvas(height, width)
        scale = guidance_scale
        if scale is None:
            usual = self.config.guidance
            scale = usual if size is None else size.milder(usual)
        scales = Scales(
            scale, scale if metadata_guidance_scale is None else metadata_guidance_scale
        )
        source = sampling.generators(seed, generator, len(images))
        steps = self.config.steps if num_inference_steps is None else num_inference_steps
        read = self._read(images)
        plan = None
        if size is not None and size.planned > 1 and latents is None and self.config.projected:
            plan = self._plan(images, read, size, steps, scales, source)
        times = sampling.timesteps(self.scheduler, steps, self._execution_device)
        x = self._noise(latents, (len(images), *shape), source)
        if plan is not None:
            times = sampling.from_sigma(self.scheduler, times, PLANNED)
            x = noised(plan, x, times[:1] / STEPS)
        told = self._conditions(images, read, size.of_base if size else None, scales)
        self._guidance_scale, self._num_timesteps, self._interrupt = scale, len(times), False
        for i, t in enumerate(self.progress_bar(times)):
            if self.interrupt:
                break
            x = sampling.advance(
                self.scheduler, self.unet, x, t, told, source, self.config.projected
            )
            if callback_on_step_end is not None:
                given = {"latents": x} if callback_on_step_end_tensor_inputs else {}
                x = callback_on_step_end(self, i, t, given).get("latents", x)
        result: Any = x
        if output_type != "latent":
            result = output.convert(self._finish(x, size, images, source), output_type)
        self.maybe_free_model_hooks()  # type: ignore[no-untyped-call]
        return ImagePipelineOutput(result) if return_dict else (result,)

    def _canvas(
        self, height: int | None, width: int | None
    ) -> tuple[Size | None, tuple[int, int, int]]:
        """How the image is refined (None: not at all), and the shape of its latents."""
        net = self.unet.config
        channels, side = net.in_channels, net.sample_size
        pixels = isinstance(self.vae, PixelAutoencoder)
        factor = (
            self.vae.config.factor if pixels else 2 ** (len(self.vae.config.block_out_channels) - 1)
        )
        height, width = (side * factor if n is None else n for n in (height, width))
        if pixels:
            step = factor * 2 ** (len(net.block_out_channels) - 1)
            size = Size(height, width, side * factor, step)
            h, w = size.base
            return size, (channels, h // factor, w // factor)
        for name, n in (("height", height), ("width", width)):
            if not (isinstance(n, int) and n > 0 and n % factor == 0):
                raise InvalidInput(f"{name} {n!r} is not a positive multiple of {factor} pixels")
        return None, (channels, height // factor, width // factor)

    def _plan(
        self,
        images: list[prompts.Wanted],
        read: dict[str, Text],
        size: Size,
        steps: int,
        scales: Scales,
        source: sampling.Generators,
    ) -> Tensor:
        """Where everything is in wide images: their prompts on one chip, in half of the steps, enlarged; latents."""
        h, w = (n // self.vae.config.factor for n in size.plan)
        x = self._noise(None, (len(images), self.unet.config.in_channels, h, w), source)
        bold = Scales(*(size.bolder(n, self.config.guidance) for n in astuple(scales)))
        told = self._conditions(images, read, size.of_plan, bold)
        for t in sampling.timesteps(self.scheduler, (steps + 1) // 2, self._execution_device):
            x = sampling.advance(
                self.scheduler, self.unet, x, t, told, source, self.config.projected
            )
        start: Tensor = self.vae.encode(size.over(self.vae.decode(x).sample.float()))
        return start

    def _noise(
        self, latents: Tensor | None, shape: tuple[int, ...], source: sampling.Generators
    ) -> Tensor:
        """What the steps begin with, float32."""
        device = self._execution_device
        if latents is None:
            latents = randn_tensor(shape, source, device, torch.float32)
        if tuple(latents.shape) != shape:
            raise InvalidInput(f"latents have shape {tuple(latents.shape)}; {shape} is needed")
        return latents.to(device, torch.float32) * getattr(self.scheduler, "init_noise_sigma", 1.0)

    def _read(self, images: list[prompts.Wanted]) -> dict[str, Text]:
        """What the network reads of every prompt."""
        every = [text for image in images for text in (image.prompt, image.negative)]
        return prompts.encode(self.tokenizer, self.text_encoder, every)

    def _conditions(
        self,
        images: list[prompts.Wanted],
        read: dict[str, Text],
        changed: Changed | None,
        scales: Scales,
    ) -> list[Conditions]:
        """What the network is told about each image, with its metadata `changed`."""
        takes_metadata = self.unet.config.get("use_metadata", False)
        if not takes_metadata and any(image.metadata for image in images):
            raise InvalidInput(
                "this model takes no metadata; leave it out, or say it in the prompt"
            )
        learned = self.unet.config.get("missing") == "learned"
        told: dict[prompts.Wanted, Conditions] = {}
        for image in images:
            known = changed(image.metadata) if changed else image.metadata
            numbers = torch.full((7,), torch.nan) if takes_metadata else None
            if takes_metadata and known is not None and known != Metadata():
                convention: Any = "terraloom" if learned else "diffusionsat"
                numbers = torch.from_numpy(known.vector(convention))
            told[image] = conditions(scales, read[image.prompt], read[image.negative], numbers)
        return [told[image] for image in images]

    def _finish(
        self,
        x: Tensor,
        size: Size | None,
        images: list[prompts.Wanted],
        source: sampling.Generators,
    ) -> list[Pixels]:
        """Decode, refine and cut to size, one image at a time."""
        seeds = sampling.noise_seeds(source, len(images))
        scaled = (x / self.vae.config.scaling_factor).to(self.vae.dtype)
        return [
            self._picture(*row, size) for row in zip(scaled.split(1), images, seeds, strict=True)
        ]

    def _picture(
        self, latents: Tensor, image: prompts.Wanted, seed: int, size: Size | None
    ) -> Pixels:
        """One image, uint8 (3, h, w)."""
        decoded = self.vae.decode(latents, return_dict=False)[0][0].float()
        pixels: Pixels = ((decoded + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()
        if size is None or (size.height, size.width) == pixels.shape[1:]:
            return pixels
        if size.refined:
            known = size.of_base(image.metadata)
            gsd = known.gsd if known and known.gsd else USUAL_GSD
            pixels = refine(pixels, gsd, 1, seed, cover=cover_of(image.prompt))
        return size.finish(pixels)
