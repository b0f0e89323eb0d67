"""Rows of one tile, and what one tile holds of a batch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...storage.locations import Pending, at_once, patient, refuse_unreachable
from ..format.codes import decode_scores
from ..format.tensorstore_io import open_array
from ..lookup import Held
from ..shard import incomplete, problem, unreadable
from ..tile import Tile

type Reading = Pending[np.ndarray]
"""Rows that are being read."""


class TileRows:
    """Reads rows of one tile.

    Raises:
        CacheError: from every method, when a shard is missing or damaged; names it and what to do.
    """

    def __init__(self, tile: Tile) -> None:
        self.tile = tile
        self._arrays = {name: open_array(tile.folder / name, tile.arrays[name]) for name in tile.spec.scored}

    def start(self, name: str, rows: np.ndarray, columns: np.ndarray | None = None) -> Reading:
        """Read rows of `coarse`, `coarse_codec` or `fine` in the background: all of their columns, or these."""
        array = self._arrays[name]
        started: Reading = (array.oindex[rows] if columns is None else array.oindex[rows, columns]).read()
        return started

    def finish(self, future: Reading, rows: np.ndarray) -> np.ndarray:
        """What `start` promised."""
        try:
            values = np.asarray(self._wait(future, rows))
        except (ValueError, OSError) as error:
            refuse_unreachable(self.tile.folder, error)
            self.tile.refuse_replaced()
            raise unreadable(self.tile, rows, error) from error
        self.tile.refuse_replaced()
        return values

    def _wait(self, future: Reading, rows: np.ndarray) -> np.ndarray:
        if isinstance(self.tile.folder, Path):
            return future.result()
        return patient(future, 4 * len(rows) * self.tile.spec.videos)

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows of one array."""
        return self.finish(self.start(name, rows), rows)

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """Raw scores float32 [rows,V] with every video of the tile."""
        codec = self.read("coarse_codec", rows) if self.tile.spec.dtype == "uint16" else None
        return decode_scores(self.read("coarse", rows), codec)


class TilePart:
    """What one tile holds of a request, and what its rows are decoded with.

    In another process (pickled) it has no `tile_rows` until it is given some.
    """

    def __init__(self, held: Held) -> None:
        self.held, self.tile = held, held.tile

    def open(self) -> None:
        """Check the shards that are needed and load their rows' codecs."""
        shards = np.unique(self.held.rows // self.tile.spec.shard_texts).tolist()
        for shard, why in zip(shards, at_once(self.tile.folder, lambda k: problem(self.tile, k), shards), strict=True):
            if why:
                raise incomplete(self.tile, shard)
        self.tile_rows = TileRows(self.tile)
        coded = self.tile.spec.dtype == "uint16"
        self.codec = self.tile_rows.read("coarse_codec", self.held.rows) if coded else None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "tile_rows"}

    def precision(self, texts: np.ndarray) -> float:
        """Half the largest step between stored scores of these texts."""
        _, row = _find(self.held.texts, texts)
        if not len(row) or self.tile.spec.dtype == "float32":
            return 0.0
        if self.codec is not None:
            return float(self.codec[row, 0].max() / 2)
        largest = np.abs(self.tile_rows.scores(self.held.rows[row])).max()
        return float(np.spacing(np.float16(largest)) / 2)

    def start(self, texts: np.ndarray, videos: np.ndarray) -> "Share | None":
        """Begin to read what this tile holds of a batch; None when that is nothing."""
        here, row = _find(self.held.texts, texts)
        there, column = _find(self.held.videos, videos)
        if not (len(here) and len(there)):
            return None
        rows = self.held.rows[row]
        codec = None if self.codec is None else self.codec.take(row, axis=0)
        future = self.tile_rows.start("coarse", rows, self.held.columns[column])
        return Share(self.tile_rows, future, here, there, rows, codec)


def _find(places: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of `wanted` are among the ascending `places`, and where: both as indices."""
    if not len(places):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if places[-1] == len(places) - 1 and (not len(wanted) or 0 <= wanted.min() <= wanted.max() <= places[-1]):
        return np.arange(len(wanted)), wanted  # every place from 0 on, as in a store of one tile
    at = np.searchsorted(places, wanted).clip(max=len(places) - 1)
    found = np.flatnonzero(places[at] == wanted)
    return found, at[found]


@dataclass(frozen=True)
class Share:
    """What one tile holds of a batch, while it is read.

    Args:
        tile_rows: the tile.
        future: what is stored [rows,columns].
        texts, videos: which of the batch's it holds, as indices.
        rows: the tile's rows of these texts.
        codec: scale and offset of these rows, where there are codes.
    """

    tile_rows: TileRows
    future: Reading
    texts: np.ndarray
    videos: np.ndarray
    rows: np.ndarray
    codec: np.ndarray | None

    def scores(self) -> np.ndarray:
        """float32 [rows,columns]."""
        return decode_scores(self.tile_rows.finish(self.future, self.rows), self.codec)
