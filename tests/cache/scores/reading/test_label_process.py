"""Labels read by a process of their own: the same bits, the same errors, and a process that always ends."""

import gc
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.read_ahead import read_ahead
from teachclip.cache.scores.reading import label_process
from teachclip.cache.scores.reading.label_process import LabelProcess
from teachclip.cache.scores.reading.pairs import PairScores
from teachclip.cache.scores.reading.row_files import FileRows, ShardFiles
from teachclip.cache.scores.store import ScoreStore
from teachclip.errors import CacheError, TrainingError
from teachclip.remedies import Change

TEXTS, VIDEOS = np.array([20, 3, 8, 3, 0]), np.array([1, 12, 5])


def alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def same(process: LabelProcess, readers: list[Any], texts: np.ndarray, videos: np.ndarray) -> None:
    """Assert that the process reads what the readers do."""
    labels = process.start(texts, videos).result()
    for ours, reader in zip(labels, readers, strict=True):
        theirs = reader.read(texts, videos)
        np.testing.assert_array_equal(ours.coarse, theirs.coarse)
        assert (ours.coarse.dtype, ours.coarse.shape) == (np.float32, (len(texts), len(videos)))
        np.testing.assert_array_equal(ours.frame_logits, theirs.frame_logits)


@pytest.fixture
def no_process_left() -> Iterator[None]:
    """Fails when the test leaves a process of its own, or a warning of one."""
    before = set(subprocess._active)  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        yield
        gc.collect()
    assert set(subprocess._active) == before  # type: ignore[attr-defined]


@pytest.mark.usefixtures("no_process_left")
def test_the_same_labels_bit_for_bit_from_several_teachers(make_store: Any) -> None:
    made = [make_store(dtype=dtype, name=dtype) for dtype in ("uint16", "float16", "float32")]
    readers = [each.cache.reader(each.texts, each.videos) for each in made]
    with LabelProcess(readers) as process:
        same(process, readers, TEXTS, VIDEOS)
        rng = np.random.default_rng(0)
        for size in (1, 21, 7):
            same(process, readers, rng.integers(21, size=size), rng.integers(13, size=13))
        assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()  # half a second, and memory
    assert not alive(process.pid)


def test_an_extended_store_and_pairs_without_scores(make_store: Any, tmp_path: Path) -> None:
    """Two tiles that share no video: a batch over both is assembled, and a pair that none has is refused by name."""
    from teachclip.cache.scores.shard import write_shard
    from teachclip.cache.scores.tile import TileContents

    made = make_store()
    texts, videos = (
        [(f"new#{k}", bytes([k] * 16)) for k in range(5)],
        [(f"new{k}", bytes([99 + k] * 16)) for k in range(3)],
    )
    tile = made.cache.create_tile(
        "more", TileContents(texts, videos, np.arange(5) % 3, np.zeros((3, 4))), shard_texts=8
    )
    write_shard(tile, 0, np.arange(15, dtype=np.float32).reshape(5, 3), np.zeros((5, 4), np.float32))
    reader = made.cache.reader(made.texts + texts, made.videos + videos)
    with LabelProcess([reader]) as process:
        same(process, [reader], np.array([25, 22]), np.array([15, 13]))
        with pytest.raises(CacheError) as theirs:
            process.start(np.array([25, 2]), np.array([0, 1])).result()
        with pytest.raises(CacheError) as ours:
            reader.read(np.array([25, 2]), np.array([0, 1]))
        assert str(theirs.value) == str(ours.value)
        assert "new#4 with clips/v0.mp4" in str(theirs.value)
        same(process, [reader], TEXTS, VIDEOS)  # goes on


