"""What was measured as Markdown: the body of a model card."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from terraloom.evaluation.chain import PERIODS, SEEDS
from terraloom.evaluation.references import HIGH, LOW

Metrics = dict[str, Any]


def body(m: Metrics) -> str:
    """All measures of `terraloom.evaluation.evaluate` as tables, the sheets linked."""
    parts = [_head(m), _chain(m), _classes(m), _lattice(m), _levels(m), _flat(m)]
    if "classifier" in m:
        parts += [_classifier(m["classifier"]), _discriminator(m["discriminator"])]
    return "\n\n".join(parts) + "\n"


def table(head: str, rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table; `head` has its columns separated by |."""
    columns = [c.strip() for c in head.split("|")]
    lines = [columns, ["---"] * len(columns), *([_text(v) for v in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _head(m: Metrics) -> str:
    t = m["training"]
    trained = f", {t['images']:,} training images" if "images" in t else ""
    return (
        "## Measured\n\n"
        f"Weights `{m['model']}`{trained}; noise of seed {m['seed']}; `metrics.json` has every figure. Contrast is the "
        "standard deviation inside 64 px squares, of 255; band power is that of the grey image in three radial bands "
        "(0.03 to 0.125, to 0.25, to 0.5 cycles per pixel) over that of real imagery (wanted: 0.8 to 1.25)."
    )


def _chain(m: Metrics) -> str:
    text = (
        "### Chains\n\n"
        f"{m['places']} land places carried down from the base map. Ratio: contrast "
        "over the median of real imagery of that gsd and land cover, median of the places that have such imagery; "
        f"within: share of places at {LOW} to {HIGH}, beside the share of the real images themselves. Drift: largest "
        "change of a mean colour from the parent; off: deviation of the 4 x 4 means from the parent, of 255. Seeds: "
        f"standard deviation of a pixel over {SEEDS} seeds at the first place.\n\n"
    )
    rows = [
        (
            level, r["contrast"], r.get("ratio"), f"{r.get('within')} ({r.get('within_real')})", r["compared"],
            r.get("bands"), r["drift_max"], f"{r['off_mean']}, {r['off_max']}", m["seeds"][level],
        )
        for level, r in m["chain"].items()
    ]  # fmt: skip
    head = "level | contrast | ratio | within (real) | of | band power | drift | off, mean and max | seeds"
    return f"{text}{table(head, rows)}\n\n![Twelve places, from the base map to 0.6 m](chains.webp)"


def _classes(m: Metrics) -> str:
    levels = list(m["chain"])
    rows = [
        (name, *(f"{row[z][0]} ({row[z][1]})" if z in row else None for z in levels))
        for name, row in m["classes"].items()
    ]
    return "Contrast ratio by land cover (and places):\n\n" + table(
        " | ".join(["land cover", *levels]), rows
    )


def _lattice(m: Metrics) -> str:
    rows = [
        (level, *r["4_8_16"], r["worst"], r["dots"], r["worst_dots"])
        for level, r in m["lattice"].items()
    ]
    head = "level | 4 px | 8 px | 16 px | worst place | dots | worst place"
    text = (
        "Percent of the high-pass variance (sigma 2 px) that one repeated pattern explains, mean of the places; dots: "
        "the same of its absolute value at 4 px, for strokes that sit at one place of every cell whatever their sign; "
        "the last row is real imagery:\n\n" + table(head, rows)
    )
    if "wide_lattice" in m:
        head = " | ".join(["place", "level", *(f"{p} px" for p in PERIODS)])
        wide = [
            (place, level, *shares)
            for place, by_level in m["wide_lattice"].items()
            for level, shares in by_level.items()
        ]
        text += "\n\nOn 1024 x 1024 px of even places:\n\n" + table(head, wide)
    return text


def _levels(m: Metrics) -> str:
    text = (
        "### Single levels\n\n"
        "Held-out real images, reduced by 4 and enlarged again, the more "
        "structured half of every set; real: half of the real images against the other half. Features: distance of "
        "the mean features of EfficientNet-Lite0, in standard deviations.\n\n"
    )
    rows = [
        (
            name, r["gsd"], r["images"], r["bands"], r["bands_bicubic"], r["bands_real"],
            f"{r['features']}, {r['features_bicubic']}, {r['features_real']}", f"{r['off_mean']}, {r['off_max']}",
        )
        for name, r in m["levels"].items()
    ]  # fmt: skip
    head = "set | m | images | band power | bicubic | real | features: ours, bicubic, real | off, mean and max"
    return f"{text}{table(head, rows)}\n\n![Input, bicubic, ours, real](levels.webp)"


def _flat(m: Metrics) -> str:
    rows = [
        (name, r["parent_gsd"], r["images"], r["drawn"], r["real"], r["ratio"])
        for name, r in m["flat"].items()
    ]
    return (
        "A nearly even input with its land cover told: standard deviation of the detail drawn, and of the real "
        "detail:\n\n" + table("output | parent, m | images | drawn | real | ratio", rows)
    )


def _classifier(c: Metrics) -> str:
    names = list(next(iter(c["read_as_real"].values())))
    told, blind = c["with_and_without_maps"]
    rows = [
        (f"{name}, {kind}", *row.values())
        for name in c["read_as"]
        for kind, row in (("drawn", c["read_as"][name]), ("real", c["read_as_real"].get(name, {})))
    ]
    return (
        "### Land cover at 10 m\n\n"
        "A small network that learned land cover from real 10 m chips, recoloured, recognises it in "
        f"{c['generated']:.0%} of {c['chips']} generated chips (z14), in {c['real']:.0%} of held-out real chips; means "
        f"over the classes. On some of the same places: {told:.0%}, and {blind:.0%} when the maps are withheld. "
        "What it reads:\n\n"
        + table(" | ".join(["told", *names]), rows)
        + "\n\n![Twenty random land places](random.webp)"
    )


def _discriminator(d: Metrics) -> str:
    return (
        "### Real or not\n\n"
        "Accuracy of a small network that learned to tell real from enlarged on other places (0.5: it cannot):\n\n"
        + table(
            "set | images | ours | bicubic",
            [(name, r["images"], r["ours"], r["bicubic"]) for name, r in d.items()],
        )
    )
