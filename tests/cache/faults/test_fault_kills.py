"""SIGKILL at random moments and at every change to the disk: what is there is whole, and the rest is made once more."""

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from teachclip.cache.scores.shard import missing_shards
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.upkeep.check import Check


@pytest.fixture
def whole(writers, reference, contents):
    """A check that everything in a store has the bits of an uninterrupted one, and that what was reported is there."""
    final = contents(reference)

    def check(path: Path, log: Path, finished: bool = False) -> None:
        lines = log.read_text().splitlines() if log.exists() else []
        assert writers.missing(path, lines) == []
        for shard in range(writers.SHARDS):
            if f"written {shard}" in lines:
                assert f"begun {shard}" not in lines[lines.index(f"written {shard}") :]
        if not path.exists():
            return
        there = contents(path)
        assert there.items() <= final.items()
        assert Check(path, full=True).run().findings == ()
        if "made" in lines:
            store = ScoreStore.open(path)
            (tile,) = store.teacher("tiny").tiles
            read(writers, store, sorted(set(range(writers.SHARDS)) - set(missing_shards(tile))))
        if finished:
            assert there == final
            assert not list(path.glob("tiny/tiles/dense/*/.tmp-*"))

    return check


def read(writers, store: ScoreStore, shards: list[int]) -> None:
    """Read shards as training does."""
    rows = [row for shard in shards for row in range(shard * writers.SHARD, (shard + 1) * writers.SHARD)]
    rows = [row for row in rows if row < writers.TEXTS]
    if rows:
        reader = store.teacher("tiny").reader([writers.TEXT_KEYS[row] for row in rows], writers.VIDEO_KEYS)
        labels = reader.read(np.arange(len(rows)), np.arange(writers.VIDEOS))
        np.testing.assert_allclose(labels.coarse, writers.COARSE[rows], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(labels.frame_logits, writers.FINE[rows])


def follow(writers, path: Path, until: float) -> int:
    """Read a store that is being written, again and again: what is complete is right, nothing else is there."""
    reads = 0
    while time.monotonic() < until:
        if path.exists():
            store = ScoreStore.open(path)
            for name in store.teachers:
                for tile in store.teacher(name).tiles:
                    complete = set(range(writers.SHARDS)) - set(missing_shards(tile))
                    read(writers, store, sorted(complete))
                    reads += bool(complete)
    return reads


def begun(log: Path) -> int:
    return log.read_text().count("begun") if log.exists() else 0


def changes(server, folder: Path) -> int:
    """How many changes to the disk an uninterrupted run makes."""
    assert server.run(folder / "count.zarr", folder / "count.log") == [0]
    return int((folder / "count.log").read_text().splitlines()[-1].split()[1])


def kill_at(server, whole, folder: Path, points: range) -> int:
    """Kill a fresh run at each of these changes, look, resume, compare; how many shards were redone."""
    redone = 0
    for at in points:
        path, log = folder / f"{at}.zarr", folder / f"{at}.log"
        assert server.run(path, log, at) == [signal.SIGKILL]
        whole(path, log)
        assert server.run(path, log) == [0]
        whole(path, log, finished=True)
        assert begun(log) <= 3 + 1
        redone += begun(log) - 3
    return redone


def kill_at_random(server, writers, whole, folder: Path, kills: int, seed: int) -> tuple[int, int]:
    """Kill runs at random moments while a reader follows them; kills, and shards that were redone."""
    rng = random.Random(seed)
    killed = redone = 0
    while killed < kills:
        path, log = folder / f"{seed}-{killed}.zarr", folder / f"{seed}-{killed}.log"
        hits, status = 0, -1
        while status != 0:
            (pid,) = server.start(path, log)
            moment = time.monotonic() + rng.uniform(0.0, 0.05 * 1.1**hits)  # a slow machine gets on, too
            if rng.random() < 0.5:
                follow(writers, path, moment)
            else:
                time.sleep(max(0.0, moment - time.monotonic()))
            os.kill(pid, signal.SIGKILL)
            (status,) = server.wait()
            assert status in (0, signal.SIGKILL)
            hits += status != 0
            whole(path, log, finished=status == 0)
        assert begun(log) <= writers.SHARDS + hits
        killed += hits
        redone += begun(log) - writers.SHARDS
    return killed, redone


def test_a_kill_at_changes_to_the_disk_costs_one_shard_at_most(server, whole, tmp_path: Path) -> None:
    total = changes(server, tmp_path)
    assert total > 150
    assert kill_at(server, whole, tmp_path, range(random.Random(1).randrange(1, 6), total + 1, 6)) > 5


def test_a_kill_at_a_random_moment_costs_one_shard_at_most(server, writers, whole, tmp_path: Path) -> None:
    killed, _ = kill_at_random(server, writers, whole, tmp_path, 20, seed=1)
    assert killed >= 20


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_kill_at_every_change_to_the_disk(server, whole, tmp_path: Path, record_testsuite_property) -> None:
    total = changes(server, tmp_path)
    redone = kill_at(server, whole, tmp_path, range(1, total + 1))
    record_testsuite_property("kills at changes", f"{total} kills, one at each change; {redone} shards redone")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_kills_at_random_moments(server, writers, whole, tmp_path: Path, record_testsuite_property) -> None:
    killed, redone = kill_at_random(server, writers, whole, tmp_path, 1000, seed=7)
    record_testsuite_property("kills at random moments", f"{killed} kills at random moments; {redone} shards redone")
