"""What videos without captions cost a step: 64 pairs alone, with 128 such videos beside them, and with 128 pairs more.

    python benchmarks/unlabelled.py [--pairs 64] [--unlabelled 128] [--rounds 5 --steps 2]

All ways train the same student, taught by one cached X-CLIP by both losses, from one frame cache: the whole network,
and with the visual trunk frozen. They take turns, round by round; medians over rounds, and of the ratios within a
round. On a GPU ViT-B/32, 12 frames of 224 pixels, bf16, in time; on a CPU the demo's network, in the process's own
processor time, which does not count what else the machine does. Everything is random.
"""

import argparse
import csv
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import machine
from _training_world import World
from teachclip.configs.loading import load_config
from teachclip.configs.loading.load import named
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.train.dataloader.to_device import on_device
from teachclip.stages.train.run import TrainRun
from teachclip.stages.train.training_data import open_training_data

WARM = 2


class HalfCaptioned(World):
    """A world in which only the first `captioned` videos have captions."""

    kinds = ("xclip",)
    data = {"uncaptioned": "train"}  # noqa: RUF012

    def __init__(self, folder: Path, captioned: int, further: int, large: bool) -> None:
        super().__init__(folder, captioned + further, large)
        self.captioned = captioned

    def _captions(self, rng: np.random.Generator) -> None:
        super()._captions(rng)
        path = self.folder / "captions.csv"
        with path.open(newline="") as file:
            head, *rows = csv.reader(file)
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([head, *rows[: 2 * self.captioned]])
            csv.writer(file).writerows((video, "", split) for video, _, split in rows[2 * self.captioned :: 2])


def demo() -> dict[str, Any]:
    """The demo's network and optimiser."""
    settings = load_config(named("demo")).train
    network = settings.network.model_dump(include={"words", "temporal_layers"})
    return {"network": network | {"trunk": {"sizes": settings.network.trunk.sizes, "weights": None}},
            "optim": settings.optim}  # fmt: skip


def make_run(world: World, trunk: str, pairs: int, unlabelled: int) -> TrainRun:
    """A run, ready for its first step."""
    name = f"runs/{trunk}-{pairs}-{unlabelled}"
    settings = {} if world.large else demo()
    config = world.config(
        run=name, batch_size=pairs, unlabelled=unlabelled, trunk=trunk, teachers=["xclip"], **settings
    )
    run = TrainRun(config, open_training_data(config, Silent()), RunFolder(config.run_folder), Silent())
    run.network.train()
    return run


def take_steps(run: TrainRun, first: int, count: int) -> float:
    """Seconds of a step; the first of `count` + 1 steps is not counted."""
    on_gpu = run.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    with run.batches(first, first + count + 1) as ahead:
        begun = 0.0
        for number, batch in enumerate(on_device(ahead, run.device)):
            run.step(batch)
            if on_gpu and number in (0, count):
                torch.cuda.synchronize()
            begun = begun or clock()
    return (clock() - begun) / count


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    for name, default in (("pairs", 64), ("unlabelled", 128), ("rounds", 5), ("steps", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    large = torch.cuda.is_available()
    b, u = asked.pairs, asked.unlabelled
    sizes = {f"{b} pairs": (b, 0), f"{b} pairs + {u} videos": (b, u), f"{b + u} pairs": (b + u, 0)}
    with tempfile.TemporaryDirectory() as folder:
        world = HalfCaptioned(Path(folder), 2 * (b + u), 4 * u, large)
        world.make()
        ways = {
            (trunk, name): make_run(world, trunk, *size) for trunk in ("full", "frozen") for name, size in sizes.items()
        }
        for run in ways.values():
            take_steps(run, 0, WARM)
        times: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
        for number in range(asked.rounds):
            for way, run in ways.items():
                times[way].append(take_steps(run, WARM + 1 + number * (asked.steps + 1), asked.steps))
    print(f"{torch.cuda.get_device_name() if large else machine()}; medians of {asked.rounds} rounds")
    print(f"{'trunk':8}{'a step':28}{'ms':>9}{'ratio':>8}")
    for (trunk, name), seconds in times.items():
        alone = times[trunk, f"{b} pairs"]
        ratio = statistics.median(own / base for own, base in zip(seconds, alone, strict=True))
        print(f"{trunk:8}{name:28}{1e3 * statistics.median(seconds):9.1f}{ratio:8.2f}")


if __name__ == "__main__":
    main()
