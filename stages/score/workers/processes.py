"""Stage one on all GPUs of a machine: a process on each makes its part of the shards, and the first one tells."""

import multiprocessing
import signal
import time
import traceback
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from types import FrameType, TracebackType
from typing import Any, Self

import torch

from ....configs.schema import Config
from ....errors import ConfigError, TeachclipError
from ....plurals import counted
from ...runtime.child import end_with_parent, untouched_by_interrupts
from ...runtime.cores import cores
from ...runtime.device import choose_device
from ...runtime.launch import Launch, launch, take_place
from ...runtime.reporting import Progress, Reporter, Silent
from ..one_teacher import together
from ..stage import ScoreResult, score
from ..worker_part import WHOLE, WorkerPart

ENDING = 60.0
"""Seconds that processes may take to end: they finish what they compute and write at the moment."""


def score_by_processes(
    config: Config, reporter: Reporter | None = None, part: WorkerPart = WHOLE, devices: int | None = None
) -> ScoreResult:
    """As `score`, by `devices` processes that each make a part of `part`.

    With several, nothing is computed in this process. When one fails, or this one is interrupted, all end; what each
    has finished is kept.

    Args:
        config: the configuration.
        reporter: is told what happens in the first process.
        part: of the shards, which they make together.
        devices: how many; on GPUs each has one of its own, on a CPU they share the cores. By default one for each GPU
            that this process sees, where `part` is the whole and `config.score.device` names none; else one.

    Raises:
        ConfigError: more than there are GPUs, or within processes that torchrun started.
        TeachclipError: a process was killed; else as `score`, whichever process first failed.
    """
    reporter = reporter or Silent()
    count = _count(config, part, devices)
    if count == 1:
        return score(config, reporter, part)
    begun = time.monotonic()
    own = "one on each GPU" if choose_device(config.score.device).type == "cuda" else "which share the cores"
    reporter.info(f"{counted(count, 'process', 'processes')}, {own}; what the first one does is shown")
    with _Crew(config, part, count) as crew:
        results = crew.run(reporter)
    teachers = tuple(together(same) for same in zip(*(result.teachers for result in results), strict=True))
    shown = None if part == WHOLE else str(part)
    return replace(results[0], teachers=teachers, part=shown, seconds=time.monotonic() - begun)


def _count(config: Config, part: WorkerPart, devices: int | None) -> int:
    if launch().ranks > 1:
        if devices is not None:
            raise ConfigError("torchrun has started the processes: how many is not asked again")
        return 1
    gpus = torch.cuda.device_count() if choose_device(config.score.device).type == "cuda" else 0
    if devices is None:
        return max(1, gpus) if part == WHOLE and config.score.device == "auto" else 1
    if 0 < gpus < devices:
        raise ConfigError(f"{counted(devices, 'GPU is', 'GPUs are')} asked for; torch sees {gpus} here")
    return devices


