"""Random batches out of a score store, beside a memory map, HDF5 rows and two-dimensional Zarr chunks; what reading
adds to a training step; and how fast shards are written.

    python benchmarks/score_cache.py [--texts 20480 --videos 9000] [--out score_cache.json]
    python benchmarks/score_cache.py --texts 180000 --videos 9000 --folder /where/14/GB/are/free

Batches: every way holds the same 16-bit codes and gives the same float32 scores [b, b] of b random texts and b random
videos; the ways take turns, each batch is the same for all; medians. The memory map checks nothing; the store checks a
crc32c of every row. Cold: each way's files leave the page cache before each of its batches (posix_fadvise), but not the
caches of a disk or a host below; `disk MB` is what the kernel then fetched for a batch.

Steps: a step of some 100 ms with the labels of 1 and 3 teachers read ahead as training does, by a thread or by a
process of their own (`train.label_reader`), and without. The step is matrix products on one core (the others are left,
as beside a GPU), matrix products on all cores (none is left: what reading takes of them cannot be hidden), or a busy
Python interpreter. The ways take turns step by step, each with a batch to read behind it, in an order that turns too.
`added` is against the same turn's `none`: the median over turns, and its standard error; `none again` shows what cannot
be told from nothing. `labels` is the time until a step has its labels; `blocked` the time that the step's thread
neither ran nor waited for a processor: another thread had the interpreter; `reading` the processors' time that all but
this thread took, above what they take without labels; medians too.

Writing: shards of 1,024 texts, encoded, hashed, written, synced and read back, beside a scorer that is nothing but a
dot product of 512 numbers, and both overlapped as `teachclip score` does it.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _machine import machine
from _score_ways import FRAMES, OURS, SHARD, Way, make_tile, make_ways, open_reader, refuse_full, shards
from teachclip.cache.read_ahead import ReadAhead, read_ahead
from teachclip.cache.scores.reading.label_process import LabelProcess
from teachclip.cache.scores.reading.label_threads import LabelThreads
from teachclip.cache.scores.reading.labels import LabelSource
from teachclip.cache.scores.reading.reader import ScoreReader
from teachclip.cache.scores.shard import write_shard
from teachclip.stages.runtime.background import BackgroundWriter

STEP = 0.1
NONE = "none"
TEACHERS = {NONE: 0, "thread, 1": 1, "thread, 3": 3, "process, 1": 1, "process, 3": 3, "none again": 0}
BATCH = 240
DEPTH = 4
WIDTH = 512
WRITTEN = 8
MOST = 100
PARTS = ("writing", "batches", "steps")

type Numbers = dict[str, float]
type Places = tuple[np.ndarray, np.ndarray]


def _draw(rng: np.random.Generator, texts: int, videos: int, batch: int) -> Places:
    return rng.choice(texts, batch, replace=False), rng.choice(videos, batch, replace=False)


def _disk_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines() if Path("/proc/self/io").exists() else ["read_bytes: 0"]
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def measure_batches(
    ways: dict[str, Way], texts: int, videos: int, batch: int, seconds: float, cold: bool
) -> dict[str, Numbers]:
    """Median milliseconds of a batch and megabytes that the disk gave for it, of every way; each is asked at least
    three times and until it has taken `seconds`."""
    rng = np.random.default_rng([batch, cold])
    times: dict[str, list[float]] = {name: [] for name in ways}
    read: dict[str, list[int]] = {name: [] for name in ways}
    for repeat in range(MOST):
        places = _draw(rng, texts, videos, batch)
        for name, way in ways.items():
            if repeat >= 3 and sum(times[name]) > seconds:
                continue
            if cold:
                way.forget()
            before, begun = _disk_bytes(), time.perf_counter()
            way.gather(*places)
            times[name].append(time.perf_counter() - begun)
            read[name].append(_disk_bytes() - before)
    return {
        name: {
            "ms": 1e3 * statistics.median(times[name]),
            "disk_mb": statistics.median(read[name]) / 1e6,
            "batches": len(times[name]),
        }
        for name in ways
    }


def _matrices(threads: int) -> Callable[[], None]:
    torch.set_num_threads(threads)
    values, out = torch.rand(512, 512), torch.empty(512, 512)

    def products() -> None:
        torch.mm(values, values, out=out)

    return products


def _interpreter() -> Callable[[], None]:
    torch.set_num_threads(1)

    def busy() -> None:
        for _ in range(50_000):
            pass

    return busy


STEP_KINDS: dict[str, Callable[[], Callable[[], None]]] = {
    "matrix products on one core": lambda: _matrices(1),
    "matrix products on all cores": lambda: _matrices(os.cpu_count() or 1),
    "busy interpreter": _interpreter,
}


class Clock:
    """What has passed since it was made: see `read`. Blocked time is 0 where the kernel does not say."""

    def __init__(self, child: int | None) -> None:
        self.path = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self.child = Path(f"/proc/{child}/schedstat")
        self.start = self._now()

    def _now(self) -> np.ndarray:
        wall = time.perf_counter_ns()
        ran = sum(map(int, self.path.read_text().split()[:2])) if self.path.exists() else wall  # or waited to
        others = time.process_time_ns() - time.thread_time_ns()
        others += int(self.child.read_text().split()[0]) if self.child.exists() else 0
        return np.array([wall, wall - ran, others])

    def read(self) -> list[float]:
        """Wall ms, blocked ms, and processors' ms of other threads and the child."""
        passed: list[float] = ((self._now() - self.start) / 1e6).tolist()
        return passed


