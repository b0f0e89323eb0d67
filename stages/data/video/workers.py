"""Decode videos in worker processes: a decoder that hangs or crashes costs its one video, nothing else.

A process that dies may have died of its video, of its neighbours' appetite for memory or of a person's hand. The video
gets another turn at once, while no other is decoded. What then still kills the process from outside is a failure of
the machine; a decoder that crashes alone, too, crashes of what it reads.
"""

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ....cache.frames.record import Status, VideoRecord
from ....configs.schema import PrepareConfig
from ....errors import DataError
from ....remedies import Hint
from ...runtime.child import end_with_parent, untouched_by_interrupts
from ...runtime.cores import cores
from .by_decord import decord
from .decode import read_video, trouble, without_frames
from .source import VideoSource

VideoReader = Callable[[str, VideoSource, PrepareConfig], VideoRecord]
PartsReader = Callable[[str, VideoSource, PrepareConfig, Callable[["Part"], None]], VideoRecord]
START_LIMIT = 300.0  # seconds a worker may take to import what it needs
# what a decoder's own mistakes end in; every other signal comes from outside
CRASHES = (signal.SIGSEGV, signal.SIGILL, signal.SIGFPE, signal.SIGSYS, signal.SIGTRAP)
PYTHON_FAILED = 1  # exit code after an exception that nobody caught: no memory even for that


@dataclass(frozen=True)
class Decoded:
    """One video's record; `index` is its place among the jobs, `seconds` what its worker took."""

    index: int
    record: VideoRecord
    seconds: float


@dataclass(frozen=True)
class Part:
    """Frames of a video on their way, uint8 [F, 3, S, S]; `first`: the file is read from its beginning, what came of it
    before does not count."""

    frames: NDArray[np.uint8]
    first: bool


@dataclass(frozen=True)
class Arrived:
    """A part of the video whose place among the jobs is `index`."""

    index: int
    part: Part


def decode_videos(
    jobs: Sequence[tuple[str, VideoSource]], config: PrepareConfig, ahead: int, reader: VideoReader = read_video
) -> Generator[Decoded, None, None]:
    """Decode `jobs` (id, source), in any order, on `config.workers` processes.

    A video that takes longer than `config.timeout` gets status `timeout`; with the decoder `auto` it first gets another
    turn, by PyAV alone. One that ends its worker, or fails, gets another turn while no other video is decoded, with
    `auto` by PyAV alone; then it is `corrupt` when the decoder crashed, `failed` when the process was killed. Workers
    that end are replaced. They end with the iterator (close it), and when this process dies, however it dies.

    Args:
        ahead: how far a job may be ahead of the oldest unfinished one, which bounds what the caller has to hold.
        reader: what decodes one video, importable by name.

    Raises:
        DataError: workers cannot start; decord is missing or the wrong one.
    """
    with Decoders.of_videos(config, reader) as decoders:
        for decoded in decoders.run(jobs, ahead):
            assert isinstance(decoded, Decoded)
            yield decoded


def decode_in_parts(
    jobs: Sequence[tuple[str, VideoSource]], config: PrepareConfig, reader: PartsReader
) -> Generator[Arrived | Decoded, None, None]:
    """As `decode_videos`, for videos of any length: frames arrive while the rest is decoded, and no record holds them.

    `config.timeout` is for each part. A worker waits until its part is taken, so that little is held.

    Args:
        reader: as there; what it calls with each part hands it over.

    Raises:
        As `decode_videos`.
    """
    with Decoders.in_parts(config, reader) as decoders:
        yield from decoders.run(jobs, len(jobs))


def _whole(
    reader: VideoReader, id: str, source: VideoSource, config: PrepareConfig, hand_over: Callable[[Part], None]
) -> VideoRecord:
    return reader(id, source, config)


