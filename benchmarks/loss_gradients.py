"""How strongly does each loss pull? Gradient norms of InfoNCE and of coarse teaching while a student is taught.

    python benchmarks/loss_gradients.py --folder bench-teaching      # a folder of benchmarks/teaching.py, or a new one

Students of the table of weights in docs/guide/teaching.md, at several sizes of one's own captions. Before some steps
both losses' gradients are computed alone, at weight 1, from the same batch. Prints the mean norms and, at each weight
of InfoNCE, its pull as a share of coarse teaching's; writes all of them to FOLDER/loss-gradients.json.
"""

import argparse
import copy
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from _machine import machine
from _teaching_data import Draw, Own, World, losses, taught_steps
from teachclip.configs.schema import Config
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.train.dataloader.batch import Batch
from teachclip.stages.train.dataloader.to_device import on_device
from teachclip.stages.train.run import TrainRun
from teachclip.stages.train.step.optimizer import build_optimizer
from teachclip.stages.train.step.training_step import TrainingStep
from teachclip.stages.train.training_data import TrainingData, open_training_data

SIZES = (Own(200, 1), Own(400, 1), Own(800, 1), Own(1000, 5))
WEIGHTS = (1.0, 0.5, 0.2, 0.05)
LOOKS = (0, 25, 50, 100, 150, 200, 300, 400, 500, 599)  # steps before which it is measured
LOSSES = ("infonce", "coarse")


def norms(config: Config) -> Iterator[dict[str, float]]:
    """Per look the step and the norm of each loss's gradient; trains as `train` does, and keeps nothing."""
    data = open_training_data(config, Silent())
    with tempfile.TemporaryDirectory() as folder:
        run = TrainRun(config, data, RunFolder(Path(folder)), Silent())
        run.network.train()
        with run.batches(0, max(LOOKS) + 1) as batches:
            for batch in on_device(batches, run.device):
                if batch.step in LOOKS:
                    yield {"step": batch.step, **{loss: _norm(run, data, batch, loss) for loss in LOSSES}}
                run.step(batch)


def _norm(run: TrainRun, data: TrainingData, batch: Batch, loss: str) -> float:
    """Of the gradient that this loss alone would give the network as it is, before the clip."""
    alone = {name: float(name == loss) for name in LOSSES} | {"fine": 0.0}
    settings = run.settings.model_copy(update={"loss": run.settings.loss.model_copy(update=alone)})
    network = copy.deepcopy(run.network)
    step = TrainingStep(network, build_optimizer(network, settings.optim, 1), settings, ())
    return float(step(batch).norm)


def row_of(looks: list[dict[str, float]], weight: float) -> dict[str, float]:
    """Means over the looks behind the first, at the network's random start; InfoNCE's pull as a share of coarse's."""
    infonce, coarse = ([one[loss] for one in looks[1:]] for loss in LOSSES)
    shares = [weight * a / b for a, b in zip(infonce, coarse, strict=True)]
    means = {"infonce": statistics.mean(infonce), "coarse": statistics.mean(coarse)}
    return {**means, "share": statistics.mean(shares), "share at the end": statistics.mean(shares[-3:])}


def print_table(rows: Mapping[str, Mapping[str, float]]) -> None:
    """Markdown."""
    print("\n| own clips x captions, weight | InfoNCE | coarse | weighted InfoNCE / coarse | in the last third |")
    print("|---" * 5 + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.3g}" for value in row.values()) + " |")


def main() -> None:
    """Measure one draw and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench-teaching"))
    parser.add_argument("--draw", type=Draw.parsed, default=Draw.parsed("7:1"))
    given = parser.parse_args()
    world = World(given.folder, given.draw)
    world.make()
    world.teacher()
    looks: dict[str, list[dict[str, float]]] = {}
    rows: dict[str, dict[str, float]] = {}
    for own in SIZES:
        captions = world.own(own)
        scored = world.scores(captions, f"{own}-teacher", {"xclip": world.run("teacher")})
        for weight in WEIGHTS:
            name = f"{own}, {weight:g}"
            config = world.config(captions, (*scored, *taught_steps(own), *losses(weight, 1, 0)))
            looks[name] = list(norms(config))
            rows[name] = row_of(looks[name], weight)
            print(name, rows[name], flush=True)
    print_table(rows)
    document = {"machine": machine(), "torch": torch.__version__, "draw": str(given.draw), "rows": rows, "looks": looks}
    (given.folder / "loss-gradients.json").write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
