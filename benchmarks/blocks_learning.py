"""Do blocks of videos cost learning? The demo's taught student from a dense store and from blocks, over several seeds.

    python benchmarks/blocks_learning.py [--folder bench-teaching] [--seeds 1 2 3] [--block-videos 250 125]

The data set, trunk and teachers of benchmarks/teaching.py, in the same folder: what that has made is not made again.
Per seed the teacher scores all pairs (dense), and the pairs within blocks; one student learns from each. They differ in
nothing but which captions can meet in a batch, and in what order batches come. Checkpoints are chosen on the validation
clips and measured on the test clips. Stopped and given again it goes on. Prints means, sample deviations and
differences to dense, paired by seed, and writes them with every result to FOLDER/blocks_learning.json.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from _machine import machine
from teachclip.stages.demo.pretrain import pretrain
from teachclip.stages.demo.render import render
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.prepare.stage import prepare
from teachclip.stages.score.stage import score
from teachclip.stages.train.stage import train
from teaching import METRICS, STUDENTS, config_of, deviation

DENSE = "dense"


def layouts(block_videos: Sequence[int]) -> dict[str, list[str]]:
    """By name, what a row of the table differs by."""
    blocks = {f"blocks of {count}": ["score.layout=blocks", f"score.block_videos={count}"] for count in block_videos}
    return {DENSE: ["score.layout=dense"], **blocks}


def run_seed(
    folder: Path, seed: int, student: str, rows: dict[str, list[str]], overrides: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Train the teacher, and per layout score with it and train a student; test metrics by layout."""
    teacher = f"runs/teacher-{seed}"
    common = [*overrides, f"train.seed={seed}", f"score.teachers=[{{name: xclip, checkpoint: {teacher}}}]"]
    train(config_of(folder, [*common, *STUDENTS["teacher"], f"train.run={teacher}", "score.layout=dense"]))
    results = {}
    for name, own in rows.items():
        label = name.replace(" ", "-")
        run = f"runs/{student}-{label}-{seed}"
        places = [f"score.store=scores-{label}-{seed}.zarr", f"train.run={run}", f"evaluate.run={run}"]
        config = config_of(folder, [*common, *STUDENTS[student], *own, *places])
        (scored,) = score(config).teachers
        trained = train(config)
        results[name] = {**asdict(evaluate(config))["t2v"], "blocks": trained.blocks, "best": trained.best}
        results[name] |= {"new_pairs": scored.new_pairs, "seconds": trained.seconds}
        found = ", ".join(f"{key} {results[name][key]:.1f}" for key in METRICS)
        print(f"seed {seed}, {name}: {found} ({trained.blocks} blocks, {trained.seconds:.0f} s)", flush=True)
    return results


def summary(results: dict[int, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Mean and sample deviation of every metric, and SumR's differences to dense, seed by seed."""
    rows = []
    for name, one in next(iter(results.values())).items():
        row: dict[str, Any] = {"layout": name, "blocks": one["blocks"]}
        for metric in METRICS:
            values = [by_name[name][metric] for by_name in results.values()]
            row[metric] = {"mean": statistics.mean(values), "deviation": deviation(values)}
        row["sumr_over_dense"] = [by_name[name]["sumr"] - by_name[DENSE]["sumr"] for by_name in results.values()]
        rows.append(row)
    return rows


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """One row a layout, Markdown."""
    heads = ("layout", "blocks", "R@1", "R@5", "R@10", "SumR", "SumR over dense, per seed")
    print(f"\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for row in rows:
        cells = [f"{row[metric]['mean']:.1f} ± {row[metric]['deviation']:.1f}" for metric in METRICS]
        over = ", ".join(f"{difference:+.1f}" for difference in row["sumr_over_dense"])
        print(f"| {row['layout']} | {row['blocks']} | {' | '.join(cells)} | {over} |")


def main() -> None:
    """Run what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench-teaching"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--block-videos", type=int, nargs="+", default=[250, 125])
    parser.add_argument("--student", default="both", choices=["both", "coarse"])
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    config = config_of(given.folder, given.overrides)
    render(config.shapes, given.folder)
    prepare(config)
    network = config.train.network
    assert network.trunk.sizes
    pretrain(config.shapes, network.trunk.sizes, network.words, given.folder / "trunk.safetensors")
    chosen = layouts(given.block_videos)
    results = {seed: run_seed(given.folder, seed, given.student, chosen, given.overrides) for seed in given.seeds}
    rows = summary(results)
    print_table(rows)
    path = given.folder / "blocks_learning.json"
    document = {"machine": machine(), "student": given.student, "overrides": given.overrides}
    path.write_text(json.dumps({**document, "summary": rows, "results": results}, indent=1))
    print(f"\n{len(results)} seeds; {path}")


if __name__ == "__main__":
    main()
