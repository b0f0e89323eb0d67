"""The store of vectors at size: what opening, asking, filtering, adding and deleting take.

    python benchmarks/library.py [--windows 200000] [--width 512] [--lists] [--out library.json]

Windows are of videos in 40 folders, 50 a video, with random unit vectors and those of 12 frames. `open`: a library
whose matrix is there. `first`: the first question, for which the exact index is filled. Questions, filters: medians of
30, other vectors each; a filter lets a fortieth of the windows through. `frames`: those of ten windows, as an answer
looks them up. `bandwidth`: what reading the float16 matrix once would take at the speed of a copy in this run. Added
and deleted: 1,000 windows of 20 videos, a transaction a video, or one for all. `refresh`: an open library takes that
up. `anew`: the matrix made from the database alone. All on one thread.

With --lists: search through lists instead (cache/library/lists.py), whatever the size. Windows lie around the vector of
their video, videos around one of 500 topics, questions as far from windows as sentences do. `lists`: k-means, putting
windows in lists, measuring. `recall said`: what the library says; `recall`: of the ten nearest, of 200 other questions.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from _machine import machine
from teachclip.cache.library import library as of_library
from teachclip.cache.library import lists
from teachclip.cache.library.library import Library
from teachclip.cache.library.rows import Model, NewWindow, Video
from teachclip.cache.library.writer import LibraryWriter

FOLDERS, PER_VIDEO, REPEATS, ADDED = 40, 50, 30, 20


def unit(random: np.random.Generator, count: int, width: int) -> np.ndarray:
    rows = random.normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def put(writer: LibraryWriter, path: Path, vectors: np.ndarray, number: int) -> int:
    """A video with a window a vector."""
    times, weights = np.arange(12) * 2.5, np.full(12, 1 / 12)
    windows = [
        NewWindow(15.0 * k, 15.0 * k + 30, 15.0 * k + times, weights, row, np.tile(row, (12, 1)))
        for k, row in enumerate(vectors)
    ]
    stamp = number.to_bytes(16, "little")
    return writer.keep(Video(0, str(path), number, number, stamp, 15.0 * len(vectors), "ok", "", 2), windows)


def timed(work: Callable[[], Any], repeats: int = 1) -> float:
    """Median seconds."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def measured(root: Path, count: int, width: int) -> dict[str, Any]:
    random, model = np.random.default_rng(0), Model("random", "0" * 64, width, 12)
    index, videos = root / "index", count // PER_VIDEO
    paths = [root / f"clips/{k % FOLDERS:02d}/{k:06d}.mp4" for k in range(videos)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    result: dict[str, Any] = {"windows": count, "width": width}
    with LibraryWriter.claim(index, model) as writer:
        began = time.perf_counter()
        for number, path in enumerate(paths):
            put(writer, path, unit(random, PER_VIDEO, width), number)
        result["filled_s"] = time.perf_counter() - began
        result["anew_s"] = timed(writer.finish)
    result["open_s"] = timed(lambda: Library.open(index).close(), 5)
    library = Library.open(index)
    result["first_s"] = timed(lambda: library.search(unit(random, 1, width)[0], 10))
    result["query_ms"] = 1e3 * timed(lambda: library.search(unit(random, 1, width)[0], 10), REPEATS)
    folder = root / "clips/07"
    rows = random.permutation(library.rows)[: 10 * REPEATS].reshape(REPEATS, -1)
    asked = iter(rows.tolist())
    result["frames_ms"] = 1e3 * timed(lambda: library.frames(next(asked)), REPEATS)
    result["prefix_select_ms"] = 1e3 * timed(lambda: library.select(under=folder), REPEATS)
    result["prefix_query_ms"] = 1e3 * timed(
        lambda: library.search(unit(random, 1, width)[0], 10, under=folder), REPEATS
    )
    matrix = np.ascontiguousarray(library.matrix())
    result["bandwidth_ms"] = 1e3 * timed(lambda: matrix.copy(), 5) / 2  # a copy reads and writes
    with LibraryWriter.claim(index, model) as writer:
        more = [unit(random, PER_VIDEO, width) for _ in range(ADDED + 1)]
        ids: list[int] = []

        def add() -> None:
            ids.extend(put(writer, root / f"new/{k}.mp4", rows, 10**7 + k) for k, rows in enumerate(more[:ADDED]))

        result["added_by_video_ms"] = 1e3 * timed(add)
        one = np.concatenate(more[:ADDED])
        result["added_at_once_ms"] = 1e3 * timed(lambda: put(writer, root / "new/long.mp4", one, 10**8))
        result["refresh_s"] = timed(library.refresh)
        result["deleted_ms"] = 1e3 * timed(lambda: writer.remove(ids))
        result["refresh_after_s"] = timed(library.refresh)
    library.close()
    result["disk_mb"] = sum(path.stat().st_size for path in index.iterdir()) / 1e6
    return result


def through_lists(root: Path, count: int, width: int) -> dict[str, Any]:
    random, model = np.random.default_rng(0), Model("random", "0" * 64, width, 12)
    lists.EXACT_UP_TO = of_library.EXACT_UP_TO = 0
    topics = unit(random, 500, width)
    with LibraryWriter.claim(root / "index", model) as writer:
        for number in range(count // PER_VIDEO):
            around = topics[number % len(topics)] + unit(random, 1, width)[0] + 0.7 * unit(random, PER_VIDEO, width)
            put(writer, root / f"{number}.mp4", around / np.linalg.norm(around, axis=1, keepdims=True), number)
        began = time.perf_counter()
        kept = writer.finish()
        seconds = time.perf_counter() - began
    assert kept is not None
    with Library.open(root / "index") as library:
        near = library.matrix()[random.choice(count, 200)].astype(np.float32)
        asked = lists.turned(near, random)
        began = time.perf_counter()
        nearest(library, asked[0])
        first = time.perf_counter() - began
        hits = [len(nearest(library, vector) & nearest(library, vector, True)) for vector in asked]
        some = iter(np.concatenate([asked, asked]))
        return {
            "windows": count,
            "width": width,
            "lists": len(kept.centres),
            "probes": kept.probes,
            "lists_s": seconds,
            "first_s": first,
            "exact_ms": 1e3 * timed(lambda: nearest(library, next(some), True), REPEATS),
            "query_ms": 1e3 * timed(lambda: nearest(library, next(some)), REPEATS),
            "recall_said": kept.recall,
            "recall": sum(hits) / 2000,
        }


def nearest(library: Library, vector: np.ndarray, exact: bool = False) -> set[int]:
    """Numbers of the ten nearest windows, by the index alone: what is read of them from the database is not counted."""
    state = library._searchable()
    return {row for row, _ in of_library._nearest(state, vector.astype(np.float32), 10, None, exact)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, nargs="+", default=[200_000])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--lists", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    faiss.omp_set_num_threads(1)
    runs = []
    for count in given.windows:
        with tempfile.TemporaryDirectory() as name:
            runs.append((through_lists if given.lists else measured)(Path(name), count, given.width))
    result = {"machine": machine(), "load": os.getloadavg()[0], "runs": runs}
    if given.out:
        given.out.write_text(json.dumps(result, indent=1))
    print(f"{result['machine']}, load {result['load']:.1f}")
    for name in runs[0]:
        print(f"{name:>18} " + " ".join(f"{run[name]:12,.3f}" for run in runs))


if __name__ == "__main__":
    main()
