"""The ways to keep one matrix of scores that score_cache.py compares, and how their files leave the page cache."""

import mmap
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import zarr
from teachclip.cache.scores.format.codes import decode_rows, encode_rows
from teachclip.cache.scores.reading.label_process import LabelProcess
from teachclip.cache.scores.reading.reader import ScoreReader
from teachclip.cache.scores.shard import write_shard
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.tile import Key, Tile, TileContents
from teachclip.cache.storage.identity import digest

type Gather = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Places of texts [b] and videos [b] -> float32 [b,b]."""

OURS = "score store"
SHARD = 1024
SQUARE = 512
FRAMES = 12


@dataclass(frozen=True)
class Way:
    """One way to keep the scores.

    Args:
        folder: where its files are.
        gather: reads a batch.
        mapped: the memory map behind it, if there is one.
    """

    folder: Path
    gather: Gather
    mapped: mmap.mmap | None = None

    def forget(self) -> None:
        """Take its files out of the page cache; what the libraries keep in memory of their own stays."""
        if self.mapped is not None:
            self.mapped.madvise(mmap.MADV_DONTNEED)
        for path in self.folder.rglob("*"):
            if path.is_file():
                handle = os.open(path, os.O_RDONLY)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(handle)


def refuse_full(folder: Path, texts: int, videos: int) -> None:
    """End the program when the files would not fit."""
    needed, free = int(4.1 * 2 * texts * videos) + 2**28, shutil.disk_usage(folder).free
    if needed > free:
        raise SystemExit(f"{needed / 1e9:.1f} GB are needed in {folder}, {free / 1e9:.1f} GB are free; see --folder")


def keys(texts: int, videos: int) -> tuple[list[Key], list[Key]]:
    """Texts and videos with ids and digests."""
    return tuple(
        [(f"{what}{i}", digest(f"{what}{i}".encode())) for i in range(n)] for what, n in (("t", texts), ("v", videos))
    )


def make_tile(path: Path, texts: int, videos: int) -> Tile:
    """A tile without shards in a store of its own."""
    cache = ScoreStore.create(path).create_teacher("bench", {}, 100.0, "uint16", FRAMES, True)
    contents = TileContents(*keys(texts, videos), np.arange(texts) % videos, np.zeros((videos, FRAMES)))
    return cache.create_tile("dense", contents, SHARD)


def shards(tile: Tile) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Number, scores and frame-text logits of every shard; each is the first one turned and shifted."""
    first = np.random.default_rng(0).normal(0.2, 0.05, (SHARD, tile.spec.videos)).astype(np.float32)
    for shard in range(tile.spec.shards):
        rows = len(tile.spec.rows(shard))
        scores = np.roll(first[:rows], 7 * shard, axis=1) + np.float32(1e-4 * shard)
        yield shard, scores, np.zeros((rows, FRAMES), np.float32)


def make_ways(folder: Path, texts: int, videos: int) -> dict[str, Way]:
    """The ways to read, over the same codes in `folder`."""
    tile = make_tile(folder / "ours" / "s.zarr", texts, videos)
    for name in ("map", "h5", "squares"):
        (folder / name).mkdir()
    codes = np.memmap(folder / "map" / "codes", np.uint16, "w+", shape=(texts, videos))
    codec = np.empty((texts, 2))
    with h5py.File(folder / "h5" / "codes.h5", "w") as file:
        rows_h5 = file.create_dataset("codes", (texts, videos), "u2", chunks=(1, videos))
        squares = zarr.create_array(folder / "squares", shape=(texts, videos), chunks=(SQUARE, SQUARE), dtype="uint16")
        for shard, scores, fine in shards(tile):
            write_shard(tile, shard, scores, fine)
            rows = slice(shard * SHARD, shard * SHARD + len(scores))
            block, codec[rows] = encode_rows(scores)
            codes[rows] = rows_h5[rows] = squares[rows] = block
    codes.flush()
    os.sync()  # what is not on the disk yet does not leave the page cache
    return _readers(folder, codec, tile)


def _readers(folder: Path, codec: np.ndarray, tile: Tile) -> dict[str, Way]:
    texts, videos = tile.spec.texts, tile.spec.videos
    reader = open_reader(folder, texts, videos)
    apart = LabelProcess([reader])
    memory_map = np.memmap(folder / "map" / "codes", np.uint16, "r", shape=(texts, videos))
    rows_h5 = h5py.File(folder / "h5" / "codes.h5", "r")["codes"]
    squares = zarr.open_array(folder / "squares", mode="r")
    same = zarr.open_array(tile.folder / "coarse", mode="r")

    def from_h5(texts: np.ndarray, videos: np.ndarray) -> np.ndarray:
        order = np.argsort(texts)
        found = np.empty((len(texts), rows_h5.shape[1]), np.uint16)
        found[order] = rows_h5[texts[order]]  # HDF5 wants its rows in order
        return decode_rows(found[:, videos], codec[texts])

    def from_map(texts: np.ndarray, videos: np.ndarray) -> np.ndarray:
        return decode_rows(memory_map[texts[:, None], videos], codec[texts])

    def from_same(texts: np.ndarray, videos: np.ndarray) -> np.ndarray:
        return decode_rows(same.oindex[texts, slice(None)][:, videos], codec[texts])

    def from_squares(texts: np.ndarray, videos: np.ndarray) -> np.ndarray:
        return decode_rows(squares.oindex[texts, videos], codec[texts])

    return {
        OURS: Way(folder / "ours", lambda texts, videos: reader.read(texts, videos).coarse),
        f"{OURS}, a process of its own": Way(folder / "ours", lambda *places: apart.start(*places).result()[0].coarse),
        "numpy memory map": Way(folder / "map", from_map, memory_map.base),
        "h5py, chunks of a row": Way(folder / "h5", from_h5),
        "zarr-python, the same store": Way(folder / "ours", from_same),
        f"zarr-python, chunks of {SQUARE} x {SQUARE}": Way(folder / "squares", from_squares),
    }


def open_reader(folder: Path, texts: int, videos: int, turn: int = 0) -> ScoreReader:
    """A reader of the store that `make_ways` made; `turn` gives every place in the list of texts another row."""
    rows, columns = keys(texts, videos)
    return ScoreStore.open(folder / "ours" / "s.zarr").teacher("bench").reader(_turned(rows, turn), columns)


def _turned(keys: Sequence[Key], turn: int) -> list[Key]:
    return [*keys[turn:], *keys[:turn]]
