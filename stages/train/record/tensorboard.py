"""The numbers of metrics.jsonl as curves for TensorBoard: `tensorboard --logdir work/runs`."""

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from .numbers import numbers


class Curves:
    """One event file of a run; used as a context manager.

    Not written by torch's SummaryWriter, which names the machine in the file's name, and whose thread prints a
    traceback where the disk is full.

    Args:
        folder: of the run, under whose name TensorBoard shows it.
        start: steps done when the run was left; of what an earlier process wrote later, TensorBoard shows nothing.
    """

    def __init__(self, folder: Path, start: int) -> None:
        path = folder / f"events.out.tfevents.{time.time():010.0f}.{start}"
        self._file = path.open("ab", buffering=0)
        self._records: Any = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        self._write(step=start + 1, session_log=SessionLog(status=SessionLog.START))

    def add(self, line: Mapping[str, Any]) -> None:
        """The numbers of a line of metrics.jsonl under their names there, `t2v/r1` for one inside another."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in numbers(line)]
        self._write(step=line["step"], summary=Summary(value=values))

    def _write(self, **fields: Any) -> None:
        self._records.write(Event(wall_time=time.time(), **fields).SerializeToString())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
