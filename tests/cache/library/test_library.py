"""The store of vectors: what is kept is found, by whom and while whatever happens; nothing is kept in part."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.library import database, disks, matrix
from teachclip.cache.library import library as of_library
from teachclip.cache.library.database import DATABASE, is_library
from teachclip.cache.library.library import Library
from teachclip.cache.library.rows import Model, NewWindow, Video
from teachclip.cache.library.writer import LibraryWriter
from teachclip.cache.vectors import exact_index
from teachclip.errors import CacheError, DataError

from .spawned.filling_process import vector

WIDTH = 16
MODEL = Model("runs/a", "a" * 64, WIDTH, 4)
FILLING = Path(__file__).parent / "spawned/filling_process.py"


def video(path: str | Path, content: int = 1, mtime: int = 1, status: Any = "ok", size: int = 10) -> Video:
    return Video(0, str(path), size, mtime, bytes([content]) * 16, 60.0, status, "", 2)


def some(*seeds: int, weights: bool = True) -> list[NewWindow]:
    shares = np.array([0.5, 0.25, 0.25, 0.0]) if weights else None
    return [
        NewWindow(15.0 * k, 15.0 * k + 30, 15.0 * k + np.arange(4.0), shares, vector(seed))
        for k, seed in enumerate(seeds)
    ]


def fill(folder: Path, videos: dict[str, Sequence[int]], model: Model = MODEL) -> None:
    with LibraryWriter.claim(folder, model) as writer:
        for k, (path, seeds) in enumerate(videos.items(), 1):
            writer.keep(video(path, content=k, mtime=k * 10**9), some(*seeds))
        writer.finish()


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder with files of some names, which a search looks for."""
    for name in ("a/1.mp4", "a/2.mp4", "ab/3.mp4", "b/ü\udce9.mp4"):
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clips" / name).touch()
    return tmp_path / "clips"


@pytest.fixture
def folder(clips: Path, tmp_path: Path) -> Path:
    names = {"a/1.mp4": (1, 2), "a/2.mp4": (3,), "ab/3.mp4": (4,), "b/ü\udce9.mp4": (5, 6, 7)}
    fill(tmp_path / "index", {str(clips / name): seeds for name, seeds in names.items()})
    return tmp_path / "index"


def found(library: Library, seed: int, top: int = 3, **filters: Any) -> list[tuple[str, float]]:
    return [(Path(hit.window.path).name, hit.window.start) for hit in library.search(vector(seed), top, **filters)]


def test_what_was_kept_is_read(folder: Path, clips: Path) -> None:
    with Library.open(folder) as library:
        assert library.model == MODEL
        assert len(library) == 7
        assert library.rows.tolist() == [1, 2, 3, 4, 5, 6, 7]
        np.testing.assert_array_equal(library.matrix(), np.float16([vector(k) for k in range(1, 8)]))
        assert isinstance(library.matrix(), np.memmap)
        window = library.window(6)
        assert window is not None
        assert (window.row, window.path, window.start, window.stop) == (6, str(clips / "b/ü\udce9.mp4"), 15.0, 45.0)
        assert window.times == (15.0, 16.0, 17.0, 18.0)
        assert window.weights == (0.5, 0.25, 0.25, 0.0)
        assert [w.row for w in library.windows_of(clips / "a/1.mp4")] == [1, 2]
        assert [w.row for w in library.windows([7, 99, 1])] == [7, 1]
        np.testing.assert_array_equal(library.vector(3), np.float16(vector(3)))
        assert library.vector(99) is library.window(99) is None
        assert library.counts() == {"ok": 4}
        known = library.video(clips / "a/2.mp4")
        assert known is not None
        assert replace(known, id=0) == video(clips / "a/2.mp4", content=2, mtime=2 * 10**9)
    with pytest.raises(ValueError, match="closed"):
        library.window(1)


