"""Disks that are full, fail or may not be written: one error that says so, what is finished is kept, the rest comes."""

import errno
import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.upkeep.check import Check
from teachclip.cache.scores.upkeep.removal import collect_garbage
from teachclip.errors import CacheError

type Read = Callable[[Path], dict[str, bytes]]


def fail_at(disk, writers, path: Path, at: int, number: int) -> bool:
    """Write the store on a disk that fails at its n-th change, and only then; whether it did."""
    calls = 0

    def hook(event) -> None:
        nonlocal calls
        calls += event.kind != "remove"  # to remove needs no room
        if calls == at and event.kind != "remove":
            raise OSError(number, os.strerror(number), event.path)

    try:
        with disk.watched(hook, sync=False, within=path.parent):
            writers.work(path)
    except CacheError as error:
        told = error
    else:
        return calls >= at
    assert os.strerror(number) in told.what
    assert told.hint
    return True


def fail_everywhere(disk, writers, reference: Path, contents: Read, folder: Path, number: int, step: int) -> int:
    """A failure at each change (or each `step`th): told, nothing half-made is seen, the next run ends the work."""
    final, failures = contents(reference), 0
    for at in range(1 + number % step, 1000, step):
        path = folder / f"{at}.zarr"
        if not fail_at(disk, writers, path, at, number):
            break
        failures += 1
        if path.exists():
            assert contents(path).items() <= final.items()
            assert not list(path.rglob(".tmp-*"))
            assert Check(path, full=True).run().findings == ()
        with disk.watched(lambda event: None, sync=False):
            writers.work(path)
        assert contents(path) == final
        shutil.rmtree(path)
    assert failures > 140 // step
    return failures


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_while_it_is_written(disk, writers, reference, contents, tmp_path: Path, number: int) -> None:
    fail_everywhere(disk, writers, reference, contents, tmp_path, number, step=9)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_fails_at_every_change(
    disk, writers, reference, contents, tmp_path: Path, number: int, record_testsuite_property
) -> None:
    failures = fail_everywhere(disk, writers, reference, contents, tmp_path, number, step=1)
    record_testsuite_property(f"failures, {errno.errorcode[number]}", failures)


class _Failing(io.BufferedReader):
    def read(self, size: int | None = -1) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), self.name)


def test_a_disk_that_fails_while_it_is_read(writers, reference, monkeypatch, tmp_path: Path) -> None:
    """Every file once; of shards, whose bytes TensorStore reads, the ones that a full verification reads."""
    store = tmp_path / "s.zarr"
    shutil.copytree(reference, store)
    real = io.open
    told = 0
    for file in sorted(p for p in store.rglob("*") if p.is_file() and "videos" not in p.parts):

        def opened(name, *args, file=file, **more):
            path = os.readlink(f"/proc/self/fd/{name}") if isinstance(name, int) else str(name)
            if path == str(file):
                return _Failing(io.FileIO(path))
            return real(name, *args, **more)

        monkeypatch.setattr(io, "open", opened)
        monkeypatch.setattr("builtins.open", opened)
        try:
            whys = [finding.why for finding in Check(store, full=True).run().findings]
        except CacheError as error:
            whys = [error.what]
        monkeypatch.undo()
        assert whys, file
        assert all("Input/output error" in why for why in whys), (file, whys)
        told += 1
    assert told > 30
    assert Check(store, full=True).run().findings == ()


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A small file system in memory."""
    folder.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"only root may mount: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, *options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{','.join(options)}", str(folder)], check=True)


@pytest.mark.parametrize("pages", [2, 10, 20, 22, 24, 28, 33])
def test_a_disk_that_is_really_full(writers, reference, contents, tmp_path: Path, pages: int) -> None:
    with mounted(tmp_path / "small", f"size={pages * 4}k") as small:
        store = small / "scores.zarr"
        with pytest.raises(CacheError, match="No space left on device"):
            writers.work(store)
        if store.exists():
            assert contents(store).items() <= contents(reference).items()
            assert not list(store.rglob(".tmp-*"))
            assert Check(store, full=True).run().findings == ()
        remount(small, "size=8m")
        writers.work(store)
        assert contents(store) == contents(reference)


def test_a_disk_that_may_not_be_written(writers, reference, contents, tmp_path: Path) -> None:
    with mounted(tmp_path / "readonly", "size=8m") as folder:
        store = folder / "scores.zarr"
        shutil.copytree(reference, store)
        remount(folder, "ro")
        cache = ScoreStore.open(store).teacher("tiny")
        labels = cache.reader(writers.TEXT_KEYS, writers.VIDEO_KEYS).read(np.arange(5), np.arange(3))
        np.testing.assert_allclose(labels.coarse, writers.COARSE[:5, :3], rtol=0, atol=1e-5)
        assert Check(store, full=True).run().findings == ()
        assert collect_garbage(store).bytes == 0
        writers.work(store)  # nothing to do, nothing to write
        remount(folder, "rw")
        (store / "tiny/tiles/dense/done/00001.json").unlink()
        remount(folder, "ro")
        with pytest.raises(CacheError, match="cannot be written: Read-only file system"):
            writers.work(store)
        with pytest.raises(CacheError, match="cannot be written: Read-only file system"):
            ScoreStore.create(folder / "other.zarr")
        remount(folder, "rw")
        writers.work(store)
        assert contents(store) == contents(reference)
