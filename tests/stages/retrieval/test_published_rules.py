"""What the published rules of evaluation change: the numbers in docs/guide/evaluation.md, computed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from teachclip.stages.retrieval.confidence import confidence, difference
from teachclip.stages.retrieval.metrics import Ranks, rank, retrieval_metrics
from teachclip.stages.retrieval.query_ranks import QueryRanks
from teachclip.stages.retrieval.rerank import dual_softmax

ROOT = Path(__file__).resolve().parents[3]
GOLDENS = ROOT / "tests" / "goldens" / "data" / "metrics.npz"


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs" / "guide" / "evaluation.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def real(shared: Path) -> np.ndarray:
    path = shared / "data" / "scores" / "Cap4Video_msrvtt_video_matrix.npy"
    return np.load(path, allow_pickle=False).astype(np.float64)


RULES = ("fair", "published")


def in_random_order(ranks: Ranks) -> float:
    """R@1 in expectation over orders of equals."""
    return float(100 * np.where(ranks.better == 0, 1 / (1 + ranks.equal), 0).mean())


def row(name: str, sim: np.ndarray, text_video: np.ndarray, way: str) -> str:
    """One row of the table of ties."""
    fair, published = (retrieval_metrics(sim, text_video, sim.shape[1], ties=ties)[way] for ties in RULES)
    ranking = rank(lambda texts, columns: sim[texts, columns], text_video, sim.shape[1])
    ranks = ranking.texts if way == "t2v" else ranking.videos
    tied = np.count_nonzero(ranks.equal)
    cells = [name, way, f"{tied} of {len(ranks.equal)}", f"{in_random_order(ranks):.1f}"]
    for found in (fair, published):
        cells += [f"{found.r1:.1f}", f"{found.sumr:.1f}", f"{found.mdr:g}", f"{found.mnr:.1f}"]
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("way", ["t2v", "v2t"])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("real", lambda sim: sim),
        ("real, bfloat16", lambda sim: torch.from_numpy(sim).bfloat16().double().numpy()),
        ("real, two decimals", lambda sim: sim.round(2)),
    ],
)
def test_ties_on_real_scores(
    page: str, real: np.ndarray, name: str, change: Callable[[np.ndarray], np.ndarray], way: str
) -> None:
    assert row(name, change(real), np.arange(len(real)), way) in page.splitlines()


@pytest.mark.parametrize("way", ["t2v", "v2t"])
@pytest.mark.parametrize("name", ["square0", "square2", "square3", "multi1", "multi2"])
def test_ties_on_the_goldens(page: str, name: str, way: str) -> None:
    with np.load(GOLDENS, allow_pickle=False) as golden:
        sim = golden[f"{name}/in/sim"].astype(np.float64)
        captions = golden[f"{name}/in/captions_per_video"] if name.startswith("multi") else np.ones(len(sim), int)
    assert row(f"golden {name}", sim, np.repeat(np.arange(len(captions)), captions), way) in page.splitlines()


def by_set_order(sim: np.ndarray, own: np.ndarray, captions: np.ndarray) -> float:
    """R@1 of the published loader when it takes the videos, and with them the sizes of their groups, in the order of
    `captions`, while the rows stay as they are: a group ends, and takes its video from, where the sizes say."""
    ends = np.cumsum(captions)
    groups = np.repeat(np.arange(len(captions)), captions)
    return retrieval_metrics(sim[:, own[ends - 1]], groups, len(captions), ties="published")["t2v"].r1


def test_groups_in_the_order_of_a_set(page: str) -> None:
    with np.load(GOLDENS, allow_pickle=False) as golden:
        sim, captions = golden["multi1/in/sim"].astype(np.float64), golden["multi1/in/captions_per_video"]
    own = np.repeat(np.arange(len(captions)), captions)
    right = by_set_order(sim, own, captions)
    assert right == retrieval_metrics(sim, own, len(captions))["t2v"].r1
    rng = np.random.default_rng(0)
    found = [by_set_order(sim, own, rng.permutation(captions)) for _ in range(1000)]
    said = f"{right:.1f} becomes {np.mean(found):.1f} on average ({min(found):.1f} to {max(found):.1f})"
    assert said in " ".join(page.split())


def test_what_re_ranking_brings_on_real_scores(page: str, real: np.ndarray) -> None:
    size, own = len(real), np.arange(len(real))

    def asked(run: str, scores: Callable[[np.ndarray, slice], np.ndarray]) -> QueryRanks:
        found = rank(scores, own, size)
        names = tuple(map(str, range(size)))
        return QueryRanks(run, "test", (), names, names, names, own, found.texts, found.videos, found.first)

    texts_ask, videos_ask = dual_softmax(lambda t, v: real[t, v], size, size, 0.01, 512)
    plain, changed = asked("plain", lambda t, v: real[t, v]), asked("changed", texts_ask)
    v2t = asked("", videos_ask).metrics()["v2t"].r1
    sure, more = confidence(plain)["t2v"]["r1"], difference(changed, plain)["t2v"]["r1"]
    words = " ".join(page.split())
    assert f"R@1 {plain.metrics()['t2v'].r1:.1f} becomes {changed.metrics()['t2v'].r1:.1f} by rows" in words
    assert f"{plain.metrics()['v2t'].r1:.1f} becomes {v2t:.1f} by columns" in words
    assert f"R@1 {sure.value:.1f} has the interval {sure.low:.1f} to {sure.high:.1f}" in words
    assert f"R@1 differs by {more.value:.1f}, interval {more.low:.1f} to {more.high:.1f}" in words


def test_float32_and_the_lower_median_change_nothing_one_can_see(real: np.ndarray) -> None:
    """The published path for several captions, on scores without ties."""
    ranks = rank(lambda t, v: real[t, v], np.arange(len(real)), len(real)).texts
    assert not ranks.equal.any()
    shares = [(ranks.better < k).mean() * 100 for k in (1, 5, 10)]
    rounding = max(abs(float(np.float32(share)) - share) for share in shares)
    assert rounding < 1e-5
    lower = np.sort(ranks.better)[(len(real) - 1) // 2] + 1
    assert lower == np.median(ranks.better + 1) == 2
