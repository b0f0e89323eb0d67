"""Writers of one shard at an address, in every order and killed anywhere: their files and their marker agree.

The bucket is TensorStore's own in memory, whose writes on conditions are those of S3, so that thousands of orders take
seconds. A writer is a thread whose every request waits for its turn.
"""

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
from teachclip.cache.scores.shard import marker_path, problem, scored_files, write_shard
from teachclip.cache.scores.store import ScoreCache, ScoreStore
from teachclip.cache.scores.tile import Tile, TileContents
from teachclip.cache.storage.locations import Remote, _Root
from teachclip.errors import CacheError

ROUNDED = np.float32(2e-7)


class Killed(BaseException):
    """Stands for a kill."""


@dataclass
class Writer:
    """A way to the bucket; once it is `stepwise`, each request waits for a turn, and a killed one's is never made."""

    kvstore: Any
    stepwise: bool = False
    killed: bool = False
    waits: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def _wait(self) -> None:
        if self.stepwise:
            self.waits.release()
            assert self.turn.acquire(timeout=120)
            if self.killed:
                raise Killed

    def write(self, key: str, data: bytes | None, **options: Any) -> Any:
        self._wait()
        return self.kvstore.write(key, data, **options)

    def list(self, *args: Any, **options: Any) -> Any:
        self._wait()
        return self.kvstore.list(*args, **options)

    def read(self, key: str, **options: Any) -> Any:
        self._wait()
        return self.kvstore.read(key, **options)

    def folder(self) -> Remote:
        return Remote(_Root("s3", "s3://memory", {}, self), "s.zarr")  # type: ignore[arg-type]


@dataclass
class Run:
    """One writer's writing of a shard, in a thread; `ended` says how."""

    writer: Writer
    write: Callable[[], None]
    ended: BaseException | str | None = None

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.writer.waits.acquire(timeout=120)
        assert self.ended is None, self.ended

    def _run(self) -> None:
        self.writer.stepwise = True
        try:
            self.write()
            self.ended = "well"
        except BaseException as error:
            self.ended = error
        self.writer.stepwise = False
        self.writer.waits.release()

    def step(self) -> bool:
        """Let it make a request, or be killed before it; whether it goes on."""
        self.writer.turn.release()
        assert self.writer.waits.acquire(timeout=120)
        return self.ended is None


