"""Killed and raced: the finished store has the bits of an uninterrupted one."""

from pathlib import Path

import pytest

from .conftest import tree


def whole(root: Path) -> dict[str, str]:
    """Hash of every file of the store; of temporary ones none is left in the tile."""
    assert not list((root / "work/scores.zarr/fake/tiles/dense").rglob(".tmp-*"))
    return tree(root / "work/scores.zarr")


@pytest.mark.parametrize(("workers", "changes"), [(1, 300), (2, 0)])
def test_a_killed_store_equals_the_uninterrupted_one(
    scored_by_processes, new_world, finished, workers: int, changes: int
) -> None:
    """Killed at random changes to the disk, where a kill costs three scored shards at most: two that are being written
    and one that waits; or at random moments."""
    root = new_world()
    killed, redone = scored_by_processes(root, kills=12, seed=workers, workers=workers, changes=changes)
    assert killed >= 2
    assert redone <= 3 * killed + 5 * (workers - 1)  # of the five shards each worker may make one at the same time
    assert whole(root) == whole(finished)


def test_two_workers_at_once_make_the_store_of_one(scored_by_processes, new_world, finished) -> None:
    root = new_world()
    assert scored_by_processes(root, kills=0, seed=0, workers=2)[0] == 0
    assert whole(root) == whole(finished)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_kills_of_stores_in_the_making(
    process, scored_by_processes, tmp_path: Path, finished, record_testsuite_property
) -> None:
    killed = redone = seed = 0
    while killed < 100:
        seed += 1
        root = process.make_world(tmp_path / str(seed))
        more = scored_by_processes(root, kills=8, seed=seed, workers=1, changes=300 * (seed % 3 > 0))
        killed, redone = killed + more[0], redone + more[1]
        assert more[1] <= 3 * more[0]
        assert whole(root) == whole(finished)
    record_testsuite_property("kills of the stage", f"{killed} kills in {seed} stores; {redone} shards scored again")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_kills(scored_by_processes, new_world, finished) -> None:
    root = new_world()
    assert scored_by_processes(root, kills=100, seed=5, workers=1)[0] > 50
    assert whole(root) == whole(finished)
