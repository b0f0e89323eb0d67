"""Trainings side by side, in processes that compute with one thread each.

So small networks gain little from a second core, and two of them gain all of it. And as each has one thread, the demo's
numbers do not depend on how many cores there are.
"""

import multiprocessing
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from ...stages.runtime.child import end_with_parent
from ...stages.runtime.reporting import NoProgress, Progress, Reporter, Silent
from ...stages.runtime.threads import one_thread

UNIT = "step"  # what is counted; other progress is not shown
TOLD_EVERY = 0.5  # seconds between two messages about steps
GRACE = 10.0  # seconds that a process has to end


@dataclass(eq=False)
class Task[R]:
    """Something to be done in another process.

    Args:
        name: what its messages begin with.
        job: importable by name, with all that it is given; calls its reporter.
        steps: how many it has.
    """

    name: str
    job: Callable[[Reporter], R]
    steps: int
    counted: int = 0
    ended: bool = False
    result: R | None = None

    def rest(self, most: int) -> int:
        """Count up to `most` steps; how many are new."""
        new = min(most, self.steps - self.counted)
        self.counted += new
        return new


class Crew:
    """At most `processes` processes, started when they are needed and kept until it is closed; a second one is what
    they are for, so with fewer than two everything is done here, where it is waited for."""

    def __init__(self, processes: int) -> None:
        self._most = processes if processes > 1 else 0
        self._workers: list[_Worker] = []
        self._waiting: deque[Task[Any]] = deque()
        self._failed: deque[Task[Any]] = deque()
        self._heard: queue.SimpleQueue[tuple[_Worker, str, Any]] = queue.SimpleQueue()

    def start(self, task: Task[Any]) -> None:
        """Have it done as soon as a process is free; a process that gets free is given more while `finish` waits."""
        self._waiting.append(task)
        self._assign()

    def finish[R](self, tasks: Sequence[Task[R]], title: str, reporter: Reporter) -> list[R]:
        """Wait for tasks that were started; their results.

        What fails there, or whose process dies, is done once more here, where it can say why.
        """
        while not self._heard.empty():  # what was done before anybody waited
            self._hear(reporter, lambda steps: None)
        if not self._most:
            _do_here(self._waiting, reporter)
        while not all(task.ended for task in tasks):
            done = sum(task.counted for task in tasks)
            with reporter.progress(title, sum(task.steps for task in tasks), UNIT, done) as progress:
                while not self._failed and not all(task.ended for task in tasks):
                    self._hear(reporter, progress.advance)
            _do_here(self._failed, reporter)
        return [task.result for task in tasks]  # type: ignore[misc]  # all have ended

    def _hear(self, reporter: Reporter, advance: Callable[[int], None]) -> None:
        """One message of a process."""
        worker, kind, value = self._heard.get()
        task = worker.task
        if kind == "gone":
            self._workers.remove(worker)
        if task is None:
            return
        if kind == "steps":
            advance(task.rest(value))
        elif kind in ("info", "warn"):
            getattr(reporter, kind)(f"{task.name}: {value}")
        else:
            worker.task = None
            self._assign()
            if kind != "done":
                self._failed.append(task)
                return
            task.result, task.ended = value, True
            advance(task.rest(task.steps))

    def close(self) -> None:
        """End the processes; what they had not finished is not done."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(GRACE)
            worker.process.kill()
            worker.thread.join()
        self._workers.clear()
        self._waiting.clear()

    def _assign(self) -> None:
        while self._most and self._waiting:
            worker = next((each for each in self._workers if each.task is None), None)
            if worker is None:
                if len(self._workers) == self._most:
                    return
                worker = _Worker(self._heard)
                self._workers.append(worker)
            worker.give(self._waiting.popleft())


def _do_here(tasks: deque[Task[Any]], reporter: Reporter) -> None:
    while tasks:
        task = tasks.popleft()
        with one_thread():
            task.result, task.ended = task.job(reporter), True


class _Worker:
    """This side of a process: what it says is put down by a thread, so that it never waits for being heard."""

    def __init__(self, heard: "queue.SimpleQueue[tuple[_Worker, str, Any]]") -> None:
        self.task: Task[Any] | None = None
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.thread = threading.Thread(target=self._listen, args=(heard,), daemon=True)
        self.thread.start()

    def give(self, task: Task[Any]) -> None:
        self.task = task
        self._connection.send(task.job)

    def _listen(self, heard: "queue.SimpleQueue[tuple[_Worker, str, Any]]") -> None:
        with self._connection:
            try:
                while True:
                    heard.put((self, *self._connection.recv()))
            except (EOFError, OSError):
                heard.put((self, "gone", None))


class _Relay(Silent):
    """A process's reporter: passes messages and steps on."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def info(self, message: str) -> None:
        self._connection.send(("info", message))

    def warn(self, message: str) -> None:
        self._connection.send(("warn", message))

    def progress(self, title: str, total: int | None, unit: str, done: int = 0) -> Progress:
        return _Steps(self._connection, done) if unit == UNIT else NoProgress()


class _Steps(NoProgress):
    """Tells how many steps there are more, now and then."""

    def __init__(self, connection: Connection, done: int) -> None:
        self._connection = connection
        self._untold, self._told = done, 0.0

    def advance(self, n: int = 1, **fields: float | str) -> None:
        self._untold += n
        if time.monotonic() - self._told > TOLD_EVERY:
            self._connection.send(("steps", self._untold))
            self._untold, self._told = 0, time.monotonic()


def _work(connection: Connection) -> None:
    """A process: one job after the other, until nobody gives one."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; who started this one ends it
    with one_thread(), suppress(EOFError):
        while True:
            job = connection.recv()
            try:
                result = job(_Relay(connection))
            except Exception:
                connection.send(("failed", None))
            else:
                connection.send(("done", result))
