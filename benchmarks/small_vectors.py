"""Small vectors: what is found, beside the bytes that a video takes.

    python benchmarks/small_vectors.py [--folder bench-teaching] [--draws 2024:1 7:1] [--out small-vectors.json]

Two students of the demo's, one taught and one that had the teacher's clips, each trained as it is and once more with
`train.loss.matryoshka: [32, 16, 8]`, seed and budget the same. Their vectors of the test clips are cut to each width,
kept as float16 as an index does, or as signs alone: one bit a number, compared by how many agree; then the best
K by their signs are compared by whole vectors again. SumR text to video, the mean of the draws (and of each).
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import machine
from _teaching_data import OWN as OWN_CAPTIONS
from _teaching_data import THEIRS, Draw, World, losses
from _test_split import TestSplit, Vectors
from teachclip.stages.models.named import named_model
from teaching import OWN, TAUGHT, taught

WIDTHS = (64, 32, 16, 8)
NESTED = f"train.loss.matryoshka=[{', '.join(map(str, WIDTHS[1:]))}]"
SHORTLISTS = (10, 20, 40, 80)


def students(world: World) -> dict[str, str]:
    """Trained, as far as they are not there yet: run folders by name."""
    runs = {}
    world.teacher()
    for suffix, more in (("", ()), (" nested", (NESTED,))):
        taught(world, OWN, f"coarse{suffix}", (*TAUGHT["coarse"], *more))
        runs[f"taught{suffix}"] = f"{OWN}-coarse{suffix.replace(' ', '-')}"
        steps = ("train.teachers=[]", "train.max_steps=600", "train.validate_every=1")
        run = f"reference{suffix.replace(' ', '-')}"
        world.trained(THEIRS, run, (*losses(1, 0, 0), *steps, *more))
        runs[f"with the teacher's clips{suffix}"] = run
    return runs


def encoded(world: World, run: str, split: TestSplit) -> tuple[Vectors, Vectors]:
    """Vectors float32 of captions [T, D] and videos [V, D]."""
    model = named_model(world.config(OWN_CAPTIONS, (f"search.run=runs/{run}-{world.draw.train}",)).search_run)
    network = model.network

    def encode(frames: np.ndarray, mask: np.ndarray) -> Vectors:
        return network.encode_videos(torch.from_numpy(frames), torch.from_numpy(mask))["vector"].numpy()

    with torch.no_grad():
        texts = network.encode_texts(model.tokenize(split.captions)[0])["vector"].numpy()
        return texts, split.videos(encode)


def cut(vectors: Vectors, width: int) -> Vectors:
    """The first numbers of unit vectors, of unit length again."""
    short = vectors[:, :width]
    return short / np.linalg.norm(short, axis=1, keepdims=True)


def agreeing(texts: Vectors, videos: Vectors) -> Vectors:
    """How many signs agree, less how many do not [T, V]: D - 2 x the Hamming distance."""
    return np.where(texts > 0, 1, -1).astype(np.float32) @ np.where(videos > 0, 1, -1).astype(np.float32).T


def rescored(signs: Vectors, whole: Vectors, count: int) -> Vectors:
    """Scores [T, V] whose first `count` of each text by `signs` come in the order of `whole`."""
    found = signs - 1e3
    first = np.argsort(-signs, axis=1, kind="stable")[:, :count]
    np.put_along_axis(found, first, np.take_along_axis(whole, first, axis=1), axis=1)
    return found


def ways(texts: Vectors, videos: Vectors, split: TestSplit) -> Iterator[tuple[str, int, float]]:
    """Per way of keeping vectors: what it is, bytes a video that are searched, SumR."""
    whole = texts @ videos.T
    yield f"{videos.shape[1]} float32", 4 * videos.shape[1], split.sumr(whole)
    for width in WIDTHS:
        short = cut(videos, width).astype(np.float16).astype(np.float32)
        yield f"{width} float16", 2 * width, split.sumr(cut(texts, width) @ short.T)
    signs = agreeing(texts, videos)
    size = videos.shape[1] // 8
    yield f"{videos.shape[1]} signs", size, split.sumr(signs)
    half = videos.astype(np.float16).astype(np.float32)
    for count in SHORTLISTS:
        yield f"signs, best {count} again", size, split.sumr(rescored(signs, texts @ half.T, count))


def measured(world: World) -> dict[str, dict[str, dict[str, float]]]:
    """Bytes and SumR by way and student."""
    world.make()
    runs = students(world)
    split = TestSplit.of(world.config(OWN_CAPTIONS, ()))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, run in runs.items():
        for way, size, sumr in ways(*encoded(world, run, split), split):
            found.setdefault(way, {})[name] = {"bytes": size, "sumr": sumr}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench-teaching"))
    parser.add_argument("--draws", type=Draw.parsed, nargs="+", default=[Draw.parsed("2024:1")])
    parser.add_argument("--out", type=Path, default=Path("small-vectors.json"))
    given = parser.parse_args()
    results = {str(draw): measured(World(given.folder, draw)) for draw in given.draws}
    first: dict[str, Any] = next(iter(results.values()))
    names = list(next(iter(first.values())))
    print(f"| kept | bytes a video | {' | '.join(names)} |\n" + "|---" * (len(names) + 2) + "|")
    for way, of in first.items():
        sums = [[one[way][name]["sumr"] for one in results.values()] for name in names]
        cells = [
            f"{statistics.mean(each):.1f}" + (f" ({', '.join(f'{x:.1f}' for x in each)})" if len(each) > 1 else "")
            for each in sums
        ]
        print(f"| {way} | {next(iter(of.values()))['bytes']} | {' | '.join(cells)} |")
    given.out.write_text(json.dumps({"machine": machine(), "torch": torch.__version__, "results": results}, indent=1))
    print(f"\n{machine()}, torch {torch.__version__}; {given.out}")


if __name__ == "__main__":
    main()
