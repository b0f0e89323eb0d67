"""Labels, from the store to the loss: what a teacher says of a batch, and who makes that of several teachers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

LEAST = 3
"""Scored pairs that a row or column of a sparse teacher needs in a batch: of two, a correlation is always 1 or -1."""


class Numbers(Protocol):
    """An array of numpy's, or a tensor of torch's."""

    def __mul__(self, scale: float, /) -> Self: ...


@dataclass(frozen=True, eq=False)
class Labels[A: Numbers]:
    """What one teacher says of a batch of T texts and V videos.

    Args:
        coarse: float32 [T,V] raw scores.
        frame_logits: float32 [T,F], text i with its own video; None when the teacher gives none, or nobody wants them.
        scale: exp(logit_scale), which makes a score a logit.
        sparse: NaN stands for pairs that the teacher did not score.
    """

    coarse: A
    frame_logits: A | None
    scale: float
    sparse: bool = False

    @property
    def logits(self) -> A:
        """Video-text logits [T,V]: scores times the scale."""
        return self.coarse * self.scale

    def map[B: Numbers](self, change: Callable[[A], B]) -> "Labels[B]":
        """The same labels with both arrays changed: to tensors, onto a device."""
        frame_logits = None if self.frame_logits is None else change(self.frame_logits)
        return Labels(change(self.coarse), frame_logits, self.scale, self.sparse)


type Arrays = Labels[np.ndarray]
"""Labels as they are read."""


class PendingBatch(Protocol):
    """Labels of a batch, while they are read."""

    def result(self) -> list[Arrays]:
        """Wait for them, one for each teacher.

        Raises:
            CacheError: a shard is missing or damaged, or a pair that no tile holds; names it.
            UnreachableError: a server does not give the scores.
            TrainingError: who reads them has ended.
        """
        ...


class LabelSource(Protocol):
    """Makes several teachers' labels of batches; for one thread.

    `LabelThreads` makes them in this process, `LabelProcess` in another; the labels are the same, bit for bit.
    """

    def start(self, text_index: np.ndarray, video_index: np.ndarray) -> PendingBatch:
        """Begin to read the labels of a batch; only those of the batch that was begun last can be had.

        Args:
            text_index, video_index: int [T], [V]: places in the lists that the teachers' readers were made with.
        """
        ...
