"""The retrieval metrics of torchmetrics agree with ours, where nothing is tied."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from teachclip.stages.retrieval.metrics import Ranks, rank, retrieval_metrics
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalRecall


@st.composite
def questions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores [T, V], no two alike, and each text's own video; every video has a text, some have many."""
    videos = draw(st.integers(2, 25))
    more = draw(st.lists(st.integers(0, videos - 1), max_size=30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    text_video = rng.permutation([*range(videos), *more])
    scores = rng.permutation(len(text_video) * videos).reshape(len(text_video), videos) + 1.0
    scores[np.arange(len(text_video)), text_video] += 0.5 + draw(st.sampled_from([0, scores.size // 3]))
    return scores, text_video


def library(metric: torch.nn.Module, scores: np.ndarray, own: np.ndarray) -> float:
    """`metric` of queries (rows) whose answer is the candidate (column) `own`; scores above 0, the recall of
    torchmetrics takes no others for found."""
    queries, candidates = scores.shape
    relevant = np.arange(candidates)[None, :] == own[:, None]
    index = np.repeat(np.arange(queries), candidates)
    found = metric(
        torch.from_numpy(scores.ravel()), torch.from_numpy(relevant.ravel()), indexes=torch.from_numpy(index)
    )
    return float(found)


def mean_reciprocal(ranks: Ranks) -> float:
    return float((1 / ranks.expected).mean())


@given(questions())
@settings(max_examples=15, deadline=None)
def test_recall_and_reciprocal_ranks_agree_both_ways(question: tuple[np.ndarray, np.ndarray]) -> None:
    scores, text_video = question
    videos = scores.shape[1]
    ours = retrieval_metrics(scores, text_video, videos, block=7)
    ranking = rank(lambda t, v: scores[t, v], text_video, videos, block=7)
    # A video asks; its answer is its group of texts, which scores as its best text does.
    groups = np.stack([scores[text_video == video].max(axis=0) for video in range(videos)], axis=1)
    for way, matrix, own, ranks in (
        ("t2v", scores, text_video, ranking.texts),
        ("v2t", groups, np.arange(videos), ranking.videos),
    ):
        for k in (1, 5, 10):
            recall = getattr(ours[way], f"r{k}") / 100
            assert library(RetrievalHitRate(top_k=k), matrix, own) == pytest.approx(recall, abs=1e-6)
            assert library(RetrievalRecall(top_k=k), matrix, own) == pytest.approx(recall, abs=1e-6)
        assert library(RetrievalMRR(), matrix, own) == pytest.approx(mean_reciprocal(ranks), abs=1e-6)


@given(questions())
@settings(max_examples=10, deadline=None)
def test_the_first_caption_of_a_video_decides_whether_its_group_is_first(
    question: tuple[np.ndarray, np.ndarray],
) -> None:
    """Among single captions too a video's answer is first if one of its own captions is: R@1 is the same by groups."""
    scores, text_video = question
    videos = scores.shape[1]
    relevant = text_video[None, :] == np.arange(videos)[:, None]
    index = np.repeat(np.arange(videos), len(text_video))
    found = RetrievalHitRate(top_k=1)(
        torch.from_numpy(scores.T.copy().ravel()), torch.from_numpy(relevant.ravel()), indexes=torch.from_numpy(index)
    )
    assert 100 * float(found) == pytest.approx(retrieval_metrics(scores, text_video, videos)["v2t"].r1, abs=1e-4)


def test_the_real_score_matrix_agrees(shared) -> None:
    scores = np.load(shared / "data" / "scores" / "Cap4Video_msrvtt_video_matrix.npy", allow_pickle=False)[:, :200]
    scores = 1 + scores[:200].astype(np.float64)
    ours = retrieval_metrics(scores, np.arange(200), 200)["t2v"]
    assert library(RetrievalHitRate(top_k=1), scores, np.arange(200)) == pytest.approx(ours.r1 / 100, abs=1e-6)
    assert library(RetrievalHitRate(top_k=10), scores, np.arange(200)) == pytest.approx(ours.r10 / 100, abs=1e-6)
