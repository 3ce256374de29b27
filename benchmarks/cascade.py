"""Speed and memory of World beside its rivals, in one run: `make bench`, or with options `--help`.

Timings of one round follow each other closely and ratios are taken within a round, so that other work on the machine
hits all alike. Writes `cascade.json` and `cascade.md` into `--out` and prints the latter.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import rivals
import torch
from measures import (
    Counted,
    conv_peak,
    count_engines,
    flop_per_pixel,
    lattice_share,
    median,
    peak_memory,
    timed,
    total,
)
from report import machine, markdown

from terraloom.demo import PLACES, around
from terraloom.grid import Window, bbox_of, coarsest_gsd
from terraloom.weights import configuration, find, load_model
from terraloom.world import World

LEVEL = 14  # 9.6 m on the equator
BLOCK = 1024  # pixels, World's default
PARENTS = (
    1 + 1 / 16 + 1 / 256 + 1 / 4096
)  # what levels 12, 10 and 8 add to a rival on a large canvas
PERIODS = (16, 64, 127, 128, 129, 256, 512)  # 16: the network's own; 127 and 129: what chance gives
SEA = Window(8, 16384, 40960, 64, 64)  # where engines warm up: one block, far from all places


def main() -> None:
    """Run everything; in a child process only one export."""
    args = arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.export:
        print(json.dumps(export(args.model, args.export)))
        return
    report = measure(args)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "cascade.json").write_text(json.dumps(report, indent=2) + "\n")
    (args.out / "cascade.md").write_text(markdown(report))
    print(markdown(report))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="cascade", help="shipped name or checkpoint folder")
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    parser.add_argument("--side", type=int, default=2048, help="pixels of the canvas that is timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="CPU threads of torch")
    parser.add_argument("--full", action="store_true", help="also export 256 megapixels")
    parser.add_argument("--export", type=int, help=argparse.SUPPRESS)  # side, in a child process
    return parser.parse_args()


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures as plain data."""
    checkpoint = find(args.model)
    work = flop_per_pixel(configuration(checkpoint))
    started = count_engines(work)
    best = "openvino" if find_spec("openvino") else "torch"
    world = World(model=args.model, cache=False, engine=best)
    model: Any = load_model(checkpoint)
    net = rivals.network(model, best, world.spec.precision)
    peaks = {"f32": conv_peak(torch.float32), "bf16": conv_peak(torch.bfloat16)}
    ours: list[dict[str, float]] = []
    others: dict[str, list[tuple[float, float]]] = {}
    parameters, pixels = 0.0, np.empty(0, np.uint8)
    warm(world)
    for place in list(PLACES)[: args.rounds]:
        run, pixels = area(world, started, place, args.side)
        ours.append(run)
        others.setdefault("windows", []).append(rivals.window_scheme(net))
        if find_spec("infinite_tensor"):
            others.setdefault("infinite", []).append(rivals.infinite_diffusion(net))
        if find_spec("diffusers"):
            seconds, evaluations, parameters = rivals.diffusers_loop(world.spec.precision)
            others.setdefault("diffusers", []).append((seconds, evaluations))
    report = {
        "machine": machine(world),
        "conv_peak_gflops": peaks,
        "network": {
            "flop_per_pixel": work,
            "million_parameters": sum(p.numel() for p in model.parameters()) / 1e6,
            "digest": checkpoint.digest,
        },
        "diffusers_million_parameters": parameters,
        "rounds": len(ours),
        "side": args.side,
        "methods": methods(world, ours, others, work, peaks),
    }
    if best == "openvino":
        eager = World(model=args.model, cache=False, engine="torch")
        warm(eager)
        run, _ = area(eager, started, "nile", args.side)
        report["methods"]["World, torch"] = row([run], "torch", eager.spec.precision, work, peaks)
    report["lattice"] = lattices(
        world, net, model.config.sigmas, list(PLACES)[args.rounds - 1], pixels
    )
    sides = [1024, 4096] + ([16384] if args.full else [])
    report["exports"] = [child(args, side) for side in sides]
    return report


def warm(world: World) -> None:
    """Start the engines: compile, load, touch their memory."""
    for level, x, y in ((SEA.level, SEA.x, SEA.y), (LEVEL, SEA.x << 6, SEA.y << 6)):
        world.level(level, x, y, SEA.width, SEA.height)