def _step(work: Callable[[], None], count: int, labels: ReadAhead[Places, object], child: int | None) -> Numbers:
    """Milliseconds of one step: by the wall, blocked, of others, and for labels."""
    clock, waited = Clock(child), labels.waited
    next(labels)
    for _ in range(count):
        work()
    wall, blocked, others = clock.read()
    return {"ms": wall, "blocked_ms": blocked, "reading_ms": others, "labels_ms": 1e3 * (labels.waited - waited)}


def _read(labels: LabelSource) -> Callable[[Places], object]:
    return lambda places: labels.start(*places).result()


def measure_steps(
    work: Callable[[], None], readers: Sequence[ScoreReader], texts: int, videos: int, turns: int
) -> dict[str, Numbers]:
    """What labels add to a step, per way; medians over turns."""
    once = []
    for _ in range(50):
        begun = time.perf_counter()
        work()
        once.append(time.perf_counter() - begun)
    count = max(1, round(STEP / statistics.median(once)))
    rng = np.random.default_rng(0)
    batches = [_draw(rng, texts, videos, BATCH) for _ in range(turns + 2 * DEPTH)]
    found: dict[str, list[Numbers]] = {name: [] for name in TEACHERS}
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(LabelProcess(readers[:teachers]))
            for name, teachers in TEACHERS.items()
            if name.startswith("process")
        }
        streams = {}
        for name, teachers in TEACHERS.items():
            labels: LabelSource = processes.get(name) or LabelThreads(readers[:teachers])
            streams[name] = stack.enter_context(read_ahead(_read(labels), batches, DEPTH))
            next(streams[name])
        time.sleep(0.5)
        for turn in range(turns):
            names = list(TEACHERS)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                child = processes[name].pid if name in processes else None
                found[name].append(_step(work, count, streams[name], child))
    return {name: _summary(numbers, found[NONE]) for name, numbers in found.items()}


def _summary(numbers: Sequence[Numbers], without: Sequence[Numbers]) -> Numbers:
    medians = {key: statistics.median(each[key] for each in numbers) for key in numbers[0]}
    medians["reading_ms"] -= statistics.median(each["reading_ms"] for each in without)
    added = [100 * (one["ms"] / other["ms"] - 1) for one, other in zip(numbers, without, strict=True)]
    low, median, high = np.percentile(added, [25, 50, 75]).tolist()
    # Of a median: 1.2533 sigma / sqrt(n); a quartile is 0.6745 sigma away.
    error = 1.2533 * (high - low) / 1.349 / math.sqrt(len(added))
    return medians | {"added_percent": median, "error_percent": error}


def measure_start(readers: Sequence[ScoreReader]) -> Numbers:
    """Milliseconds: of this process until the other is started; until it has given its first labels; until it ended."""
    places = np.arange(BATCH), np.arange(BATCH)
    begun = time.perf_counter()
    with LabelProcess(readers) as process:
        started = time.perf_counter()
        process.start(*places).result()
        first = time.perf_counter()
    ended = time.perf_counter()
    return {
        "start_ms": 1e3 * (started - begun),
        "first_labels_ms": 1e3 * (first - begun),
        "end_ms": 1e3 * (ended - first),
    }


def measure_writing(folder: Path, videos: int) -> Numbers:
    """Seconds of a shard: written, scored by a dot product, and both at once; what the scorer waited for the writer."""
    tile = make_tile(folder / "written.zarr", WRITTEN * SHARD, videos)
    made = [(shard, scores) for shard, scores, _ in shards(tile)]
    fine = np.zeros((SHARD, FRAMES), np.float32)
    texts, columns = torch.randn(SHARD, WIDTH), torch.randn(videos, WIDTH)
    torch.set_num_threads(1)
    written, scored = [], []
    for shard, scores in made:
        begun = time.perf_counter()
        write_shard(tile, shard, scores, fine)
        written.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        texts @ columns.T
        scored.append(time.perf_counter() - begun)
    size = sum(path.stat().st_size for name in tile.spec.scored for path in (tile.folder / name).glob("c.*"))
    waited, begun = 0.0, time.perf_counter()
    with BackgroundWriter("write-shard") as writer:
        for shard in range(WRITTEN):
            scores = (texts @ columns.T).numpy()
            asked = time.perf_counter()
            writer.start(partial(write_shard, tile, shard, scores, fine))
            waited += time.perf_counter() - asked
        writer.finish()
    together = time.perf_counter() - begun
    write = statistics.median(written)
    return {
        "write_s": write,
        "score_s": statistics.median(scored),
        "both_s": together / WRITTEN,
        "waited_s": waited / WRITTEN,
        "rows_per_s": SHARD / write,
        "pairs_per_s": SHARD * videos / write,
        "mb_per_s": size / WRITTEN / write / 1e6,
    }


