"""Ranks beside loops over their definition: each count, each tie, in blocks of any shape; and the published metrics."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from teachclip.errors import DataError
from teachclip.stages.retrieval.metrics import (
    Metrics,
    Ranks,
    count_ranks,
    metrics_of,
    one_caption_each,
    rank,
    retrieval_metrics,
)

TEXTS, VIDEOS = 9, 7


def by_hand(row: np.ndarray, own: int) -> list[int]:
    """Better, equal and earlier equal candidates of one query."""
    better = sum(score > row[own] for score in row)
    equal = [k for k, score in enumerate(row) if score == row[own] and k != own]
    return [better, len(equal), sum(k < own for k in equal)]


def counts(ranks: Ranks) -> list[list[int]]:
    return np.stack([ranks.better, ranks.equal, ranks.equal_before], axis=1).tolist()


@settings(max_examples=60, deadline=None)
@given(
    sim=arrays.arrays(np.float32, (TEXTS, VIDEOS), elements=st.sampled_from([-np.inf, 0.0, 1.0, 2.0, 3.0])),
    text_video=arrays.arrays(np.int64, TEXTS, elements=st.integers(0, VIDEOS - 1)),
    block=st.integers(1, TEXTS + 1),
    columns=st.none() | st.integers(1, VIDEOS + 1),
    top=st.integers(0, VIDEOS + 2),
)
def test_every_count(sim: np.ndarray, text_video: np.ndarray, block: int, columns: int | None, top: int) -> None:
    sim[np.arange(TEXTS), text_video] = np.maximum(sim[np.arange(TEXTS), text_video], 0)  # an own pair takes part
    found = rank(lambda t, c: sim[t, c], text_video, VIDEOS, block=block, columns=columns, top=top)
    assert counts(found.texts) == [by_hand(row, own) for row, own in zip(sim, text_video, strict=True)]
    groups = np.unique(text_video)
    of_groups = np.stack([sim[text_video == group].max(axis=0) for group in groups])
    assert counts(found.videos) == [by_hand(of_groups[:, video], k) for k, video in enumerate(groups)]
    kept = min(top, VIDEOS)
    assert found.first.shape == (TEXTS, kept)
    for row, first in zip(sim, found.first, strict=True):
        order = [video for video in np.argsort(-row, kind="stable")[:kept] if row[video] > -np.inf]
        assert first.tolist() == order + [-1] * (kept - len(order))
    texts, videos = count_ranks(lambda t, c: sim[t, c], text_video, VIDEOS, block, columns)
    assert counts(texts) == counts(found.texts)
    assert counts(videos) == counts(found.videos)


def test_blocks_are_as_large_as_asked() -> None:
    asked: list[tuple[int, int]] = []

    def scores(texts: np.ndarray, columns: slice) -> np.ndarray:
        asked.append((len(texts), columns.stop - columns.start))
        return np.zeros((len(texts), columns.stop - columns.start))

    rank(scores, np.arange(7), 7, block=3, columns=5)
    assert set(asked) == {(3, 5), (3, 2), (1, 5), (1, 2)}
    asked.clear()
    rank(scores, np.arange(600), 600)
    assert max(asked) == (512, 512)
    asked.clear()
    retrieval_metrics(scores, np.arange(600), 600)
    assert max(asked) == (512, 512)
    asked.clear()
    count_ranks(scores, np.arange(600), 600)
    assert max(asked) == (512, 512)


def test_a_score_that_is_not_a_number_is_told_with_where_to_look() -> None:
    sim = np.array([[0.0, np.nan]], np.float32)
    with pytest.raises(DataError, match=re.escape("text 0 with video 1 is not a number")) as caught:
        retrieval_metrics(sim, np.array([0]), 2, block=1)
    assert "metrics.jsonl" in str(caught.value.hint)


@pytest.mark.parametrize("own", [0, 1, 2])
@pytest.mark.parametrize("again", [0.25, 0.75])
def test_an_own_score_that_is_not_quite_the_same_when_it_is_asked_again_is_no_candidate(own: int, again: float) -> None:
    asked = iter([0.5, again, again])

    def scores(texts: np.ndarray, columns: slice) -> np.ndarray:
        row = np.full(3, 0.6)
        row[own] = next(asked)
        return row[None, columns]

    ranking = rank(scores, np.array([own]), 3, columns=3)
    assert counts(ranking.texts) == [[2, 0, 0]]


def test_published_metrics_of_one_caption_each() -> None:
    """Each position tied with a query's own counts as a query."""
    sim = np.array([[2.0, 1, 0, 0], [1, 1, 1, 0], [0, 3, 2, 3], [0, 0, 0, 1]])
    positions = [0, 0, 1, 2, 2, 0]
    found = retrieval_metrics(sim, np.arange(4), 4, ties="published")["t2v"]
    share = 100 * 3 / 6
    assert found == Metrics(share, 100, 100, 100, share + 200, 1.5, np.mean(positions) + 1, 4)
    columns = retrieval_metrics(sim.T, np.arange(4), 4, ties="published")["v2t"]
    assert columns == found


def test_published_metrics_of_several_captions_a_video() -> None:
    """Equals in the order of the videos, R@K in float32, the lower median."""
    sim = np.array([[1.0, 1, 0], [1, 1, 0], [2, 1, 1], [0, 1, 2]])
    text_video = np.array([0, 1, 2, 2])  # positions 0, 1, 2, 0
    found = retrieval_metrics(sim, text_video, 3, ties="published")["t2v"]
    assert found == Metrics(50, 100, 100, 100, 250, 1, 1.75, 4)
    thirds = metrics_of(
        Ranks(*(np.array([0, 1, 5]) * k for k in (1, 0, 0))), Ranks(*np.zeros((3, 1), int)), "published"
    )
    assert thirds["t2v"].r1 == float(np.float32(100) / np.float32(3)) != 100 / 3
    assert thirds["t2v"].mdr == 2


def test_fair_metrics_round_halves_down() -> None:
    ranks = Ranks(np.array([0, 0, 4, 9, 49, 50]), np.array([1, 2, 1, 1, 1, 0]), np.zeros(6, int))
    found = metrics_of(ranks, ranks)["t2v"]  # ranks 1.5, 2, 5.5, 10.5, 50.5, 51
    sixth = 100 / 6
    expected = Metrics(sixth, 3 * sixth, 4 * sixth, 5 * sixth, 8 * sixth, 8.0, 121 / 6, 6)
    assert vars(found) == pytest.approx(vars(expected))


def test_one_caption_each_is_every_video_once() -> None:
    assert one_caption_each(np.array([2, 0, 1]), 3)
    assert not one_caption_each(np.array([2, 0, 1]), 4)
    assert not one_caption_each(np.array([2, 0, 0]), 3)
    assert not one_caption_each(np.array([0, 1, 0]), 2)


def test_how_ties_are_counted_follows_the_number_of_captions() -> None:
    ranks = Ranks(np.array([0, 0]), np.array([1, 1]), np.array([0, 1]))
    assert metrics_of(ranks, ranks, "published", True)["t2v"].r1 == 50  # positions 0, 1, 0, 1
    assert metrics_of(ranks, ranks, "published", True)["t2v"].mnr == 1.5
    assert metrics_of(ranks, ranks, "published")["t2v"].mdr == 1  # positions 0, 1
    assert metrics_of(ranks, ranks, "published")["v2t"].mdr == 1.5
    assert metrics_of(ranks, ranks)["t2v"].r1 == 100
