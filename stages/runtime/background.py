"""Work behind the work: one thing is written by a thread while the next is made."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Self


class BackgroundWriter:
    """Does one piece of work at a time in a background thread, so that the disk keeps nobody waiting.

    An error of the work is raised by the next call. Leaving the `with` block waits for what is under way. A process
    that ends without it is not held up: the work has to be such that a kill does no harm.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._under_way: Future[object] | None = None

    def start(self, work: Callable[[], object]) -> None:
        """Begin this once what was begun before is done: no more than one piece, with its memory, is under way."""
        self.finish()
        future: Future[object] = Future()
        # A thread of our own: those of an executor keep the process alive, even one that is told to end at once.
        threading.Thread(target=_do, args=(work, future), name=self._name, daemon=True).start()
        self._under_way = future

    def check(self) -> None:
        """Raise the error of work that is done; waits for none."""
        if self._under_way is not None and self._under_way.done():
            self.finish()

    def wait(self) -> None:
        """Wait until everything is done; errors are left to the next call."""
        if self._under_way is not None:
            wait([self._under_way])

    def finish(self) -> None:
        """Wait until everything is done, and raise the error that it ended with."""
        self.wait()  # interrupted, it can be waited for again
        done, self._under_way = self._under_way, None
        if done is not None:
            done.result()

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
