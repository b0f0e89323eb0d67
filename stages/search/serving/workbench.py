"""Processes that open other people's files: one that hangs, crashes or wants too much memory costs its one question."""

import multiprocessing
import queue
import resource
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple, Self

from ....errors import DataError, TeachclipError
from ...runtime.child import end_with_parent

START_LIMIT = 120.0  # seconds a process may take to import what it needs
MEMORY = 6 << 30  # bytes of addresses that a process may have


class Busy(TeachclipError):
    """All processes are at work, and stayed so."""


class Workbench:
    """At most `processes` processes, started when they are needed first and kept; several threads may ask at once.

    Args:
        processes: that work at the same time.
        patience: seconds that a question waits for a free one.
    """

    def __init__(self, processes: int = 2, patience: float = 30.0) -> None:
        self.patience = patience
        self._places: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(processes):
            self._places.put(None)
        self._lock, self._closed = threading.Lock(), False
        self._running: set[_Process] = set()

    def do[R](self, work: Callable[..., R], *given: object, seconds: float) -> R:
        """What `work(*given)` returns in one of the processes.

        Args:
            work: importable by name; what it raises is raised here as a DataError.
            seconds: after which it counts as hung.

        Raises:
            DataError: it fails, hangs, or ends its process.
            Busy: no process was free for long.
        """
        try:
            process = self._places.get(timeout=self.patience)
        except queue.Empty:
            raise Busy("too many videos are being opened at once", hint="try again in a moment") from None
        try:
            process = process or self._started()
            answer = process.ask(work, given, seconds)
        except BaseException:
            if process is not None:
                self._end(process)
            self._places.put(None)
            raise
        self._places.put(process)
        if isinstance(answer, _Failed):
            raise DataError(answer.what, hint=answer.hint)
        result: R = answer
        return result

    def close(self) -> None:
        """End the processes, whatever they do."""
        with self._lock:
            self._closed, running = True, list(self._running)
        for process in running:
            self._end(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> "_Process":
        with self._lock:
            if self._closed:
                raise Busy("the server is ending")
            process = _Process()
            self._running.add(process)
            return process

    def _end(self, process: "_Process") -> None:
        with self._lock:
            self._running.discard(process)
        process.kill()


class _Failed(NamedTuple):
    """Why there is no answer: what travels between processes in place of an exception."""

    what: str
    hint: str | None = None


class _Process:
    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = False

    def ask(self, work: Callable[..., object], given: tuple[object, ...], seconds: float) -> Any:
        try:
            if not self.ready and not (self.connection.poll(START_LIMIT) and self.connection.recv()):
                raise DataError("the process that opens videos does not start")
            self.ready = True
            self.connection.send((work, given))
            if not self.connection.poll(seconds):
                raise DataError(f"this video cannot be read within {seconds:g} seconds")
            return self.connection.recv()
        except (EOFError, OSError):
            raise DataError("this video ended the process that opened it") from None

    def kill(self) -> None:
        with suppress(ValueError):  # closed already
            self.process.kill()
            self.process.join()
        self.connection.close()


def _work(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # nothing that is asked here writes
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    connection.send(True)
    while True:
        try:
            work, given = connection.recv()
        except EOFError:
            return
        answer: object
        try:
            answer = work(*given)
        except TeachclipError as error:
            answer = _Failed(error.what, None if error.hint is None else str(error.hint))
        except MemoryError:
            answer = _Failed("it takes too much memory")
        except Exception as error:  # decoders are fed arbitrary bytes
            answer = _Failed(f"{type(error).__name__}: {error}")
        connection.send(answer)
