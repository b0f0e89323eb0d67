"""Read ahead: order, errors, bounded depth, and a thread that always ends."""

import gc
import itertools
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from teachclip.cache import read_ahead as module
from teachclip.cache.read_ahead import read_ahead


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    gc.collect()
    assert threads() == []


def test_results_come_in_order() -> None:
    assert list(read_ahead(lambda n: n * n, range(100), depth=3)) == [n * n for n in range(100)]


def test_reads_while_the_consumer_works_but_not_further_than_depth() -> None:
    read: list[int] = []
    with read_ahead(lambda n: read.append(n) or n, range(100), depth=3) as results:  # type: ignore[func-returns-value]
        assert next(results) == 0
        deadline = time.monotonic() + 120
        while len(read) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert read == [0, 1, 2, 3, 4]  # one used, three waiting, one in hand


def test_an_error_is_raised_where_its_result_was_due() -> None:
    def read(n: int) -> int:
        if n == 2:
            raise ValueError("batch 2")
        return n

    results = read_ahead(read, range(5), depth=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="batch 2"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_an_error_of_the_batches_is_raised_too() -> None:
    def batches() -> Iterator[int]:
        yield 1
        raise RuntimeError("sampler")

    results = read_ahead(lambda n: n, batches(), depth=1)
    assert next(results) == 1
    with pytest.raises(RuntimeError, match="sampler"):
        next(results)


def test_break_ends_the_thread() -> None:
    for n in read_ahead(lambda n: n, range(10**9), depth=2):
        if n == 3:
            break
    gc.collect()
    assert threads() == []


def test_an_exception_in_the_loop_ends_the_thread() -> None:
    def loop() -> None:
        for _ in read_ahead(lambda n: n, range(10**9), depth=2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop()
    gc.collect()
    assert threads() == []


def test_waiting_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which a second passes with each reading: of a slow reader while it is waited for, or before."""
    now, asked, waiting = [0.0], itertools.count(), threading.Semaphore(0)

    def clock() -> float:
        told = now[0]
        if next(asked) % 2 == 0:  # before a result is taken; the next one is behind it
            waiting.release()
        return told

    def quick(n: int) -> int:
        now[0] += 1.0
        return n

    def slow(n: int) -> int:
        assert waiting.acquire(timeout=120)
        return quick(n)

    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=clock))
    results = read_ahead(slow, range(3), depth=1)
    assert list(results) == [0, 1, 2]
    assert results.waited == 3.0
    results = read_ahead(quick, range(3), depth=4)
    results._worker.thread.join()
    assert list(results) == [0, 1, 2]
    assert results.waited == 0.0
