"""What teaching costs: a training step without teachers, with one and three cached, with one and three online.

    python benchmarks/training.py [--batch 120 240] [--rounds 3 --steps 2] [--out training.json]
    make bench-train

All ways train the same student on the same batches, from the same frame cache; the ways take turns, round by round;
medians over rounds. On a GPU: ViT-B/32, 12 frames of 224 pixels, bf16, and the options compile, channels_last,
recompute and resident frames beside, and teachers inside the step in bf16, too; on a CPU a small trunk. Frames,
captions and the three teachers (X-CLIP, TS2-Net, DRL) are random, and made first, below --folder: their numbers do not
matter, their cost is real.

    ms, ratio   of a step, and over that of `no teacher` in the same round
    wait        share of the step in which the loop waited for data
    MB          peak memory: on a GPU of torch's allocator, on a CPU of the resident set, each way in its own process
    matmul      share of the rate of one large matrix product that the step's counted multiplications come to
    published   the published loop, from its description: float pixels normalised on the host, padded frames computed
                like others, one X-CLIP inside the step, BertAdam

Then where the time of a step with three cached teachers goes, by operator.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import machine
from _training_world import KINDS, World
from teachclip.stages.models.clip.pixels import normalise
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.train.dataloader.batch import Batch, BatchLoader
from teachclip.stages.train.dataloader.to_device import on_device
from teachclip.stages.train.run import TrainRun
from teachclip.stages.train.training_data import open_training_data
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

BASE = "no teacher"
CACHED = {"teachers": list(KINDS)}
WAYS: dict[str, dict[str, Any]] = {
    BASE: {"teachers": []},
    "1 cached": {"teachers": [KINDS[0]]},
    "3 cached": CACHED,
    "1 online": {"teachers": [KINDS[0]], "teaching": "online"},
    "3 online": {**CACHED, "teaching": "online"},
    "published": {
        "teachers": [KINDS[0]],
        "teaching": "online",
        "network": {"mask_padding": False},
        "optim": {"optimiser": "bert-adam", "tensor_clip_norm": 1.0},
    },
}
OPTIONS: dict[str, dict[str, Any]] = {
    "1 online, bf16": {"teachers": [KINDS[0]], "teaching": "online", "online_precision": "bf16"},
    "3 online, bf16": {**CACHED, "teaching": "online", "online_precision": "bf16"},
    "3 cached, compile": {**CACHED, "compile": True},
    "3 cached, channels last": {**CACHED, "channels_last": True},
    "3 cached, recompute": {**CACHED, "recompute": True},
    "3 cached, frames resident": {**CACHED, "frames": "device"},
}
WARM = 2
TOP = 12

type Numbers = dict[str, float]


def make_run(world: World, way: str, batch: int) -> TrainRun:
    """A run of one way, ready for its first step."""
    settings = {**WAYS, **OPTIONS}[way]
    config = world.config(run=f"runs/{way.replace(' ', '-')}-{batch}", batch_size=batch, **settings)
    run = TrainRun(config, open_training_data(config, Silent()), RunFolder(config.run_folder), Silent())
    if way == "published":
        run.read = FloatPixels(**vars(run.read))
    run.network.train()
    return run


class FloatPixels(BatchLoader):
    """Gives frames normalised on the host, zeros in padded slots, as the published loader does."""

    def __call__(self, item: tuple[int, np.ndarray]) -> Batch:
        batch = super().__call__(item)
        pixels = normalise(batch.frames.flatten(0, 1), torch.float32).view(batch.frames.shape)
        return replace(batch, frames=pixels * batch.mask[..., None, None, None])


def take_steps(run: TrainRun, first: int, count: int) -> tuple[float, float]:
    """Seconds of a step, and of them those that it waited for data; the first of `count` + 1 steps is not counted."""
    with run.batches(first, first + count + 1) as ahead:
        batches = on_device(ahead, run.device)
        run.step(next(batches))
        _finish(run)
        begun, waited = time.perf_counter(), batches.waited
        for batch in batches:
            run.step(batch)
        _finish(run)
        return (time.perf_counter() - begun) / count, (batches.waited - waited) / count


def _finish(run: TrainRun) -> None:
    if run.device.type == "cuda":
        torch.cuda.synchronize()


def measure(world: World, ways: Sequence[str], batch: int, rounds: int, steps: int) -> dict[str, Numbers]:
    """Medians of every way, the ways taking turns; every run stays in memory, so that none is warmed up anew."""
    runs = {way: make_run(world, way, batch) for way in ways}
    for run in runs.values():
        take_steps(run, 0, WARM)
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for number in range(rounds):
        for way, run in runs.items():
            times[way].append(take_steps(run, WARM + 1 + number * (steps + 1), steps))
    flops = {way: count_flops(run) for way, run in runs.items()}
    rate = matmul_rate(runs[BASE].device)
    return {
        way: {
            "ms": 1e3 * statistics.median(seconds for seconds, _ in times[way]),
            "ratio": statistics.median(own / base for (own, _), (base, _) in zip(times[way], times[BASE], strict=True)),
            "wait": statistics.median(waited / seconds for seconds, waited in times[way]),
            "gflop": flops[way] / 1e9,
            "matmul": flops[way] / rate / statistics.median(seconds for seconds, _ in times[way]),
            "mb": memory(world, way, batch),
        }
        for way in ways
    }


def count_flops(run: TrainRun) -> float:
    """Of a step: two for each multiply-add of matrix products, convolutions and attention, forward and backward."""
    batch = run.read(next(run.sampler.steps(0, 1)))
    with FlopCounterMode(display=False) as counter:
        run.step(batch)
    return float(counter.get_total_flops())


def matmul_rate(device: torch.device) -> float:
    """FLOP a second of one large matrix product in the precision that the step uses."""
    size, kind = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    times = []
    for _ in range(10):
        begun = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return float(2 * size**3 / statistics.median(times))


def memory(world: World, way: str, batch: int) -> float:
    """Peak megabytes of a few steps, in a process of its own."""
    command = [sys.executable, __file__, "--folder", str(world.folder), "--videos", str(world.videos)]
    command += ["--memory-of", way, "--batch", str(batch), *(["--large"] if world.large else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"measuring the memory of {way!r} failed:\n{done.stderr}")
    return float(done.stdout.split()[-1])


def print_memory(world: World, way: str, batch: int) -> None:
    """What the process of `memory` prints: peak megabytes."""
    run = make_run(world, way, batch)
    take_steps(run, 0, WARM)
    if run.device.type == "cuda":
        print(torch.cuda.max_memory_allocated() / 1e6)
    else:  # not getrusage's: that one begins with what the parent had
        lines = Path("/proc/self/status").read_text().splitlines()
        print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3)


def where_time_goes(world: World, batch: int) -> dict[str, float]:
    """Share of a step's time on the device, by operator, of the `TOP` that take most."""
    run = make_run(world, "3 cached", batch)
    take_steps(run, 0, WARM)
    on_gpu = run.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiled:
        take_steps(run, WARM + 1, 2)
    spent = {
        event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total
        for event in profiled.key_averages()
    }
    total = sum(spent.values())
    most = sorted(spent, key=lambda key: -spent[key])[:TOP]
    return {key: spent[key] / total for key in most}


