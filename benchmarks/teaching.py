"""Does teaching teach? Students with and without it, on the demo's rendered and decoded clips, over several seeds.

    python benchmarks/teaching.py [--folder bench-teaching] [--seeds 1 2 3] [--students alone coarse ...]

One data set and one pre-trained trunk; per seed a teacher, its scores and every student, through the stages that the
command line runs. The checkpoint of every run is chosen on the validation clips and measured on the test clips. Stopped
and given again it goes on. Prints means, sample deviations and differences to the student alone, paired by seed, and
writes them with every single result to FOLDER/teaching.json.
"""

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from teachclip.configs.loading import load_config
from teachclip.configs.schema import Config
from teachclip.stages.demo.pretrain import pretrain
from teachclip.stages.demo.render import render
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.prepare.stage import prepare
from teachclip.stages.score.stage import score
from teachclip.stages.train.stage import train

METRICS = ("r1", "r5", "r10", "sumr")
DEMO = Path(__file__).parents[1] / "configs/demo.yaml"


def losses(infonce: float, coarse: float, fine: float, *more: str) -> list[str]:
    """Overrides for the weights of the three losses."""
    weights = {"infonce": infonce, "coarse": coarse, "fine": fine}
    return [*(f"train.loss.{name}={weight}" for name, weight in weights.items()), *more]


TAUGHT = "train.teachers=[xclip]"
# Everything that a row of the table differs by from configs/demo.yaml.
STUDENTS = {
    "teacher": ["train.network.kind=xclip", "train.max_steps=400", *losses(1, 0, 0)],
    "mean pool": ["train.network.pooling=mean", *losses(1, 0, 0)],
    "alone": losses(1, 0, 0),
    "coarse": [TAUGHT, *losses(0.2, 1, 0)],
    "fine": [TAUGHT, *losses(0.2, 0, 2)],
    "both": [TAUGHT, *losses(0.2, 1, 2)],
    "one-hot": losses(0.2, 1, 0, "train.loss.coarse_target=one-hot"),
    "smoothing": losses(1, 0, 0, "train.loss.label_smoothing=0.1"),
}
# Attempts to make fine teaching help; run when named by --students.
ATTEMPTS = {
    "fine sharp": [TAUGHT, *losses(1, 0, 1, "train.loss.fine_reduction=per-video", "train.loss.fine_temperature=0.05")],
    "fine sharper": [
        TAUGHT, *losses(1, 0, 1, "train.loss.fine_reduction=per-video", "train.loss.fine_temperature=0.02")
    ],
    "fine light": [
        TAUGHT, *losses(1, 0, 0.2, "train.loss.fine_reduction=per-video", "train.loss.fine_temperature=0.05")
    ],
    "both sharp": [
        TAUGHT, *losses(0.2, 1, 0.2, "train.loss.fine_reduction=per-video", "train.loss.fine_temperature=0.05")
    ],
    "fine, AFA slow": [TAUGHT, *losses(0.2, 0, 2, "train.optim.afa_lr=1e-3")],
}  # fmt: skip
CONTROL = "alone"


def config_of(folder: Path, overrides: Sequence[str]) -> Config:
    """The demo's configuration, everything below `folder`."""
    places = {
        "work": folder / "work",
        "data.captions": folder / "captions.csv",
        "train.network.trunk.weights": folder / "trunk.safetensors",
    }
    return load_config(DEMO, [*(f"{key}={value.absolute()}" for key, value in places.items()), *overrides])


def run_seed(folder: Path, seed: int, names: Sequence[str], overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Train the teacher, score with it, train every student; test metrics by name."""
    results = {}
    common = [*overrides, f"train.seed={seed}", f"score.store=scores-{seed}.zarr"]
    teacher = f"runs/teacher-{seed}"
    common.append(f"score.teachers=[{{name: xclip, checkpoint: {teacher}}}]")
    for name in ("teacher", *(name for name in names if name != "teacher")):
        run = f"runs/{name.replace(' ', '-').replace(',', '')}-{seed}"
        config = config_of(folder, [*common, *(STUDENTS | ATTEMPTS)[name], f"train.run={run}", f"evaluate.run={run}"])
        trained = train(config)
        results[name] = {**asdict(evaluate(config))["t2v"], "seconds": trained.seconds, "best": trained.best}
        found = ", ".join(f"{key} {results[name][key]:.1f}" for key in METRICS)
        print(f"seed {seed}, {name}: {found} ({trained.seconds:.0f} s)", flush=True)
        if name == "teacher":
            score(config)
    return results


def summary(results: dict[int, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Mean and sample deviation of every metric, and SumR's differences to the student alone, seed by seed."""
    rows = []
    for name in next(iter(results.values())):
        row: dict[str, Any] = {"student": name}
        for metric in METRICS:
            values = [by_name[name][metric] for by_name in results.values()]
            row[metric] = {"mean": statistics.mean(values), "deviation": deviation(values)}
        if CONTROL in next(iter(results.values())):
            row["sumr_over_alone"] = [by_name[name]["sumr"] - by_name[CONTROL]["sumr"] for by_name in results.values()]
        rows.append(row)
    return rows


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation; not a number for one value."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """One row a student, Markdown."""
    print("\n| student | R@1 | R@5 | R@10 | SumR | SumR over `alone`, per seed |\n|---|---|---|---|---|---|")
    for row in rows:
        cells = [f"{row[metric]['mean']:.1f} ± {row[metric]['deviation']:.1f}" for metric in METRICS]
        over = ", ".join(f"{difference:+.1f}" for difference in row.get("sumr_over_alone", []))
        print(f"| {row['student']} | {' | '.join(cells)} | {over} |")


def main() -> None:
    """Run what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench-teaching"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=[*STUDENTS, *ATTEMPTS])
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    begun = time.perf_counter()
    config = config_of(given.folder, given.overrides)
    render(config.shapes, given.folder)
    prepare(config)
    network = config.train.network
    assert network.trunk.sizes
    pretrain(config.shapes, network.trunk.sizes, network.words, given.folder / "trunk.safetensors")
    results = {seed: run_seed(given.folder, seed, given.students, given.overrides) for seed in given.seeds}
    rows = summary(results)
    print_table(rows)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }
    document = {"machine": machine, "overrides": given.overrides, "seconds": time.perf_counter() - begun}
    path = given.folder / "teaching.json"
    path.write_text(json.dumps({**document, "summary": rows, "results": results}, indent=1))
    print(f"\n{len(results)} seeds, {machine['cores']} cores; {path}")


if __name__ == "__main__":
    main()
