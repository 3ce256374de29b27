"""From words and numbers to images, in diffusers' calling conventions."""

from __future__ import annotations

from terraloom.pipelines.refine import refine
from terraloom.pipelines.text_to_image import TextToImage

__all__ = ["TextToImage", "refine"]
