"""The windows of an index as they leave it: number, place, times, tags, unit vector."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import batched
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....cache.library.library import Library
from ....configs.schema import cut_name
from ....errors import ConfigError, printable

BATCH = 2_000
"""Windows that are read and handed over at a time."""


@dataclass(frozen=True)
class Record:
    """A window.

    Attributes:
        id: its number in the index, which is never another's; its vector never changes.
        path: the video's file; bytes of its name that are no UTF-8 are spelt `\\xe9`.
        start, stop: seconds from the video's first frame; times: of its F frames.
        tags: of the video, in order.
        vector: unit length [D].
    """

    id: int
    path: str
    start: float
    stop: float
    times: tuple[float, ...]
    tags: tuple[str, ...]
    vector: NDArray[np.floating]

    @property
    def described(self) -> dict[str, Any]:
        """All but the vector, as JSON has it."""
        return {
            "id": self.id,
            "path": self.path,
            "start": self.start,
            "stop": self.stop,
            "times": list(self.times),
            "tags": list(self.tags),
        }

    @property
    def stamp(self) -> str:
        """Differs where anything about the window does: a file that was moved, a tag."""
        return hashlib.blake2b(json.dumps(self.described).encode(), digest_size=8).hexdigest()


class IndexRecords:
    """The windows of an open index, as it was when it was opened; those that are gone since are left out.

    Args:
        width: so many numbers of each vector, the first, at unit length again; None leaves them whole.

    Attributes:
        library: that they are read from; model: that made the vectors as they are here.

    Raises:
        ConfigError: they have not so many numbers.
    """

    def __init__(self, library: Library, width: int | None = None) -> None:
        self.library, self.model = library, library.model
        if width is None:
            return
        if not 1 <= width <= self.model.width:
            raise ConfigError(f"its vectors have {self.model.width} numbers, and cannot be cut to {width}")
        name, digest = (cut_name(text)[0] for text in (self.model.name, self.model.digest))
        self.model = replace(self.model, name=f"{name}@{width}", digest=f"{digest}@{width}", width=width)

    def __len__(self) -> int:
        return len(self.library)

    def all(self) -> Iterator[list[Record]]:
        """Every window by its number, `BATCH` at a time."""
        for part in batched(self.library.rows.tolist(), BATCH):
            windows = self.library.windows(part)
            tags = self.library.tags_of(sorted({window.video for window in windows}))
            found = []
            for window in windows:
                vector = self.library.vector(window.row)
                if vector is not None:  # else it was made after the index was opened
                    path, own = printable(window.path), tuple(tags.get(window.video, ()))
                    times = window.times
                    found.append(Record(window.row, path, window.start, window.stop, times, own, self._cut(vector)))
            yield found

    def _cut(self, vector: NDArray[np.floating]) -> NDArray[np.floating]:
        if len(vector) == self.model.width:
            return vector
        first = vector[: self.model.width].astype(np.float32)
        cut: NDArray[np.floating] = first / max(float(np.linalg.norm(first)), 1e-12)
        return cut
