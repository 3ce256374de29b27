"""Is it any good: measures, judges and pictures of a cascade checkpoint, and of a text-to-image one."""

from terraloom.evaluation.report import compare, evaluate
from terraloom.evaluation.text import evaluate_text

__all__ = ["compare", "evaluate", "evaluate_text"]
