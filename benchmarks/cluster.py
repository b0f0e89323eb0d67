"""Frames and scores by workers of a Ray cluster on this machine, beside the plain commands' processes.

    python benchmarks/cluster.py [--videos 384] [--captions 10] [--repeats 3] [--large] [--out cluster.json]

Clips of 10 seconds (320x240, 25 pictures a second) are drawn, decoded by `prepare`, and scored by an X-CLIP with random
weights (`--large`: ViT-B/32's size), each time into an empty folder:

plain      the stage as the command runs it without --ray: decoding processes on every core; one process that scores
1 worker   `--ray local`, with all of the machine's cores for one worker
2 workers  `--ray local`, with half of the cores for each of two

They take turns `--repeats` times; medians. `up` is what Ray and its workers take until these have said where they are;
the rates are of the seconds after that, in which models are loaded and processes started, as without Ray. The bytes of
all three are compared.
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import machine
from _training_world import LARGE, SMALL
from teachclip.configs.schema import Config
from teachclip.stages.demo.write_h264 import write_h264
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import save_network
from teachclip.stages.prepare.cluster import prepare_on_cluster
from teachclip.stages.prepare.stage import prepare
from teachclip.stages.runtime.cluster import LOCAL, OnCluster
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.score.workers.cluster import score_on_cluster
from teachclip.stages.score.workers.processes import score_by_processes

DRAWN = 16
WAYS = {"plain": 0, "1 worker": 1, "2 workers": 2}


class Clock(Silent):
    """Remembers when the workers were there."""

    def __init__(self) -> None:
        self.begun = self.up = time.perf_counter()

    def warn(self, message: str) -> None:
        print(message, flush=True)

    def info(self, message: str) -> None:
        if message.startswith("Ray: "):
            self.up = time.perf_counter()


def make_clips(root: Path, videos: int, captions: int) -> None:
    """Some clips, each under many names, since decoding them costs the same, and captions of all."""
    random = np.random.default_rng(0)
    (root / "clips").mkdir(parents=True)
    for k in range(min(DRAWN, videos)):
        moving = random.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        frames = np.stack([np.roll(moving, frame // 2, axis=1) for frame in range(250)])
        write_h264(root / f"clips/{k}.mp4", np.repeat(np.repeat(frames, 10, 1), 10, 2), fps=25, preset="ultrafast")
    for k in range(DRAWN, videos):
        shutil.copy(root / f"clips/{k % DRAWN}.mp4", root / f"clips/{k}.mp4")
    with (root / "captions.csv").open("w", newline="") as file:
        rows = ((f"clips/{k}.mp4", f"caption {n} of {k}", "train") for k in range(videos) for n in range(captions))
        csv.writer(file).writerows([("video", "caption", "split"), *rows])


def configuration(root: Path, large: bool, frames: str = "frames", store: str = "scores.zarr") -> Config:
    network = {"kind": "xclip", "trunk": LARGE if large else SMALL, "words": 32, "frames": 12}
    return Config.model_validate(
        {
            "work": root,
            "data": {"captions": root / "captions.csv", "val_fraction": 0},
            "prepare": {"image_size": 224 if large else 64, "shard_videos": 16, "frames": frames},
            "score": {
                "teachers": [{"name": "xclip", "checkpoint": "xclip.safetensors"}],
                "store": store,
                "shard_texts": 64,
                "chance_check": False,
            },
            "train": {"network": network},
        }
    )


def digest(folder: Path) -> str:
    """Of every file that is not temporary."""
    hashed = hashlib.blake2b()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.parts):
            hashed.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return hashed.hexdigest()


def measured(
    count: float, folder: Path, workers: int, plain: Callable[[Any], object], on_ray: Callable[[OnCluster, Any], object]
) -> dict[str, Any]:
    """Seconds of one way of one stage, and what it does in one of them."""
    shutil.rmtree(folder, ignore_errors=True)
    clock = Clock()
    if workers:
        on_ray(OnCluster(LOCAL, {"num_cpus": (os.cpu_count() or 1) // workers}), clock)
    else:
        plain(clock)
    ended = time.perf_counter()
    rate = count / (ended - clock.up)
    return {"seconds": ended - clock.begun, "up": clock.up - clock.begun, "rate": rate, "bytes": digest(folder)}


def main() -> None:
    """Print a table, and write what it is made of."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("videos", 384), ("captions", 10), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_clips(root, asked.videos, asked.captions)
        base = configuration(root, asked.large)
        torch.manual_seed(0)
        save_network(build_network(base.train.network), root / "xclip.safetensors")
        prepare(base)
        pairs = float(asked.videos**2 * asked.captions)
        frames = configuration(root, asked.large, frames="measured")
        scores = configuration(root, asked.large, store="measured.zarr")
        for _ in range(asked.repeats):
            for way, workers in WAYS.items():
                for stage, one in (
                    ("prepare, videos/s", measured(
                        asked.videos, frames.frames_folder, workers,
                        lambda clock: prepare(frames, clock),
                        lambda how, clock: prepare_on_cluster(frames, how, clock),
                    )),
                    ("score, pairs/s", measured(
                        pairs, scores.score_store, workers,
                        lambda clock: score_by_processes(scores, clock),
                        lambda how, clock: score_on_cluster(scores, how, clock),
                    )),
                ):  # fmt: skip
                    runs.setdefault(f"{stage}: {way}", []).append(one)
                    print(f"{stage}: {way}: {one['seconds']:.1f} s, {one['up']:.1f} of them up", flush=True)
    told = report(runs)
    if asked.out:
        load = os.getloadavg()
        asked.out.write_text(json.dumps({"machine": machine(), "load": load, "runs": runs, "medians": told}, indent=1))


def report(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Medians, and whether the bytes are the same."""
    medians = {
        name: {key: statistics.median(one[key] for one in each) for key in ("seconds", "up", "rate")}
        for name, each in runs.items()
    }
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{machine()}, load {load}\n{'':34}{'seconds':>10}{'up':>8}{'rate':>12}{'to plain':>10}")
    for name, one in medians.items():
        plain = medians[f"{name.partition(': ')[0]}: plain"]["rate"]
        print(f"{name:34}{one['seconds']:10.1f}{one['up']:8.1f}{one['rate']:12,.1f}{one['rate'] / plain:10.2f}")
    for stage in sorted({name.partition(": ")[0] for name in runs}):
        kinds = {one["bytes"] for name, each in runs.items() if name.startswith(stage) for one in each}
        print(f"{stage.partition(',')[0]}: {'the same bytes everywhere' if len(kinds) == 1 else 'BYTES DIFFER'}")
    return medians


if __name__ == "__main__":
    main()
