"""Ranks and retrieval metrics, streamed: memory grows with T + V and the block, never with T x V.

Text-to-video: the rank of each text's own video among all V videos. Video-to-text: a video's captions count as one
group, whose score is that of its best caption; the rank of a video's own group among all groups (with one caption a
video: of its caption among all captions). This is what the published code does (specs: TeachCLIP 7). Videos without
captions are candidates, but no queries.

Ties. `fair`: a query's rank is the mean of the places tied with it, 1 + better + equal / 2: what a random order among
equals gives on average. MdR and MnR are of these; R@K counts the queries whose rank, halves rounded down, is at most K.
A model that gives every pair the same score has the rank (candidates + 1) / 2 everywhere, and no R@K for it; read off a
sort, it could be perfect. Two candidates that no score can tell apart (captions of the same words) share their place.
R@K stays a share of whole queries, which its expectation over random orders would not be.
`published`: with as many texts as videos, one each, a query counts once for each position tied with it; with several
captions, texts tied with others come in the order of the videos, MdR of texts is the lower median, R@K float32.
`teachtext`: ranks as `fair`, but R@1 counts only what stands first alone; and a video's rank is that of the best of its
captions among all captions, the others of its own included (specs: experts 12).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ...errors import DataError

Ties = Literal["fair", "published", "teachtext"]
Array = np.ndarray[Any, np.dtype[Any]]
# Scores [t, v] of texts, given by index, and a run of videos.
Scores = Callable[[Array, slice], Array]


@dataclass(frozen=True)
class Metrics:
    """R@K in percent, their sum over K = 1, 5, 10, median and mean rank (1 is best), number of queries."""

    r1: float
    r5: float
    r10: float
    r50: float
    sumr: float
    mdr: float
    mnr: float
    queries: int


@dataclass(frozen=True)
class Ranks:
    """Where each query's own answer stands.

    Attributes:
        better: candidates with a higher score.
        equal: other candidates with the same score.
        equal_before: those of them that come earlier in the order of candidates.
    """

    better: Array
    equal: Array
    equal_before: Array

    @property
    def expected(self) -> Array:
        """Ranks from 1: the mean of the places tied with each query's own."""
        return 1 + self.better + self.equal / 2


@dataclass(frozen=True)
class Ranking:
    """What a comparison of T texts with V videos finds.

    Attributes:
        texts: ranks of the texts' own videos [T].
        videos: ranks of the captioned videos' own groups of texts, in the order of the videos.
        captions: ranks of the captioned videos' best own captions among all captions, in the same order; None unless
            `rank` was asked for them.
        first: the videos [T, min(top, V)] with the highest scores, best first, equals in the order of the videos.
    """

    texts: Ranks
    videos: Ranks
    captions: Ranks | None
    first: Array

    def videos_by(self, ties: Ties) -> Ranks:
        """The ranks of the videos by this rule."""
        if ties != "teachtext":
            return self.videos
        assert self.captions is not None
        return self.captions


def retrieval_metrics(
    scores: Array | Scores, text_video: Array, videos: int, *, ties: Ties = "fair", block: int = 512
) -> dict[str, Metrics]:
    """Metrics `t2v` and `v2t` of T texts and V videos.

    Args:
        scores: the matrix [T, V], or a function that gives the scores [t, v] of texts (indices [t], in any order)
            and videos (a slice). It is asked twice for the blocks that hold a text's own video.
        text_video: index of each text's own video [T].
        videos: V.
        ties: see the module.
        block: texts and videos compared at a time.

    Raises:
        DataError: no texts, or a score that is not a number.
    """
    if isinstance(scores, np.ndarray):
        matrix = scores
        scores = lambda texts, columns: matrix[texts, columns]  # noqa: E731
    ranking = rank(scores, text_video, videos, block=block, captions=ties == "teachtext")
    return metrics_of(ranking.texts, ranking.videos_by(ties), ties, one_caption_each(text_video, videos))


def metrics_of(texts: Ranks, videos: Ranks, ties: Ties = "fair", one_each: bool = False) -> dict[str, Metrics]:
    """Metrics `t2v` of the texts' ranks and `v2t` of the videos' (`Ranking.videos_by`); `one_each`: see
    `one_caption_each`."""
    if ties == "teachtext":
        return {"t2v": _teachtext_metrics(texts), "v2t": _teachtext_metrics(videos)}
    if ties == "fair":
        return {"t2v": fair_metrics(texts), "v2t": fair_metrics(videos)}
    t2v = _published_square(texts) if one_each else _published_multi(texts)
    return {"t2v": t2v, "v2t": _published_square(videos)}


