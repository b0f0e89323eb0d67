"""What words ask with: sentences, videos, and lists of both."""

import io
from pathlib import Path

import pytest
from teachclip.errors import DataError
from teachclip.stages.search.questions import Question, questions


def asked(*words: str, stdin: bytes = b"") -> list[Question]:
    return questions(words, io.BytesIO(stdin))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("dog.MP4", "dog", "clips/noname"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"x")
    return tmp_path


def test_a_video_is_told_by_its_ending_or_its_folder() -> None:
    assert asked("dog.MP4", "clips/noname") == [Path("dog.MP4"), Path("clips/noname")]
    sentences = ["dog", "a dog.", "clips", "clips/none", "it falls at 0.264", "a dog/cat", "mp4"]
    assert asked(*sentences) == sentences


@pytest.mark.parametrize("word", ["none.mp4", "my holiday.mkv", "clips/none.webm"])
def test_a_video_that_is_not_there_is_no_sentence(word: str) -> None:
    with pytest.raises(DataError, match="no such video") as caught:
        asked(word)
    assert caught.value.where == word


def test_lists_hold_a_question_a_line(folder: Path) -> None:
    lines = "\ufeffa dog runs\r\n\n   \n  @home  \ndog.MP4\n-".encode()
    (folder / "asked.txt").write_bytes(lines)
    wanted = ["a dog runs", "@home", Path("dog.MP4"), "-"]
    assert asked("@asked.txt") == asked("-", stdin=lines) == wanted
    assert asked("a cat", "@asked.txt", "a cow") == ["a cat", *wanted, "a cow"]


@pytest.mark.parametrize(
    ("word", "content", "where", "what"),
    [
        ("@none.txt", None, "none.txt", "cannot be read: No such file"),
        ("@asked.txt", b" \n\n", "asked.txt", "there is no sentence in it"),
        ("-", b"", "standard input", "there is no sentence in it"),
        ("@asked.txt", b"a\nb\xff", "asked.txt:2", "byte 0xff is not UTF-8"),
        ("-", "a dog".encode("utf-16"), "standard input", "UTF-16"),
    ],
)
def test_lists_that_cannot_be_asked_with_are_told(
    folder: Path, word: str, content: bytes | None, where: str, what: str
) -> None:
    if content is not None:
        (folder / "asked.txt").write_bytes(content)
    with pytest.raises(DataError, match=what) as caught:
        asked(word, stdin=content or b"")
    assert caught.value.where == where
