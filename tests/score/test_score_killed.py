"""Killed and raced: the finished store has the bits of an uninterrupted one."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest


def tree(store: Path) -> dict[str, str]:
    """Hash of every file; temporary ones that a kill left outside of the tile do not count."""
    assert not list((store / "fake/tiles/dense").rglob(".tmp-*"))
    return {
        str(path.relative_to(store)): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file() and not any(part.startswith(".tmp-") for part in path.parts)
    }


def run(process, root: Path, kills: int, seed: int, workers: int) -> int:
    """Processes really killed; fails when the last run does."""
    command = [sys.executable, process.__file__, str(root), str(kills), str(seed), str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_store_killed_at_random_moments_equals_the_uninterrupted_one(process, world, finished, workers: int) -> None:
    root = world()
    killed = run(process, root, kills=12, seed=workers, workers=workers)
    assert killed >= 2
    assert tree(root / "work/scores.zarr") == tree(finished / "work/scores.zarr")


def test_two_workers_at_once_make_the_store_of_one(process, world, finished) -> None:
    root = world()
    assert run(process, root, kills=0, seed=0, workers=2) == 0
    assert tree(root / "work/scores.zarr") == tree(finished / "work/scores.zarr")


@pytest.mark.slow
def test_a_hundred_kills(process, world, finished) -> None:
    root = world()
    assert run(process, root, kills=100, seed=5, workers=1) > 50
    assert tree(root / "work/scores.zarr") == tree(finished / "work/scores.zarr")
