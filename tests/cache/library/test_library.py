"""The store of vectors: what is kept is found, by whom and while whatever happens; nothing is kept in part."""

import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from teachclip.cache.library.database import DATABASE
from teachclip.cache.library.library import Library
from teachclip.cache.library.rows import Model, NewWindow
from teachclip.cache.library.writer import LibraryWriter
from teachclip.errors import CacheError, DataError

from .conftest import MODEL, WIDTH, claimed, found, some, video
from .spawned.filling_process import vector


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
    claimed(folder)


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
