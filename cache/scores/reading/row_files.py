"""Rows of scores straight out of a local tile's files, read and checked by the one thread that asks.

A batch's rows take it a quarter of the time that TensorStore's threads take. But each row is a call that gives the
interpreter away, so this is for a process that does nothing else (label_process.py).
"""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import google_crc32c
import numpy as np

from ..tile import TileFacts
from .tile_rows import PendingRows

FAST = google_crc32c.implementation == "c"
"""Whether checksums are computed by machine code here; else TensorStore is faster."""
CHECKED = 0x48674BC7
"""crc32c of any bytes that end with their own crc32c, little-endian (the residue of RFC 3720's CRC)."""


def _soon(handle: int, offset: int, size: int) -> None:
    """Have the system fetch these bytes, where it can be told: so a disk is asked for all rows of a batch at once."""
    if sys.platform == "linux":
        os.posix_fadvise(handle, offset, size, os.POSIX_FADV_WILLNEED)


class ShardFiles:
    """Open shard files, and where their rows begin; when there are `most`, all are closed before the next is opened."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[str, tuple[int, list[int]]] = {}

    def get(self, path: str, rows: int, size: int) -> tuple[int, list[int]]:
        """A shard's file handle, and the first byte of each of its `rows`.

        Args:
            size: bytes of a row, with its checksum.

        Raises:
            ValueError, OSError: the file is missing or damaged.
        """
        if path not in self._open:
            if len(self._open) >= self._most:
                self.close()
            handle = os.open(path, os.O_RDONLY)
            try:
                self._open[path] = handle, _row_offsets(handle, rows, size)
            except BaseException:
                os.close(handle)
                raise
        return self._open[path]

    def close(self) -> None:
        """Close all files."""
        for handle, _ in self._open.values():
            os.close(handle)
        self._open.clear()


def _row_offsets(handle: int, rows: int, size: int) -> list[int]:
    """Out of the index at the end of a shard: offset and size of each row, uint64, and a crc32c."""
    end = os.fstat(handle).st_size
    length = 16 * rows + 4
    raw = os.pread(handle, length, end - length)
    if len(raw) != length or google_crc32c.value(raw) != CHECKED:
        raise ValueError("the index is damaged")
    offsets: list[int] = []
    for offset, stored in np.frombuffer(raw, "<u8", 2 * rows).reshape(rows, 2).tolist():
        inside = stored == size and offset + size <= end
        offsets.append(offset if inside else -1)  # rows behind a tile's last text have none
    return offsets


class FileRows:
    """Reads rows of a local tile's scores out of its files; a `ScoreRows`."""

    def __init__(self, tile: TileFacts, files: ShardFiles) -> None:
        assert isinstance(tile.folder, Path)
        self.tile, self._files = tile, files
        self._folder = str(tile.folder / "coarse")  # strings: joining paths would take longer than all the rest
        self._dtype = np.dtype(tile.spec.dtype).newbyteorder("<")
        self._size = tile.spec.videos * self._dtype.itemsize + 4

    def start(self, rows: np.ndarray, columns: np.ndarray | None = None) -> PendingRows:
        """Rows of scores: all of their columns, or these. They are read when the result is asked for."""
        with suppress(OSError, ValueError):  # the result tells
            for handle, offset in self._places(rows):
                _soon(handle, offset, self._size)
        return PendingRows(self.tile, rows, partial(self._read, rows, columns))

    def _read(self, rows: np.ndarray, columns: np.ndarray | None) -> np.ndarray:
        """Read them; ValueError or OSError: a row is missing or damaged."""
        read = np.empty((len(rows), self._size), np.uint8)
        for raw, (handle, offset) in zip(read, self._places(rows), strict=True):
            if os.preadv(handle, [raw], offset) != self._size or google_crc32c.value(raw) != CHECKED:
                raise ValueError("a row is damaged")
        values = read[:, :-4].view(self._dtype)
        return values if columns is None else values[:, columns]

    def _places(self, rows: np.ndarray) -> Iterator[tuple[int, int]]:
        """File handle and first byte of each row."""
        shard_texts = self.tile.spec.shard_texts
        for row in rows.tolist():
            shard, place = divmod(row, shard_texts)
            handle, offsets = self._files.get(f"{self._folder}/c.{shard}.0", shard_texts, self._size)
            if offsets[place] < 0:
                raise ValueError("a row is missing")
            yield handle, offsets[place]
