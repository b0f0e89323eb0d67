"""Read ahead: the next batches are read in a background thread while the present one is used."""

import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self


class _Worker[B, R]:
    """The background thread's side; it does not know the consumer, so that an abandoned one can be collected."""

    def __init__(self, read: Callable[[B], R], batches: Iterable[B], depth: int) -> None:
        self.read = read
        self.batches = batches
        # Queues made in C: no lock of theirs is ever waited for while the interpreter is busy, and nothing polls.
        self.results: queue.SimpleQueue[tuple[R | None, BaseException | None]] = queue.SimpleQueue()
        self.room: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(depth):
            self.room.put(None)
        self.stopped = False
        self.thread = threading.Thread(target=self.run, name="read-ahead", daemon=True)
        self.thread.start()

    def run(self) -> None:
        try:
            for batch in self.batches:
                if not self.put(self.read(batch), None):
                    return
            self.put(None, StopIteration())
        except BaseException as error:
            self.put(None, error)

    def put(self, result: R | None, error: BaseException | None) -> bool:
        """Whether the consumer still wants it; waits for room."""
        if not self.stopped:
            self.room.get()
        if not self.stopped:
            self.results.put((result, error))
        return not self.stopped

    def take(self) -> tuple[R | None, BaseException | None]:
        """The next result, on the consumer's side."""
        taken = self.results.get()
        self.room.put(None)
        return taken

    def stop(self) -> None:
        self.stopped = True
        self.room.put(None)
        self.thread.join()


class ReadAhead[B, R](Iterator[R]):
    """Results of `read` in the order of `batches`; made by `read_ahead`."""

    def __init__(self, read: Callable[[B], R], batches: Iterable[B], depth: int) -> None:
        self._worker = _Worker(read, batches, depth)
        self._finalizer = weakref.finalize(self, self._worker.stop)
        self.waited = 0.0
        """Seconds the consumer has waited for results so far."""

    def __next__(self) -> R:
        if not self._finalizer.alive:
            raise StopIteration
        begun = time.perf_counter()
        result, error = self._worker.take()
        self.waited += time.perf_counter() - begun
        if error is not None:
            self.close()
            raise error
        return result  # type: ignore[return-value]  # None only beside an error, or when R has it

    def close(self) -> None:
        """Stop reading and wait for the thread to end; no more results come."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_ahead[B, R](read: Callable[[B], R], batches: Iterable[B], depth: int) -> ReadAhead[B, R]:
    """Read the next batches in one background thread while the present one is used.

    Args:
        read: makes a result of a batch; called in the background, in order.
        batches: what to read.
        depth: at most so many results wait to be used.

    Returns:
        An iterator with `waited`, the consumer's waiting seconds so far. Errors of `read` or `batches` are raised where
        the result was due. The thread ends with the last result, an error, `close`, the end of a `with` block, or when
        the iterator is abandoned (`break`, an exception, Ctrl-C).
    """
    return ReadAhead(read, batches, depth)
