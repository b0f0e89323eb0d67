"""What the machine fails at is `failed`, tried again, and never called damage."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from teachclip.cache.frames.cache import FrameCache
from teachclip.cache.frames.record import Decoder
from teachclip.configs.schema import PrepareConfig
from teachclip.errors import DataError
from teachclip.remedies import Prepare
from teachclip.stages.data.video import decode
from teachclip.stages.data.video.decode import READER, read_video
from teachclip.stages.data.video.source import TarPart
from teachclip.stages.data.video.workers import decode_videos
from teachclip.stages.prepare import stage
from teachclip.stages.prepare.estimate import estimate_frames
from teachclip.stages.prepare.stage import prepare

CONFIG = PrepareConfig(image_size=32, max_frames=2, workers=2, timeout=150)
FOREVER = {
    "kill-9.mp4": "the decoding process was killed (SIGKILL), most likely for want of memory",
    "term-9.mp4": "the decoding process was killed (SIGTERM)",
    "memory-9.mp4": "out of memory",
    "eio-9.mp4": "cannot be read: Input/output error",
}


def decoded(folder: Path, names: list[str], reader: Any, encode: Any, numbered: Any, **how: Any) -> dict[str, Any]:
    jobs = [(name, encode(folder / name, numbered(6), fps=2)) for name in names]
    config = CONFIG.model_copy(update=how)
    return {names[found.index]: found.record for found in decode_videos(jobs, config, 20, reader)}


@pytest.mark.parametrize("decoder", ["auto", "pyav", "decord"])
def test_what_ends_or_fails_a_worker_twice_is_failed(
    tmp_path: Path, decoder: Decoder, spawned: Callable[[str], Any], numbered: Any, encode: Any
) -> None:
    names = [*FOREVER, "a.mp4", "b.mp4"]
    found = decoded(tmp_path, names, spawned("troubled"), encode, numbered, decoder=decoder)
    told = {name: (record.status.status, record.status.reason) for name, record in found.items()}
    assert told == {name: ("failed", reason) for name, reason in FOREVER.items()} | {
        "a.mp4": ("ok", ""), "b.mp4": ("ok", ""),
    }  # fmt: skip
    assert all(len((tmp_path / name).with_suffix(".turns").read_text()) == 2 for name in FOREVER)
    assert found["kill-9.mp4"].stamp.size == (tmp_path / "kill-9.mp4").stat().st_size
    assert {record.read_by.reader for record in found.values()} == {READER}


def test_the_second_turn_is_alone_and_enough(
    tmp_path: Path, spawned: Callable[[str], Any], numbered: Any, encode: Any
) -> None:
    again = ["kill-1.mp4", "memory-1.mp4", "eio-1.mp4"]
    names = [*again, "together-0.mp4", "together-1.mp4", *(f"{k}.mp4" for k in range(4))]
    found = decoded(tmp_path, names, spawned("troubled"), encode, numbered)
    assert {record.status.status for record in found.values()} == {"ok"}
    turns = [line.split() for line in (tmp_path / "turns.txt").read_text().splitlines()]
    spans = {id: (float(begun), float(ended)) for id, begun, ended in turns}
    for id in again:
        others = [span for other, span in spans.items() if other != id]
        assert all(end <= spans[id][0] or start >= spans[id][1] for start, end in others), id
    overlapping = [a for a in spans.values() for b in spans.values() if a is not b and a[0] < b[1] and b[0] < a[1]]
    assert overlapping  # the others were not alone


def test_a_read_error_is_no_damage(tmp_path: Path) -> None:
    unreadable = TarPart(Path("/proc/self/mem"), 0, 4096)  # whose first page nobody can read
    record = read_video("a", unreadable, PrepareConfig())
    assert (record.status.status, record.status.reason) == ("failed", "cannot be read: Input/output error")


def test_a_read_error_that_a_decoder_takes_for_the_end_is_no_damage(
    tmp_path: Path, numbered: Any, encode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "a.mkv", numbered(40))
    path.write_bytes(path.read_bytes()[:9000])  # as it looks to FFmpeg
    assert read_video("a", path, PrepareConfig()).status.status == "short"

    class Failing:
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def read(self, _: int) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(decode, "open_bytes", lambda _: Failing())
        assert read_video("a", path, PrepareConfig()).status.status == "failed"


def test_a_read_error_that_has_passed_is_forgotten(
    tmp_path: Path, numbered: Any, encode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real, asked = encode(tmp_path / "a.mp4", numbered(12)), decode.inspect, []

    def once(source: Any) -> Any:
        asked.append(source)
        if len(asked) == 1:
            raise decode.Unusable("corrupt", "holds no picture")
        return real(source)

    monkeypatch.setattr(decode, "inspect", once)
    assert read_video("a", path, PrepareConfig(image_size=32)).status.status == "ok"
    assert len(asked) == 2


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_file_that_cannot_be_opened_now_is_not_called_missing(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stat(_: Path) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "stat", stat)
    assert read_video("a", tmp_path / "a.mp4", PrepareConfig()).status.status == "failed"


def test_no_memory_is_told_as_that(tmp_path: Path, numbered: Any, encode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.avi", numbered(12))

    def full(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(decode, "_stored", full)
    status = read_video("a", path, PrepareConfig(image_size=32)).status
    assert (status.status, status.reason) == ("failed", "out of memory")


def test_what_failed_is_tried_with_the_next_prepare(
    collection: Any, spawned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.clip("a.mp4")
    collection.clip("kill-3.mp4")
    collection.caption("gone.mp4")
    config, troubled, real = collection.config(), spawned("troubled"), stage.decode_videos
    monkeypatch.setattr(stage, "decode_videos", lambda jobs, settings, ahead: real(jobs, settings, ahead, troubled))
    result = prepare(config)
    assert result.counts == {"ok": 1, "failed": 1, "missing": 1}
    assert [one.status for one in result.left_out] == ["failed", "missing"]
    assert FrameCache.open(config.frames_folder).statuses["kill-3.mp4"].status == "failed"
    again = prepare(config)
    assert (again.decoded, again.counts) == (1, {"ok": 2, "missing": 1})
    assert prepare(config).decoded == 0


def test_nothing_but_failures_says_what_to_do(collection: Any, spawned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    collection.clip("kill-9.mp4")
    troubled, real = spawned("troubled"), stage.decode_videos
    monkeypatch.setattr(stage, "decode_videos", lambda jobs, settings, ahead: real(jobs, settings, ahead, troubled))
    with pytest.raises(DataError, match="none of the 1 video") as caught:
        prepare(collection.config())
    assert caught.value.hint.action == Prepare({"prepare.workers": 1})


def test_what_an_older_reader_called_damaged_is_asked_once(collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    collection.clip("a.mp4")
    (collection.videos / "page.mp4").write_text("<html>no</html>")
    collection.caption("page.mp4")
    config = collection.config()
    with monkeypatch.context() as patch:
        patch.setattr(decode, "READER", READER - 1)
        patch.setattr(stage, "decode_videos", lambda jobs, settings, ahead: (
            stage_decoded(k, id, source, settings) for k, (id, source) in enumerate(jobs)
        ))  # fmt: skip
        assert prepare(config).counts == {"ok": 1, "corrupt": 1}
    digest = FrameCache.open(config.frames_folder).digest("a.mp4")
    expected = estimate_frames(config)
    assert (expected.remaining, expected.asked_again) == (1, 1)
    assert prepare(config).decoded == 1  # what is ok is not decoded again
    assert prepare(config).decoded == 0
    assert estimate_frames(config).asked_again == 0
    assert FrameCache.open(config.frames_folder).digest("a.mp4") == digest


def stage_decoded(index: int, id: str, source: Any, settings: PrepareConfig) -> Any:
    """Decoded in this process, where the reader's version can be another."""
    from teachclip.stages.data.video.workers import Decoded

    return Decoded(index, read_video(id, source, settings), 0.0)
