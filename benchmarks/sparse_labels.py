"""What do sparse labels cost learning? A student taught by every score of a teacher, or by few of each caption.

    python benchmarks/sparse_labels.py [--folder bench-teaching] [--draws 7:1 7:2 7:3] [--top 6 12 25 50 100]

The clips, trunk and teachers of benchmarks/teaching.py, in the same folder: what that has made is not made again. 400
clips have one caption each. A re-ranker would score, of each caption, the videos that another teacher finds best: here
X-CLIP's own scores stand in for its, and the candidates are those of a student alone (`alone`), as a weak first stage
would choose them, or X-CLIP's own (`itself`). Students learn by the coarse loss alone, and differ in nothing but which
scores are there. The last column is how many of a batch's videos a caption has scores of. Checkpoints are chosen on the
validation clips and measured on the test clips. Prints SumR of every draw and differences to dense, and writes them to
FOLDER/sparse_labels.json.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _machine import machine
from _teaching_data import Draw, Own, World, losses, taught_steps
from teachclip.cache.scores.reading.tile_rows import TileRows
from teachclip.cache.scores.shard import write_shard
from teachclip.cache.scores.store import SPARSE, ScoreStore
from teachclip.cache.scores.tile import Tile, TileContents

OWN = Own(400, 1)
DENSE, BATCH = "dense", 64
COARSE = losses(0.2, 1, 0, "data.unlabelled=null")
ALONE_STEPS = ("train.teachers=[]", *losses(1, 0, 0), "train.max_steps=100", "train.validate_every=4")


def every_score(store: Path, teacher: str) -> tuple[Tile, np.ndarray]:
    """A teacher's only tile, and its scores [T, V]."""
    (tile,) = ScoreStore.open(store).teacher(teacher).tiles
    return tile, TileRows(tile).scores(np.arange(tile.spec.texts))


def keep(source: Path, target: Path, chooser: str, top: int) -> None:
    """X-CLIP's scores of the `top` videos that `chooser` finds best, and of the own one, as a store of their own."""
    tile, scores = every_score(source, "xclip")
    _, by = every_score(source, chooser)
    kept = np.zeros(scores.shape, bool)
    np.put_along_axis(kept, np.argsort(-by, axis=1, kind="stable")[:, :top], True, axis=1)
    kept[np.arange(len(kept)), tile.text_video] = True
    dense = ScoreStore.open(source).teacher("xclip")
    identity = {**dense.identity, SPARSE: top, "chosen by": chooser}
    store = ScoreStore.create(target)
    if "xclip" in store.teachers:
        return
    cache = store.create_teacher("xclip", identity, dense.scale, "float32", dense.frames, False)
    keys = [
        list(zip(ids, map(bytes, digests), strict=True))
        for ids, digests in ((tile.text_ids, tile.text_digests), (tile.video_ids, tile.video_digests))
    ]
    made = cache.create_tile("dense", TileContents(*keys, tile.text_video, tile.frame_times), len(kept))
    write_shard(made, 0, np.where(kept, scores, np.float32(np.nan)), None)


def run_draw(world: World, tops: Sequence[int]) -> dict[str, Any]:
    """One student by all scores, and one for each choice of some; test metrics by name."""
    world.make()
    world.teacher()
    captions = world.own(OWN)
    world.trained(captions, f"{OWN}-chooser", ALONE_STEPS)
    teachers = {"xclip": world.run("teacher"), "alone": world.run(f"{OWN}-chooser")}
    told = world.scores(captions, f"{OWN}-sparse-of", teachers, ("data.unlabelled=null", "score.coarse=float32"))
    work = world.config(captions, told).work
    source = world.config(captions, told).score_store
    assert isinstance(source, Path)
    results: dict[str, Any] = {}
    rows = [(DENSE, None, 0), *((f"{by} {top}", by, top) for by in ("alone", "itself") for top in tops)]
    for name, by, top in rows:
        store = source
        if by is not None:
            store = work / f"{source.stem}-{name.replace(' ', '-')}.zarr"
            keep(source, store, "xclip" if by == "itself" else by, top)
        run = f"{OWN}-sparse-{name.replace(' ', '-')}"
        more = (f"score.store={store}", "train.teachers=[xclip]", *taught_steps(OWN), *COARSE)
        results[name] = world.trained(captions, run, more)
        print(f"{world.draw} {name}: SumR {results[name]['t2v']['sumr']:.1f}", flush=True)
    return results


def scored_in_a_batch(name: str) -> float:
    """How many of a batch's videos a caption has scores of, on average."""
    top = OWN.clips if name == DENSE else int(name.split()[1])
    return 1 + (BATCH - 1) * min(1.0, top / (OWN.clips - 1))


def main() -> None:
    """Run what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench-teaching"))
    parser.add_argument("--draws", type=Draw.parsed, nargs="+", default=[Draw(7, seed) for seed in (1, 2, 3)])
    parser.add_argument("--top", type=int, nargs="+", default=[6, 12, 25, 50, 100])
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    overrides = tuple(given.overrides)
    results = {str(draw): run_draw(World(given.folder, draw, overrides), given.top) for draw in given.draws}
    print(f"\n| scored | {' | '.join(results)} | mean | over dense, per draw | in a batch |")
    print("|---" * (len(results) + 4) + "|")
    for name in next(iter(results.values())):
        sumr = [one[name]["t2v"]["sumr"] for one in results.values()]
        over = [one[name]["t2v"]["sumr"] - one[DENSE]["t2v"]["sumr"] for one in results.values()]
        values, differences = (" | ".join(f"{value:.1f}" for value in sumr), ", ".join(f"{each:+.1f}" for each in over))
        print(f"| {name} | {values} | {statistics.mean(sumr):.1f} | {differences} | {scored_in_a_batch(name):.1f} |")
    path = given.folder / "sparse_labels.json"
    document = {"machine": machine(), "overrides": given.overrides, "results": results}
    path.write_text(json.dumps(document, indent=1))
    print(f"\n{machine()}; {path}")


if __name__ == "__main__":
    main()