class _Crew:
    """The processes, which end with the `with` block."""

    def __init__(self, config: Config, part: WorkerPart, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.processes: dict[Connection, SpawnProcess] = {}
        for rank in range(count):
            ours, theirs = context.Pipe(duplex=False)
            arguments = (theirs, config, part, Launch(rank, count, rank))
            process = context.Process(target=_work, args=arguments, name=f"score-{rank}", daemon=False)
            with untouched_by_interrupts():
                process.start()
            theirs.close()  # so that a dead process reads as the end of the connection
            self.processes[ours] = process

    def run(self, reporter: Reporter) -> list[ScoreResult]:
        """What each process made, in order, once all have.

        Raises:
            BaseException: what the first to fail raised.
        """
        made: dict[Connection, ScoreResult] = {}
        with _Voice(reporter) as voice:
            while len(made) < len(self.processes):
                working = [connection for connection in self.processes if connection not in made]
                for connection in wait(working):
                    assert isinstance(connection, Connection)
                    kind, *told = self._receive(connection)
                    if kind == "failed":
                        raise told[0]
                    if kind == "made":
                        made[connection] = told[0]
                    else:
                        voice.tell(kind, *told)
        return [made[connection] for connection in self.processes]

    def _receive(self, connection: Connection) -> tuple[Any, ...]:
        try:
            message: tuple[Any, ...] = connection.recv()
            return message
        except (EOFError, OSError):
            process = self.processes[connection]
            process.join(ENDING)
            raise _ended(process) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                for process in self.processes.values():
                    process.terminate()
            until = time.monotonic() + ENDING
            for process in self.processes.values():
                process.join(max(0.0, until - time.monotonic()))
        finally:  # also when this is interrupted again
            for connection, process in self.processes.items():
                process.kill()
                process.join()
                connection.close()


def _ended(process: SpawnProcess) -> TeachclipError:
    code = process.exitcode or 0
    how = f"was killed: {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return TeachclipError(
        f"process {process.name.removeprefix('score-')} of those that score {how}",
        hint="the system kills processes when memory runs out: with fewer of them there is more for each; everything "
        "finished is kept, and the same command goes on from it",
    )


class _Voice:
    """Tells a reporter what a process tells; a count that is still open ends with the `with` block."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.counts: dict[int, Progress] = {}

    def tell(self, kind: str, *told: Any) -> None:
        match kind, told:
            case ("info", (message,)):
                self.reporter.info(message)
            case ("warn", (message,)):
                self.reporter.warn(message)
            case ("begin", (count, title, total, unit, done)):
                self.counts[count] = self.reporter.progress(title, total, unit, done)
                self.counts[count].__enter__()
            case ("advance", (count, n, fields)):
                self.counts[count].advance(n, **fields)
            case ("end", (count,)):
                self.counts.pop(count).__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for count in self.counts.values():
            count.__exit__(kind, error, trace)


class _Relayed:
    """A reporter whose messages another process's `_Voice` tells."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.counts = 0

    def info(self, message: str) -> None:
        _send(self.connection, "info", message)

    def warn(self, message: str) -> None:
        _send(self.connection, "warn", message)

    def progress(self, title: str, total: int | None, unit: str, done: int = 0) -> Progress:
        self.counts += 1
        return _RelayedCount(self.connection, self.counts, (title, total, unit, done))


class _RelayedCount:
    def __init__(self, connection: Connection, count: int, begin: tuple[str, int | None, str, int]) -> None:
        self.connection, self.count, self.begin = connection, count, begin

    def advance(self, n: int = 1, **fields: float | str) -> None:
        _send(self.connection, "advance", self.count, n, fields)

    def __enter__(self) -> Self:
        _send(self.connection, "begin", self.count, *self.begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:  # else whoever listens hears of the error
            _send(self.connection, "end", self.count)


def _send(connection: Connection, *message: Any) -> None:
    # Connection.send() keeps a view of a buffer, which an interrupt inside it leaves to the garbage collector.
    connection.send_bytes(bytes(ForkingPickler.dumps(message)))


def _work(connection: Connection, config: Config, part: WorkerPart, place: Launch) -> None:
    """What one process does."""
    end_with_parent()
    signal.signal(signal.SIGTERM, _stop)
    take_place(place)
    torch.set_num_threads(max(1, min(torch.get_num_threads(), cores() // place.ranks)))
    try:
        device = choose_device(config.score.device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        reporter = Silent() if place.rank else _Relayed(connection)
        _send(connection, "made", score(config, reporter, part))
    except (KeyboardInterrupt, BrokenPipeError):  # the one who listens ends us, or has ended
        raise SystemExit(1) from None
    except Exception as error:
        _send(connection, "failed", _portable(error))


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _portable(error: Exception) -> Exception:
    """The error as another process can have it; with where it was raised, where that is for us to look at."""
    if isinstance(error, TeachclipError | OSError):
        return error
    told = "".join(traceback.format_exception(error))
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:  # whatever a stranger's class raises
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(told)
    return error
