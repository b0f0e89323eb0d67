"""Do blocks of videos cost learning? A taught student from a dense store and from blocks, over several seeds.

    python benchmarks/blocks_learning.py [--folder bench-teaching] [--draws 7:1 7:2 7:3] [--block-videos 250 125]

The clips, trunk and teachers of benchmarks/teaching.py, in the same folder: what that has made is not made again. The
student has 1,000 clips with five captions each. Per draw the teacher scores all pairs (dense), and the pairs within
blocks; one student learns from each. They differ in nothing but which captions can meet in a batch, and in what order
batches come. Checkpoints are chosen on the validation clips and measured on the test clips. Stopped and given again it
goes on. Prints SumR of every draw and differences to dense, and writes them to FOLDER/blocks_learning.json.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _machine import machine
from _teaching_data import Draw, Own, World
from teaching import STEPS, TAUGHT

DENSE = "dense"
OWN = Own(1000, 5)


def layouts(block_videos: Sequence[int]) -> dict[str, tuple[str, ...]]:
    """By name, what a row of the table differs by."""
    blocks = {f"blocks of {count}": ("score.layout=blocks", f"score.block_videos={count}") for count in block_videos}
    return {DENSE: ("score.layout=dense",), **blocks}


def run_draw(world: World, student: str, rows: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """Per layout score with the teacher and train a student; test metrics by layout."""
    world.make()
    world.teacher()
    captions, results = world.own(OWN), {}
    for name, layout in rows.items():
        label = f"{OWN}-{student}-{name.replace(' ', '-')}"
        more = (*layout, *world.scores(captions, label, overrides=layout))
        results[name] = world.trained(captions, label, (*more, *STEPS, *TAUGHT[student]))
        print(f"{world.draw} {name}: SumR {results[name]['t2v']['sumr']:.1f}", flush=True)
    return results


def main() -> None:
    """Run what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench-teaching"))
    parser.add_argument("--draws", type=Draw.parsed, nargs="+", default=[Draw(7, seed) for seed in (1, 2, 3)])
    parser.add_argument("--block-videos", type=int, nargs="+", default=[250, 125])
    parser.add_argument("--student", default="both", choices=["both", "coarse"])
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    rows = layouts(given.block_videos)
    overrides = tuple(given.overrides)
    results = {str(draw): run_draw(World(given.folder, draw, overrides), given.student, rows) for draw in given.draws}
    print(f"\n| layout | {' | '.join(results)} | mean | over dense, per draw |\n{'|---' * (len(results) + 3)}|")
    for name in rows:
        sumr = [one[name]["t2v"]["sumr"] for one in results.values()]
        over = [one[name]["t2v"]["sumr"] - one[DENSE]["t2v"]["sumr"] for one in results.values()]
        values, differences = (" | ".join(f"{value:.1f}" for value in sumr), ", ".join(f"{each:+.1f}" for each in over))
        print(f"| {name} | {values} | {statistics.mean(sumr):.1f} | {differences} |")
    path = given.folder / "blocks_learning.json"
    document = {"machine": machine(), "student": given.student, "overrides": given.overrides, "results": results}
    path.write_text(json.dumps(document, indent=1))
    print(f"\n{machine()}; {path}")


if __name__ == "__main__":
    main()
