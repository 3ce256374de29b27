"""From words and numbers, or from dated images, to images, in diffusers' calling conventions."""

from __future__ import annotations

from terraloom.pipelines.frames_to_image import FramesToImage
from terraloom.pipelines.refine import refine
from terraloom.pipelines.text_to_image import TextToImage

__all__ = ["FramesToImage", "TextToImage", "refine"]
