"""The hash of a video's file: of its bytes alone, and only when they are the ones that were read."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from teachclip.cache.frames.record import FileStamp
from teachclip.cache.storage.identity import digest
from teachclip.configs.schema import PrepareConfig
from teachclip.stages.data.video import content, decode
from teachclip.stages.data.video.content import UNKNOWN, content_of, read_again
from teachclip.stages.data.video.decode import read_video
from teachclip.stages.data.video.source import TarPart, stamp_of

CONFIG = PrepareConfig(image_size=32, max_frames=2)


@pytest.fixture
def clip(tmp_path: Path, encode: Any, numbered: Any) -> Path:
    path: Path = encode(tmp_path / "a.mp4", numbered(12))
    return path


def test_it_is_that_of_the_bytes(clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    assert read_video("a", clip, CONFIG).stamp == FileStamp(len(data), clip.stat().st_mtime_ns, digest(data))
    assert read_again("a", clip, CONFIG).stamp.content == digest(data)
    (tmp_path / "b.tar").write_bytes(b"x" * 512 + data + b"y" * 512)
    part = TarPart(tmp_path / "b.tar", 512, len(data))
    assert read_video("a", part, CONFIG).stamp.content == digest(data)
    assert read_again("a", part, CONFIG).stamp.content == digest(data)


def test_what_is_damaged_is_known_by_its_bytes_too(tmp_path: Path) -> None:
    page = tmp_path / "a.mp4"
    page.write_bytes(b"<html>no</html>")
    record = read_video("a", page, CONFIG)
    assert (record.status.status, record.stamp.content) == ("corrupt", digest(b"<html>no</html>"))
    assert read_video("b", tmp_path / "gone.mp4", CONFIG).stamp == FileStamp()


def test_a_long_file_is_hashed_block_by_block(tmp_path: Path) -> None:
    data = os.urandom(2**21 + 7)
    (tmp_path / "a").write_bytes(data)
    with (tmp_path / "a").open("rb") as file:
        assert content_of(file) == digest(data)


def test_time_that_is_not_left_is_not_taken(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with clip.open("rb") as file:
        assert content_of(file, time.monotonic() - 1) == UNKNOWN
    asked: list[float] = []
    monkeypatch.setattr(decode, "content_of", lambda _, until: asked.append(until) or UNKNOWN)
    begun = time.monotonic()
    record = read_video("a", clip, PrepareConfig(image_size=32, timeout=100.0))
    assert (record.status.status, record.stamp) == ("ok", stamp_of(clip))
    assert begun + 50 <= asked[0] <= time.monotonic() + 50


@pytest.mark.parametrize("page", [False, True])
def test_a_file_that_changes_while_it_is_read_has_no_hash(
    clip: Path, page: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page:
        clip.write_bytes(b"<html>no</html>")
    before = stamp_of(clip)

    def meanwhile(file: Any, _: float = 0) -> bytes:
        os.utime(clip, ns=(1, before.mtime_ns + 5))
        return content_of(file)

    monkeypatch.setattr(decode, "content_of", meanwhile)
    monkeypatch.setattr(content, "content_of", meanwhile)
    assert read_video("a", clip, CONFIG).stamp.content == UNKNOWN
    os.utime(clip, ns=(1, before.mtime_ns))
    assert read_again("a", clip, CONFIG).stamp == before


def test_bytes_behind_the_last_frame_that_cannot_be_read_cost_the_hash_alone(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> bytes:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(decode, "content_of", broken)
    record = read_video("a", clip, CONFIG)
    assert (record.status.status, record.stamp) == ("ok", stamp_of(clip))


def test_a_pointer_of_git_lfs_is_called_one(tmp_path: Path) -> None:
    pointer = tmp_path / "a.mp4"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    status = read_video("a", pointer, CONFIG).status
    assert (status.status, status.reason) == (
        "corrupt", "a pointer of Git LFS in place of the file (git lfs pull gets it)",
    )  # fmt: skip