class _Worker:
    """One process and what it is doing."""

    def __init__(self, config: PrepareConfig, reader: PartsReader) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_work, args=(theirs, config, reader), daemon=True)
        with untouched_by_interrupts():
            self.process.start()
        theirs.close()  # so that a dead worker reads as the end of the connection
        self.ready = False
        self.job: int | None = None
        self.since = time.monotonic()

    def give(self, index: int, job: tuple[str, VideoSource, bool]) -> None:
        """A video's id and source, and whether PyAV alone is to read it."""
        self.job, self.since = index, time.monotonic()
        # Connection.send() keeps a view of a buffer; Ctrl-C inside it leaves the two to the garbage collector, which
        # then crashes the interpreter (CPython 3.12). Bytes are safe.
        self.connection.send_bytes(bytes(ForkingPickler.dumps(job)))

    def kill(self) -> int | None:
        """End the process; its exit code."""
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode


class Decoders:
    """The processes behind `decode_videos` and `decode_in_parts`, which stay from one list of jobs to the next.

    They end with the `with` block, when a list is left unfinished, and when this process dies.
    """

    def __init__(self, config: PrepareConfig, reader: PartsReader, limited: str) -> None:
        self.config, self.reader, self.limited = config, reader, limited
        self.workers: list[_Worker] = []

    @classmethod
    def of_videos(cls, config: PrepareConfig, reader: VideoReader = read_video) -> Self:
        """For `decode_videos`."""
        return cls(config, partial(_whole, reader), "(prepare.timeout)")

    @classmethod
    def in_parts(cls, config: PrepareConfig, reader: PartsReader) -> Self:
        """For `decode_in_parts`."""
        return cls(config, reader, "since the last frames of it came")

    def run(self, jobs: Sequence[tuple[str, VideoSource]], ahead: int) -> Generator[Decoded | Arrived, None, None]:
        """What comes of `jobs` (id, source); one list at a time."""
        self.jobs = jobs
        self.ended_badly: set[int] = set()
        self.alone: deque[int] = deque()  # jobs that wait for a turn by themselves
        self.tried_alone: set[int] = set()
        self.waiting = deque(range(len(jobs)))
        unfinished = set(self.waiting)
        oldest = 0
        try:
            for worker in [worker for worker in self.workers if not worker.process.is_alive()]:
                self.workers.remove(worker)
                worker.kill()
            while len(self.workers) < min(self.config.workers or cores(), len(jobs)):
                self.workers.append(_Worker(self.config, self.reader))
            while unfinished:
                while oldest not in unfinished:
                    oldest += 1
                self._hand_out(oldest + ahead)
                for decoded in self._results():
                    if isinstance(decoded, Decoded):
                        unfinished.discard(decoded.index)
                    yield decoded
        finally:
            if unfinished:
                self.end()

    def _hand_out(self, limit: int) -> None:
        """Give every free worker a job below `limit`; one that is to be decoded alone when all are free, to one."""
        free = [worker for worker in self.workers if worker.ready and worker.job is None]
        if self.alone:
            if len(free) == sum(worker.ready for worker in self.workers) > 0:
                self._give(free[0], self.alone.popleft())
            return
        if any(worker.job in self.tried_alone for worker in self.workers):
            return
        for worker in free:
            if self.waiting and self.waiting[0] < limit:
                self._give(worker, self.waiting.popleft())

    def _give(self, worker: _Worker, index: int) -> None:
        careful = self.config.decoder == "auto" and index in self.ended_badly
        worker.give(index, (*self.jobs[index], careful))

    def end(self) -> None:
        """End the processes, whatever they do."""
        while self.workers:
            self.workers.pop().kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _results(self) -> list[Decoded | Arrived]:
        """What has arrived, died or run out of time, once something has."""
        busy = [worker for worker in self.workers if worker.job is not None or not worker.ready]
        now = time.monotonic()
        nearest = min(worker.since + self._limit(worker) for worker in busy)
        arrived = wait([worker.connection for worker in busy], max(0.0, nearest - now))
        found = [self._receive(worker) for worker in busy if worker.connection in arrived]
        now = time.monotonic()
        late = [
            worker for worker in busy if worker.connection not in arrived and now > worker.since + self._limit(worker)
        ]
        found += [self._give_up(worker) for worker in late]
        return [decoded for decoded in found if decoded is not None]

    def _limit(self, worker: _Worker) -> float:
        return self.config.timeout if worker.ready else START_LIMIT

    def _receive(self, worker: _Worker) -> Decoded | Arrived | None:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            return self._lost(worker)
        if not worker.ready:
            if message is not None:
                what, hint = message
                raise DataError(what, hint=hint)
            worker.ready = True
            return None
        index = worker.job
        assert index is not None
        if isinstance(message, Part):
            worker.since = time.monotonic()
            return Arrived(index, message)
        worker.job = None
        record, seconds = message
        if record.status.status == "failed" and self._once_more_alone(index):
            return None
        return Decoded(index, record, seconds)

    def _lost(self, worker: _Worker) -> Decoded | None:
        """Its process died by itself."""
        worker.process.join(5)
        code = worker.kill()
        if worker.job is None:
            raise DataError(
                f"a decoding process ended with exit code {code} before it began",
                hint="see its message above; a script that decodes videos does it below `if __name__ == '__main__':`",
            )
        status, reason = _why_dead(code)
        return self._replace(worker, status, reason)

    def _give_up(self, worker: _Worker) -> Decoded | None:
        worker.kill()
        if worker.job is None:
            raise DataError(f"a decoding process did not start within {START_LIMIT:.0f} seconds")
        reason = f"not decoded within {self.config.timeout:g} seconds {self.limited}"
        return self._replace(worker, "timeout", reason)

    def _replace(self, worker: _Worker, status: Status, reason: str) -> Decoded | None:
        """A new worker, and the video's record, or another turn for it."""
        assert worker.job is not None
        self.workers[self.workers.index(worker)] = _Worker(self.config, self.reader)
        if status != "timeout" and self._once_more_alone(worker.job):
            return None
        if status == "timeout" and self.config.decoder == "auto" and worker.job not in self.ended_badly:
            self.ended_badly.add(worker.job)
            self.waiting.appendleft(worker.job)
            return None
        id, source = self.jobs[worker.job]
        record = without_frames(id, source, status, reason, "decord" if self.config.decoder == "decord" else "pyav")
        return Decoded(worker.job, record, time.monotonic() - worker.since)

    def _once_more_alone(self, index: int) -> bool:
        """Whether a video gets its turn by itself, which it has once."""
        if index in self.tried_alone:
            return False
        self.tried_alone.add(index)
        self.ended_badly.add(index)
        self.alone.append(index)
        return True


