"""For diffusers, which looks for the class of a pipeline here."""

from terraloom.pipelines.text_to_image import TextToImage

__all__ = ["TextToImage"]
