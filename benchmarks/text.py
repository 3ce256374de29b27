"""The text model beside a class-conditional DDPM of diffusers, and its speed.

    python benchmarks/text.py speed --model terraloom/small
    python benchmarks/text.py rival --pack text.safetensors --minutes 60 --out out/text  # called again, it goes on
    python benchmarks/text.py compare --pack text.safetensors --out out/text

Writes `speed.json` or `compare.json` into `--out` and prints the same as a table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

BEGUN = time.perf_counter()  # before heavy imports: a cold start pays for them

import torch  # noqa: E402
from measures import median, peak_memory, timed  # noqa: E402

PROMPT = "a river through farmland"
ROUNDS, BATCH = 10, 16


def main() -> None:
    """One of three commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("speed", "rival", "compare"))
    parser.add_argument("--model", default="terraloom/small", help="name or checkpoint folder")
    parser.add_argument("--pack", type=Path, help="text pack; for rival and compare")
    parser.add_argument("--out", type=Path, default=Path("out/text"))
    parser.add_argument("--minutes", type=float, default=60, help="of training the rival")
    parser.add_argument("--images", type=int, default=500, help="that are compared")
    parser.add_argument("--threads", type=int, help="CPU threads of torch")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.command != "speed" and args.pack is None:
        parser.error(f"{args.command} needs --pack")
    if args.child:
        print(json.dumps(speed(args.model)))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    found = {"speed": in_child, "rival": rival, "compare": compare}[args.command](args)
    (args.out / f"{args.command}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def in_child(args: argparse.Namespace) -> dict[str, Any]:
    """`speed` in a process of its own: a cold start, and memory that is its alone."""
    command = [sys.executable, __file__, "speed", "--child", "--model", args.model]
    if args.threads:
        command += ["--threads", str(args.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def speed(model: str) -> dict[str, Any]:
    """Seconds of the base image and of 256 px, cold and warm; images per second in batches; peak memory."""
    load_before = os.getloadavg()[0]
    from terraloom.metadata import Metadata
    from terraloom.pipelines import TextToImage

    imported = time.perf_counter() - BEGUN
    box: list[Any] = []
    loading = timed(lambda: box.append(TextToImage.from_pretrained(model)))
    pipe = box[0]
    pipe.set_progress_bar_config(disable=True)

    def draw(side: int, count: int = 1) -> float:
        told = Metadata(lon=4.9, lat=52.4, gsd=640 / side, date="2021-06-15")
        return timed(lambda: pipe([PROMPT] * count, told, side, side, seed=1))

    first = draw(64)
    cold_base = time.perf_counter() - BEGUN
    base = [draw(64) for _ in range(ROUNDS)]
    first_256 = draw(256)
    wide = [draw(256) for _ in range(ROUNDS)]
    return {
        "model": pipe.digest,
        "million_parameters": round(sum(p.numel() for p in pipe.unet.parameters()) / 1e6, 2),
        "steps": pipe.config.steps,
        "guidance": pipe.config.guidance,
        "threads": torch.get_num_threads(),
        "openvino": find_spec("openvino") is not None,
        "load_before": round(load_before, 2),
        "import_s": round(imported, 2),
        "load_s": round(loading, 2),
        "cold_base_s": round(cold_base, 2),
        "first_base_s": round(first, 3),
        "base_ms": round(1000 * median(base), 1),
        "base_ms_best": round(1000 * min(base), 1),
        "first_256_s": round(first_256, 3),
        "warm_256_s": round(median(wide), 3),
        "warm_256_s_best": round(min(wide), 3),
        "batch_base_per_s": round(BATCH / draw(64, BATCH), 2),
        "batch_256_per_s": round(BATCH / draw(256, BATCH), 2),
        "peak_mb": round(peak_memory()),
    }


def rival(args: argparse.Namespace) -> dict[str, Any]:
    """Train the DDPM, or go on."""
    from ddpm import Rival

    from terraloom.evaluation.chips import EUROSAT, chips
    from terraloom.training.captioned import TextPack

    model = Rival(args.out, len(EUROSAT.classes))
    model.train(chips(TextPack.load(args.pack), EUROSAT), args.minutes)
    return about(model)


def about(model: Any) -> dict[str, Any]:
    return {
        "million_parameters": round(sum(p.numel() for p in model.net.parameters()) / 1e6, 2),
        "minutes": round(model.seconds / 60, 1),
        "images": model.images,
    }


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Both models' images of the classes that held-out images have: distances, and how they are read."""
    from ddpm import Rival

    from terraloom.evaluation.chips import EUROSAT, spread
    from terraloom.evaluation.frechet import distance_rows
    from terraloom.evaluation.painter import Painter
    from terraloom.evaluation.text import real_images
    from terraloom.metadata import Metadata

    real, model = real_images(args.pack), Rival(args.out, len(EUROSAT.classes))
    held, learned = real.held[0], real.learned[0]
    some = spread(len(held.labels), min(args.images, len(held.labels)))
    labels, count = held.labels[some], len(some)
    paint = Painter(args.model)
    prompts = [EUROSAT.prompts[EUROSAT.classes[k]][i % 4] for i, k in enumerate(labels.tolist())]
    sets: dict[str, Any] = {}
    seconds = {
        "text model": timed(
            lambda: sets.update(
                ours=paint(prompts, [Metadata(gsd=EUROSAT.gsd)] * count, range(count))
            )
        ),
        "DDPM": timed(lambda: sets.update(ddpm=model.sample(labels))),
    }
    sets = {"text model": sets["ours"], "DDPM": sets["ddpm"], "real, held out": held.images[some]}
    reference = learned.images[spread(len(learned.labels), count)]
    rows: dict[str, Any] = {}
    for reader in real.readers:
        rows[reader.name] = distance_rows(reader, reference, sets)
        for name, images in sets.items():
            right = (reader.read(reader.embed(images), 0) == labels).float().mean()
            rows[reader.name][name]["read_right"] = round(float(right), 3)
    seconds = {name: round(s / count, 3) for name, s in seconds.items()}
    return {"images": count, "rival": about(model), "seconds_per_image": seconds} | rows


if __name__ == "__main__":
    main()
