"""Is it any good: chains, spectra, land cover, discriminators and pictures of a cascade checkpoint."""

from terraloom.evaluation.report import compare, evaluate

__all__ = ["compare", "evaluate"]
