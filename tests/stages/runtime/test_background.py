"""Work behind the work: one piece at a time, no error lost, nobody kept from ending."""

import gc
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
from teachclip.stages.runtime.background import BackgroundWriter

ENDS_AT_ONCE = """
import time
from teachclip.stages.runtime.background import BackgroundWriter

writer = BackgroundWriter("slow")
writer.start(lambda: time.sleep(1000))
raise KeyboardInterrupt
"""


class Disk:
    """Writes when it is let to, and notes who wrote."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.written: list[int] = []
        self.threads: set[str] = set()

    def write(self, number: int) -> None:
        assert self.free.wait(120)
        self.written.append(number)
        self.threads.add(threading.current_thread().name)


def full() -> None:
    raise OSError("No space left")


def test_work_is_done_behind_by_another_thread_and_in_order() -> None:
    disk = Disk()
    with BackgroundWriter("write-shard") as writer:
        writer.start(lambda: disk.write(0))
        writer.check()  # waits for nothing
        assert disk.written == []
        disk.free.set()
        for number in range(1, 5):
            writer.start(lambda number=number: disk.write(number))  # type: ignore[misc]
    assert disk.written == [0, 1, 2, 3, 4]
    assert disk.threads == {"write-shard"}


def test_the_next_piece_waits_for_the_one_before() -> None:
    disk, writer = Disk(), BackgroundWriter("write")
    writer.start(lambda: disk.write(0))
    second = threading.Thread(target=writer.start, args=(lambda: disk.write(1),))
    second.start()
    second.join(0.1)
    assert second.is_alive()
    disk.free.set()
    second.join(120)
    writer.finish()
    assert disk.written == [0, 1]


def test_two_pieces_at_once_and_no_third() -> None:
    disk, writer = Disk(), BackgroundWriter("write", at_once=2)
    for number in range(2):
        writer.start(lambda number=number: disk.write(number))  # type: ignore[misc]
    third = threading.Thread(target=writer.start, args=(full,))
    third.start()
    third.join(0.1)
    assert third.is_alive()
    disk.free.set()
    third.join(120)
    with pytest.raises(OSError, match="No space left"):
        writer.finish()
    writer.finish()
    assert sorted(disk.written) == [0, 1]


def test_an_error_is_raised_once_by_the_next_call() -> None:
    disk = Disk()
    disk.free.set()
    writer = BackgroundWriter("write")
    for raising in (writer.finish, lambda: writer.start(lambda: disk.write(1)), writer.check):
        writer.start(full)
        writer.wait()
        with pytest.raises(OSError, match="No space left"):
            raising()
        writer.finish()
    assert disk.written == [], "what came behind an error is not begun"


def test_leaving_waits_and_raises_what_would_be_lost() -> None:
    with pytest.raises(OSError, match="No space left"), BackgroundWriter("write") as writer:
        writer.start(full)


def test_leaving_with_an_error_waits_and_raises_that_one() -> None:
    done = []

    def slow() -> None:
        time.sleep(0.1)
        done.append(True)
        full()

    def use(error: type[BaseException]) -> None:
        with BackgroundWriter("write") as writer:
            writer.start(slow)
            raise error

    for count, error in enumerate((ValueError, KeyboardInterrupt), 1):
        with pytest.raises(error):
            use(error)
        assert len(done) == count


def test_an_interrupted_wait_can_be_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, writer = Disk(), BackgroundWriter("write")
    writer.start(lambda: disk.write(0))

    def interrupted() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(writer, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.finish()
    disk.free.set()
    writer.finish()
    assert disk.written == [0]


def test_what_was_written_is_not_kept_in_memory() -> None:
    writer, scores = BackgroundWriter("write"), np.zeros(3)
    kept = weakref.ref(scores)
    writer.start(lambda scores=scores: scores.sum())  # type: ignore[misc]
    del scores
    writer.wait()
    deadline = time.monotonic() + 120
    while kept() is not None and time.monotonic() < deadline:  # the thread is just ending
        gc.collect()
    assert kept() is None


def test_a_program_that_is_told_to_end_does_not_wait_for_the_disk() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENDS_AT_ONCE], capture_output=True, text=True, timeout=200, check=False
    )
    assert "KeyboardInterrupt" in ended.stderr
