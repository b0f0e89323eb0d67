"""Whatever happens to a library, or is done to it meanwhile: nothing told as kept is lost, nothing is kept in part."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from teachclip.cache.library import database, disks
from teachclip.cache.library.database import DATABASE, is_library
from teachclip.cache.library.library import Library
from teachclip.cache.library.writer import LibraryWriter
from teachclip.errors import CacheError

from .conftest import FILLING, MODEL, WIDTH, claimed, some, video
from .spawned.filling_process import vector


@contextmanager
def filling(folder: Path, first: int) -> Iterator[subprocess.Popen[str]]:
    """A process that fills a library until it is killed, once it has begun."""
    command = [sys.executable, str(FILLING), str(folder), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_one_that_is_open_goes_on_while_another_process_fills(tmp_path: Path) -> None:
    """Every generation that a reader sees is whole: three windows a video, each with its own vector."""
    folder = tmp_path / "index"
    with filling(folder, 0) as process, Library.open(folder) as library:
        end, generations = time.monotonic() + 120, set()
        while len(generations) < 6:
            assert time.monotonic() < end
            if not library.refresh():
                continue
            generations.add(library.generation)
            assert len(library) == 3 * library.generation
            last = library.windows(library.rows[-3:].tolist())
            k = int(Path(last[0].path).stem)
            assert {Path(window.path).stem for window in last} == {str(k)}
            wanted = np.float16([vector(3 * k + w) for w in range(3)])
            np.testing.assert_array_equal(library.matrix()[-3:], wanted)
        with pytest.raises(CacheError, match=f"process {process.pid} on .* is indexing"):
            claimed(folder)


def test_twenty_kills_lose_nothing(tmp_path: Path) -> None:
    """Whatever was told as kept is there after the kill, whole; nothing is there in part."""
    folder, random = tmp_path / "index", np.random.default_rng(5)
    first, generations = 0, []
    for _ in range(20):
        with filling(folder, first) as process:
            assert process.stdout is not None
            told = [int(process.stdout.readline()) for _ in range(random.integers(6))]
            time.sleep(random.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
            told += [int(line) for line in process.stdout.read().splitlines() if line.strip()]
        with LibraryWriter.claim(folder, MODEL) as writer:
            known = writer.known()
        last = max((int(Path(path).stem) for path in known), default=-1)
        assert {f"/videos/{k}.mp4" for k in told} <= known.keys()
        assert known.keys() == {f"/videos/{k}.mp4" for k in range(last + 1)}
        assert {each.windows for each in known.values()} <= {3}
        first = last + 1
        with Library.open(folder) as library:
            np.testing.assert_array_equal(
                library.matrix(), np.float16([vector(k) for k in range(3 * first)]).reshape(-1, WIDTH)
            )
            generations.append(library.generation)
        assert [path.name for path in folder.iterdir() if path.name.startswith(".tmp-")] == []
    with sqlite3.connect(folder / DATABASE) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert first > 20
    assert generations == sorted(generations)


@pytest.mark.parametrize(
    ("kind", "journal"), [("nfs4", "delete"), ("fuse.sshfs", "delete"), ("ext4", "wal"), ("fuseblk", "wal")]
)
def test_no_write_ahead_file_on_network_disks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, journal: str
) -> None:
    point = str(tmp_path / "my disk").replace(" ", "\\040")
    mounts = tmp_path / "mounts"
    mounts.write_text(f"1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / {point} rw shared:1 - {kind} server:/x rw\n")
    monkeypatch.setattr(disks, "MOUNTS", mounts)
    folder = tmp_path / "my disk/index"
    with LibraryWriter.claim(folder, MODEL) as writer:
        writer.keep(video("/x.mp4"), some(1))
        assert writer.network_disk == (kind if journal == "delete" else None)
        assert (folder / f"{DATABASE}-wal").exists() == (journal == "wal")
        writer.finish()
    assert disks.network_disk(tmp_path) is None
    monkeypatch.setattr(disks, "MOUNTS", tmp_path / "none")
    assert disks.network_disk(folder) is None
    with Library.open(folder) as library:
        assert len(library) == 1


def test_others_databases_and_formats_are_refused(folder: Path, tmp_path: Path) -> None:
    connection = sqlite3.connect(folder / DATABASE)
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    for use in (Library.open, claimed):
        with pytest.raises(CacheError, match="format 3, this version reads 1 to 2"):
            use(folder)
    connection = sqlite3.connect(folder / DATABASE)
    connection.execute("PRAGMA application_id = 5")
    connection.close()
    for use in (Library.open, claimed):
        with pytest.raises(CacheError, match="none of teachclip's"):
            use(folder)
    (folder / DATABASE).write_text("something else altogether, and long enough" * 50)
    for use in (Library.open, claimed):
        with pytest.raises(CacheError, match="damaged"):
            use(folder)
    assert not is_library(tmp_path)
    with pytest.raises(CacheError, match="no index here"):
        Library.open(tmp_path)


def test_a_full_disk_keeps_what_is_there(folder: Path, clips: Path) -> None:
    with LibraryWriter.claim(folder, MODEL) as writer:
        connection = writer._connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(CacheError, match="no space left"):
            writer.keep(video(clips / "long.mp4"), some(*range(200)))
        assert len(writer.known()) == 4
    with Library.open(folder) as library:
        assert len(library) == 7


def test_a_folder_that_may_only_be_read(folder: Path, read_only: Callable[[Path], None]) -> None:
    read_only(folder)
    with Library.open(folder) as library:
        assert len(library.search(vector(5), 3)) == 3
        with pytest.raises(CacheError, match="cannot be opened or written"):
            library.add_tag(library.videos()[0].path, "x")
    for where in (folder, folder / "below"):
        with pytest.raises(CacheError, match="cannot be written"):
            claimed(where)


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], None]]:
    """Makes a folder and its files unwritable for this process; skips where nothing stops it (root)."""
    changed: list[Path] = []

    def make(folder: Path) -> None:
        for path in (*folder.iterdir(), folder):
            path.chmod(0o555 if path.is_dir() else 0o444)
            changed.append(path)
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write everywhere")

    yield make
    for path in changed:
        path.chmod(0o755)


def test_the_schema_is_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill while the tables are made leaves a database without any, which the next one fills."""
    monkeypatch.setattr(database, "SCHEMA", database.SCHEMA + "CREATE TABLE wrong(;\n")
    with pytest.raises(CacheError):
        claimed(tmp_path / "index")
    monkeypatch.undo()
    with pytest.raises(CacheError, match="no index here"):
        Library.open(tmp_path / "index")
    claimed(tmp_path / "index")
    assert is_library(tmp_path / "index")