def _why_dead(code: int | None) -> tuple[Status, str]:
    """What a process's exit code says of the video that it was decoding."""
    if code is None or code == PYTHON_FAILED:
        return "failed", "the decoding process ended by itself, as it does for want of memory"
    if code >= 0:
        return "corrupt", f"the decoder crashed (exit code {code})"
    name = signal.Signals(-code).name
    if -code in CRASHES:
        return "corrupt", f"the decoder crashed (killed by {name})"
    most_likely = ", most likely for want of memory" if -code == signal.SIGKILL else ""
    return "failed", f"the decoding process was killed ({name}){most_likely}"


def _work(connection: Connection, config: PrepareConfig, reader: PartsReader) -> None:
    end_with_parent()
    connection.send(_lacking(config))
    by_pyav = config.model_copy(update={"decoder": "pyav"})
    while True:
        try:
            id, source, careful = connection.recv()
        except (EOFError, ConnectionError):  # its parent has ended, or was killed
            return
        begun = time.monotonic()
        try:
            record = reader(id, source, by_pyav if careful else config, connection.send)
        except (MemoryError, OSError) as error:
            record = without_frames(id, source, "failed", trouble(error))
        connection.send((record, time.monotonic() - begun))


def _lacking(config: PrepareConfig) -> tuple[str, Hint | None] | None:
    """What this process cannot decode without, and what helps."""
    try:
        if config.decoder != "pyav":
            decord()
    except DataError as error:
        return error.what, error.hint
    return None
