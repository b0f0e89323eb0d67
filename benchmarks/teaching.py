"""Does teaching teach, when, and by which weights? Students with and without it on the demo's rendered, decoded clips.

    python benchmarks/teaching.py draws      # 400 clips with one caption each: every control, several draws
    python benchmarks/teaching.py curve      # the gain by the number of one's own clips and captions
    python benchmarks/teaching.py weights    # InfoNCE's weight beside that of coarse teaching
    python benchmarks/teaching.py teachers   # several teachers, jointly and by their mean, against each alone
    python benchmarks/teaching.py fine       # frame labels of every kind, and the true frames

A draw is a seed of clips and trunk and a seed of everything else (`--draws 7:1 7:2`). Every network goes through the
stages that the command line runs; its checkpoint is chosen on the validation clips and measured on the test clips. A
student alone has the budget of steps that is best on the validation clips. Stopped and given again it goes on. Prints a
table, and writes it with every single result to FOLDER/teaching-PART.json.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from _fine_teaching import fine
from _machine import machine
from _teaching_data import METRICS, THEIRS, Draw, Own, Results, World, losses, taught_steps, teacher_run
from teachclip.pipeline.report.page.charts import Line, line_chart
from teachclip.pipeline.report.page.elements import Figures, Section
from teachclip.pipeline.report.page.html import colours_of, page, write_page

ALONE = "alone"
DRAWS = ("7:1", "7:2", "7:3", "11:1", "11:2", "11:3")
FRESH = ("20261128:1", "2024:1")
OWN = Own(400, 1)
WIDE = "train.unlabelled=128"
# Everything that a student's row of the table differs by from configs/demo.yaml.
TAUGHT: Mapping[str, tuple[str, ...]] = {
    "coarse": losses(0.2, 1, 0),
    "coarse and uncaptioned": losses(0.2, 1, 0, WIDE),
    "both": losses(0.2, 1, 2),
    "both and uncaptioned": losses(0.2, 1, 2, WIDE),
    "fine": losses(0.2, 0, 2),
}
CONTROLS: Mapping[str, tuple[str, ...]] = {
    "one-hot": losses(0.2, 1, 0, "train.loss.coarse_target=one-hot"),
    "smoothing": losses(1, 0, 0, "train.loss.label_smoothing=0.1"),
}
CURVE_CLIPS, CURVE_TAUGHT = (100, 200, 400, 800, 1600), ("coarse", "coarse and uncaptioned")
BUDGETS = (50, 100, 200)  # of steps, for students without a teacher


def budgets(steps: Sequence[int], own: Own) -> dict[int, tuple[str, ...]]:
    """Per budget what it sets: a checkpoint every quarter of it."""
    epoch = max(1, own.clips * own.captions // 64)
    return {n: (f"train.max_steps={n}", f"train.validate_every={max(1, round(n / 4 / epoch))}") for n in steps}


def best_of(world: World, own: Own, name: str, overrides: Sequence[str], steps: Sequence[int] = BUDGETS) -> Results:
    """A student without a teacher at every budget; `name` is the one that is best on the validation clips."""
    tried = {
        f"{name} {n}": world.trained(
            world.own(own), f"{own}-{_run(name)}-{n}", ("train.teachers=[]", *overrides, *more)
        )
        for n, more in budgets(steps, own).items()
    }
    best = max(tried, key=lambda one: tried[one]["val"])
    return {name: {**tried[best], "budget": best}, **tried}


def taught(world: World, own: Own, name: str, overrides: Sequence[str], teacher: str = "teacher") -> Results:
    """A student that a teacher's scores of its captions teach."""
    captions = world.own(own)
    more = world.scores(captions, f"{own}-{teacher}", {"xclip": world.run(teacher)})
    return {name: world.trained(captions, f"{own}-{_run(name)}", (*more, *taught_steps(own), *overrides))}


def draws(world: World) -> Results:
    """All rows of the first table: 400 clips, one caption each."""
    results: Results = {"X-CLIP teacher": world.teacher()}
    results |= best_of(world, OWN, "mean pooling", (*losses(1, 0, 0), "train.network.pooling=mean"), (100,))
    results |= best_of(world, OWN, ALONE, losses(1, 0, 0))
    results |= best_of(world, OWN, "alone, long", losses(1, 0, 0), (600,))
    for name, overrides in TAUGHT.items():
        results |= taught(world, OWN, name, overrides)
    for name, overrides in CONTROLS.items():
        results |= best_of(world, OWN, name, overrides, (100,))
    own_teacher = (f"train.max_steps={100}", "train.validate_every=4")
    results["teacher of the own clips"] = world.teacher(world.own(OWN), f"{OWN}-own-teacher", own_teacher)
    results |= taught(world, OWN, "coarse by it", TAUGHT["coarse"], f"{OWN}-own-teacher")
    results["with the teacher's clips"] = world.trained(
        THEIRS, "reference", ("train.teachers=[]", *losses(1, 0, 0), "train.max_steps=600", "train.validate_every=1")
    )
    return results


def curve(world: World) -> Results:
    """Alone and taught by the number of one's own clips and captions."""
    world.teacher()
    results: Results = {}
    for own in (*(Own(clips, 1) for clips in CURVE_CLIPS), Own(400, 2), Own(400, 5), Own(1600, 5)):
        steps = (100, 200, 400) if own.clips * own.captions > 800 else BUDGETS
        results |= best_of(world, own, f"{own} {ALONE}", losses(1, 0, 0), steps)
        for name in CURVE_TAUGHT:
            results |= taught(world, own, f"{own} {name}", TAUGHT[name])
    return results