def deleted(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def turned_in_a_row(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[30] ^= 4
    path.write_bytes(data)


def turned_in_the_index(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [deleted, emptied, cut, turned_in_a_row, turned_in_the_index])
def test_damage_is_the_same_error_as_in_one_process(make_store: Any, damage: Callable[[Path], None]) -> None:
    made = make_store()
    reader = made.cache.reader(made.texts, made.videos)
    damage(made.tile.folder / "coarse/c.1.0")
    rows = np.arange(8, 16)
    with pytest.raises(CacheError) as ours:
        reader.read(rows, VIDEOS)
    with LabelProcess([reader]) as process:
        with pytest.raises(CacheError) as theirs:
            process.start(rows, VIDEOS).result()
        same(process, [reader], np.array([1, 20]), VIDEOS)  # other shards are still read
    assert type(theirs.value) is type(ours.value)
    assert (theirs.value.what, theirs.value.where, theirs.value.hint) == (
        ours.value.what,
        ours.value.where,
        ours.value.hint,
    )
    assert "shard 1" in theirs.value.what
    assert theirs.value.hint is not None


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_no_flipped_bit_of_the_scores_goes_unnoticed(make_store: Any, dtype: str) -> None:
    made = make_store(texts=8, videos=5, dtype=dtype)
    path = made.tile.folder / "coarse/c.0.0"
    data = path.read_bytes()
    rows = np.arange(8)
    for bit in range(0, 8 * len(data), 7):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        begun = FileRows(made.tile, ShardFiles(1)).start(rows)
        with pytest.raises(CacheError, match="shard 0 is damaged"):
            begun.result()


def test_a_removed_store_is_told(make_store: Any) -> None:
    made = make_store()
    reader = made.cache.reader(made.texts, made.videos)
    with LabelProcess([reader]) as process:
        same(process, [reader], TEXTS, VIDEOS)
        made.path.rename(made.path.with_name("gone"))
        with pytest.raises(CacheError, match="removed or replaced"):
            process.start(TEXTS, VIDEOS).result()


def test_files_are_closed_when_too_many_are_open(make_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_store(texts=64)
    few = ShardFiles(2)
    rows = np.array([63, 0, 20, 31, 9, 40, 1])
    reader = made.cache.reader(made.texts, made.videos)
    scores = reader.read(rows, np.arange(13)).coarse
    out_of_files = PairScores(reader.requested, [FileRows(made.tile, few)])
    still, counts, opens, closes = set[int](), list[int](), os.open, os.close

    def opened(*arguments: Any) -> int:
        handle = opens(*arguments)
        still.add(handle)
        counts.append(len(still))
        return handle

    def closed(handle: int) -> None:
        still.discard(handle)
        closes(handle)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "close", closed)
    np.testing.assert_array_equal(out_of_files.start(rows, np.arange(13)).result(), scores)
    assert len(counts) > 2
    assert max(counts) == 2
    few.close()
    assert not still


def test_a_store_at_an_address(put: Any) -> None:
    made, url = put()
    reader = ScoreStore.open(url).teacher("tiny").reader(made.texts, made.videos)
    with LabelProcess([reader]) as process:
        same(process, [reader], TEXTS, VIDEOS)


def test_damage_at_an_address_is_told_too(put: Any, bucket: Any) -> None:
    made, url = put()
    reader = ScoreStore.open(url).teacher("tiny").reader(made.texts, made.videos)
    path = made.tile.folder / "coarse/c.1.0"
    turned_in_a_row(path)
    bucket.put(made.path, "s.zarr")
    with LabelProcess([reader]) as process, pytest.raises(CacheError, match="shard 1"):
        process.start(np.arange(8, 16), VIDEOS).result()


@pytest.mark.usefixtures("no_process_left")
def test_a_killed_process_is_told_and_no_hang(make_store: Any) -> None:
    made = make_store()
    reader = made.cache.reader(made.texts, made.videos)
    process = LabelProcess([reader])
    same(process, [reader], TEXTS, VIDEOS)
    os.kill(process.pid, signal.SIGSTOP)
    due = process.start(TEXTS, VIDEOS)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(TrainingError, match="killed: SIGKILL") as error:
        due.result()
    assert error.value.hint.action == Change({"train.label_reader": "thread"})
    with pytest.raises(TrainingError, match="killed: SIGKILL"):
        process.start(TEXTS, VIDEOS).result()
    process.close()


@pytest.mark.usefixtures("no_process_left")
def test_it_ends_when_it_is_abandoned(make_store: Any) -> None:
    made = make_store()
    process = LabelProcess([made.cache.reader(made.texts, made.videos)])
    process.start(TEXTS, VIDEOS)
    pid = process.pid
    del process
    gc.collect()
    assert not alive(pid)


def test_a_result_that_nobody_wanted_is_dropped(make_store: Any) -> None:
    made = make_store()
    reader = made.cache.reader(made.texts, made.videos)
    with LabelProcess([reader]) as process:
        process.start(np.arange(21), np.arange(13))
        same(process, [reader], TEXTS, VIDEOS)


def test_an_error_that_nobody_wanted_is_dropped_too(make_store: Any) -> None:
    made = make_store()
    reader = made.cache.reader(made.texts, made.videos)
    deleted(made.tile.folder / "coarse/c.1.0")
    with LabelProcess([reader]) as process:
        process.start(np.arange(8, 16), VIDEOS)
        same(process, [reader], np.array([0, 20]), VIDEOS)


@pytest.mark.usefixtures("no_process_left")
def test_an_interrupted_wait_ends_the_process(make_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_store()
    process = LabelProcess([made.cache.reader(made.texts, made.videos)])
    due = process.start(TEXTS, VIDEOS)

    def interrupted(*arguments: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(label_process, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            due.result()
    assert not alive(process.pid)
    with pytest.raises(TrainingError):
        process.start(TEXTS, VIDEOS)


@pytest.mark.usefixtures("no_process_left")
def test_read_ahead_stops_in_the_middle(make_store: Any) -> None:
    made = make_store()
    reader = made.cache.reader(made.texts, made.videos)
    with (
        LabelProcess([reader]) as process,
        read_ahead(lambda k: process.start(TEXTS, VIDEOS).result(), range(10**9), depth=2) as labels,
    ):
        for k, _ in enumerate(labels):
            if k == 3:
                break
    assert not alive(process.pid)


PARENT = """
import sys, time, numpy as np
from pathlib import Path
from teachclip.cache.scores.reading import label_process
from teachclip.cache.scores.reading.label_process import LabelProcess
from teachclip.cache.scores.store import ScoreStore

cache = ScoreStore.open(Path(sys.argv[1])).teacher("tiny")
tile = cache.tiles[0]
texts = [(key, bytes(row)) for key, row in zip(tile.text_ids, tile.text_digests)]
videos = [(key, bytes(row)) for key, row in zip(tile.video_ids, tile.video_digests)]
process = LabelProcess([cache.reader(texts, videos)])
if sys.argv[2] == "warm":
    process.start(np.arange(3), np.arange(3)).result()
print(process.pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize(
    ("state", "end"), [("warm", signal.SIGKILL), ("warm", signal.SIGINT), ("cold", signal.SIGTERM)]
)
def test_it_ends_with_the_program_and_says_nothing(make_store: Any, state: str, end: signal.Signals) -> None:
    """The program's script has no `if __name__ == "__main__"`: it must not be run a second time either."""
    made = make_store()
    program = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(made.path), state],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    pid = int(program.stdout.readline())
    assert alive(pid)
    os.killpg(program.pid, end)  # as a terminal's Ctrl-C does
    _, errors = program.communicate(timeout=120)
    wait_for(lambda: not alive(pid))
    assert "label_process" not in errors
    assert errors.count("Traceback") == (end == signal.SIGINT)  # the program's own
    assert "resource_tracker" not in errors


def test_a_process_that_does_not_end_is_killed(make_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_process, "_ENDING", 0.1)
    made = make_store()
    process = LabelProcess([made.cache.reader(made.texts, made.videos)])
    os.kill(process.pid, signal.SIGSTOP)  # it hears no more that it is to end
    process.close()
    assert not alive(process.pid)


def test_the_process_finds_what_the_program_finds(
    make_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program may have put the package on its path by itself."""
    made = make_store()
    monkeypatch.syspath_prepend(tmp_path)
    with LabelProcess([made.cache.reader(made.texts, made.videos)]) as process:
        told = Path(f"/proc/{process.pid}/environ")
        while not (environment := told.read_bytes()):  # for a moment, between two programs, a process has none
            time.sleep(0.01)
    assert any(line.startswith(f"PYTHONPATH={tmp_path}".encode()) for line in environment.split(b"\0"))