def one_caption_each(text_video: Array, videos: int) -> bool:
    """Whether every video has one caption: the published code then ranks texts by another rule."""
    return len(text_video) == videos == len(np.unique(text_video))


def rank(
    scores: Scores,
    text_video: Array,
    videos: int,
    *,
    block: int = 512,
    columns: int | None = None,
    top: int = 0,
    captions: bool = False,
) -> Ranking:
    """Compare every text with every video.

    Args:
        scores, text_video, videos: as in `retrieval_metrics`; -inf stands for pairs that take no part.
        block: texts compared at a time; columns: videos, by default as many.
        top: how many of each text's best videos are kept; captions: whether videos' captions are ranked one by one.

    Raises:
        DataError: no texts, or a score is not a number.
    """
    text_video = np.asarray(text_video, np.int64)
    if not len(text_video):
        raise DataError("there are no captions to rank videos for")
    counter = _Counter(scores, text_video, videos, block, columns or block, min(top, videos), captions)
    counter.find_own()
    counter.count()
    captioned = np.unique(text_video)
    one_by_one = None if counter.captions is None else counter.captions.ranks(captioned)
    return Ranking(counter.texts.ranks(slice(None)), counter.videos.ranks(captioned), one_by_one, counter.first)


def count_ranks(
    scores: Scores, text_video: Array, videos: int, block: int = 512, columns: int | None = None
) -> tuple[Ranks, Ranks]:
    """Ranks of the texts' own videos [T], and of the captioned videos' own groups; see `rank`."""
    ranking = rank(scores, text_video, videos, block=block, columns=columns)
    return ranking.texts, ranking.videos


class _Counts:
    def __init__(self, queries: int) -> None:
        self.better, self.equal, self.equal_before = (np.zeros(queries, np.int64) for _ in range(3))

    def ranks(self, chosen: Any) -> Ranks:
        return Ranks(self.better[chosen], self.equal[chosen], self.equal_before[chosen])


