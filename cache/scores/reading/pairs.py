"""Scores of pairs, put together from the tiles that hold them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .tile_rows import Share, TilePart


class _Holders:
    """Which parts hold each text: a batch asks these, not every tile of the store."""

    def __init__(self, parts: Sequence[TilePart], texts: int) -> None:
        self._count = len(parts)
        places = np.concatenate([np.empty(0, np.int64), *(part.held.texts for part in parts)])
        numbers = np.repeat(np.arange(len(parts)), [len(part.held.texts) for part in parts])
        order = np.argsort(places, kind="stable")
        self._parts, self._starts = numbers[order], np.searchsorted(places[order], np.arange(texts + 1))

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
    """Raw scores of pairs, out of the parts of tiles that hold them; can be sent to another process."""

    def __init__(self, parts: Sequence[TilePart], texts: int) -> None:
        self.parts = parts
        self._holders = _Holders(parts, texts)

    def start(self, texts: np.ndarray, videos: np.ndarray) -> "PendingScores":
        """Begin to read the scores of these texts with these videos."""
        parts = [self.parts[number] for number in self._holders.of(texts)]
        shares = [share for part in parts if (share := part.start(texts, videos)) is not None]
        return PendingScores(len(texts), len(videos), shares)


@dataclass(frozen=True)
class PendingScores:
    """Scores [texts,videos] that are being read: of each tile its share."""

    texts: int
    videos: int
    shares: Sequence[Share]

    def result(self) -> np.ndarray:
        """float32 [texts,videos], NaN for pairs that no tile holds."""
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
