"""Dates as numbers, for their order and distance."""

from __future__ import annotations

from datetime import date


def ordinal(text: str | None) -> float:
    """Days since the year 1, of the first of July or of the month where no more is told; 0 when nothing is known."""
    if text is None:
        return 0.0
    year, month, day = ([int(part) for part in text.split("-")] + [0, 0])[:3]
    return float(date(year, month or 7, day or 1).toordinal())
