"""Worker processes: hung and crashed decoders cost their own video, and no process outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from teachclip.configs.schema import PrepareConfig
from teachclip.errors import DataError
from teachclip.stages.data.video import workers as decode
from teachclip.stages.data.video.workers import Decoded, Decoders, decode_videos

CONFIG = PrepareConfig(image_size=32, max_frames=2, workers=2, timeout=3.0)
SPAWNED = Path(__file__).parent / "spawned" / "readers_for_tests.py"


def jobs_of(folder: Path, names: list[str], encode: Any, numbered: Any) -> list[tuple[str, Path]]:
    for name in names:
        encode(folder / name, numbered(6), fps=2)
    return [(name, folder / name) for name in names]


def test_a_hung_or_crashed_decoder_costs_its_one_video(
    tmp_path: Path, spawned: Callable[[str], Any], numbered: Any, encode: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    names = ["a.mp4", "hang.mp4", "exit.mp4", "b.mp4", "segfault.mp4", "c.mp4", "missing.mp4"]
    jobs = [*jobs_of(tmp_path, names[:-1], encode, numbered), ("missing.mp4", tmp_path / "missing.mp4")]
    results = {found.index: found for found in decode_videos(jobs, CONFIG, 10, spawned("misbehave"))}
    told = {names[index]: (found.record.status.status, found.record.status.reason) for index, found in results.items()}
    assert told == {
        "a.mp4": ("ok", ""),
        "hang.mp4": ("timeout", "not decoded within 3 seconds (prepare.timeout)"),
        "exit.mp4": ("corrupt", "the decoder crashed (exit code 3)"),
        "b.mp4": ("ok", ""),
        "segfault.mp4": ("corrupt", "the decoder crashed (killed by SIGSEGV)"),
        "c.mp4": ("ok", ""),
        "missing.mp4": ("missing", "no such file"),
    }
    stamps = {names[index]: found.record.stamp.size for index, found in results.items()}
    assert stamps["hang.mp4"] == (tmp_path / "hang.mp4").stat().st_size
    assert results[1].seconds >= 3
    assert capfd.readouterr() == ("", "")


def test_processes_stay_from_list_to_list(
    tmp_path: Path, spawned: Callable[[str], Any], numbered: Any, encode: Any
) -> None:
    """What happened to the videos of one list is forgotten; a process that has died meanwhile is replaced."""
    names = ["a.mp4", "exit.mp4", "b.mp4"]
    jobs = jobs_of(tmp_path, names, encode, numbered)
    with Decoders.of_videos(CONFIG.model_copy(update={"timeout": 900.0}), spawned("misbehave")) as decoders:

        def statuses(*chosen: tuple[str, Path]) -> list[str]:
            found = {each.index: each for each in decoders.run(chosen, 9) if isinstance(each, Decoded)}
            return [found[k].record.status.status for k in range(len(chosen))]

        assert statuses(jobs[0]) == ["ok"]
        assert len(decoders.workers) == 1
        assert statuses(jobs[1], jobs[0]) == ["corrupt", "ok"]
        assert statuses(jobs[1]) == ["corrupt"]
        assert len(decoders.workers) == 2
        os.kill(decoders.workers[0].process.pid, signal.SIGKILL)
        decoders.workers[0].process.join()
        assert statuses(jobs[2], jobs[0]) == ["ok", "ok"]
        processes = [worker.process for worker in decoders.workers]
        assert statuses(jobs[0], jobs[2]) == ["ok", "ok"]
        assert [worker.process for worker in decoders.workers] == processes
        left = decoders.run([("hang.mp4", tmp_path / "a.mp4"), jobs[0]], 9)
        assert next(left).index == 1
        left.close()
        assert decoders.workers == []
        assert not any(process.is_alive() for process in processes)


def test_damaged_videos_leave_the_terminal_clean(
    tmp_path: Path, numbered: Any, encode: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    path = encode(tmp_path / "a.mp4", numbered(60))
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 2] = os.urandom(len(data) // 2 - len(data) // 3)
    path.write_bytes(data)
    (found,) = decode_videos([("a", path)], CONFIG, 1)
    assert found.record.status.status == "corrupt"
    assert capfd.readouterr() == ("", "")


def test_jobs_are_handed_out_only_so_far_ahead(
    tmp_path: Path, spawned: Callable[[str], Any], numbered: Any, encode: Any
) -> None:
    names = ["slow.mp4", *(f"{k}.mp4" for k in range(8))]
    jobs = jobs_of(tmp_path, names, encode, numbered)
    order = [found.index for found in decode_videos(jobs, CONFIG, 3, spawned("misbehave"))]
    assert sorted(order) == list(range(9))
    assert order.index(0) <= 2  # 1 and 2 may pass it, 3 has to wait


def test_nothing_to_decode_starts_no_process() -> None:
    assert list(decode_videos([], CONFIG, 1)) == []


def test_workers_that_cannot_start_are_an_error(
    tmp_path: Path, spawned: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reader = spawned("misbehave")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not entry.endswith("spawned")])
    with pytest.raises(DataError, match="ended with exit code 1 before it began"):
        list(decode_videos([("a", tmp_path / "a")], CONFIG, 1, reader))
    assert "ModuleNotFoundError" in capfd.readouterr().err


def test_a_slow_consumer_costs_no_video(tmp_path: Path, numbered: Any, encode: Any) -> None:
    """A result that waits to be fetched is no decoder that hangs."""
    jobs = jobs_of(tmp_path, [f"{k}.mp4" for k in range(4)], encode, numbered)
    config = CONFIG.model_copy(update={"image_size": 512})  # larger than a pipe holds
    found = []
    for decoded in decode_videos(jobs, config, 10):
        found.append(decoded.record.status.status)
        if len(found) == 1:
            time.sleep(config.timeout + 1)
    assert found == ["ok"] * 4


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids: list[int], within: float = 120.0) -> bool:
    end = time.monotonic() + within
    while any(running(pid) for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def pids_of(folder: Path, count: int) -> list[int]:
    """Process numbers that hanging readers wrote down."""
    end = time.monotonic() + 120
    while True:
        found = [text for path in folder.glob("*.pid") if (text := path.read_text())]
        if len(found) == count:
            return [int(text) for text in found]
        assert time.monotonic() < end
        time.sleep(0.05)


def test_workers_end_with_the_iterator(
    tmp_path: Path, spawned: Callable[[str], Any], numbered: Any, encode: Any
) -> None:
    jobs = jobs_of(tmp_path, ["a.mp4", "hang.mp4"], encode, numbered)
    config = CONFIG.model_copy(update={"timeout": 900.0})
    others = decode.multiprocessing.active_children()  # a server that other tests share has some
    results: Iterator[Decoded] = decode_videos(jobs, config, 2, spawned("misbehave"))
    next(results)
    children = [child for child in decode.multiprocessing.active_children() if child not in others]
    children = [child for child in children if child.name.startswith("SpawnProcess")]
    assert len(children) == 2
    results.close()
    assert not any(child.is_alive() for child in children)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_parent(tmp_path: Path, how: signal.Signals, numbered: Any, encode: Any) -> None:
    jobs_of(tmp_path, ["0.mp4", "1.mp4"], encode, numbered)
    parent = subprocess.Popen([sys.executable, str(SPAWNED), str(tmp_path)], stderr=subprocess.DEVNULL)
    try:
        workers = pids_of(tmp_path, 2)
        assert all(running(pid) for pid in workers)
        parent.send_signal(how)
        parent.wait(120)
        assert gone(workers)
    finally:
        parent.kill()
        parent.wait()
