"""The report card against plain numpy: ranks, agreement, doubt, flatness and weights of stores of every layout."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.scores.shard import write_shard
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.tile import TileContents
from teachclip.cache.storage.identity import digest, text_digest
from teachclip.errors import CacheError
from teachclip.stages.analysis import report_card as module
from teachclip.stages.analysis.agreement import Rows, first_share
from teachclip.stages.analysis.report_card import frame_entropy, report_card
from teachclip.stages.analysis.teacher_weights import discriminant, suggested_weights
from teachclip.stages.retrieval.metrics import retrieval_metrics

TEXTS, VIDEOS, FRAMES = 30, 12, 4
OWN = np.arange(TEXTS) * 5 % VIDEOS
CAPTIONS = {f"v{OWN[i]}#{i}": f"caption {i}" for i in range(TEXTS)}
TIMES = np.tile(np.arange(4.0), (VIDEOS, 1))
TIMES[::4, 1:] = np.nan  # a single frame
TIMES[1::4, 3:] = np.nan

type Add = Callable[..., None]


def scores_of(seed: int, strength: float = 0.1) -> np.ndarray:
    """Scores [T,V] on a grid, so that many are equal."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0.2, 0.06, (TEXTS, VIDEOS))
    scores[np.arange(TEXTS), OWN] += strength
    return (np.rint(scores * 40) / 40).astype(np.float32)


def logits_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed + 50).normal(0.2, 1.0, (TEXTS, FRAMES)).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> ScoreStore:
    return ScoreStore.create(tmp_path / "s.zarr")


@pytest.fixture
def add(store: ScoreStore) -> Add:
    """`add(name, scores, ...)`: a teacher, or a further tile of it, of some texts and videos; shards of seven texts."""

    def make(
        name: str,
        scores: np.ndarray,
        texts: Sequence[int] = range(TEXTS),
        videos: Sequence[int] = range(VIDEOS),
        tile: str = "dense",
        shards: Sequence[int] | None = None,
        words: str = "caption",
        fine: np.ndarray | None = None,
    ) -> None:
        cache = store.create_teacher(name, {"weights": name}, 20.0, "float32", FRAMES, fine is not None)
        places = {video: column for column, video in enumerate(videos)}
        made = cache.create_tile(
            tile,
            TileContents(
                [(f"v{OWN[i]}#{i}", text_digest(f"{words} {i}")) for i in texts],
                [(f"v{j}", digest(f"{name} {j}".encode())) for j in videos],
                np.array([places.get(OWN[i], -1) for i in texts]),
                TIMES[list(videos)],
            ),
            shard_texts=7,
        )
        values = scores[np.ix_(list(texts), list(videos))]
        for shard in range(made.spec.shards) if shards is None else shards:
            rows = made.spec.rows(shard)
            part = slice(rows.start, rows.stop)
            write_shard(made, shard, values[part], None if fine is None else fine[list(texts)][part])

    return make


def fair_ranks(scores: np.ndarray, own: np.ndarray = OWN) -> np.ndarray:
    mine = scores[np.arange(len(scores)), own][:, None]
    return 1 + (scores > mine).sum(axis=1) + ((scores == mine).sum(axis=1) - 1) / 2