def weights(world: World) -> Results:
    """Coarse teaching by the weight of InfoNCE, at several sizes."""
    world.teacher()
    results: Results = {}
    for own in (Own(200, 1), Own(400, 1), Own(800, 1), Own(1000, 5)):
        results |= best_of(
            world, own, f"{own} {ALONE}", losses(1, 0, 0), (100, 200, 400) if own.captions > 1 else BUDGETS
        )
        for infonce in (1.0, 0.5, 0.2, 0.1, 0.05, 0.0):
            results |= taught(world, own, f"{own} infonce {infonce:g}", losses(infonce, 1, 0))
    return results


def teachers(world: World) -> Results:
    """Coarse teaching by X-CLIP, X-Pool and DRL, each alone, and by all three in three ways."""
    captions, kinds = world.own(OWN), ("xclip", "xpool", "drl")
    results: Results = {f"{kind} teacher": world.teacher_of(kind) for kind in kinds}
    results |= best_of(world, OWN, ALONE, losses(1, 0, 0))
    more = world.scores(captions, f"{OWN}-three", {kind: world.run(teacher_run(kind)) for kind in kinds})
    ways = {f"by {kind}": (f"train.teachers=[{kind}]",) for kind in kinds}
    ways |= {"by the losses' mean": (), "by the losses' sum": ("train.loss.teachers=sum",)}
    for scale in ("raw", "standardised"):
        chosen = ("train.loss.teachers=mean-similarity", f"train.loss.one_scale={scale}")
        ways[f"by the mean similarity, {scale}"] = chosen
    for name, overrides in ways.items():
        overrides = (*more, *taught_steps(OWN), *TAUGHT["coarse"], *overrides)
        results[name] = world.trained(captions, f"{OWN}-{_run(name)}", overrides)
    return results


PARTS: Mapping[str, Callable[[World], Results]] = {
    "draws": draws,
    "curve": curve,
    "weights": weights,
    "teachers": teachers,
    "fine": fine,
}


def _run(name: str) -> str:
    return name.replace(" ", "-").replace(",", "")


def rows_of(results: Mapping[str, Results], way: str) -> list[dict[str, Any]]:
    """Per network SumR of every draw, its mean, and what it is more than the student alone of the same design."""
    rows = []
    for name in next(iter(results.values())):
        values = [one[name][way]["sumr"] for one in results.values()]
        control = _control(name, next(iter(results.values())))
        over = [one[name][way]["sumr"] - one[control][way]["sumr"] for one in results.values()] if control else []
        rows.append({"network": name, "sumr": values, "mean": statistics.mean(values), "over alone": over})
    return rows


def _control(name: str, networks: Container[str]) -> str | None:
    """The student alone that stands beside a network: of the same size or pooling, where a part has several."""
    return next((one for one in (f"{name.split()[0]} {ALONE}", ALONE) if one in networks), None)


def curve_page(results: Mapping[str, Results]) -> str:
    """The curve over clips with one caption each as a page: SumR text to video, the mean over the draws."""
    lines = [
        Line(
            name,
            [
                (clips, statistics.mean(one[f"{clips}x1 {name}"]["t2v"]["sumr"] for one in results.values()))
                for clips in CURVE_CLIPS
            ],
        )
        for name in (ALONE, *CURVE_TAUGHT)
    ]
    chart = line_chart("SumR, text to video, of the student", lines, "own clips, one caption each")
    assert chart
    figures = Figures(charts=[chart], note=f"Rendered clips; draws {', '.join(results)}.")
    sections = [Section("The gain by the number of one's own clips", "figures.html", figures)]
    return page("When does teaching teach?", [], sections, colours_of(chart.names))


def print_table(draws: Sequence[str], rows: Sequence[Mapping[str, Any]], way: str) -> None:
    """One row a network, Markdown."""
    print(f"\nSumR, {way}\n\n| network | {' | '.join(draws)} | mean | over alone, per draw |")
    print("|---" * (len(draws) + 3) + "|")
    for row in rows:
        values = " | ".join(f"{value:.1f}" for value in row["sumr"])
        over = ", ".join(f"{value:+.1f}" for value in row["over alone"])
        mean = f" (mean {statistics.mean(row['over alone']):+.1f})" if over else ""
        print(f"| {row['network']} | {values} | {row['mean']:.1f} | {over}{mean} |")


def main() -> None:
    """Run what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--folder", type=Path, default=Path("bench-teaching"))
    parser.add_argument("--draws", type=Draw.parsed, nargs="+", default=[Draw.parsed(one) for one in (*DRAWS, *FRESH)])
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    begun, results = time.perf_counter(), dict[str, Results]()
    for draw in given.draws:
        world = World(given.folder, draw, tuple(given.overrides))
        world.make()
        results[str(draw)] = PARTS[given.part](world)
        for name, one in results[str(draw)].items():
            print(f"{draw} {name}: {', '.join(f'{key} {one["t2v"][key]:.1f}' for key in METRICS)}", flush=True)
    tables = {way: rows_of(results, way) for way in ("t2v", "v2t")}
    for way, rows in tables.items():
        print_table(list(results), rows, way)
    document = {"machine": machine(), "torch": torch.__version__, "overrides": given.overrides}
    document |= {"seconds": time.perf_counter() - begun, "tables": tables, "results": results}
    path = given.folder / f"teaching-{given.part}.json"
    path.write_text(json.dumps(document, indent=1))
    if given.part == "curve":
        write_page(curve_page(results), path.with_suffix(".html"))
    print(f"\n{machine()}, torch {torch.__version__}; {path}")


if __name__ == "__main__":
    main()
