"""What a teacher made of windows: read as it was written, by whoever asks with the same window and teacher."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from teachclip.cache.library.library import Library
from teachclip.cache.library.rows import Model, NewWindow, Video
from teachclip.cache.library.teacher_features import TeacherFeatures, key_of
from teachclip.cache.library.writer import LibraryWriter
from teachclip.errors import CacheError
from teachclip.remedies import DeleteFile, Remedy

TEACHER = {"weights": "a" * 64, "frames": 2}
MADE = {
    "frames": np.linspace(-1, 1, 6, dtype=np.float32).reshape(1, 2, 3),
    "mask": np.array([[True, False]]),
    "places": np.array([[3]]),
}


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """Two windows of a video."""
    with LibraryWriter.claim(tmp_path / "index", Model("runs/a", "b" * 64, 4, 2)) as writer:
        windows = [NewWindow(k, k + 1, np.array([k, k + 0.5]), None, np.eye(4)[k]) for k in range(2)]
        writer.keep(Video(0, "/v/a.mp4", 1, 1, bytes([1]) * 16, 2.0, "ok", "", 2), windows)
        writer.finish()
    with Library.open(tmp_path / "index") as opened:
        yield opened


def keys(library: Library) -> dict[int, bytes]:
    return {window.row: key_of(library, window) for window in library.windows([1, 2])}


def the_file(library: Library) -> Path:
    (path,) = library.folder.glob("teacher-*.sqlite")
    return path


def written(library: Library) -> None:
    features = TeacherFeatures.open(library, TEACHER)
    features.write(1, keys(library)[1], MADE)
    features.close()


def test_features_are_read_as_they_were_written(library: Library) -> None:
    written(library)
    features = TeacherFeatures.open(library, TEACHER)
    found = features.read(keys(library))
    assert list(found) == [1]
    for name, value in MADE.items():
        np.testing.assert_array_equal(found[1][name], value)
        assert found[1][name].dtype == value.dtype
    assert features.read({1: keys(library)[2]}) == {}
    features.write(1, keys(library)[1], {"other": MADE["mask"]})
    assert list(features.read(keys(library))[1]) == ["other"]
    features.close()
    other = TeacherFeatures.open(library, {**TEACHER, "frames": 3})
    assert other.read(keys(library)) == {}
    other.close()


def test_damage_is_told_and_costs_the_file_alone(library: Library) -> None:
    written(library)
    path = the_file(library)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE features SET value = x'00' WHERE name = 'frames'")
    connection.close()
    features = TeacherFeatures.open(library, TEACHER)
    with pytest.raises(CacheError, match="damaged") as caught:
        features.read(keys(library))
    features.close()
    for content, says in ((b"something else altogether" * 99, "cannot be used"), (None, "no features")):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        else:
            with sqlite3.connect(path) as connection:
                connection.execute("CREATE TABLE features(x)")
            connection.close()
        with pytest.raises(CacheError, match=says) as caught:
            TeacherFeatures.open(library, TEACHER)
        assert isinstance(caught.value.hint, Remedy)
        assert caught.value.hint.action == DeleteFile(str(path))


def test_a_full_disk_keeps_what_is_there(library: Library) -> None:
    written(library)
    features = TeacherFeatures.open(library, TEACHER)
    assert features._connection is not None
    pages = features._connection.execute("PRAGMA page_count").fetchone()[0]
    features._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(CacheError, match="no space left"):
        features.write(2, keys(library)[2], {"large": np.zeros((1, 99_999), np.float32)})
    assert list(features.read(keys(library))) == [1]
    features.close()
