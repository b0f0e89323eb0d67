"""How the captions' own videos rank by a teacher's scores: the test that a teacher was loaded rightly.

A teacher that was loaded wrongly ranks a caption's own video anywhere; its mean normalised rank, 0 for the first and 1
for the last place, is 1/2. A working teacher's on what it was trained on is a few hundredths. The test's null
hypothesis is that the teacher works, with a mean of at most 1/4; it is rejected at about one in a thousand (z > 3.09,
with the standard deviation of chance, over videos: captions of one video are not independent). So a working teacher
is stopped about one time in a thousand at most, however few captions there are; chance is found from some 30 videos on,
below a dozen nearly everything passes.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..retrieval.metrics import count_ranks, retrieval_metrics

WORKS = 0.25
Z = 3.09


@dataclass(frozen=True)
class OwnRanks:
    """Ranks of captions' own videos among all videos.

    Attributes:
        texts, videos: how many captions were ranked among how many videos; of a sparse teacher, its candidates.
        median, mean: rank, 1 is best.
        r1, r5, r10: percent of captions whose own video is among the first 1, 5, 10.
        normalised: mean over videos of the normalised rank; 0 best, 1 worst, 0.5 chance.
        near_chance: whether no working teacher would rank so.
    """

    texts: int
    videos: int
    median: float
    mean: float
    r1: float
    r5: float
    r10: float
    normalised: float
    near_chance: bool


def own_ranks(scores: np.ndarray, own: np.ndarray) -> OwnRanks | None:
    """Ranks of the captions' own videos, ties in expectation.

    Args:
        scores: raw scores [T,V]; NaN where not scored: each own video is then ranked among those that were.
        own: column of each caption's own video [T]; -1 leaves the caption out.

    Returns:
        None when there is nothing to rank: no caption, or a single video.
    """
    scores, own = scores[own >= 0], own[own >= 0]
    scored = ~np.isnan(scores)
    if not len(scores) or (few := int(scored.sum(axis=1).min())) < 2:
        return None
    texts, videos = scores.shape
    if few < videos:
        scores, candidates = np.where(scored, scores, -np.inf), scored.sum(axis=1)
    else:
        candidates = np.full(texts, videos)
    metrics = retrieval_metrics(scores, own, videos)["t2v"]
    expected = count_ranks(lambda rows, columns: scores[rows, columns], own, videos)[0].expected
    captions = np.bincount(own)
    per_video = np.bincount(own, weights=(expected - 1) / (candidates - 1))[captions > 0] / captions[captions > 0]
    mean = float(per_video.mean())
    deviation = math.sqrt((few + 1) / (few - 1) / 12)
    margin = Z * deviation / math.sqrt(len(per_video))
    return OwnRanks(
        texts, few, metrics.mdr, metrics.mnr, metrics.r1, metrics.r5, metrics.r10, mean, mean > WORKS + margin
    )
