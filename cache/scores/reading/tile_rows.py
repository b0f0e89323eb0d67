"""Rows of one tile's arrays, read by TensorStore."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from ...storage.locations import patient, refuse_unreachable
from ..format.codes import decode_scores
from ..format.tensorstore_io import open_array
from ..shard import unreadable
from ..tile import Tile, TileFacts


@dataclass(frozen=True, eq=False)
class PendingRows:
    """Rows of a tile, while they are read.

    Args:
        tile: whose.
        rows: which.
        wait: gives what is stored of them.
    """

    tile: TileFacts
    rows: np.ndarray
    wait: Callable[[], np.ndarray]

    def result(self) -> np.ndarray:
        """Wait for them.

        Raises:
            CacheError: a shard is missing or damaged, or the tile was replaced; names it and what to do.
            UnreachableError: a server does not give them.
        """
        try:
            values = np.asarray(self.wait())
        except (ValueError, OSError) as error:
            refuse_unreachable(self.tile.folder, error)
            self.tile.refuse_replaced()
            raise unreadable(self.tile, self.rows, error) from error
        self.tile.refuse_replaced()
        return values


class ScoreRows(Protocol):
    """Reads rows of a tile's scores: `ArrayRows` by TensorStore, `FileRows` (row_files.py) out of its files."""

    def start(self, rows: np.ndarray, columns: np.ndarray | None = None) -> PendingRows:
        """Begin to read rows as they are stored: all of their columns, or these."""
        ...


class ArrayRows:
    """Reads rows of one array of a tile, in TensorStore's threads; a `ScoreRows`."""

    def __init__(self, tile: TileFacts, name: str) -> None:
        self.tile = tile
        self._array = open_array(tile.folder / name, tile.arrays[name])

    def start(self, rows: np.ndarray, columns: np.ndarray | None = None) -> PendingRows:
        """Begin to read rows: all of their columns, or these."""
        future = (self._array.oindex[rows] if columns is None else self._array.oindex[rows, columns]).read()
        local = isinstance(self.tile.folder, Path)
        wait = future.result if local else partial(patient, future, 4 * len(rows) * self.tile.spec.videos)
        return PendingRows(self.tile, rows, wait)


class TileRows:
    """Reads rows of one tile: of `coarse`, `coarse_codec` and `fine`, as far as its teacher has them.

    Raises:
        CacheError: from every method, when a shard is missing or damaged; names it and what to do.
    """

    def __init__(self, tile: Tile) -> None:
        self.tile = tile
        self.arrays = {name: ArrayRows(tile, name) for name in tile.spec.scored}

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows of one array."""
        return self.arrays[name].start(rows).result()

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """Raw scores float32 [rows,V] with every video of the tile."""
        codec = self.read("coarse_codec", rows) if self.tile.spec.dtype == "uint16" else None
        return decode_scores(self.read("coarse", rows), codec)
