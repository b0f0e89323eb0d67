"""Dual softmax and query banks against their equations on whole matrices."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from teachclip.stages.retrieval.metrics import Scores, rank
from teachclip.stages.retrieval.rerank import dual_softmax, query_bank


def reader(matrix: np.ndarray) -> Scores:
    return lambda texts, columns: matrix[texts, columns]


def whole(scores: Scores, texts: int, videos: int) -> np.ndarray:
    return scores(np.arange(texts), slice(0, videos))


def softmax(matrix: np.ndarray, axis: int) -> np.ndarray:
    shares = np.exp(matrix - matrix.max(axis=axis, keepdims=True))
    return shares / shares.sum(axis=axis, keepdims=True)


def cosines(texts: int, videos: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.5, (texts, videos))


@given(seed=st.integers(0, 999), block=st.integers(1, 40), temperature=st.sampled_from([0.01, 0.05, 1.0]))
@settings(max_examples=25, deadline=None)
def test_dual_softmax_weighs_with_the_share_among_queries(seed: int, block: int, temperature: float) -> None:
    sim = cosines(30, 17, seed)
    texts_ask, videos_ask = dual_softmax(reader(sim), 30, 17, temperature, block)
    np.testing.assert_allclose(whole(texts_ask, 30, 17), sim * softmax(sim / temperature, axis=0), rtol=1e-9)
    np.testing.assert_allclose(whole(videos_ask, 30, 17), sim * softmax(sim / temperature, axis=1), rtol=1e-9)


def by_bank(sim: np.ndarray, bank: np.ndarray, temperature: float) -> np.ndarray:
    """Bogolin et al., equations 3 to 5, as they stand."""
    hubs = set(bank.argmax(axis=1))
    inverted = np.exp(sim / temperature) / np.exp(bank / temperature).sum(axis=0)
    return np.stack([inverted[k] if row.argmax() in hubs else row for k, row in enumerate(sim)])


@given(seed=st.integers(0, 999), block=st.integers(1, 40), bank_texts=st.integers(1, 25))
@settings(max_examples=25, deadline=None)
def test_a_query_bank_orders_videos_as_its_equations_do(seed: int, block: int, bank_texts: int) -> None:
    sim, bank = cosines(30, 17, seed), cosines(bank_texts, 17, seed + 1)
    expected = by_bank(sim, bank, 0.05)
    found = whole(query_bank(reader(sim), 30, reader(bank), bank_texts, 17, 0.05, block), 30, 17)
    np.testing.assert_array_equal(np.argsort(-found, axis=1), np.argsort(-expected, axis=1))


def test_texts_whose_best_video_is_nobody_elses_are_left_alone() -> None:
    sim = np.array([[0.9, 0.1, 0.2], [0.1, 0.8, 0.7]])
    bank = np.array([[0.1, 0.9, 0.1], [0.0, 0.9, 0.1]])  # video 1 is a hub
    found = whole(query_bank(reader(sim), 2, reader(bank), 2, 3, 0.05, 8), 2, 3)
    np.testing.assert_array_equal(found[0], sim[0])
    assert found[1].argmax() == 2, "the hub is pushed back"


def test_a_hub_is_pushed_back_by_either() -> None:
    """A video that is near everything takes first places from others; what it is robbed of are these."""
    rng = np.random.default_rng(0)
    sim = rng.uniform(0, 0.2, (60, 60))
    sim[np.arange(60), np.arange(60)] += 0.25
    sim[:, 7] += 0.35
    own = np.arange(60)

    def first(scores: Scores) -> int:
        return int((rank(scores, own, 60).texts.better == 0).sum())

    bank = rng.uniform(0, 0.2, (200, 60))
    bank[:, 7] += 0.35
    assert first(reader(sim)) < 10
    assert first(dual_softmax(reader(sim), 60, 60, 0.01, 16)[0]) > 40
    assert first(query_bank(reader(sim), 60, reader(bank), 200, 60, 0.05, 16)) > 40


def test_large_logits_do_not_overflow() -> None:
    sim = 100 * cosines(20, 10, 0)
    for scores in dual_softmax(reader(sim), 20, 10, 0.01, 8):
        assert np.isfinite(whole(scores, 20, 10)).all()
    assert np.isfinite(whole(query_bank(reader(sim), 20, reader(sim[:5]), 5, 10, 0.001, 8), 20, 10)).all()


@pytest.mark.parametrize("kind", ["dual-softmax", "query-bank"])
def test_memory_does_not_grow_with_the_matrix(kind: str) -> None:
    texts, videos, block = 6000, 3000, 128
    rng = np.random.default_rng(0)
    left, right, others = (rng.standard_normal((size, 8)) for size in (texts, videos, 1000))

    def of(vectors: np.ndarray) -> Any:
        return lambda rows, columns: vectors[rows] @ right[columns].T

    tracemalloc.start()
    if kind == "dual-softmax":
        dual_softmax(of(left), texts, videos, 1.0, block)
    else:
        query_bank(of(left), texts, of(others), 1000, videos, 1.0, block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < texts * videos * 8 / 50
