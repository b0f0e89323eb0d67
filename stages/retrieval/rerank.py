"""Scores changed at test time, against hubs: videos that are near every text. Off unless asked for.

Numbers made so do not compare with others: a query's answer no longer depends on the query and the videos alone.

`dual_softmax`: each score weighted with the share that the query has of the candidate, among all queries of the *test
set*, s'(q, c) = s(q, c) x softmax over q of s(., c) / temperature (Cheng et al., Improving Video-Text Retrieval by
Multi-Stream Corpus Alignment and Dual Softmax Loss, 2021; as the published `compute_dsl_metrics`, which is on logits:
temperature 1 / logit scale on raw scores). It looks at test queries that a search engine has not been asked yet.

`query_bank`: queries of a bank, here training captions, take the place of the other test queries (Bogolin et al.,
Cross Modal Retrieval with Querybank Normalisation, CVPR 2022, equations 3 to 5: dynamic inverted softmax). A text whose
best video v is also the best one of some query of the bank b is ranked by exp(s(t, v) / temperature) / sum over b of
exp(s(b, v) / temperature), any other by s as it is. Of texts alone: what videos find is left as it was.

All in blocks: memory grows with T + V and the block.
"""

from collections.abc import Iterator

import numpy as np

from .metrics import Array, Scores

BANK_TEMPERATURE = 0.05
"""QB-Norm's inverse temperature is 20."""


def dual_softmax(scores: Scores, texts: int, videos: int, temperature: float, block: int) -> tuple[Scores, Scores]:
    """The scores of T texts with V videos when texts ask, and when videos ask."""
    of_videos, of_texts = np.full(videos, -np.inf), np.full(texts, -np.inf)  # log of the sums over queries
    for rows, columns, matrix in _blocks(scores, texts, videos, block):
        logits = matrix / temperature
        of_videos[columns] = np.logaddexp(of_videos[columns], _log_sum(logits, axis=0))
        of_texts[rows] = np.logaddexp(of_texts[rows], _log_sum(logits, axis=1))

    def texts_ask(rows: Array, columns: slice) -> Array:
        matrix = scores(rows, columns)
        shares: Array = np.exp(matrix / temperature - of_videos[None, columns])
        return matrix * shares

    def videos_ask(rows: Array, columns: slice) -> Array:
        matrix = scores(rows, columns)
        shares: Array = np.exp(matrix / temperature - of_texts[rows, None])
        return matrix * shares

    return texts_ask, videos_ask


def query_bank(
    scores: Scores, texts: int, bank: Scores, bank_texts: int, videos: int, temperature: float, block: int
) -> Scores:
    """The scores of T texts with V videos, normalised by `bank`: scores of other texts with the same videos."""
    sums = np.full(videos, -np.inf)
    for _, columns, matrix in _blocks(bank, bank_texts, videos, block):
        sums[columns] = np.logaddexp(sums[columns], _log_sum(matrix / temperature, axis=0))
    hubs = np.unique(_best_videos(bank, bank_texts, videos, block))
    active = np.isin(_best_videos(scores, texts, videos, block), hubs)

    def normalised(rows: Array, columns: slice) -> Array:
        matrix = scores(rows, columns)
        # The logarithm of the quotient orders the videos of a text in the same way, and cannot overflow.
        return np.where(active[rows, None], matrix / temperature - sums[None, columns], matrix)

    return normalised


def _best_videos(scores: Scores, texts: int, videos: int, block: int) -> Array:
    """Each text's best video [T], the first of equals."""
    best, score = np.zeros(texts, np.int64), np.full(texts, -np.inf)
    for rows, columns, matrix in _blocks(scores, texts, videos, block):
        better = matrix.max(axis=1) > score[rows]
        best[rows] = np.where(better, columns.start + matrix.argmax(axis=1), best[rows])
        score[rows] = np.maximum(score[rows], matrix.max(axis=1))
    return best


def _log_sum(logits: Array, axis: int) -> Array:
    """log of the sum of exp(logits), without overflow."""
    largest = logits.max(axis=axis, keepdims=True)
    total: Array = np.log(np.exp(logits - largest).sum(axis=axis)) + largest.squeeze(axis)
    return total


def _blocks(scores: Scores, texts: int, videos: int, block: int) -> Iterator[tuple[Array, slice, Array]]:
    for start in range(0, texts, block):
        rows = np.arange(start, min(start + block, texts))
        for first in range(0, videos, block):
            columns = slice(first, min(first + block, videos))
            yield rows, columns, np.asarray(scores(rows, columns), np.float64)
