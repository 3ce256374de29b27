"""What was measured of a text model as Markdown: the body of its card."""

from __future__ import annotations

from typing import Any

from terraloom.evaluation.card import table

Metrics = dict[str, Any]


def body(m: Metrics) -> str:
    """All measures of `terraloom.evaluation.text.evaluate_text` as tables, the sheets linked."""
    parts = [
        _head(m),
        _classes(m["classes"]),
        _wide(m["wide"]),
        _distance(m["distance"]),
        _responses(m),
    ]
    return "\n\n".join([*parts, _neighbours(m["neighbours"])]) + "\n"


def _head(m: Metrics) -> str:
    about = "".join(f", {key} {m[key]}" for key in ("steps", "guidance") if key in m)
    return (
        f"## Measured\n\nWeights `{m.get('model', '')}`{about}; noise of seed {m.get('seed', 0)}; "
        "`metrics.json` has every figure, every confusion and every prompt."
    )


def _networks(rows: Metrics) -> list[str]:
    return [name for name, value in rows.items() if isinstance(value, dict)]


def _classes(classes: Metrics) -> str:
    rows = [
        (name, f"{d['each']} x {len(r['by_class'])}", network, _percent(r["generated"]), _percent(r["captions"]),
         _percent(r["other_words"]), f"{_percent(r['real'])} of {r['real_images']}", _percent(1 / len(r["by_class"])))
        for name, d in classes.items()
        for network in _networks(d)
        for r in [d[network]]
    ]  # fmt: skip
    head = "set | images | reader | generated | prompts that are captions | other words | real, held out | chance"
    parts = [
        "### Prompts\n\nReaders learned the classes from real training images alone and read what is drawn for "
        "prompts as a user types them; only the gsd is told beside the words. The plain CNN is trained "
        "from scratch and used nowhere else; features of EfficientNet-Lite0 are a loss in training, so the CNN is the "
        "judge to believe where they differ. Means over the classes; real, held-out chips are the ceiling.\n\n"
        + table(head, rows)
    ]
    for name, d in classes.items():
        networks = _networks(d)
        by_class = [
            (c, *(_percent(d[n]["by_class"][c]) for n in networks), *(_mistakes(d[n], c) for n in networks))
            for c in d[networks[0]]["by_class"]
        ]  # fmt: skip
        heads = ["class", *networks, *(f"{n} reads instead" for n in networks)]
        parts.append(f"{table(' | '.join(heads), by_class)}\n\n![{name}]({name}.webp)")
    return "\n\n".join(parts)


def _wide(m: Metrics) -> str:
    names = _networks(m)
    rows = [(c, *(_percent(m[n]["by_class"][c]) for n in names)) for c in m[names[0]]["by_class"]]
    rows.append(("mean", *(_percent(m[n]["generated"]) for n in names)))
    return (
        f"### Wide images\n\n{m['each']} images of {m['side']} px of each of EuroSAT's classes, the same prompts; "
        "read in every chip of 64 px. Real places of that size seldom are one class throughout: no ceiling to "
        "compare with.\n\n"
        + table(" | ".join(["class", *names]), rows)
        + "\n\n![Wide images](wide.webp)"
    )


def _mistakes(reader: Metrics, name: str) -> str:
    """The two commonest wrong answers."""
    names = list(reader["by_class"])
    row = reader["confusion"][names.index(name)]
    wrong = sorted(
        ((n, c) for c, n in zip(names, row, strict=True) if c != name and n), reverse=True
    )
    return ", ".join(f"{c} {n}" for n, c in wrong[:2]) or "-"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _distance(d: Metrics) -> str:
    rows = [
        (network, name, r["fid"], f"{r['kid']} ± {r['kid_scatter']}")
        for network in _networks(d)
        for name, r in d[network].items()
    ]
    return (
        f"### Distance\n\n{d['images']} EuroSAT-like images of the captions of held-out images, against as many "
        "training images, in mean features of a network (standardised; not Inception's, so not comparable with the FID "
        "of papers). FID grows as images get fewer: compare with the real rows, which are the floor. KID has no such "
        "bias; ± is its scatter over random halves.\n\n"
        + table("features | images | Frechet distance | kernel distance", rows)
    )


def _responses(m: Metrics) -> str:
    moved = [
        (name, r["measure"], r["wanted"], r["means"], f"{r['right']} : {r['wrong']}", r["p"], r["real"],
         r["real_images"])
        for name, r in m["responses"].items()
    ]  # fmt: skip
    words = [
        (name, r["measure"], r["means"][::-1], f"{r['right']} : {r['wrong']}", r["p"])
        for name, r in m["words"].items()
    ]
    missing = [(f, r["mean"], r["least"]) for f, r in m["missing"].items()]
    seeds = next(iter(m["responses"].values()))["seeds"]
    return (
        f"### Responses\n\nOne field is moved, all else and the noise of {seeds} seeds stay. Means: of the measure, "
        "value by value; right : wrong: seeds whose rank correlation with the field has the wanted sign, or not; p: of "
        "a sign test. Real: the same correlation (positive: as wanted) among training images that know the field. "
        "White: percent of bright colourless pixels; greenness, brightness, contrast: of 255; slope: exponent of the "
        "power spectrum.\n\n"
        + table("field | measure | wanted | means | right : wrong | p | real | images", moved)
        + "\n\n![Rows: values, columns: seeds](responses.webp)\n\nWords, the first against the second:\n\n"
        + table("words | measure | means | right : wrong | p", words)
        + "\n\n![Rows: words, columns: seeds](words.webp)\n\nA field that is zero against the same field missing, mean "
        "absolute difference of pixels of 255 (and the least of the seeds):\n\n"
        + table("field | mean | least", missing)
        + "\n\n![Missing, and zero](missing.webp)"
    )


def _neighbours(n: Metrics) -> str:
    rows = [
        (kind, r["generated"], r["real"], r["nearest_generated"], r["bound"], _percent(r["below"]))
        for kind, r in n.items()
        if isinstance(r, dict)
    ]
    return (
        f"### Copies\n\nDistance of {n['images']} generated EuroSAT-class images to their nearest training image (of "
        "the CNN's features; of pixels reduced to 16 x 16), and of held-out real images to theirs. Below: generated "
        "images nearer than all but 1 % of the real ones (chance: 1%).\n\n"
        + table(
            "in | generated, median | real, median | nearest generated | 1 % bound | below", rows
        )
        + "\n\n![Generated, nearest in features, nearest in pixels](neighbours.webp)"
    )