def area(
    world: World, started: list[Counted], place: str, side: int
) -> tuple[dict[str, float], Any]:
    """Draw a square of level 14 that no earlier one shares a parent with; what it cost, and the pixels."""
    w = around(PLACES[place], LEVEL, side)
    w = Window(LEVEL, w.x // BLOCK * BLOCK, w.y // BLOCK * BLOCK, side, side)
    drawn, spent = total(started)
    box: list[Any] = []
    seconds = timed(lambda: box.append(world.level(LEVEL, w.x, w.y, side, side)))
    evaluated, busy = total(started)
    cost = {
        "seconds": seconds,
        "pixels": float(side**2),
        "evaluated": evaluated - drawn,
        "network_seconds": busy - spent,
    }
    return cost, box[0]


def row(
    runs: list[dict[str, float]], runtime: str, precision: str, work: float, peaks: dict[str, float]
) -> dict[str, Any]:
    """A line of the table out of runs of World."""
    speed = median([r["pixels"] / r["seconds"] for r in runs]) / 1e6
    reached = median([r["evaluated"] / r["seconds"] for r in runs]) * work / 1e9
    inside = median([r["evaluated"] / r["network_seconds"] for r in runs]) * work / 1e9
    return {
        "runtime": f"{runtime} {precision}",
        "megapixels_per_second": speed,
        "evaluations_per_pixel": median([r["evaluated"] / r["pixels"] for r in runs]),
        "share_of_peak": reached / peaks[precision],
        "share_of_peak_in_network": inside / peaks[precision],
    }


def methods(
    world: World,
    ours: list[dict[str, float]],
    others: dict[str, list[tuple[float, float]]],
    work: float,
    peaks: dict[str, float],
) -> dict[str, Any]:
    """World and its rivals by name; `ratio` is how many times faster World was, median over rounds."""
    spec = world.spec
    first = f"World, {spec.engine}"
    table = {first: row(ours, spec.engine, spec.precision, work, peaks)}
    names = {
        "windows": ("MetaEarth's windows, 50 steps, same network", spec.engine),
        "infinite": ("infinite-tensor, 2 phases of 1 step, same network", spec.engine),
        "diffusers": ("diffusers UNet2DModel + DDIM, 50 steps, tiles", "torch"),
    }
    for key, (name, runtime) in names.items():
        if key not in others:
            table[name] = {"skipped": "not installed"}
            continue
        costs = [seconds * rivals.PARENTS for seconds, _ in others[key]]
        evaluations = others[key][0][1] * rivals.PARENTS
        table[name] = {
            "runtime": f"{runtime} {spec.precision}",
            "megapixels_per_second": median([1e-6 / c for c in costs]),
            "evaluations_per_pixel": evaluations,
            "ratio": median(
                [c * r["pixels"] / r["seconds"] for c, r in zip(costs, ours, strict=True)]
            ),
        }
        if key != "diffusers":
            rate = median([evaluations / c for c in costs]) * work / 1e9
            table[name]["share_of_peak"] = rate / peaks[spec.precision]
    return table


def lattices(
    world: World, net: rivals.Network, sigmas: tuple[float, ...], place: str, pixels: Any
) -> dict[str, Any]:
    """Periodic share of World's square, and of the same place in windows under one repeated noise block."""
    side = pixels.shape[1]
    w = around(PLACES[place], LEVEL, side)
    x, y, cells = w.x // BLOCK * BLOCK // 4 - 16, w.y // BLOCK * BLOCK // 4 - 16, side // 4 + 32
    lr = world.level(LEVEL - 2, x, y, cells, cells).astype(np.float32) / 127.5 - 1
    rows = Window(LEVEL, 4 * x, 4 * y, 4, 4 * cells).gsd[::4].astype(np.float32)
    windowed = rivals.repeated_noise(net, sigmas, lr, rows)
    periods = [p for p in PERIODS if side >= 4 * p]
    return {
        "place": place,
        "World": {p: lattice_share(pixels, p) for p in periods},
        "same weights in MetaEarth's windows": {p: lattice_share(windowed, p) for p in periods},
    }


def export(model: str, side: int) -> dict[str, float]:
    """Write a COG of `side` x `side` pixels; seconds and peak memory of this process."""
    started = count_engines(flop_per_pixel(configuration(find(model))))
    world = World(model=model, cache=False)
    warm(world)
    before = peak_memory()
    w = around(PLACES["nile"], LEVEL, side)
    box = bbox_of(Window(LEVEL, w.x // BLOCK * BLOCK, w.y // BLOCK * BLOCK, side, side))
    drawn, _ = total(started)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "export.tif"
        seconds = timed(lambda: world.export(box, coarsest_gsd(box, LEVEL), path))
        size = path.stat().st_size / 1e6
    return {
        "megapixels": side**2 / 1e6,
        "seconds": seconds,
        "megapixels_per_second": side**2 / 1e6 / seconds,
        "evaluations_per_pixel": (total(started)[0] - drawn) / side**2,
        "peak_mb": peak_memory(),
        "warm_mb": before,
        "file_mb": size,
    }


def child(args: argparse.Namespace, side: int) -> dict[str, float]:
    """`export` in a process of its own, whose memory is its alone."""
    command = [sys.executable, __file__, "--model", args.model, "--export", str(side)]
    if args.threads:
        command += ["--threads", str(args.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
