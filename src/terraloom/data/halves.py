"""Rows of a window made by two threads: what a place holds follows from the place alone, so windows come apart."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np


def in_halves(make: Callable[[int, int], Any], rows: int) -> Any:
    """`make(first, count)` of all rows, (..., rows, w): numpy computes without holding the interpreter."""
    half = rows // 2
    if not half:
        return make(0, rows)
    with ThreadPoolExecutor(1) as other:
        lower = other.submit(make, half, rows - half)
        upper = make(0, half)
        return np.concatenate([upper, lower.result()], -2)
