"""Random batches out of a score store, beside a memory map, HDF5 rows and two-dimensional Zarr chunks.

    python benchmarks/score_cache.py [--texts 20000] [--videos 9000] [--out score_cache.json]

Every way holds the same 16-bit codes and gives the same float32 scores [b, b] of b random texts and b random videos.
The memory map checks nothing; the store checks a crc32c of every row. `beside a step` is what the consumer waits per
step of 50 ms of busy Python when the batches are read ahead in the background. Files are warm unless memory is short.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import zarr
from _machine import machine
from teachclip.cache.codes import decode_rows, encode_rows
from teachclip.cache.identity import digest
from teachclip.cache.score_shards import write_shard
from teachclip.cache.scores import ScoreStore
from teachclip.cache.stream import read_ahead
from teachclip.cache.tiles import TileContents

type Gather = Callable[[np.ndarray, np.ndarray], np.ndarray]

OURS = "score store"
STEP = 0.05


def make(folder: Path, texts: int, videos: int) -> tuple[dict[str, Gather], float]:
    """The ways to read, over the same codes in `folder`; and how many pairs a second the store was written with."""
    codes = np.lib.format.open_memmap(folder / "codes.npy", "w+", np.uint16, (texts, videos))
    codec = np.empty((texts, 2))
    cache = ScoreStore.create(folder / "s.zarr").create_teacher("bench", {}, 100.0, "uint16", 12, True)
    keys = [
        [(f"{what}{i}", digest(f"{what}{i}".encode())) for i in range(n)] for what, n in (("t", texts), ("v", videos))
    ]
    contents = TileContents(*keys, np.arange(texts) % videos, np.zeros((videos, 12)))
    tile = cache.create_tile("dense", contents, shard_texts=1024)
    rng = np.random.default_rng(0)
    written = 0.0
    with h5py.File(folder / "codes.h5", "w") as file:
        rows_h5 = file.create_dataset("codes", (texts, videos), "u2", chunks=(1, videos))
        squares = zarr.create_array(folder / "squares.zarr", shape=(texts, videos), chunks=(512, 512), dtype="uint16")
        for shard in range(tile.layout.shards):
            rows = tile.layout.rows(shard)
            span = slice(rows.start, rows.stop)
            scores = rng.normal(0.2, 0.05, (len(rows), videos)).astype(np.float32)
            begun = time.perf_counter()
            write_shard(tile, shard, scores, np.zeros((len(rows), 12), np.float32))
            written += time.perf_counter() - begun
            codes[span], codec[span] = encode_rows(scores)
            rows_h5[span] = squares[span] = codes[span]
    memory_map = np.load(folder / "codes.npy", mmap_mode="r")
    rows_h5 = h5py.File(folder / "codes.h5", "r")["codes"]
    squares = zarr.open_array(folder / "squares.zarr", mode="r")
    whole = zarr.open_array(tile.folder / "coarse", mode="r")
    reader = cache.reader(*keys)

    def from_h5(texts: np.ndarray, videos: np.ndarray) -> np.ndarray:
        order = np.argsort(texts)
        found = np.empty((len(texts), rows_h5.shape[1]), np.uint16)
        found[order] = rows_h5[texts[order]]  # HDF5 wants its rows in order
        return decode_rows(found[:, videos], codec[texts])

    ways: dict[str, Gather] = {
        OURS: lambda texts, videos: reader.read(texts, videos).coarse,
        "numpy memory map": lambda texts, videos: decode_rows(memory_map[texts[:, None], videos], codec[texts]),
        "h5py, chunks of a row": from_h5,
        "zarr-python, the same store": lambda texts, videos: decode_rows(
            whole.oindex[texts, slice(None)][:, videos], codec[texts]
        ),
        "zarr-python, chunks of 512 x 512": lambda texts, videos: decode_rows(
            squares.oindex[texts, videos], codec[texts]
        ),
    }
    return ways, texts * videos / written


def measure(gather: Gather, texts: int, videos: int, batch: int, seconds: float) -> float:
    """Median milliseconds of a batch."""
    rng = np.random.default_rng(batch)
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < 200):
        rows, columns = rng.choice(texts, batch, replace=False), rng.choice(videos, batch, replace=False)
        begun = time.perf_counter()
        gather(rows, columns)
        times.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(times)


def beside_a_step(gather: Gather, texts: int, videos: int, batch: int, steps: int = 30) -> tuple[float, float]:
    """Milliseconds the consumer waits a step, and by how much the loop is longer than without labels (percent)."""
    rng = np.random.default_rng(batch)
    batches = [
        (rng.choice(texts, batch, replace=False), rng.choice(videos, batch, replace=False)) for _ in range(steps)
    ]

    def busy(seconds: float) -> None:
        for _ in range(int(seconds * rate)):
            pass

    begun = time.perf_counter()
    for _ in range(10**6):
        pass
    rate = 10**6 / (time.perf_counter() - begun)
    begun = time.perf_counter()
    for _ in range(steps):
        busy(STEP)
    alone = time.perf_counter() - begun
    with read_ahead(lambda places: gather(*places), batches, depth=4) as labels:
        begun = time.perf_counter()
        for _ in labels:
            busy(STEP)
        together = time.perf_counter() - begun
    return 1e3 * labels.waited / steps, 100 * (together / alone - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=8192)
    parser.add_argument("--videos", type=int, default=4000)
    parser.add_argument("--batch", type=int, nargs="+", default=[120, 240])
    parser.add_argument("--seconds", type=float, default=3.0, help="longest time for one way and batch")
    parser.add_argument("--folder", type=Path, help="where the stores are made; by default a temporary folder")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        ways, rate = make(Path(folder), chosen.texts, chosen.videos)
        rows, columns = np.arange(64) * 5 % chosen.texts, np.arange(64) * 3 % chosen.videos
        for name, gather in ways.items():
            np.testing.assert_array_equal(gather(rows, columns), ways[OURS](rows, columns), err_msg=name)
        size = {"texts": chosen.texts, "videos": chosen.videos}
        found = {
            str(batch): {
                name: measure(gather, **size, batch=batch, seconds=chosen.seconds) for name, gather in ways.items()
            }
            for batch in chosen.batch
        }
        waits = {str(batch): beside_a_step(ways[OURS], **size, batch=batch) for batch in chosen.batch}
    print(f"{machine()}; {chosen.texts:,} texts x {chosen.videos:,} videos; written at {rate / 1e6:.0f} M pairs/s")
    for batch, medians in found.items():
        print(f"\nbatch of {batch}: median ms, times the score store's")
        for name, milliseconds in medians.items():
            print(f"  {name:34} {milliseconds:9.2f} {milliseconds / medians[OURS]:8.2f}")
        waited, longer = waits[batch]
        print(f"  beside a step of {1e3 * STEP:.0f} ms: {waited:.2f} ms waited, loop {longer:+.1f} %")
    if chosen.out:
        facts = {
            "machine": machine(),
            **size,
            "pairs_per_second_written": rate,
            "median_ms": found,
            "beside_a_step": waits,
        }
        chosen.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
