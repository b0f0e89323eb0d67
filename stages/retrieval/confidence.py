"""How sure R@K and SumR are: percentile bootstrap over the queries of a test set.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Videos are drawn with replacement, each with
all its texts (a cluster: captions of one video are no independent queries), until there are as many as in the set; the
metrics of 2,000 such draws are sorted, and their 2.5 % and 97.5 % points taken. With one caption a video these are
draws of queries. The videos to choose among stay as they are: the interval says how much the numbers hang on which
queries were asked, not what another seed of training or another set of videos would give.

Ranks are the expected ones among equals (`ties: fair`), whatever `evaluate.ties` says.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...errors import DataError
from ...plurals import counted
from ...remedies import Evaluate, Remedy
from .metrics import Array, Ranks
from .query_ranks import QueryRanks

NAMES = ("r1", "r5", "r10", "sumr")
DRAWS = 2000
LEVEL = 0.95
_AT_ONCE = 1 << 22  # weights of videos drawn at a time


@dataclass(frozen=True)
class Interval:
    """A metric, and the interval that holds it with the confidence asked for; in percent."""

    value: float
    low: float
    high: float


Intervals = dict[str, dict[str, Interval]]


def confidence(ranks: QueryRanks, *, level: float = LEVEL, draws: int = DRAWS, seed: int = 0) -> Intervals:
    """Intervals of r1, r5, r10 and sumr, for `t2v` and `v2t`."""
    return {way: _intervals(hits, counts, level, draws, seed) for way, hits, counts in _ways(ranks)}


def difference(
    first: QueryRanks, second: QueryRanks, *, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
) -> Intervals:
    """Intervals of first - second, for `t2v` and `v2t`: paired, both runs are asked the same queries in every draw.

    Raises:
        DataError: the two were not measured on the same texts of the same videos.
    """
    order = _same_queries(first, second)
    pairs = zip(_ways(first), _ways(second, *order), strict=True)
    return {way: _intervals(one - two, counts, level, draws, seed) for (way, one, counts), (_, two, _) in pairs}


def _ways(
    ranks: QueryRanks, texts: Array | slice = slice(None), videos: Array | slice = slice(None)
) -> Iterator[tuple[str, Array, Array]]:
    """Per way its name, hits [V, 4] of each video's queries and their number [V], in the order asked for."""
    own = ranks.text_video[texts]
    if not isinstance(videos, slice):
        own = np.argsort(videos)[own]
    size = len(ranks.video_ids)
    hits = _hits(ranks.texts, texts)
    yield "t2v", np.stack([np.bincount(own, column, size) for column in hits.T], 1), np.bincount(own, minlength=size)
    yield "v2t", _hits(ranks.videos, videos), np.ones(size, np.int64)


def _hits(ranks: Ranks, chosen: Array | slice) -> Array:
    """What each query adds to R@1, R@5, R@10 and SumR."""
    place = np.floor(ranks.expected[chosen])
    recalls = [place <= k for k in (1, 5, 10)]
    return np.stack([*recalls, np.sum(recalls, axis=0)], axis=1).astype(np.float64)


def _intervals(hits: Array, counts: Array, level: float, draws: int, seed: int) -> dict[str, Interval]:
    found = np.concatenate([100 * (w @ hits) / (w @ counts)[:, None] for w in _weights(len(counts), draws, seed)])
    value = 100 * hits.sum(axis=0) / counts.sum()
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: Interval(*map(float, row)) for name, *row in zip(NAMES, value, low, high, strict=True)}


def _weights(videos: int, draws: int, seed: int) -> Iterator[Array]:
    """How often each video is drawn [draws, V], in parts; the same for every run and both ways."""
    rng = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // videos)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        drawn = rng.integers(0, videos, (size, videos)) + np.arange(size)[:, None] * videos
        yield np.bincount(drawn.ravel(), minlength=size * videos).reshape(size, videos).astype(np.float64)


def _same_queries(first: QueryRanks, second: QueryRanks) -> tuple[Array, Array]:
    """Where `second` has the texts and the videos of `first`."""
    if dict(_queries(first)) != dict(_queries(second)):
        differing = len(set(_queries(first)) ^ set(_queries(second)))
        raise DataError(
            f"{first.run} and {second.run} were not asked the same: "
            f"{counted(differing, 'text or caption is', 'texts or captions are')} in one alone",
            hint=Remedy("evaluate both with the same data and frames", Evaluate()),
        )
    texts = {text: k for k, text in enumerate(second.text_ids)}
    videos = {video: k for k, video in enumerate(second.video_ids)}
    return np.array([texts[text] for text in first.text_ids]), np.array([videos[video] for video in first.video_ids])


def _queries(ranks: QueryRanks) -> Iterator[tuple[str, tuple[str, str]]]:
    for text, caption, video in zip(ranks.text_ids, ranks.captions, ranks.text_video.tolist(), strict=True):
        yield text, (caption, ranks.video_ids[video])
