"""Which files are meant by folders, files, patterns and lists; what is not there is told."""

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest
from teachclip.errors import DataError
from teachclip.stages.search.library.files import Found, find_files


def named(*words: str, stdin: bytes = b"") -> list[str]:
    return [os.path.relpath(path) for path in find_files(words, io.BytesIO(stdin)).files]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (
        "clips/b.MP4", "clips/a.mkv", "clips/deep/er/c.webm", "clips/notes.txt", "clips/.hidden.mp4", "clips/code.ts",
        "clips/.git/x.mp4", "clips/@eaDir/y.mp4", "clips/music.ogg", "other/d.mov", "other/ü\udce9.mp4",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"import x" if name.endswith(".ts") else b"G")
    return tmp_path


def test_a_folder_is_walked_through() -> None:
    wanted = ["clips/a.mkv", "clips/b.MP4", "clips/deep/er/c.webm"]
    assert named("clips") == named("clips/") == wanted
    assert named("clips", "other") == [*wanted, "other/d.mov", "other/ü\udce9.mp4"]
    assert named("clips", "clips/deep", "clips/a.mkv") == wanted
    Path("clips/code.ts").write_bytes(b"G...")
    assert "clips/code.ts" in named("clips")


def test_named_files_are_taken_whatever_they_are_called() -> None:
    assert named("clips/music.ogg", "clips/notes.txt") == ["clips/music.ogg", "clips/notes.txt"]
    assert named("clips/*.m*") == ["clips/a.mkv"]
    assert named("clips/**/*.webm") == ["clips/deep/er/c.webm"]


def test_lists(folder: Path) -> None:
    lines = b"clips/a.mkv\r\n\nnot/there.mp4\n" + os.fsencode("other/ü\udce9.mp4")
    (folder / "list.txt").write_bytes(lines)
    wanted = ["clips/a.mkv", "not/there.mp4", "other/ü\udce9.mp4"]
    assert named("@list.txt") == named("-", stdin=lines) == wanted
    found = find_files(["@list.txt"], io.BytesIO())
    assert [file.size for file in found.files.values()] == [1, -1, 1]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("none", "no such file or folder"),
        ("none/*.mp4", "matches this pattern"),
        ("@none.txt", "list cannot be read"),
        ("empty", "there is no video"),
        ("-", "there is no video"),
    ],
)
def test_what_names_nothing_is_told(folder: Path, word: str, message: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        named(word)


def test_a_list_of_nothing_that_is_there(folder: Path) -> None:
    with pytest.raises(DataError, match="none of 2 named files is there"):
        named("-", stdin=b"x.mp4\ny.mp4\n")


def test_links(folder: Path) -> None:
    (folder / "links").mkdir()
    (folder / "links/more").symlink_to(folder / "other")
    with pytest.raises(DataError) as caught:
        named("links")
    assert "links/more" in str(caught.value.hint)
    (folder / "links/one.mp4").symlink_to(folder / "other/d.mov")
    found = find_files(["links"], io.BytesIO())
    assert [Path(path).name for path in found.files] == ["one.mp4"]
    assert found.walked(str(folder / "links/gone.mp4"))
    assert not found.walked(str(folder / "links/more/d.mov"))
    assert not found.walked(str(folder / "links2/d.mov"))


def test_what_could_not_be_read_was_not_walked_through(folder: Path) -> None:
    found = Found(roots=[folder], unread=[str(folder / "clips")])
    assert not found.walked(str(folder / "clips/a.mkv"))
    assert found.walked(str(folder / "other/a.mkv"))


def test_what_may_not_be_looked_at_is_not_called_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that can be listed and not entered: what is known of its videos stays."""
    real, locked = os.stat, str(folder / "clips/deep")

    def stat(path: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(locked + "/er/"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    found = find_files(["clips"])
    assert [os.path.relpath(path) for path in found.files] == ["clips/a.mkv", "clips/b.MP4"]
    assert found.unread == [f"{locked}/er"]
    assert not found.walked(f"{locked}/er/c.webm")
    with pytest.raises(DataError, match="cannot be read"):
        find_files(["clips/deep"])
