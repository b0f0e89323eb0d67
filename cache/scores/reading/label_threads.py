"""Labels read in this process, by TensorStore's threads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .labels import Arrays
from .reader import PendingLabels, ScoreReader


@dataclass(frozen=True, eq=False)
class PendingReaders:
    """Labels of a batch, while this process reads them; a `PendingBatch`."""

    pending: Sequence[PendingLabels]

    def result(self) -> list[Arrays]:
        """Wait for them, one for each teacher; raises as `ScoreReader.read` does."""
        return [each.result() for each in self.pending]


class LabelThreads:
    """Reads the labels of batches in this process; a `LabelSource`.

    Args:
        readers: of the teachers; there may be none.
    """

    def __init__(self, readers: Sequence[ScoreReader]) -> None:
        self._readers = readers

    def start(self, text_index: np.ndarray, video_index: np.ndarray) -> PendingReaders:
        """Begin to read the labels of a batch, several teachers' at once."""
        return PendingReaders([reader.start(text_index, video_index) for reader in self._readers])
