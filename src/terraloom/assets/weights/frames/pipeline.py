"""For diffusers, which looks for the class of a pipeline here."""

from terraloom.pipelines import FramesToImage

__all__ = ["FramesToImage"]
globals().pop("TextToImage", None)  # diffusers keeps one namespace for the modules of all folders
