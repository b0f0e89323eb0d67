"""The numbers of metrics.jsonl as curves for TensorBoard: `tensorboard --logdir work/runs`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

FLUSH_SECONDS = 30


class Curves:
    """One event file of a run; used as a context manager.

    Args:
        folder: of the run, under whose name TensorBoard shows it.
        start: steps done when the run was left; of what an earlier process wrote later, TensorBoard shows nothing.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self._writer: Any = SummaryWriter(str(folder), purge_step=start + 1, flush_secs=FLUSH_SECONDS)

    def add(self, line: Mapping[str, Any]) -> None:
        """The numbers of a line of metrics.jsonl under their names there, `t2v/r1` for one inside another."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _numbers(line)]
        self._writer.file_writer.add_summary(Summary(value=values), line["step"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


def _numbers(line: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{above}{name}/")
        elif isinstance(value, int | float) and f"{above}{name}" != "step":
            yield f"{above}{name}", float(value)
