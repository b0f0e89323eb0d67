"""Shards written in the background while the teacher goes on."""

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np

from ...cache.scores.shard import write_shard
from ...cache.scores.tile import Tile


class ShardWriter:
    """Writes shards in one background thread, so that the disk never keeps the teacher waiting.

    Leaving the `with` block waits for what was handed over; an error of the disk is raised by the next call.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write-shard")
        self._pending: Future[None] | None = None

    def write(self, tile: Tile, shard: int, coarse: np.ndarray, fine: np.ndarray | None) -> None:
        """Hand a shard over once the one before is written: of what was scored, a kill costs that one at most."""
        self.finish()
        self._pending = self._pool.submit(write_shard, tile, shard, coarse, fine)

    def finish(self) -> None:
        """Wait until everything handed over is written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            self.finish()
