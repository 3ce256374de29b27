"""Recipes: TOML files that say what is trained, on what, and how."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from terraloom.errors import InvalidInput

Recipe = dict[str, Any]
KINDS = ("cascade", "metaearth", "text", "frames")
KEYS = {
    "kind",
    "seed",
    "coarse",
    "teacher",
    "weaker",
    "model",
    "optimizer",
    "data",
    "losses",
    "schedule",
    "lora",
}


def pace(recipe: Recipe, step: int) -> float:
    """Factor of the learning rates: 1, falling evenly to 0 over the last third of `schedule.total_steps` where told."""
    total = recipe.get("schedule", {}).get("total_steps")
    return 1.0 if total is None else min(1.0, max(0.0, 3 * (1 - step / total)))


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        InvalidInput: the file is missing, is not TOML, has an unknown section or no known `kind`.
    """
    try:
        recipe = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise InvalidInput(f"cannot read recipe {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"recipe {path} is not valid TOML: {error}") from error
    if unknown := set(recipe) - KEYS:
        raise InvalidInput(
            f"recipe {path} has unknown keys {sorted(unknown)}; known: {sorted(KEYS)}"
        )
    if recipe.get("kind") not in KINDS:
        raise InvalidInput(
            f"recipe {path}: kind is {recipe.get('kind')!r}, must be one of {', '.join(KINDS)}"
        )
    return recipe


LESSONS = ("paired", "small", "even", "drawn", "chain")  # of the cascade
LEAPS = ("paired", "small")  # of a leap


def shares_of(recipe: dict[str, Any], name: str) -> dict[str, float]:
    """Kind of step -> its share, or the share of it that is scored or polished; empty where the recipe says nothing.

    Raises:
        InvalidInput: it is no table of shares by kind, or of a kind that there is not, or that is
            not for a network that leaps.
    """
    table = recipe["schedule"].get(name, {})
    if not isinstance(table, dict) or not all(
        isinstance(v, int | float) and 0 <= v <= 1 for v in table.values()
    ):
        raise InvalidInput(
            f"schedule.{name} of the recipe is {table!r}, must be a table of shares 0 to 1 by kind of step: "
            "{ paired = 0.3, small = 0.3, even = 1.0, chain = 1.0 }"
        )
    if unknown := set(table) - set(LESSONS):
        raise InvalidInput(
            f"schedule.{name} of the recipe has {sorted(unknown)}, known kinds of steps are {', '.join(LESSONS)}"
        )
    leap = bool(recipe["model"].get("leap"))
    if wrong := [
        k for k, v in table.items() if leap and v > 0 and (name != "shares" or k not in LEAPS)
    ]:
        raise InvalidInput(
            f"schedule.{name} of the recipe has {', '.join(wrong)}: a network that leaps learns by regression alone "
            f"(no score, no polish), in steps of {' and '.join(LEAPS)}"
        )
    return table