@pytest.mark.parametrize("at_once", [1, 40, 1 << 20])
def test_ranks_of_a_dense_store_are_those_of_the_matrix(
    store: ScoreStore, add: Add, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", at_once)
    scores = scores_of(1)
    add("a", scores, fine=logits_of(1))
    (card,) = report_card(store).teachers
    expected = retrieval_metrics(scores, OWN, VIDEOS)
    assert card.t2v == expected["t2v"]
    assert card.v2t == expected["v2t"]
    assert (card.texts, card.left_out, card.fewest, card.most) == (TEXTS, 0, VIDEOS, VIDEOS)
    assert card.normalised == pytest.approx(((fair_ranks(scores) - 1) / (VIDEOS - 1)).mean())
    wide = scores.astype(np.float64)
    deviations = (wide[np.arange(TEXTS), OWN] - wide.mean(axis=1)) / wide.std(axis=1)
    assert card.separation == pytest.approx(deviations.mean())


def test_agreement_is_that_of_the_rows(store: ScoreStore, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", 40)
    scores = {"a": scores_of(1), "b": scores_of(2)}
    scores["b"][3] = 0.25  # a row that does not vary: no correlation, first video by chance
    for name, matrix in scores.items():
        add(name, matrix)
    (found,) = report_card(store).agreement
    rows = [row for row in range(TEXTS) if row != 3]
    correlations = [np.corrcoef(scores["a"][row].astype(float), scores["b"][row].astype(float))[0, 1] for row in rows]
    assert found.texts == TEXTS
    assert found.pearson == pytest.approx(np.mean(correlations))
    assert found.same_first == pytest.approx(simulated(scores["a"], scores["b"], 1), abs=0.02)
    assert found.top10 == pytest.approx(simulated(scores["a"], scores["b"], 10), abs=0.02)


def simulated(first: np.ndarray, second: np.ndarray, count: int) -> float:
    """Mean overlap of the first `count`, ties in random order on each side."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        tops = [np.lexsort((rng.random(scores.shape), -scores))[:, :count] for scores in (first, second)]
        found.append(np.mean([len(set(a) & set(b)) / count for a, b in zip(*map(list, tops), strict=True)]))
    return float(np.mean(found))


def test_a_teacher_agrees_with_itself(store: ScoreStore, add: Add) -> None:
    scores = scores_of(1) + np.random.default_rng(0).normal(0, 1e-4, (TEXTS, VIDEOS)).astype(np.float32)
    add("a", scores)
    add("b", scores * 3 + 1)
    (found,) = report_card(store).agreement
    assert (found.same_first, found.top10) == (1.0, 1.0)
    assert found.pearson == pytest.approx(1, abs=1e-4)


def test_what_is_not_scored_is_left_out_and_counted(store: ScoreStore, add: Add) -> None:
    scores = {"a": scores_of(1), "b": scores_of(2)}
    add("a", scores["a"], shards=[0, 2, 4])
    add("b", scores["b"])
    card = report_card(store)
    done = np.r_[0:7, 14:21, 28:30]
    expected = retrieval_metrics(scores["a"][done], OWN[done], VIDEOS)
    assert (card.teachers[0].t2v, card.teachers[0].v2t) == (expected["t2v"], expected["v2t"])
    assert (card.teachers[0].texts, card.teachers[0].left_out) == (16, 14)
    assert card.teachers[1].texts == TEXTS
    assert card.agreement[0].texts == 16
    assert all({one.teacher for one in each.teachers} <= {"a", "b"} for each in card.doubtful)


def test_a_teacher_that_has_not_begun_has_an_empty_card(store: ScoreStore, add: Add) -> None:
    add("a", scores_of(1), shards=[])
    add("b", scores_of(2))
    card = report_card(store)
    nothing = card.teachers[0]
    assert (nothing.texts, nothing.left_out, nothing.t2v, nothing.normalised) == (0, TEXTS, None, None)
    assert (card.agreement[0].texts, card.agreement[0].pearson, card.weights) == (0, None, None)


def test_blocks_are_ranked_within_themselves(store: ScoreStore, add: Add) -> None:
    scores = scores_of(3)
    blocks = [range(5), range(5, 12)]
    expected, text_ranks = [], []
    for number, videos in enumerate(blocks):
        texts = [i for i in range(TEXTS) if OWN[i] in videos]
        add("a", scores, texts, videos, f"block{number}")
        part = scores[np.ix_(texts, list(videos))]
        own = OWN[texts] - videos.start
        expected.append(retrieval_metrics(part, own, len(videos)))
        text_ranks += list((fair_ranks(part, own) - 1) / (len(videos) - 1))
    (card,) = report_card(store).teachers
    assert (card.texts, card.fewest, card.most) == (TEXTS, 5, 7)
    assert card.normalised == pytest.approx(np.mean(text_ranks))
    shares = [each["t2v"].queries / TEXTS for each in expected]
    assert card.t2v is not None
    assert card.t2v.r1 == pytest.approx(sum(s * each["t2v"].r1 for s, each in zip(shares, expected, strict=True)))


def test_an_extended_cache_counts_as_the_whole(store: ScoreStore, add: Add) -> None:
    scores = scores_of(4)
    add("a", scores, range(20), range(9))
    add("a", scores, range(20), range(9, 12), "new-videos")
    add("a", scores, range(20, 30), range(12), "new-texts")
    (card,) = report_card(store).teachers
    expected = retrieval_metrics(scores, OWN, VIDEOS)
    assert (card.t2v, card.v2t) == (expected["t2v"], expected["v2t"])
    assert (card.fewest, card.most) == (VIDEOS, VIDEOS)


def test_doubt_falls_on_the_caption_that_no_teacher_places(store: ScoreStore, add: Add) -> None:
    scores = {name: scores_of(seed, strength=1.0) for seed, name in enumerate("abc")}
    for matrix in scores.values():
        matrix[17, OWN[17]] = -1.0
        matrix[17, 2] = 2.0
    scores["a"][4, OWN[4]] = -1.0  # one teacher alone
    for name, matrix in scores.items():
        add(name, matrix)
    card = report_card(store, CAPTIONS)
    assert [each.id for each in card.doubtful] == ["v1#17", "v8#4"]
    worst = card.doubtful[0]
    assert (worst.video, worst.caption, worst.place) == ("v1", "caption 17", pytest.approx(1))
    assert [(one.teacher, one.rank, one.candidates, one.instead) for one in worst.teachers] == [
        (name, 12, 12, "v2") for name in "abc"
    ]
    assert worst.teachers[0].says == CAPTIONS[f"v2#{next(i for i in range(TEXTS) if OWN[i] == 2)}"]
    assert [one.instead is None for one in card.doubtful[1].teachers] == [False, True, True]


def test_captions_that_changed_are_not_shown(store: ScoreStore, add: Add) -> None:
    add("a", scores_of(1, strength=-1.0))
    card = report_card(store, CAPTIONS | {"v5#1": "something else"})
    assert card.other_captions == 1
    assert {each.id: each.caption for each in card.doubtful}.get("v5#1") is None
    assert [each.caption for each in report_card(store).doubtful] == [None] * module.WORST


def test_a_caption_that_changed_between_two_teachers_is_two(store: ScoreStore, add: Add) -> None:
    add("a", scores_of(1))
    add("b", scores_of(2), words="other")
    card = report_card(store)
    assert (card.texts, card.videos) == (2 * TEXTS, VIDEOS)
    assert [each.texts for each in card.teachers] == [TEXTS, TEXTS]
    assert [each.left_out for each in card.teachers] == [0, 0]
    assert card.agreement[0].texts == 0


def test_flatness_is_the_entropy_of_the_frames_that_there_are(store: ScoreStore, add: Add) -> None:
    logits = logits_of(1)
    add("a", scores_of(1), fine=logits)
    add("b", scores_of(2))
    cards = report_card(store).teachers
    expected, peaks = [], []
    for row, video in zip(logits, OWN, strict=True):
        frames = int((~np.isnan(TIMES[video])).sum())
        if frames > 1:
            weights = np.exp(row[:frames].astype(np.float64))
            weights /= weights.sum()
            expected.append(-(weights * np.log(weights)).sum() / np.log(frames))
            peaks.append(weights.max() * frames)
    flatness = cards[0].flatness
    assert flatness is not None
    assert flatness.texts == len(expected) < TEXTS
    assert flatness.mean == pytest.approx(np.mean(expected))
    assert flatness.peak == pytest.approx(np.mean(peaks))
    assert flatness.quantiles[50] == pytest.approx(np.median(expected))
    assert cards[1].flatness is None


def test_entropy_of_extremes() -> None:
    entropy, peak = frame_entropy(np.array([[5, 5, 5, 5], [900, 0, 0, 0], [1, 1, np.nan, np.nan], [3, *[np.nan] * 3]]))
    np.testing.assert_allclose(entropy, [1, 0, 1, np.nan], atol=1e-12)
    np.testing.assert_allclose(peak, [1, 4, 1, np.nan])


def test_first_places_are_shared_among_equals() -> None:
    scores = np.array([[3, 1, 1, 1, 0], [2, 2, 2, 0, -np.inf], [1, -np.inf, -np.inf, -np.inf, -np.inf]], np.float32)
    third = np.float32(1) / 3
    np.testing.assert_allclose(first_share(scores, 1), [[1, 0, 0, 0, 0], [third] * 3 + [0, 0], [1, 0, 0, 0, 0]])
    np.testing.assert_allclose(first_share(scores, 2)[0], [1, third, third, third, 0])
    np.testing.assert_allclose(first_share(scores, 2)[2], [1, 0, 0, 0, 0])
    np.testing.assert_allclose(first_share(scores, 5)[1], [1, 1, 1, 1, 0])


def test_rounding_is_no_variation() -> None:
    scores = np.full((1, 50), 0.1, np.float32)
    scores[0, ::2] = np.nextafter(np.float32(0.1), np.float32(1))
    assert Rows(scores).norms[0] == 0
    assert Rows(scores).deviations(np.array([0]), np.array([0]))[0] == 0


def agree(**pearson: float) -> Any:
    from teachclip.stages.analysis.agreement import Agreement

    return [Agreement(pair[0], pair[1], 10, value, 0.5, 0.5) for pair, value in pearson.items()]


def test_weights_follow_what_each_teacher_adds() -> None:
    even = suggested_weights({"a": 3.0, "b": 3.0}, agree(ab=0.5))
    assert even == {"a": 0.5, "b": 0.5}
    assert suggested_weights({"a": 4.0, "b": 2.0}, agree(ab=0.0)) == {"a": 0.667, "b": 0.333}
    twins = suggested_weights({"a": 3.0, "b": 3.0, "c": 3.0}, agree(ab=1.0, ac=0.0, bc=0.0))
    assert twins is not None
    assert twins["a"] == pytest.approx(0.286, abs=0.001)
    assert twins["c"] > twins["a"]
    assert sum(twins.values()) == pytest.approx(1, abs=1e-12)
    assert suggested_weights({"a": 4.0, "b": 0.5}, agree(ab=0.9)) == {"a": 1.0, "b": 0.0}
    assert suggested_weights({"a": 4.0, "b": 2.0, "c": -1.0}, agree(ab=0.0)) == {"a": 0.667, "b": 0.333, "c": 0.0}
    for alone in ({"a": 4.0}, {"a": 4.0, "b": None}, {"a": 4.0, "b": -1.0}):
        assert suggested_weights(alone, agree(ab=0.3)) is None


def test_the_discriminant_is_the_best_weighted_mean() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 9))
    covariance = root @ root.T
    correlation = covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    separation = correlation @ np.array([0.5, 0.3, 0.2])  # so that no weight is negative
    best = discriminant(correlation, separation)

    def apart(weights: np.ndarray) -> float:
        return float(weights @ separation / np.sqrt(weights @ correlation @ weights))

    np.testing.assert_allclose(best, [0.5, 0.3, 0.2])
    for _ in range(200):
        assert apart(np.abs(best + rng.normal(0, 0.3, 3))) <= apart(best) + 1e-12


def test_memory_does_not_grow_with_texts_times_videos(store: ScoreStore, add: Add, monkeypatch: Any) -> None:
    """Rows are read as asked; the largest block that is asked for is what PAIRS_AT_ONCE allows."""
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", 5 * VIDEOS)
    add("a", scores_of(1))
    sizes = []
    plain = module.AreaRows.scores

    def scores(self: Any, texts: np.ndarray) -> np.ndarray:
        sizes.append(len(texts))
        return plain(self, texts)

    monkeypatch.setattr(module.AreaRows, "scores", scores)
    report_card(store)
    assert max(sizes) == 5
    assert sum(sizes) == 3 * TEXTS


def test_an_empty_store_is_refused(store: ScoreStore) -> None:
    with pytest.raises(CacheError, match="no teacher has scores here"):
        report_card(store)
