"""Rows of two teachers' scores side by side: correlation, and which videos they put first.

A row's first K videos with ties: a video that is tied across the K-th place counts with the share of the places left,
as in the mean over random orders among equals. Two teachers' overlap is what random orders give on average.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

TOP = 10


@dataclass(frozen=True)
class Agreement:
    """How two teachers agree on the pairs that both have scored.

    Attributes:
        texts: captions with at least two such pairs.
        pearson: mean over captions of the correlation of their rows; captions whose row does not vary in one are left
            out; None without others.
        same_first: share of captions with the same first video.
        top10: mean share of the first ten videos that both have among theirs (of fewer, where a caption has fewer).
    """

    first: str
    second: str
    texts: int
    pearson: float | None
    same_first: float | None
    top10: float | None


class Rows:
    """One teacher's scores [t,V] of a block of texts; NaN where there is none."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores
        self.known = ~np.isnan(scores)
        self.full = bool(self.known.all())

    @cached_property
    def ordered(self) -> np.ndarray:
        """The scores with -inf where there is none."""
        return self.scores if self.full else np.where(self.known, self.scores, np.float32(-np.inf))

    @cached_property
    def centred(self) -> np.ndarray:
        """Scores less their row's mean, float64 [t,V]; 0 where there is none."""
        scores = self.scores.astype(np.float64)
        if self.full:
            scores -= scores.mean(axis=1, keepdims=True)
            return scores
        count = self.known.sum(axis=1, keepdims=True).clip(min=1)
        mean = np.where(self.known, scores, 0).sum(axis=1, keepdims=True) / count
        return np.where(self.known, scores - mean, 0)

    @cached_property
    def norms(self) -> np.ndarray:
        """Lengths [t] of the centred rows; 0 for rows that vary by no more than rounding."""
        norms = np.sqrt(np.einsum("tv,tv->t", self.centred, self.centred))
        largest = np.abs(np.where(self.known, self.scores, 0)).max(axis=1)
        return np.where(norms > 1e-7 * largest * np.sqrt(self.scores.shape[1]), norms, 0)

    def deviations(self, texts: np.ndarray, videos: np.ndarray) -> np.ndarray:
        """How many standard deviations of its row a pair's score lies above the row's mean; NaN where there is none."""
        count = self.known[texts].sum(axis=1)
        spread = self.norms[texts] / np.sqrt(count.clip(min=1))
        own = self.centred[texts, videos]
        found = np.divide(own, spread, out=np.zeros(len(texts)), where=spread > 0)
        return np.where(self.known[texts, videos], found, np.nan)

    def first(self, count: int) -> np.ndarray:
        """How much of each video is among its row's first `count`: float32 [t,V], 0 to 1."""
        return self._first[count]

    @cached_property
    def _first(self) -> dict[int, np.ndarray]:
        return {count: first_share(self.ordered, count) for count in (1, TOP)}

    def within(self, known: np.ndarray) -> "Rows":
        """The same with only these pairs."""
        return self if self.full and known.all() else Rows(np.where(known, self.scores, np.float32(np.nan)))


def first_share(scores: np.ndarray, count: int) -> np.ndarray:
    """How much of each video is among its row's first `count`: float32 [t,V]. `scores` may have -inf for none."""
    videos = scores.shape[1]
    if count >= videos:
        return np.isfinite(scores).astype(np.float32)
    if count == 1:
        edge = scores.max(axis=1, keepdims=True)
    else:
        edge = np.partition(scores, videos - count, axis=1)[:, videos - count, None]
    above = scores > edge
    tied = (scores == edge) & (edge > -np.inf)
    room = count - above.sum(axis=1, keepdims=True)
    share = (room / tied.sum(axis=1, keepdims=True).clip(min=1)).astype(np.float32)
    found: np.ndarray = above + tied * share
    return found


class Meeting:
    """What blocks of two teachers' rows add up to."""

    def __init__(self, first: str, second: str) -> None:
        self.first, self.second = first, second
        self.texts = self.correlated = 0
        self.pearson = self.same_first = self.top = 0.0

    def add(self, first: Rows, second: Rows) -> None:
        """Take in a block; the same texts and videos on both sides."""
        if not (first.full and second.full):
            known = first.known & second.known
            first, second = first.within(known), second.within(known)
        count = first.known.sum(axis=1)
        compared = count > 1
        self.texts += int(compared.sum())
        norms = first.norms * second.norms
        vary = compared & (norms > 0)
        products = np.einsum("tv,tv->t", first.centred, second.centred)
        self.correlated += int(vary.sum())
        self.pearson += float((products[vary] / norms[vary]).sum())
        self.same_first += float(_overlap(first, second, 1)[compared].sum())
        self.top += float((_overlap(first, second, TOP) / count.clip(1, TOP))[compared].sum())

    def result(self) -> Agreement:
        return Agreement(
            self.first,
            self.second,
            self.texts,
            min(1.0, self.pearson / self.correlated) if self.correlated else None,
            self.same_first / self.texts if self.texts else None,
            self.top / self.texts if self.texts else None,
        )


def _overlap(first: Rows, second: Rows, count: int) -> np.ndarray:
    shared: np.ndarray = np.einsum("tv,tv->t", first.first(count), second.first(count))
    return shared