def test_search_is_exact(folder: Path) -> None:
    wanted = vector(5) + 0.3 * vector(2)
    with Library.open(folder) as library:
        cosines = library.matrix().astype(np.float64) @ wanted
        hits = library.search(wanted, 7)
        assert [hit.window.row for hit in hits] == (np.argsort(-cosines) + 1).tolist()
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(cosines)[::-1], atol=1e-3)
        assert library.search(wanted, 2) == hits[:2]
        assert len(library.search(wanted, 100)) == 7
        with pytest.raises(DataError, match="16 numbers"):
            library.search(wanted[:3])
        with pytest.raises(DataError, match="0 answers"):
            library.search(wanted, 0)


def test_filters(folder: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Library.open(folder) as library:
        library.add_tag(clips / "ab/3.mp4", "dogs")
        library.add_tag(clips / "a/1.mp4", "dogs")
        assert found(library, 5, under=clips / "a") == found(library, 5, under=f"{clips}/a/") != []
        assert library.select(under=clips / "a").tolist() == [1, 2, 3]
        assert library.select(under=clips / "a/2.mp4").tolist() == [3]
        assert library.select(tag="dogs").tolist() == [1, 2, 4]
        assert library.select(since=2, until=3).tolist() == [3, 4]
        assert library.select(under=clips / "a", tag="dogs", since=1.0).tolist() == [1, 2]
        assert found(library, 5, top=9, tag="dogs", under=clips / "ab") == [("3.mp4", 0.0)]
        assert found(library, 5, tag="cats") == []
        monkeypatch.chdir(clips)
        assert library.select(under="b").tolist() == [5, 6, 7]


def test_tags(folder: Path, clips: Path) -> None:
    path = clips / "b/ü\udce9.mp4"
    with Library.open(folder) as library:
        library.add_tag(path, "sea")
        library.add_tag(path, "sea")
        library.add_tag(path, "Élan")
        assert library.tags(path) == library.tags() == ["sea", "Élan"]
        library.remove_tag(path, "sea")
        assert library.tags(path) == ["Élan"]
        assert library.tags(clips / "a/1.mp4") == []
        with pytest.raises(DataError, match="not in the index"):
            library.add_tag(clips / "none.mp4", "sea")
        for wrong, said in (
            (" ", "empty tag"),
            ("a\nb", "one line"),
            ("x" * 201, "201 letters"),
            ("\udce9", "one line"),
        ):
            with pytest.raises(DataError, match=said):
                library.add_tag(path, wrong)
        other, last = (library.windows_of(clips / name)[0].video for name in ("a/1.mp4", "b/ü\udce9.mp4"))
        library.add_tag(path, " sea ")
        assert library.tags_of([other, last, 10**6]) == {last: ["sea", "Élan"]}
        library.remove_tag(path, "sea")
        library.refresh()
        assert found(library, 6, top=1, tag="Élan") == [("ü\udce9.mp4", 15.0)]


def test_tags_are_written_while_somebody_fills(folder: Path, clips: Path) -> None:
    """Whoever fills has the lock of the folder, not of the database."""
    with LibraryWriter.claim(folder, MODEL) as writer, Library.open(folder) as library:
        library.add_tag(clips / "a/1.mp4", "sea")
        writer.keep(video(clips / "new.mp4", content=9), some(40))
        both = [str(clips / "a/1.mp4"), str(clips / "new.mp4"), str(clips / "none.mp4")]
        assert writer.change_tags(both, ["sea", "dogs"], ["cats"]) == (3, 0)
        library.remove_tag(clips / "new.mp4", "sea")
        assert writer.change_tags(both, [], ["sea"]) == (0, 1)
        assert library.tags() == library.tags(clips / "new.mp4") == ["dogs"]


def test_a_file_that_is_gone_is_no_answer(folder: Path, clips: Path) -> None:
    with Library.open(folder) as library:
        assert found(library, 3, top=1) == [("2.mp4", 0.0)]
        (clips / "a/2.mp4").unlink()
        assert ("2.mp4", 0.0) not in found(library, 3, top=7)
        assert len(library.search(vector(3), 6)) == 6
        shutil.rmtree(clips)
        assert library.search(vector(3), 6) == []


def test_replaced_moved_copied_removed(folder: Path, clips: Path) -> None:
    with Library.open(folder) as library, LibraryWriter.claim(folder, MODEL) as writer:
        library.add_tag(clips / "a/1.mp4", "dogs")
        known = writer.known()
        assert {path: each.windows for path, each in known.items()} == {
            str(clips / name): count for name, count in zip(("a/1.mp4", "a/2.mp4", "ab/3.mp4"), (2, 1, 1), strict=True)
        } | {str(clips / "b/ü\udce9.mp4"): 3}
        first = known[str(clips / "a/1.mp4")].video
        generation = library.generation
        writer.move(first.id, str(clips / "moved.mp4"), 77)
        writer.renew(first.id, 10, 78, first.content)
        assert not library.refresh()
        assert [w.row for w in library.windows_of(clips / "moved.mp4")] == [1, 2]
        assert library.tags(clips / "moved.mp4") == ["dogs"]
        moved = library.video(clips / "moved.mp4")
        assert moved is not None
        assert (moved.id, moved.mtime_ns) == (first.id, 78)
        writer.copy(first.id, str(clips / "copy.mp4"), 79)
        assert library.refresh()
        assert library.generation == generation + 1
        assert [w.row for w in library.windows_of(clips / "copy.mp4")] == [8, 9]
        np.testing.assert_array_equal(library.vector(8), library.vector(1))
        assert library.tags(clips / "copy.mp4") == []
        writer.keep(video(clips / "ab/3.mp4", content=9, mtime=5), some(20, 21))
        writer.remove([known[str(clips / "b/ü\udce9.mp4")].video.id])
        assert library.refresh()
        assert library.rows.tolist() == [1, 2, 3, 8, 9, 10, 11]
        np.testing.assert_array_equal(library.matrix(), np.float16([vector(seed) for seed in (1, 2, 3, 1, 2, 20, 21)]))
        assert library.video(clips / "b/ü\udce9.mp4") is None


def test_frames_go_with_their_windows(folder: Path, clips: Path) -> None:
    def framed(seed: int) -> NewWindow:
        return replace(some(seed)[0], frames=np.stack([vector(seed + k) for k in range(4)]))

    with Library.open(folder) as library, LibraryWriter.claim(folder, MODEL) as writer:
        first = writer.keep(video(clips / "new.mp4", content=9), [framed(20), some(30)[0], framed(40)])
        writer.copy(first, str(clips / "copy.mp4"), 79)
        kept = library.frames([1, 8, 9, 10, 11, 12, 13])
        assert sorted(kept) == [8, 10, 11, 13]
        wanted = np.float16([vector(20 + k) for k in range(4)])
        np.testing.assert_array_equal(kept[8], wanted)
        np.testing.assert_array_equal(kept[11], wanted)
        np.testing.assert_array_equal(kept[13], kept[10])
        writer.move(first, str(clips / "moved.mp4"), 80)
        assert sorted(library.frames([8, 9, 10])) == [8, 10]
        writer.keep(video(clips / "copy.mp4", content=10, mtime=81), [framed(50)])
        writer.remove([first])
        assert [w.row for w in library.windows_of(clips / "copy.mp4")] == [14]
    with sqlite3.connect(folder / DATABASE) as connection:
        assert connection.execute("SELECT window FROM frames").fetchall() == [(14,)]
    connection.close()


FORMAT_1 = """
CREATE TABLE models(
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL, name TEXT NOT NULL, width INTEGER NOT NULL, frames INTEGER NOT NULL,
    seconds REAL NOT NULL, step REAL NOT NULL, whole REAL NOT NULL, used REAL NOT NULL,
    UNIQUE(digest, frames, seconds, step, whole));
CREATE TABLE generations(
    model INTEGER NOT NULL REFERENCES models ON DELETE CASCADE, generation INTEGER NOT NULL, stamp TEXT NOT NULL,
    PRIMARY KEY(model, generation)) WITHOUT ROWID;
CREATE TABLE roots(path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE videos(
    id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    blake2b BLOB, duration REAL, status TEXT NOT NULL, reason TEXT NOT NULL, reader INTEGER NOT NULL);
CREATE INDEX videos_by_size ON videos(size);
CREATE INDEX videos_by_time ON videos(mtime_ns);
CREATE TABLE windows(
    id INTEGER PRIMARY KEY AUTOINCREMENT, model INTEGER NOT NULL REFERENCES models ON DELETE CASCADE,
    video INTEGER NOT NULL REFERENCES videos ON DELETE CASCADE, start REAL NOT NULL, stop REAL NOT NULL,
    times BLOB NOT NULL, weights BLOB, vector BLOB NOT NULL);
CREATE INDEX windows_of_model ON windows(model);
CREATE INDEX windows_of_video ON windows(video, model);
CREATE TABLE tags(
    tag TEXT NOT NULL, video INTEGER NOT NULL REFERENCES videos ON DELETE CASCADE, PRIMARY KEY(tag, video)
    ) WITHOUT ROWID;
CREATE INDEX tags_of_video ON tags(video);
PRAGMA application_id = 0x74636c62;
PRAGMA user_version = 1;
"""
"""What releases before frames made of an empty folder."""


def of_format_1(folder: Path, clips: Path) -> None:
    """A library with a window of a/1.mp4 that says 5, and a tag."""
    folder.mkdir()
    with sqlite3.connect(folder / DATABASE) as connection:
        connection.executescript(FORMAT_1)
        model = (1, MODEL.digest, MODEL.name, WIDTH, 4, 30.0, 15.0, 45.0, 1.0)
        connection.execute("INSERT INTO models VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", model)
        connection.execute("INSERT INTO generations VALUES (1, 1, '0123456789abcdef')")
        path = str(clips / "a/1.mp4")
        connection.execute("INSERT INTO videos VALUES (1, ?, 10, 1, ?, 60.0, 'ok', '', 2)", (path, bytes([1]) * 16))
        times, weights = np.float32([0, 1, 2, 3]).tobytes(), np.float32([0, 1, 0, 0]).tobytes()
        window = (times, weights, np.float16(vector(5)).tobytes())
        connection.execute("INSERT INTO windows VALUES (1, 1, 1, 0.0, 30.0, ?, ?, ?)", window)
        connection.execute("INSERT INTO tags VALUES ('sea', 1)")
    connection.close()


def format_of(folder: Path) -> int:
    connection = sqlite3.connect(folder / DATABASE)
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return found


def test_a_library_of_format_1_is_read_and_raised_by_who_writes(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "before"
    of_format_1(folder, clips)
    with Library.open(folder) as library:
        assert found(library, 5, tag="sea") == [("1.mp4", 0.0)]
        assert library.frames([1]) == {}
        library.add_tag(clips / "a/1.mp4", "holidays")
        assert format_of(folder) == 1
        with LibraryWriter.claim(folder, MODEL) as writer:
            new = replace(some(6)[0], frames=np.stack([vector(k) for k in range(4)]))
            writer.keep(video(clips / "a/2.mp4", content=2), [new])
            writer.copy(1, str(clips / "ab/3.mp4"), 5)
            writer.finish()
        assert format_of(folder) == 2
        assert library.refresh()
        assert library.tags(clips / "a/1.mp4") == ["holidays", "sea"]
        assert sorted(found(library, 5)) == [("1.mp4", 0.0), ("2.mp4", 0.0), ("3.mp4", 0.0)]
        assert sorted(library.frames([1, 2, 3])) == [2]
    _claimed(folder)


def test_what_cannot_be_used_has_a_status_and_no_windows(folder: Path, clips: Path) -> None:
    with LibraryWriter.claim(folder, MODEL) as writer:
        writer.keep(replace(video(clips / "a/1.mp4", content=9, mtime=2, status="corrupt"), reason="text, no video"))
    with Library.open(folder) as library:
        assert library.counts() == {"corrupt": 1, "ok": 3}
        assert library.windows_of(clips / "a/1.mp4") == []
        assert [each.reason for each in library.videos()] == ["text, no video", "", "", ""]
        assert len(library) == 5


def test_several_models_live_in_one_library(folder: Path, clips: Path) -> None:
    """Switching back makes nothing again; a file that changed loses the windows of both."""
    other = Model("openclip:a/b", "b" * 64, 8, 12)
    path = str(clips / "a/1.mp4")
    with LibraryWriter.claim(folder, other) as writer:
        assert {each.windows for each in writer.known().values()} == {0}
        writer.keep(video(path, content=1, mtime=10**9), [replace(some(1)[0], vector=np.eye(8)[2])])
        writer.finish()
    with Library.open(folder) as library, Library.open(folder, MODEL.digest) as first:
        assert library.model == other
        assert (len(library), len(first)) == (1, 7)
        assert library.models() == [other, MODEL]
        assert library.search(np.eye(8)[2].astype(np.float32), 1)[0].score == 1.0
        assert [w.row for w in first.windows_of(path)] == [1, 2]
        with LibraryWriter.claim(folder, MODEL) as writer:
            assert writer.known()[path].windows == 2
            writer.keep(video(path, content=8, mtime=3 * 10**9), some(9))
        assert library.refresh()
        assert first.refresh()
        assert (len(library), len(first)) == (0, 6)
    with pytest.raises(CacheError, match="no vectors of this model"):
        Library.open(folder, "c" * 64)
    with Library.open(folder) as library:
        assert library.model == MODEL


def test_a_matrix_of_another_generation_is_made_again(folder: Path, clips: Path) -> None:
    (before,) = folder.glob("matrix-*.npy")
    with LibraryWriter.claim(folder, MODEL) as writer:
        writer.keep(video(clips / "a/1.mp4", content=9, mtime=2), some(30))
    with Library.open(folder) as library:
        assert len(library) == 6
        (now,) = folder.glob("matrix-*.npy")
        assert now.name != before.name
    now.write_bytes(now.read_bytes()[:-5])
    with Library.open(folder) as library:
        np.testing.assert_array_equal(library.vector(8), np.float16(vector(30)))
        assert len(library) == 6
    (rows,) = folder.glob("rows-*.npy")
    rows.unlink()
    with Library.open(folder) as library:
        assert len(library) == 6


def test_only_what_is_new_is_read_for_a_new_matrix(folder: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest comes from the matrix before; one that this database does not remember is not trusted."""
    (path,) = folder.glob("matrix-*.npy")
    rows = next(folder.glob("rows-*.npy"))
    marked = np.load(path)
    marked[4] = 7
    np.save(path, marked)
    with LibraryWriter.claim(folder, MODEL) as writer:
        writer.keep(video(clips / "new.mp4", content=9), some(40))
    kept = path.read_bytes(), rows.read_bytes()
    with Library.open(folder) as library:
        assert (library.vector(5) == 7).all()
        np.testing.assert_array_equal(library.vector(8), np.float16(vector(40)))
    for each in (*folder.glob("matrix-*.npy"), *folder.glob("rows-*.npy")):
        each.unlink()
    stranger = "-1-4-0123456789abcdef.npy"
    (folder / f"matrix{stranger}").write_bytes(kept[0])
    (folder / f"rows{stranger}").write_bytes(kept[1])
    with Library.open(folder) as library:
        np.testing.assert_array_equal(library.vector(5), np.float16(vector(5)))
    assert not (folder / f"matrix{stranger}").exists()


def test_a_database_put_back_from_a_copy_does_not_take_the_matrix_of_what_came_after(
    folder: Path, clips: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / DATABASE, tmp_path / "copy")
    with LibraryWriter.claim(folder, MODEL) as writer:
        writer.keep(video(clips / "new.mp4", content=9), some(40))
        writer.finish()
    shutil.copy(tmp_path / "copy", folder / DATABASE)
    with LibraryWriter.claim(folder, MODEL) as writer:
        writer.keep(video(clips / "other.mp4", content=9), some(41))
        writer.finish()
    with Library.open(folder) as library:
        np.testing.assert_array_equal(library.vector(8), np.float16(vector(41)))


def test_where_nothing_can_be_written_the_matrix_is_held(
    folder: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LibraryWriter.claim(folder, MODEL) as writer:
        writer.keep(video(clips / "new.mp4", content=9), some(40))

    def refused(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(matrix, "publishing", refused)
    before = sorted(path.name for path in folder.glob("*.npy"))
    with Library.open(folder) as library:
        np.testing.assert_array_equal(library.matrix(), np.float16([vector(k) for k in (*range(1, 8), 40)]))
        assert not isinstance(library.matrix(), np.memmap)
    assert sorted(path.name for path in folder.glob("*.npy")) == before


def test_a_library_without_windows(tmp_path: Path) -> None:
    with LibraryWriter.claim(tmp_path / "index", MODEL) as writer:
        writer.keep(video("/x.mp4", status="missing"))
        writer.finish()
    with Library.open(tmp_path / "index") as library:
        assert len(library) == 0
        assert library.search(vector(1)) == []
        assert library.search(vector(1), tag="x") == []
        with LibraryWriter.claim(tmp_path / "index", MODEL) as writer:
            writer.keep(video(tmp_path, content=2), some(3))
        assert library.refresh()
        assert len(library.search(vector(1))) == 1


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
            _claimed(folder)


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


def test_nobody_waits_while_what_is_new_is_taken_up(folder: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly(vectors: np.ndarray) -> Any:
        begun.set()
        assert go_on.wait(120)
        return exact_index(vectors)

    with Library.open(folder) as library:
        assert len(library.search(vector(5), 9)) == 7
        with LibraryWriter.claim(folder, MODEL) as writer:
            writer.keep(video(clips / "a/1.mp4", content=9, mtime=9), some(40, 41, 42))
        monkeypatch.setattr(of_library, "exact_index", slowly)
        taking = threading.Thread(target=library.refresh)
        taking.start()
        assert begun.wait(120)
        assert len(library.search(vector(5), 9)) == 5
        go_on.set()
        taking.join()
        assert len(library.search(vector(5), 9)) == 8


def test_threads_ask_at_once(folder: Path) -> None:
    wrong: list[object] = []
    with Library.open(folder) as library:
        wanted = library.search(vector(5), 3)

        def ask() -> None:
            for _ in range(30):
                if library.search(vector(5), 3) != wanted or library.select(tag="no").size:
                    wrong.append(1)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


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
    for use in (Library.open, _claimed):
        with pytest.raises(CacheError, match="format 3, this version reads 1 to 2"):
            use(folder)
    connection = sqlite3.connect(folder / DATABASE)
    connection.execute("PRAGMA application_id = 5")
    connection.close()
    for use in (Library.open, _claimed):
        with pytest.raises(CacheError, match="none of teachclip's"):
            use(folder)
    (folder / DATABASE).write_text("something else altogether, and long enough" * 50)
    for use in (Library.open, _claimed):
        with pytest.raises(CacheError, match="damaged"):
            use(folder)
    assert not is_library(tmp_path)
    with pytest.raises(CacheError, match="no index here"):
        Library.open(tmp_path)


def _claimed(folder: Path) -> None:
    with LibraryWriter.claim(folder, MODEL):
        pass


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
            _claimed(where)


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
        _claimed(tmp_path / "index")
    monkeypatch.undo()
    with pytest.raises(CacheError, match="no index here"):
        Library.open(tmp_path / "index")
    _claimed(tmp_path / "index")
    assert is_library(tmp_path / "index")