def _print_batches(found: dict[str, dict[str, Numbers]]) -> None:
    for batch, ways in found.items():
        print(f"\n{batch}: median ms, times the score store's, disk MB")
        for name, numbers in ways.items():
            print(f"  {name:34} {numbers['ms']:9.2f} {numbers['ms'] / ways[OURS]['ms']:8.2f} {numbers['disk_mb']:8.1f}")


def _print_steps(found: dict[str, dict[str, Numbers]]) -> None:
    for kind, ways in found.items():
        print(f"\n{kind}, batch of {BATCH}: ms a step, added % (error), ms for labels, blocked, of reading")
        for name, numbers in ways.items():
            print(
                f"  {name:10} {numbers['ms']:8.2f} {numbers['added_percent']:+7.2f} ({numbers['error_percent']:.2f}) "
                f"{numbers['labels_ms']:7.3f} {numbers['blocked_ms']:7.3f} {numbers['reading_ms']:6.1f}"
            )


def _print_writing(found: Numbers) -> None:
    print(
        f"\nwriting a shard {1e3 * found['write_s']:.0f} ms: {found['rows_per_s']:,.0f} rows/s, "
        f"{found['pairs_per_s'] / 1e6:.0f} M pairs/s, {found['mb_per_s']:.0f} MB/s; dot products alone "
        f"{1e3 * found['score_s']:.0f} ms; both at once {1e3 * found['both_s']:.0f} ms, of which the scorer waited "
        f"{1e3 * found['waited_s']:.0f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=8192)
    parser.add_argument("--videos", type=int, default=9000)
    parser.add_argument("--batch", type=int, nargs="+", default=[120, 240, 960])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seconds", type=float, default=0.5, help="for one way and batch; three batches at least")
    parser.add_argument("--turns", type=int, default=20, help="of a step with each way to read labels")
    parser.add_argument("--kinds", nargs="+", choices=list(STEP_KINDS), default=list(STEP_KINDS), help="of steps")
    parser.add_argument("--folder", type=Path, help="below which the stores are made and removed; else where TMPDIR is")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    chosen = parser.parse_args()
    size = {"texts": chosen.texts, "videos": chosen.videos}
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        folder = Path(name)
        refuse_full(folder, **size)
        writing = measure_writing(folder, chosen.videos) if "writing" in chosen.parts else {}
        ways = make_ways(folder, **size)
        rows, columns = np.arange(64) * 5 % chosen.texts, np.arange(64) * 3 % chosen.videos
        for name, way in ways.items():
            np.testing.assert_array_equal(way.gather(rows, columns), ways[OURS].gather(rows, columns), err_msg=name)
        batches = {
            f"{'cold' if cold else 'warm'}, batch of {batch}": measure_batches(
                ways, **size, batch=batch, seconds=chosen.seconds, cold=cold
            )
            for cold in (False, True)
            for batch in chosen.batch
            if "batches" in chosen.parts
        }
        readers = [open_reader(folder, **size, turn=k * chosen.texts // 3) for k in range(3)]
        steps = {
            kind: measure_steps(STEP_KINDS[kind](), readers, **size, turns=chosen.turns)
            for kind in chosen.kinds
            if "steps" in chosen.parts
        }
        start = measure_start(readers) if "steps" in chosen.parts else {}
    load.append(os.getloadavg()[0])
    print(f"{machine()}; load {load[0]:.1f} to {load[1]:.1f}; {chosen.texts:,} texts x {chosen.videos:,} videos")
    _print_batches(batches)
    _print_steps(steps)
    if start:
        print(
            f"\nlabel process: started in {start['start_ms']:.1f} ms, first labels after "
            f"{start['first_labels_ms']:.0f} ms, ended in {start['end_ms']:.0f} ms"
        )
    if writing:
        _print_writing(writing)
    if chosen.out:
        facts = {"machine": machine(), "load": load, **size, "batches": batches, "steps": steps}
        facts |= {"label_process": start, "writing": writing}
        chosen.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
