"""The machine, and the report as a page."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rivals import PARENTS

from terraloom.world import World


def machine(world: World) -> dict[str, Any]:
    """Where and with what this is measured."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    packages = ("torch", "openvino", "infinite-tensor", "diffusers")
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0],
        "block": world.spec.block,
        "halo": world.spec.halo,
        **{p: version(p) for p in packages if find_spec(p.replace("-", "_"))},
    }


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    tables = (_head(report), _methods(report), _exports(report), _lattice(report))
    return "\n\n".join("\n".join(lines) for lines in tables) + "\n"


def _head(report: dict[str, Any]) -> list[str]:
    m, peaks, side = report["machine"], report["conv_peak_gflops"], report["side"]
    return [
        f"Level 14 (10 m) from the base map, engine warm, nothing cached. {m['cpu']}, {m['cores']} cores, load "
        f"{m['load_before']:.1f} when it began.",
        f"Blocks of {m['block']} px, halo {m['halo']} px; medians of {report['rounds']} rounds. World draws whole "
        f"canvases of {side} x {side} px with all their parents;",
        "rivals draw a few windows, scaled to a large canvas, where parents add "
        f"{PARENTS - 1:.1%} (to World's canvas they add more).",
        f"Peak of a 3x3 convolution: {peaks['f32']:.0f} GFLOP/s in f32, {peaks['bf16']:.0f} in bf16. One evaluation: "
        f"{report['network']['flop_per_pixel'] / 1e3:.0f} kFLOP per pixel.",
        f"diffusers' network has {report['diffusers_million_parameters']:.1f} M parameters, ours "
        f"{report['network']['million_parameters']:.1f} M.",
    ]


def _methods(report: dict[str, Any]) -> list[str]:
    lines = [
        "| method | runtime | megapixels/s | World is faster by | evaluations per pixel | share of peak |",
        "|---|---|---|---|---|---|",
    ]
    for name, r in report["methods"].items():
        if "skipped" in r:
            lines.append(f"| {name} | skipped: {r['skipped']} | | | | |")
            continue
        ratio = f"{r['ratio']:.1f} x" if "ratio" in r else ""
        share = f"{r['share_of_peak']:.0%}" if "share_of_peak" in r else ""
        if "share_of_peak_in_network" in r:
            share += f" ({r['share_of_peak_in_network']:.0%} while in the engine)"
        lines.append(
            f"| {name} | {r['runtime']} | {r['megapixels_per_second']:.4f} | {ratio} | "
            f"{r['evaluations_per_pixel']:.1f} | {share} |"
        )
    return lines


def _exports(report: dict[str, Any]) -> list[str]:
    lines = [
        "| exported COG, megapixels | seconds | megapixels/s | evaluations per pixel | peak memory | file |",
        "|---|---|---|---|---|---|",
    ]
    for e in report["exports"]:
        lines.append(
            f"| {e['megapixels']:.0f} | {e['seconds']:.1f} | {e['megapixels_per_second']:.2f} | "
            f"{e['evaluations_per_pixel']:.1f} | {e['peak_mb']:.0f} MB | {e['file_mb']:.1f} MB |"
        )
    return lines


def _lattice(report: dict[str, Any]) -> list[str]:
    lattice = dict(report["lattice"])
    place = lattice.pop("place")
    periods = list(lattice["World"])
    lines = [
        f"| share of detail that repeats ({place}), period | "
        + " | ".join(f"{p} px" for p in periods)
        + " |",
        "|---" * (len(periods) + 1) + "|",
    ]
    for name, shares in lattice.items():
        lines.append(f"| {name} | " + " | ".join(f"{shares[p]:.2%}" for p in periods) + " |")
    return lines
