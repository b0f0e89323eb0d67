"""Ranks and metrics against a plain reference, on ties, in memory, and on a real score matrix."""

import tracemalloc
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from teachclip.errors import DataError
from teachclip.stages.retrieval.metrics import retrieval_metrics


def _group_scores(sim: np.ndarray, text_video: np.ndarray, videos: int) -> np.ndarray:
    """Best caption of each group (columns) for each video (rows)."""
    groups = np.unique(text_video)
    return np.stack([sim[text_video == group].max(0) for group in groups], axis=1)


def _random_orders(scores: np.ndarray, own: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Ranks of `own`, equals in random order."""
    noise = rng.random((draws, len(scores)))
    order = np.lexsort((noise, np.broadcast_to(-scores, noise.shape)))
    return 1 + np.argmax(order == own, axis=1)


@given(
    sim=arrays.arrays(np.float32, (9, 5), elements=st.integers(0, 3).map(float)),
    text_video=arrays.arrays(np.int64, 9, elements=st.integers(0, 4)),
    block=st.integers(1, 6),
)
@settings(max_examples=30, deadline=None)
def test_fair_ranks_are_the_mean_over_random_orders_of_equals(sim, text_video, block) -> None:
    found = retrieval_metrics(sim, text_video, 5, block=block)
    rng = np.random.default_rng(0)
    draws = 4000
    t2v = np.stack([_random_orders(sim[t], own, draws, rng) for t, own in enumerate(text_video)])
    groups = np.unique(text_video)
    by_group = _group_scores(sim, text_video, 5)[groups]
    v2t = np.stack([_random_orders(row, k, draws, rng) for k, row in enumerate(by_group)])
    for way, ranks in (("t2v", t2v), ("v2t", v2t)):
        metrics = found[way]
        assert metrics.queries == len(ranks)
        halves = np.round(2 * ranks.mean(1)) / 2  # 4,000 draws tell half places apart
        assert metrics.r1 == pytest.approx(100 * (np.floor(halves) <= 1).mean())
        assert metrics.r5 == pytest.approx(100 * (np.floor(halves) <= 5).mean())
        assert metrics.mnr == pytest.approx(halves.mean())
        assert metrics.mdr == pytest.approx(np.median(halves))
        assert metrics.sumr == pytest.approx(metrics.r1 + metrics.r5 + metrics.r10)


@given(
    sim=arrays.arrays(np.float32, (11, 6), elements=st.floats(-1, 1, width=16)),
    text_video=arrays.arrays(np.int64, 11, elements=st.integers(0, 5)),
    block=st.integers(1, 12),
    ties=st.sampled_from(["fair", "published"]),
)
@settings(max_examples=60, deadline=None)
def test_blocks_and_the_order_of_texts_do_not_matter(sim, text_video, block, ties) -> None:
    order = np.random.default_rng(0).permutation(11)
    expected = retrieval_metrics(sim, text_video, 6, ties=ties, block=100)
    blocks = retrieval_metrics(sim, text_video, 6, ties=ties, block=block)
    shuffled = retrieval_metrics(sim[order], text_video[order], 6, ties=ties, block=block)
    for way, metrics in expected.items():
        assert asdict(blocks[way]) == pytest.approx(asdict(metrics))
        assert asdict(shuffled[way]) == pytest.approx(asdict(metrics))


def test_equal_scores_are_in_the_middle_and_not_perfect() -> None:
    metrics = retrieval_metrics(np.zeros((40, 40)), np.arange(40), 40)["t2v"]
    assert (metrics.r1, metrics.r5, metrics.r10, metrics.r50) == (0, 0, 0, 100)
    assert metrics.mdr == metrics.mnr == 20.5


def test_two_identical_videos_share_the_first_places() -> None:
    sim = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    metrics = retrieval_metrics(sim, np.arange(3), 3)["t2v"]
    assert metrics.r1 == 100
    assert metrics.mnr == pytest.approx((1.5 + 1.5 + 1) / 3)
    three = retrieval_metrics(np.ones((3, 3)), np.arange(3), 3)["t2v"]
    assert (three.r1, three.mnr) == (0, 2)


def test_videos_without_captions_are_candidates_and_no_queries() -> None:
    sim = np.array([[0.5, 0.9, 0.1], [0.2, 0.3, 0.4]])
    found = retrieval_metrics(sim, np.array([0, 2]), 3)
    assert found["t2v"].queries == found["v2t"].queries == 2
    assert found["t2v"].mnr == pytest.approx((2 + 1) / 2)
    assert found["v2t"].mnr == 1


def test_a_videos_best_caption_is_compared_with_those_of_other_videos() -> None:
    # Video 0: its own captions score .3 and .9; of the others, only that of video 1 scores more.
    sim = np.array([[0.3, 0], [0.9, 0], [0.95, 1], [0.92, 1]])
    metrics = retrieval_metrics(sim, np.array([0, 0, 1, 1]), 2)["v2t"]
    assert metrics.mnr == pytest.approx((2 + 1) / 2)


def test_published_median_of_several_captions_is_the_lower_one() -> None:
    sim = np.array([[0.9, 0.1, 0.2], [0.9, 0.1, 0.2], [0.5, 0.4, 0.6], [0.2, 0.3, 0.1]])  # ranks 1, 1, 2, 3
    found = retrieval_metrics(sim, np.array([0, 0, 0, 2]), 3, ties="published")
    assert found["t2v"].mdr == 1
    assert retrieval_metrics(sim, np.array([0, 0, 0, 2]), 3)["t2v"].mdr == 1.5


@pytest.mark.parametrize("block", [1, 3, 512])
def test_a_score_that_is_not_a_number_is_refused_by_place(block) -> None:
    sim = np.eye(5)
    sim[3, 1] = np.nan
    with pytest.raises(DataError, match="text 3 with video 1"):
        retrieval_metrics(sim, np.arange(5), 5, block=block)


def test_nothing_to_rank_is_refused() -> None:
    with pytest.raises(DataError, match="no captions"):
        retrieval_metrics(np.zeros((0, 3)), np.zeros(0, np.int64), 3)


def test_memory_does_not_grow_with_the_matrix() -> None:
    texts, videos, block = 6000, 3000, 256
    rng = np.random.default_rng(0)
    text_video = rng.integers(0, videos, texts)
    left, right = rng.standard_normal((texts, 8)), rng.standard_normal((videos, 8))
    shapes = set()

    def scores(chosen: np.ndarray, columns: slice) -> np.ndarray:
        matrix = left[chosen] @ right[columns].T
        shapes.add(matrix.shape)
        return matrix

    tracemalloc.start()
    found = retrieval_metrics(scores, text_video, videos, block=block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert max(max(shape) for shape in shapes) == block
    assert peak < 12 * block * block * 8 < texts * videos * 8 / 20
    whole = retrieval_metrics(left @ right.T, text_video, videos, block=texts)
    for way in found:
        assert asdict(found[way]) == pytest.approx(asdict(whole[way]), rel=1e-3)


def test_blocks_of_a_texts_own_video_are_asked_twice_and_the_others_once() -> None:
    asked = []
    sim = np.random.default_rng(0).random((40, 40))

    def scores(chosen: np.ndarray, columns: slice) -> np.ndarray:
        asked.append((int(chosen[0]), columns.start))
        return sim[chosen, columns]

    retrieval_metrics(scores, np.arange(40), 40, block=10)
    assert len(asked) == 4 + 16


def test_the_scores_of_a_published_model_give_its_published_metrics(shared) -> None:
    sim = np.load(shared / "data" / "scores" / "Cap4Video_msrvtt_video_matrix.npy", allow_pickle=False)
    found = retrieval_metrics(sim, np.arange(len(sim)), len(sim))
    rows, columns = found["t2v"], found["v2t"]
    assert [round(value, 1) for value in (rows.r1, rows.r5, rows.r10)] == [48.0, 73.0, 82.9]
    assert (rows.mdr, round(rows.mnr, 3)) == (2.0, 13.129)
    assert [round(value, 1) for value in (columns.r1, columns.r5, columns.r10)] == [46.0, 74.1, 82.8]
    assert retrieval_metrics(sim, np.arange(len(sim)), len(sim), ties="published")["t2v"] == rows  # no ties in rows
