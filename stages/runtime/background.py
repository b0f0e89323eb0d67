"""Work behind the work: one thing is written by a thread while the next is made."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Self


class BackgroundWriter:
    """Does one piece of work at a time, or a few, in background threads, so that the disk keeps nobody waiting.

    An error of the work is raised by the next call. Leaving the `with` block waits for what is under way. A process
    that ends without it is not held up: the work has to be such that a kill does no harm.

    Args:
        name: of the threads.
        at_once: pieces that may be under way; several must not depend on each other.
    """

    def __init__(self, name: str, at_once: int = 1) -> None:
        self._name, self._at_once = name, at_once
        self._under_way: deque[Future[object]] = deque()

    def start(self, work: Callable[[], object]) -> None:
        """Begin this once there is room: no more than `at_once` pieces, with their memory, are under way."""
        self.check()
        while len(self._under_way) >= self._at_once:
            wait([self._under_way[0]])
            self.check()
        future: Future[object] = Future()
        # A thread of our own: those of an executor keep the process alive, even one that is told to end at once.
        threading.Thread(target=_do, args=(work, future), name=self._name, daemon=True).start()
        self._under_way.append(future)

    def check(self) -> None:
        """Raise the error of work that is done; waits for none."""
        while self._under_way and self._under_way[0].done():
            self._under_way.popleft().result()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until everything is done, no longer than so many seconds; errors are left to the next call."""
        wait(self._under_way, seconds)

    def finish(self) -> None:
        """Wait until everything is done, and raise the error that the first piece which has one ended with."""
        self.wait()  # interrupted, it can be waited for again
        self.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wait()
        if error is None:
            self.finish()


def _do(work: Callable[[], object], future: Future[object]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