class _Counter:
    """Counts better and equal candidates block by block, texts in the order of their videos."""

    def __init__(
        self, scores: Scores, text_video: Array, videos: int, block: int, wide: int, top: int, captions: bool
    ) -> None:
        self.scores, self.text_video, self.block, self.wide = scores, text_video, block, wide
        self.order = np.argsort(text_video, kind="stable")
        self.columns = [slice(start, min(start + wide, videos)) for start in range(0, videos, wide)]
        self.texts, self.videos = _Counts(len(text_video)), _Counts(videos)
        self.captions = _Counts(videos) if captions else None
        self.own_of_text = np.empty(len(text_video), np.float64)
        self.own_of_video = np.full(videos, -np.inf)
        self.first = np.full((len(text_video), top), -1)

    def find_own(self) -> None:
        """Every text's score with its own video, and every video's best one."""
        for texts in self._text_blocks():
            own = self.text_video[texts]
            for column in np.unique(own // self.wide):
                inside = own // self.wide == column
                matrix = self._read(texts, self.columns[column])
                chosen = matrix[np.flatnonzero(inside), own[inside] - self.columns[column].start]
                self.own_of_text[texts[inside]] = chosen
        np.maximum.at(self.own_of_video, self.text_video, self.own_of_text)

    def count(self) -> None:
        """Compare every score with those of `find_own`."""
        open_group = np.full(len(self.own_of_video), -np.inf)  # best scores so far of a group that goes on
        blocks = list(self._text_blocks())
        for position, texts in enumerate(blocks):
            own = self.text_video[texts]
            following = self.text_video[blocks[position + 1][0]] if position + 1 < len(blocks) else -1
            best = np.full(self.first[texts].shape, -np.inf)
            for columns in self.columns:
                matrix = self._read(texts, columns)
                here = np.flatnonzero((own >= columns.start) & (own < columns.stop))
                matrix[here, own[here] - columns.start] = self.own_of_text[texts[here]]
                self._count_texts(matrix, texts, columns)
                if best.shape[1]:
                    best = self._keep_first(matrix, texts, columns, best)
                self._count_groups(matrix, own, columns, following, open_group)
                if self.captions is not None:
                    best_own = self.own_of_video[None, columns]
                    self.captions.better[columns] += (matrix > best_own).sum(axis=0)
                    self.captions.equal[columns] += (matrix == best_own).sum(axis=0)
        if self.captions is not None:
            self.captions.equal[np.unique(self.text_video)] -= 1  # the best own caption itself

    def _count_texts(self, matrix: Array, texts: Array, columns: slice) -> None:
        own = self.own_of_text[texts, None]
        position = self.text_video[texts, None]
        _add(self.texts, texts, matrix, own, np.arange(columns.start, columns.stop)[None], position, axis=1)

    def _keep_first(self, matrix: Array, texts: Array, columns: slice, best: Array) -> Array:
        """Put these videos among the texts' first ones so far, whose scores are `best`; returns the new scores."""
        kept = best.shape[1]
        better = matrix > best[:, -1:]  # an equal one comes later and stays out
        width = int(better.sum(axis=1).max())
        if not width:
            return best
        chosen = np.argsort(~better, axis=1, kind="stable")[:, :width]  # those first, in the order of videos
        joined = np.concatenate([best, np.take_along_axis(matrix, chosen, axis=1)], axis=1)
        order = np.argsort(-joined, axis=1, kind="stable")[:, :kept]
        videos = np.concatenate([self.first[texts], columns.start + chosen], axis=1)
        self.first[texts] = np.take_along_axis(videos, order, axis=1)
        return np.take_along_axis(joined, order, axis=1)

    def _count_groups(self, matrix: Array, own: Array, columns: slice, following: int, open_group: Array) -> None:
        """Best score of each group of rows with one video; a group cut by the block's end waits in `open_group`."""
        starts = np.flatnonzero(np.r_[True, own[1:] != own[:-1]])
        groups = own[starts]
        best = np.maximum.reduceat(matrix, starts, axis=0)
        best[0] = np.maximum(best[0], open_group[columns])
        if groups[-1] == following:
            open_group[columns] = best[-1]
            best, groups = best[:-1], groups[:-1]
        else:
            open_group[columns] = -np.inf
        videos = np.arange(columns.start, columns.stop)
        _add(self.videos, videos, best, self.own_of_video[None, columns], groups[:, None], videos[None], axis=0)

    def _read(self, texts: Array, columns: slice) -> Array:
        matrix = np.array(self.scores(texts, columns), np.float64)
        if np.isnan(matrix).any():
            row, column = np.argwhere(np.isnan(matrix))[0]
            raise DataError(
                f"the score of text {texts[row]} with video {columns.start + column} is not a number",
                hint="the model is broken: look in its metrics.jsonl for losses that are not finite",
            )
        return matrix

    def _text_blocks(self) -> Iterator[Array]:
        for start in range(0, len(self.order), self.block):
            yield self.order[start : start + self.block]


def _add(
    counts: _Counts, queries: Array, matrix: Array, own: Array, candidates: Array, answer: Array, axis: int
) -> None:
    """Count the candidates of `matrix` that are better than or equal to each query's own answer, itself apart."""
    equal = (matrix == own) & (candidates != answer)
    counts.better[queries] += (matrix > own).sum(axis=axis)
    counts.equal[queries] += equal.sum(axis=axis)
    counts.equal_before[queries] += (equal & (candidates < answer)).sum(axis=axis)


def fair_metrics(ranks: Ranks) -> Metrics:
    """Metrics of ranks whose ties are `fair`; see the module."""
    expected = ranks.expected

    def recall(k: int) -> float:
        return float(100 * (np.floor(expected) <= k).sum() / len(expected))

    return _metrics(recall, float(np.median(expected)), float(expected.mean()), len(expected))


def _teachtext_metrics(ranks: Ranks) -> Metrics:
    expected = ranks.expected

    def recall(k: int) -> float:
        return float(100 * ((expected == 1) if k == 1 else (expected < k + 1)).sum() / len(expected))

    return _metrics(recall, float(np.median(expected)), float(expected.mean()), len(expected))


def _published_square(ranks: Ranks) -> Metrics:
    """Every position tied with a query's own counts as a query."""
    times = ranks.equal + 1
    first = np.repeat(ranks.better, times)
    within = np.arange(len(first)) - np.repeat(np.cumsum(times) - times, times)
    positions = first + within

    def recall(k: int) -> float:
        return float(100 * (positions < k).sum() / len(positions))

    return _metrics(recall, float(np.median(positions) + 1), float(positions.mean() + 1), len(ranks.better))


def _published_multi(ranks: Ranks) -> Metrics:
    """One position a text, in float32 percent, with the lower median."""
    positions = ranks.better + ranks.equal_before

    def recall(k: int) -> float:
        return float(np.float32(100 * (positions < k).sum()) / np.float32(len(positions)))

    lower_median = np.sort(positions)[(len(positions) - 1) // 2]
    return _metrics(recall, float(lower_median + 1), float(positions.mean() + 1), len(positions))


def _metrics(recall: Callable[[int], float], mdr: float, mnr: float, queries: int) -> Metrics:
    r1, r5, r10, r50 = (recall(k) for k in (1, 5, 10, 50))
    return Metrics(r1, r5, r10, r50, r1 + r5 + r10, mdr, mnr, queries)
