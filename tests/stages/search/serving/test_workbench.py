"""Processes that open other people's files: what hangs, crashes or fails costs its one question."""

import operator
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from teachclip.errors import DataError
from teachclip.stages.search.serving.workbench import Busy, Workbench


@pytest.fixture(scope="module")
def bench() -> Iterator[Workbench]:
    with Workbench(1, patience=120.0) as made:
        yield made


def test_work_is_done_in_another_process(bench: Workbench) -> None:
    assert bench.do(operator.add, 2, 3, seconds=120) == 5
    process = bench.do(os.getpid, seconds=120)
    assert process != os.getpid()
    assert bench.do(os.getpid, seconds=120) == process


@pytest.mark.parametrize(
    ("work", "given", "what"),
    [
        (time.sleep, (60,), "cannot be read within 0.5 seconds"),
        (os.abort, (), "ended the process"),
        (os._exit, (0,), "ended the process"),
        (operator.truediv, (1, 0), "ZeroDivisionError"),
        (operator.mul, (b"x", 20 << 30), "too much memory"),
        (Path.write_text, (Path("/tmp/teachclip-nothing"), "x" * 10), "OSError"),
    ],
)
def test_what_goes_wrong_is_told_and_the_next_is_answered(
    bench: Workbench, work: object, given: tuple[object, ...], what: str
) -> None:
    bench.do(os.getpid, seconds=120)
    with pytest.raises(DataError, match=what):
        bench.do(work, *given, seconds=0.5 if work is time.sleep else 120)  # type: ignore[arg-type]
    assert bench.do(operator.add, 2, 3, seconds=120) == 5
    Path("/tmp/teachclip-nothing").unlink(missing_ok=True)


def test_nobody_waits_for_ever(tmp_path: Path) -> None:
    """While the only process reads what another program has not finished writing."""
    os.mkfifo(tmp_path / "unfinished")
    with Workbench(1, patience=0.2) as bench:
        bench.do(os.getpid, seconds=120)
        other = threading.Thread(target=lambda: bench.do(Path.read_text, tmp_path / "unfinished", seconds=120))
        other.start()
        with (tmp_path / "unfinished").open("w"), pytest.raises(Busy, match="too many"):  # open once it is read
            bench.do(os.getpid, seconds=120)
        other.join()


def test_they_end_with_the_bench() -> None:
    with Workbench(1) as bench:
        process = bench.do(os.getpid, seconds=120)
    with pytest.raises(ProcessLookupError):
        os.kill(process, signal.SIGCONT)
