"""What was measured of a model for dated images as Markdown: the body of its card."""

from __future__ import annotations

from typing import Any

from terraloom.evaluation.card import table
from terraloom.evaluation.quality import OCTAVES

Metrics = dict[str, Any]
TITLES = {
    "superres": "Super-resolution, four times finer",
    "inpaint": "In-painting",
    "forecast": "Other dates",
}
ABOUT = {
    "superres": (
        "All bands reduced by four are given, the colours in full are asked for: the right third of the Sentinel-2 "
        "scene (10 m), the lower third of the Landsat 8 scene (30 m, half cloud), NAIP's last date but one (5 m). "
        "Real-ESRGAN sees the colours alone."
    ),
    "inpaint": (
        "Smooth blobs, 5 to 25 % of a window, are missing. Figures are of the inside of the hole, but for the "
        "distance, which is of the whole window. Edge and inside: mean step between neighbouring pixels across the "
        "edge of the hole, and inside it, over the truth's (1: as in the real image). Matched: the other date with the "
        "histograms that both have outside the hole."
    ),
    "forecast": (
        "A date from up to three others. The Landsat tiles' dates were stretched one by one; mean and spread of a "
        "region's dates are matched for every way alike. NAIP and Peru: places that training saw on the other dates; "
        "Landsat: places that it never saw. The halves are all questions, by the difference of 16 px means between "
        "the nearest date and the truth."
    ),
}


def body(m: Metrics) -> str:
    """All measures of `terraloom.evaluation.frames.evaluate_frames` as tables, the sheets linked."""
    return "\n\n".join([_head(m), *(_task(task, m[task]) for task in TITLES)]) + "\n"


def _head(m: Metrics) -> str:
    missing = f" Not installed: {', '.join(m['left_out'])}." if m["left_out"] else ""
    return (
        f"## Measured\n\nWeights `{m.get('model', '')}`, noise of seed {m['seed']}; held-out places and dates, all in "
        "one run. Values are those of the stretch (0.5 to 99.5 percent of a scene), in [0, 1]. PSNR in dB; SSIM: Wang "
        "et al. 2004; distance: LPIPS, the shift-tolerant variant on VGG-16 (not comparable with the usual one), whose "
        "features recipes/frames.toml trains on as Real-ESRGAN was on VGG-19's; AlexNet: the same on a network that "
        "nobody here was trained on; "
        f"power: of detail of {', '.join(OCTAVES)} over the truth's (1: as much); better: questions where one draw of "
        "ours is nearer by that distance. Spread: standard deviation of draws over the error it ought to explain (1: "
        f"as uncertain as it should be, below: too sure).{missing}"
    )


def _task(task: str, groups: Metrics) -> str:
    holes = task == "inpaint"
    rows = [
        (f"{name} ({g['questions']}, spread {g['spread']})" if i == 0 else "", way, f["psnr"], f["ssim"],
         f["distance"], f["alexnet"], f["octaves"],
         *((f.get("edge"), f.get("inside")) if holes else ()), f.get("better"))
        for name, g in groups.items()
        for i, (way, f) in enumerate(g["ways"].items())
    ]  # fmt: skip
    head = "questions | way | PSNR | SSIM | distance | AlexNet | power"
    head += " | edge | inside | better" if holes else " | better"
    return f"### {TITLES[task]}\n\n{ABOUT[task]}\n\n{table(head, rows)}\n\n![{TITLES[task]}]({task}.webp)"