class Shard:
    """A shard to be written, in a bucket of its own, and scores of it that are rounded in several ways."""

    def __init__(self, dtype: str = "uint16") -> None:
        self.kvstore = ts.KvStore.open("memory://", context=ts.Context()).result()
        rng = np.random.default_rng(5)
        self.coarse = rng.normal(0.3, 0.05, (8, 9)).astype(np.float32)
        self.fine = rng.normal(0.2, 0.05, (8, 4)).astype(np.float32)
        store = ScoreStore.create(Writer(self.kvstore).folder())
        cache = store.create_teacher("tiny", {"weights": "aa"}, 100.0, dtype, 4, True)  # type: ignore[arg-type]
        texts, videos = ([(f"{what}{k}", bytes(16)) for k in range(count)] for what, count in (("t", 8), ("v", 9)))
        own = np.array([0, 1, 2, 3, 4, 5, 6, -1])
        cache.create_tile("dense", TileContents(texts, videos, own, np.zeros((9, 4))), 8)

    def tile(self, writer: Writer | None = None) -> Tile:
        return ScoreCache((writer or Writer(self.kvstore)).folder() / "tiny").tiles[0]

    def rounded(self, way: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(way)
        coarse, fine = (
            each + ROUNDED * rng.choice(np.float32([-1, 0, 1]), each.shape) for each in (self.coarse, self.fine)
        )
        return coarse, fine

    def begin(self, way: int) -> Run:
        writer = Writer(self.kvstore)
        tile = self.tile(writer)
        return Run(writer, lambda: write_shard(tile, 0, *self.rounded(way)))

    def files(self) -> dict[str, bytes]:
        tile = self.tile()
        return {file: (tile.folder / file).read() for file in scored_files(tile, 0)}  # type: ignore[union-attr,misc]

    def check(self) -> bool:
        """Whether it is complete; what counts as complete is so to the last byte."""
        tile = self.tile()
        found, every = problem(tile, 0), problem(tile, 0, every_byte=True)
        assert (found is None) == (every is None), every
        return found is None


def values(shard: Shard) -> tuple[np.ndarray, np.ndarray]:
    from teachclip.cache.scores.shard import _values

    coarse, fine = _values(shard.tile(), 0, shard.files())
    return coarse, fine


@pytest.fixture(params=["uint16", "float32"])
def shard(request: pytest.FixtureRequest) -> Shard:
    return Shard(request.param)


def ways(count: int) -> Iterator[random.Random]:
    return (random.Random(seed) for seed in range(count))


def raced(rng: random.Random, shard: Shard, runs: list[Run], kills: float) -> None:
    """The runs in a random order, one request at a time, each killed with this probability at each."""
    while runs:
        run = rng.choice(runs)
        run.writer.killed = rng.random() < kills
        if not run.step():
            assert run.ended == "well" or isinstance(run.ended, Killed), run.ended
            runs.remove(run)


def test_writers_whose_last_bits_differ_leave_one_shard_that_its_marker_describes() -> None:
    for rng in ways(50):
        shard = Shard(rng.choice(["uint16", "float32"]))
        raced(rng, shard, [shard.begin(1), shard.begin(2)], kills=0)
        assert shard.check()
        coarse, fine = values(shard)
        np.testing.assert_allclose(coarse, shard.coarse, atol=1e-5)
        np.testing.assert_allclose(fine[:7], shard.fine[:7], atol=1e-6)


def test_killed_writers_leave_nothing_that_reads_as_finished_and_is_not() -> None:
    """Killed anywhere, while others write it rounded otherwise; then somebody writes it once more, undisturbed."""
    left = finished = 0
    for rng in ways(80):
        shard = Shard(rng.choice(["uint16", "float16", "float32"]))
        raced(rng, shard, [shard.begin(1), shard.begin(2), shard.begin(3)][: rng.choice([1, 2, 3])], kills=0.08)
        done = shard.check()
        finished, left = finished + done, left + (not done)
        before = shard.files() if done else None
        write_shard(shard.tile(), 0, *shard.rounded(4))
        assert shard.check()
        assert before in (None, shard.files())  # what was finished is not written again
        np.testing.assert_allclose(values(shard)[0], shard.coarse, atol=3e-4)
    assert left > 8
    assert finished > 8


def test_what_lies_there_and_is_no_such_scores_is_replaced(shard: Shard) -> None:
    """A file that was damaged, of other scores, or cut short, whose marker is gone, or describes no such file."""
    write_shard(shard.tile(), 0, *shard.rounded(1))
    once, tile = shard.files(), shard.tile()
    other = Shard(tile.spec.dtype)
    other.coarse, other.fine = other.coarse[::-1] + 1, other.fine[::-1] + 1
    write_shard(other.tile(), 0, other.coarse, other.fine)
    marker = marker_path(tile, 0)
    assert isinstance(marker, Remote)
    for file, wrong in other.files().items():
        flipped = bytearray(once[file])
        flipped[9] ^= 4
        for data in (wrong, bytes(flipped), once[file][:-1], once[file] + b"x", b""):
            for without_marker in (True, False):
                if without_marker:
                    marker.remove()
                target = tile.folder / file
                assert isinstance(target, Remote)
                target.write(data)
                if problem(tile, 0, every_byte=True):
                    write_shard(tile, 0, *shard.rounded(1))
                assert shard.files() == once
                assert shard.check()


def test_a_file_that_is_lost_under_its_marker_is_made_again_whoever_makes_it(shard: Shard) -> None:
    """With other last bits, killed at every request: the old marker never stands beside the new file."""
    for steps in range(40):
        write_shard(shard.tile(), 0, *shard.rounded(1))
        lost = shard.tile().folder / "coarse/c.0.0"
        assert isinstance(lost, Remote)
        lost.remove()
        run = shard.begin(2)
        while steps and run.step():
            steps -= 1
        if run.ended is None:
            run.writer.killed = True
            run.step()
        shard.check()
    assert run.ended == "well"


def test_a_tile_that_was_replaced_takes_no_shard(shard: Shard) -> None:
    tile = shard.tile()
    document = tile.folder / "zarr.json"
    assert isinstance(document, Remote)
    document.remove()
    with pytest.raises(CacheError, match="removed or replaced"):
        write_shard(tile, 0, *shard.rounded(1))
    assert "s.zarr/tiny/tiles/dense/done/00000.json" not in map(bytes.decode, shard.kvstore.list().result())


def test_a_server_that_keeps_nothing_is_told(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Remote, "create", lambda self, data: True)
    with pytest.raises(CacheError, match="what was written does not come back"):
        write_shard(shard.tile(), 0, *shard.rounded(1))
