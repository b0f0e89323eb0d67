"""Labels read by a process of their own, so that reading them does not disturb a training loop's Python.

Training's own interpreter does three things a batch: it sends indices, sleeps, and wakes when all labels lie in its
memory. The two processes are joined by a socket: when either ends, however it ends, the other notices.
"""

import os
import resource
import signal
import socket
import subprocess
import sys
import traceback
import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from ....errors import TeachclipError, TrainingError
from ....remedies import Change, Remedy
from ..tile import TileFacts
from .labels import Arrays, Labels
from .pairs import PairScores, RequestedPairs, any_absent
from .reader import ScoreReader
from .row_files import FAST, FileRows, ShardFiles
from .tile_rows import ArrayRows, ScoreRows

_ENDING = 5.0  # seconds that the process may take to end
_MOST_FILES = 4096
_NUMBER = np.dtype(np.int64)


@dataclass(frozen=True, eq=False)
class TeacherSpec:
    """What the process is told of one teacher.

    Args:
        requested: which pairs its tiles hold.
        frame_logits: float32 [T,F], or None.
    """

    requested: RequestedPairs
    frame_logits: np.ndarray | None


class LabelProcess:
    """Reads the labels of batches in another process; a `LabelSource`, for one thread.

    It starts at once, and has its first labels some 0.2 s later. It ends with `close`, a `with` block, this
    object or this process.

    Args:
        readers: of the teachers.
    """

    def __init__(self, readers: Sequence[ScoreReader]) -> None:
        self._readers = readers
        self._socket, theirs = socket.socketpair()
        with theirs:
            # Not multiprocessing, which would import the program's own script once more; and in a session of its own,
            # so that Ctrl-C and a scheduler's signals reach training only.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self.close = weakref.finalize(self, _end, self._process, self._socket)
        """End the process; may be called twice."""
        self._told = False
        self._due: PendingProcess | None = None

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def start(self, text_index: np.ndarray, video_index: np.ndarray) -> "PendingProcess":
        """Begin to read the labels of a batch; what was begun before is dropped."""
        if self._due is not None:
            with suppress(TeachclipError, RuntimeError):  # its errors, too, nobody wants
                self._receive(self._due)
        texts, videos = np.asarray(text_index, _NUMBER), np.asarray(video_index, _NUMBER)
        request = np.concatenate([np.array([len(texts), len(videos)]), texts, videos]).tobytes()
        try:
            if not self._told:
                specs = [TeacherSpec(reader.requested, reader.frame_logits) for reader in self._readers]
                told = bytes(ForkingPickler.dumps(specs))
                self._socket.sendall(len(told).to_bytes(8, "little") + told)
                self._told = True
            self._socket.sendall(request)
        except OSError as error:
            raise self._ended() from error
        except BaseException:  # Ctrl-C, perhaps in the middle
            self.close()
            raise
        self._due = PendingProcess(self, texts, videos)
        return self._due

    def finish(self, due: "PendingProcess") -> list[Arrays]:
        """What `start` promised last."""
        assert due is self._due, "only the batch that was begun last can be had"
        reply = self._receive(due)
        if reply.absent:
            for reader, scores in zip(self._readers, reply.coarse, strict=True):
                reader.refuse_absent(due.texts, due.videos, scores)
        read = zip(reply.coarse, reply.frame_logits, self._readers, strict=True)
        return [Labels(coarse, logits, reader.scale, reader.sparse) for coarse, logits, reader in read]

    def _receive(self, due: "PendingProcess") -> "_Reply":
        self._due = None
        reply = _Reply(len(due.texts), len(due.videos), _widths(reader.frame_logits for reader in self._readers))
        try:
            arrived = _receive(self._socket, reply.bytes)
            raised = bytearray(reply.error_bytes if arrived else 0)
            arrived = arrived and _receive(self._socket, raised)
        except BaseException:  # Ctrl-C, perhaps in the middle
            self.close()
            raise
        if not arrived:
            raise self._ended()
        if raised:
            raise ForkingPickler.loads(raised)
        return reply

    def _ended(self) -> TrainingError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDING)
        code = self._process.returncode
        why = "was stopped" if not code else f"ended with code {code}"
        if code is not None and code < 0:
            why = f"was killed: {signal.Signals(-code).name}"
        return TrainingError(
            f"the process that reads labels {why}",
            hint=Remedy(
                "the system kills processes when memory runs out; go on with the same command, or read labels in "
                "training's own process",
                Change({"train.label_reader": "thread"}),
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, eq=False)
class PendingProcess:
    """Labels of a batch, while another process reads them; a `PendingBatch`."""

    process: LabelProcess
    texts: np.ndarray
    videos: np.ndarray

    def result(self) -> list[Arrays]:
        """Wait for them, one for each teacher.

        Raises:
            CacheError: as `ScoreReader.read` does.
            UnreachableError: a server does not give the scores.
            TrainingError: the process has ended.
        """
        return self.process.finish(self)


def _widths(frame_logits: Iterable[np.ndarray | None]) -> list[int | None]:
    return [None if logits is None else logits.shape[1] for logits in frame_logits]


class _Reply:
    """Labels of a batch in one piece of memory: size of an error that follows, whether a pair has no score, and each
    teacher's arrays."""

    def __init__(self, texts: int, videos: int, widths: Sequence[int | None]) -> None:
        shapes = [(texts, videos) for _ in widths] + [(texts, width) for width in widths if width is not None]
        ends = np.cumsum([rows * columns for rows, columns in shapes]).tolist()
        whole = np.empty(2 + -(-ends[-1] // 2), _NUMBER)
        self.bytes, self._facts = memoryview(whole).cast("B"), whole[:2]
        self._facts[:] = 0
        values = whole[2:].view(np.float32)
        starts = [0, *ends[:-1]]
        arrays = [values[a:b].reshape(shape) for a, b, shape in zip(starts, ends, shapes, strict=True)]
        self.coarse, fine = arrays[: len(widths)], iter(arrays[len(widths) :])
        self.frame_logits = [None if width is None else next(fine) for width in widths]

    @property
    def error_bytes(self) -> int:
        return int(self._facts[0])

    @error_bytes.setter
    def error_bytes(self, size: int) -> None:
        self._facts[0] = size

    @property
    def absent(self) -> bool:
        return bool(self._facts[1])

    @absent.setter
    def absent(self, absent: bool) -> None:
        self._facts[1] = absent


def _receive(connection: socket.socket, target: bytearray | memoryview) -> bool:
    """Fill `target`; whether the other side did not end before. Waits without the interpreter, most often once."""
    left = memoryview(target)
    while len(left):
        try:
            count = connection.recv_into(left, 0, socket.MSG_WAITALL)
        except OSError:
            return False
        if count == 0:
            return False
        left = left[count:]
    return True


def _end(process: "subprocess.Popen[bytes]", connection: socket.socket) -> None:
    with suppress(OSError):  # it ended before
        connection.shutdown(socket.SHUT_RDWR)
    try:
        process.wait(_ENDING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    connection.close()


def _serve(connection: socket.socket) -> None:
    """The other process: answers requests until the first one ends."""
    size = bytearray(8)
    if not _receive(connection, size):
        return
    told = bytearray(int.from_bytes(size, "little"))
    if not _receive(connection, told):
        return
    specs: list[TeacherSpec] = ForkingPickler.loads(told)
    del told
    scores: list[PairScores] = []
    sizes = np.empty(2, _NUMBER)
    while _receive(connection, memoryview(sizes).cast("B")):
        index = np.empty(sizes.sum(), _NUMBER)
        if not _receive(connection, memoryview(index).cast("B")):
            return
        texts, videos = np.split(index, sizes[:1])
        reply = _Reply(len(texts), len(videos), _widths(spec.frame_logits for spec in specs))
        raised = b""
        try:
            scores = scores or _open(specs)
            _read(scores, specs, texts, videos, reply)
        except Exception as error:
            known = isinstance(error, TeachclipError)  # others need not survive the way
            raised = bytes(ForkingPickler.dumps(error if known else RuntimeError(traceback.format_exc())))
            reply.error_bytes = len(raised)
        connection.sendall(reply.bytes)
        connection.sendall(raised)


def _open(specs: Sequence[TeacherSpec]) -> list[PairScores]:
    files = ShardFiles(_most_files())

    def rows(tile: TileFacts) -> ScoreRows:
        return FileRows(tile, files) if FAST and isinstance(tile.folder, Path) else ArrayRows(tile, "coarse")

    return [PairScores(spec.requested, [rows(part.tile) for part in spec.requested.parts]) for spec in specs]


def _read(
    scores: Sequence[PairScores], specs: Sequence[TeacherSpec], texts: np.ndarray, videos: np.ndarray, reply: _Reply
) -> None:
    pending = [each.start(texts, videos) for each in scores]
    for k, spec in enumerate(specs):
        reply.coarse[k][...] = pending[k].result()
        if spec.frame_logits is not None:
            spec.frame_logits.take(texts, axis=0, out=reply.frame_logits[k])
    reply.absent = any(map(any_absent, reply.coarse))


def _most_files() -> int:
    """How many files may be open, after asking for as many as are allowed."""
    few, many = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _MOST_FILES if many == resource.RLIM_INFINITY else min(2 * _MOST_FILES, many)
    if few != resource.RLIM_INFINITY and few < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, many))
            few = wanted
    return _MOST_FILES if few == resource.RLIM_INFINITY else max(1, min(_MOST_FILES, few - 64))


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as connection, suppress(BrokenPipeError, ConnectionResetError):
        _serve(connection)
    os._exit(0)  # TensorStore's threads take their time
