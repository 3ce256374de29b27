"""For diffusers, which looks for the class of a pipeline here."""

from terraloom.pipelines import TextToImage

__all__ = ["TextToImage"]
globals().pop("FramesToImage", None)  # diffusers keeps one namespace for the modules of all folders
