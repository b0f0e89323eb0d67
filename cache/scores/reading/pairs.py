"""Scores of pairs, put together from the tiles that hold them.

What is plain (`TilePart`, `RequestedPairs`) can be sent to another process; what is open is made of it there
(`PairScores`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..format.codes import decode_scores
from ..tile import TileFacts
from .tile_rows import PendingRows, ScoreRows


@dataclass(frozen=True, eq=False)
class TilePart:
    """What one tile holds of a request, and what its rows are decoded with.

    Args:
        tile: the tile.
        texts, videos: places in the request, ascending; rows, columns: where these lie in the tile.
        codec: scale and offset of these rows, where there are codes.
    """

    tile: TileFacts
    texts: np.ndarray
    rows: np.ndarray
    videos: np.ndarray
    columns: np.ndarray
    codec: np.ndarray | None


@dataclass(frozen=True, eq=False)
class RequestedPairs:
    """What the tiles hold of a request of so many texts."""

    parts: Sequence[TilePart]
    texts: int


class _Holders:
    """Which parts hold each text: a batch asks these, not every tile of the store."""

    def __init__(self, requested: RequestedPairs) -> None:
        parts = requested.parts
        self._count = len(parts)
        places = np.concatenate([np.empty(0, np.int64), *(part.texts for part in parts)])
        numbers = np.repeat(np.arange(len(parts)), [len(part.texts) for part in parts])
        order = np.argsort(places, kind="stable")
        starts = np.searchsorted(places[order], np.arange(requested.texts + 1))
        self._parts, self._starts = numbers[order], starts

    def of(self, texts: np.ndarray) -> list[int]:
        """Numbers of the parts that hold any of these texts."""
        if self._count < 2:
            return list(range(self._count))
        first = self._starts[texts]
        counts = self._starts[texts + 1] - first
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        numbers: list[int] = np.unique(self._parts[np.repeat(first, counts) + within]).tolist()
        return numbers


class PairScores:
    """Raw scores of pairs, open to be read.

    Args:
        requested: what the tiles hold.
        rows: what reads the scores of each part's tile.
    """

    def __init__(self, requested: RequestedPairs, rows: Sequence[ScoreRows]) -> None:
        self._parts = list(zip(requested.parts, rows, strict=True))
        self._holders = _Holders(requested)

    def start(self, texts: np.ndarray, videos: np.ndarray) -> "PendingScores":
        """Begin to read the scores of these texts with these videos."""
        parts = [self._parts[number] for number in self._holders.of(texts)]
        shares = [share for part in parts if (share := _share(*part, texts, videos)) is not None]
        return PendingScores(len(texts), len(videos), shares)

    def unheld(self, texts: np.ndarray, videos: np.ndarray) -> np.ndarray:
        """Pairs that no tile holds, bool [texts,videos]; nothing is read."""
        absent = np.ones((len(texts), len(videos)), bool)
        for part, _ in (self._parts[number] for number in self._holders.of(texts)):
            absent[np.ix_(_find(part.texts, texts)[0], _find(part.videos, videos)[0])] = False
        return absent

    def precision(self, texts: np.ndarray) -> float:
        """Half the largest step between stored scores of these texts."""
        return max((_precision(*part, texts) for part in self._parts), default=0.0)


@dataclass(frozen=True, eq=False)
class _Share:
    """What one tile holds of a batch, while it is read.

    Args:
        pending: what is stored [rows,columns].
        texts, videos: which of the batch's it holds, as indices.
        codec: scale and offset of these rows, where there are codes.
    """

    pending: PendingRows
    texts: np.ndarray
    videos: np.ndarray
    codec: np.ndarray | None

    def scores(self) -> np.ndarray:
        """float32 [rows,columns]."""
        return decode_scores(self.pending.result(), self.codec)


def _share(part: TilePart, rows: ScoreRows, texts: np.ndarray, videos: np.ndarray) -> _Share | None:
    """Begin to read what a tile holds of a batch; None when that is nothing."""
    here, row = _find(part.texts, texts)
    there, column = _find(part.videos, videos)
    if not (len(here) and len(there)):
        return None
    codec = None if part.codec is None else part.codec.take(row, axis=0)
    return _Share(rows.start(part.rows[row], part.columns[column]), here, there, codec)


def _precision(part: TilePart, rows: ScoreRows, texts: np.ndarray) -> float:
    _, row = _find(part.texts, texts)
    if not len(row) or part.tile.spec.dtype == "float32":
        return 0.0
    if part.codec is not None:
        return float(part.codec[row, 0].max() / 2)
    largest = np.abs(decode_scores(rows.start(part.rows[row]).result(), None)).max()
    return float(np.spacing(np.float16(largest)) / 2)


def _find(places: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of `wanted` are among the ascending `places`, and where: both as indices."""
    if not len(places):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if places[-1] == len(places) - 1 and (not len(wanted) or 0 <= wanted.min() <= wanted.max() <= places[-1]):
        return np.arange(len(wanted)), wanted  # every place from 0 on, as in a store of one tile
    at = np.searchsorted(places, wanted).clip(max=len(places) - 1)
    found = np.flatnonzero(places[at] == wanted)
    return found, at[found]


@dataclass(frozen=True, eq=False)
class PendingScores:
    """Scores [texts,videos] that are being read: of each tile its share."""

    texts: int
    videos: int
    shares: Sequence[_Share]

    def result(self) -> np.ndarray:
        """float32 [texts,videos], NaN for pairs that no tile holds, or that were not scored."""
        shape = self.texts, self.videos
        if len(self.shares) == 1 and (len(self.shares[0].texts), len(self.shares[0].videos)) == shape:
            return self.shares[0].scores()
        scores = np.full(shape, np.nan, dtype=np.float32)
        for share in self.shares:
            scores[np.ix_(share.texts, share.videos)] = share.scores()
        return scores


def any_absent(scores: np.ndarray) -> bool:
    """Whether there are pairs without scores among them."""
    return bool(np.isnan(scores.min(initial=0)))
