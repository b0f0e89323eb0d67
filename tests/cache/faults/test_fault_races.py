"""Several writers at once: they waste time, never data; no schedule of two leaves a shard that is half one's."""

import os
import random
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from teachclip.cache.scores.shard import problem, sweep, write_shard
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.upkeep.check import Check
from teachclip.cache.storage import publish as files_module
from teachclip.cache.storage.publish import leftovers, remove_leftovers
from teachclip.errors import CacheError


def test_eight_writers_at_once_make_the_store_of_one(server, reference, contents, tmp_path: Path) -> None:
    for turn in range(5):
        path, log = tmp_path / f"{turn}.zarr", tmp_path / f"{turn}.log"
        assert server.run(path, log, count=8) == [0] * 8
        assert contents(path) == contents(reference)
        assert Check(path, full=True).run().findings == ()


def write(tile, writers, shard: int, other: float) -> None:
    """One shard's scores; `other` is added to all of them, so that two writers give other bits."""
    rows = slice(shard * writers.SHARD, (shard + 1) * writers.SHARD)
    write_shard(tile, shard, writers.COARSE[rows] + np.float32(other), writers.FINE[rows] + np.float32(other))


@pytest.fixture
def tile(reference, tmp_path: Path):
    """A tile whose shards 0 and 2 are complete."""
    shutil.copytree(reference, tmp_path / "s.zarr")
    tile = ScoreStore.open(tmp_path / "s.zarr").teacher("tiny").tiles[0]
    (tile.folder / "done/00001.json").unlink()
    return tile


def versions(tile, writers, contents) -> list[dict[str, bytes]]:
    """What the tile is after each of two writers that have other scores for shard 1."""
    found = []
    for other in (0.0, 0.25):
        write(tile, writers, 1, other)
        found.append(contents(tile.folder))
    (tile.folder / "done/00001.json").unlink()
    assert found[0] != found[1]
    return found


def test_a_writer_that_comes_between_any_two_changes_of_another(disk, writers, tile, contents) -> None:
    """One whole write at each moment of another, with other bits: the shard is one's or the other's, and complete."""
    wholes = versions(tile, writers, contents)
    moments: list = []
    with disk.watched(moments.append, sync=False):
        write(tile, writers, 1, 0.0)
    assert len(moments) > 20
    for at in range(len(moments)):
        (tile.folder / "done/00001.json").unlink(missing_ok=True)
        left, done = iter(range(at)), []

        def hook(event, left=left, done=done) -> None:
            if next(left, None) is None and not done:
                done.append(event)
                write(tile, writers, 1, 0.25)
                if not problem(tile, 1):
                    sweep(tile)  # and takes away what it finds of the first

        with disk.watched(hook, sync=False):
            write(tile, writers, 1, 0.0)
        assert done
        assert contents(tile.folder) in wholes, at


class Turns:
    """Two threads take turns at each change to the disk, in an order that a seed gives."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.condition = threading.Condition()
        self.running = {0, 1}
        self.turn = self.rng.choice((0, 1))

    def wait(self, who: int) -> None:
        with self.condition:
            self.turn = self.rng.choice(sorted(self.running))
            self.condition.notify_all()
            assert self.condition.wait_for(lambda: self.turn == who, timeout=120)

    def leave(self, who: int) -> None:
        with self.condition:
            self.running.discard(who)
            self.turn = next(iter(self.running), -1)
            self.condition.notify_all()


def race(disk, writers, tile, seed: int, others: tuple[float, float]) -> list[str]:
    """Two writers on one shard under one schedule; the errors of those that gave up."""
    turns, names, errors = Turns(seed), {}, []

    def run(who: int) -> None:
        names[threading.get_ident()] = who
        try:
            turns.wait(who)
            write(tile, writers, 1, others[who])
            sweep(tile)
        except CacheError as error:
            errors.append(error.what)
        finally:
            turns.leave(who)

    threads = [threading.Thread(target=run, args=(who,)) for who in (0, 1)]
    with disk.watched(lambda event: turns.wait(names[threading.get_ident()]), sync=False):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return errors


def races(disk, writers, tile, contents, seeds: range) -> tuple[int, int]:
    """Races of unlike and of like writers; how many, and how often a writer gave up."""
    wholes, gave_up = versions(tile, writers, contents), 0
    for seed in seeds:
        (tile.folder / "done/00001.json").unlink(missing_ok=True)
        like = seed % 2 == 0
        errors = race(disk, writers, tile, seed, (0.0, 0.0 if like else 0.25))
        assert not (like and errors)
        gave_up += len(errors)
        assert len(errors) < 2
        assert contents(tile.folder) in wholes, seed
        assert not list(tile.folder.rglob(".tmp-*"))
    return len(seeds), gave_up


def test_a_racing_pair_on_one_shard(disk, writers, tile, contents) -> None:
    assert races(disk, writers, tile, contents, range(60)) == (60, 0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_thousand_races(disk, writers, tile, contents, record_testsuite_property) -> None:
    count, gave_up = races(disk, writers, tile, contents, range(100, 2100))
    record_testsuite_property("races", f"{count} schedules; {gave_up} writers gave up")


# What killed writers leave, and clocks that are wrong


def test_what_a_killed_writer_left_goes_when_it_is_old(reference, writers, contents, tmp_path: Path) -> None:
    shutil.copytree(reference, tmp_path / "s.zarr")
    tile = ScoreStore.open(tmp_path / "s.zarr").teacher("tiny").tiles[0]
    now = time.time()
    for name, age in (("old", 7200), ("young", 60), ("of the future", -7200)):
        for path in (tile.folder / f"coarse/.tmp-{name}", tile.folder.parent / f".tmp-{name}-dense"):
            path.write_bytes(b"half") if path.parent.name == "coarse" else path.mkdir()
            os.utime(path, (now - age, now - age))
    left = {path.name for path in leftovers(tmp_path / "s.zarr")}
    assert left == {".tmp-old", ".tmp-old-dense"}
    writers.work(tmp_path / "s.zarr")
    assert {p.name for p in tile.folder.parent.glob(".tmp-*")} == {".tmp-young-dense", ".tmp-of the future-dense"}
    assert contents(tmp_path / "s.zarr") == contents(reference)


def test_a_clock_that_is_hours_off_costs_time_never_data(
    disk, writers, reference, contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose clock is ahead takes a living writer's files for leftovers, at every moment of the writer."""
    real = time.time
    monkeypatch.setattr(files_module.time, "time", lambda: real() + 7200)
    total: list = []
    with disk.watched(total.append, sync=False):
        writers.work(tmp_path / "counted.zarr")
    told = set()
    for at in range(0, len(total), 4):
        path, left = tmp_path / f"{at}.zarr", iter([*range(at), None])

        def hook(event, left=left, path=path) -> None:
            if next(left, event) is None:
                remove_leftovers(path.parent)

        try:
            with disk.watched(hook, sync=False):
                writers.work(path)
        except CacheError as error:
            told.add(error.what)
        if path.exists():
            assert contents(path).items() <= contents(reference).items()
        with disk.watched(lambda event: None, sync=False):
            writers.work(path)
        assert contents(path) == contents(reference)
    assert told == {"cannot be written: No such file or directory"}