def print_table(found: dict[str, dict[str, Numbers]]) -> None:
    """A row a way."""
    for name, ways in found.items():
        print(f"\n{name}\n| way | ms | ratio | wait % | MB | over none | GFLOP | matmul % | published's speed |")
        print("|---" * 9 + "|")
        for way, numbers in ways.items():
            over = numbers["mb"] / ways[BASE]["mb"]
            times = f"{ways['published']['ms'] / numbers['ms']:.2f}x" if "published" in ways else "-"
            print(
                f"| {way} | {numbers['ms']:.1f} | {numbers['ratio']:.3f} | {100 * numbers['wait']:.2f} | "
                f"{numbers['mb']:.0f} | {over:.3f} | {numbers['gflop']:.0f} | {100 * numbers['matmul']:.0f} | {times} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[120, 240])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="of a round, after one that is not counted")
    parser.add_argument("--videos", type=int, default=512, help="with two captions each")
    parser.add_argument("--ways", nargs="+", choices=[*WAYS, *OPTIONS], help="by default all; the options on a GPU")
    parser.add_argument("--large", action="store_true", help="ViT-B/32, 224 pixels, on a CPU too")
    parser.add_argument("--folder", type=Path, help="below which everything is made and kept; else it is removed")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as temporary:
        world = World(chosen.folder or Path(temporary), chosen.videos, chosen.large or on_gpu)
        if chosen.memory_of:
            print_memory(world, chosen.memory_of, chosen.batch[0])
            return
        world.make()
        ways = chosen.ways or [*WAYS, *(OPTIONS if on_gpu else [])]
        ways = [BASE, *(way for way in ways if way != BASE)]
        load = [os.getloadavg()[0]]
        found = {
            f"batch of {batch}": measure(world, ways, batch, chosen.rounds, chosen.steps) for batch in chosen.batch
        }
        load.append(os.getloadavg()[0])
        shares = where_time_goes(world, chosen.batch[-1])
    device = torch.cuda.get_device_name() if on_gpu else machine()
    print(f"{device}; load {load[0]:.1f} to {load[1]:.1f}; torch {torch.__version__}; {chosen.videos} videos")
    print_table(found)
    print(f"\nwhere a step with three cached teachers goes, batch of {chosen.batch[-1]}")
    for name, share in shares.items():
        print(f"  {100 * share:5.1f} %  {name[:90]}")
    if chosen.out:
        facts = {"machine": device, "load": load, "videos": chosen.videos, "steps": found, "shares": shares}
        chosen.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
