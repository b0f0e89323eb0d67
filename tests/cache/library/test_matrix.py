"""The matrix of a model: made of the database when it is asked for, of what is new alone, while others ask."""

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.library import library as of_library
from teachclip.cache.library import matrix
from teachclip.cache.library.database import DATABASE
from teachclip.cache.library.library import Library
from teachclip.cache.library.writer import LibraryWriter
from teachclip.cache.vectors import exact_index

from .conftest import MODEL, some, video
from .spawned.filling_process import vector


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
