"""Intervals over queries: what they cover, that clusters stay together, that runs are paired; and their file."""

import numpy as np
import pytest
from teachclip.errors import DataError
from teachclip.stages.retrieval.confidence import confidence, difference
from teachclip.stages.retrieval.metrics import rank, retrieval_metrics
from teachclip.stages.retrieval.query_ranks import QueryRanks, read_query_ranks, save_query_ranks


def asked(sim: np.ndarray, text_video: np.ndarray, run: str = "run", top: int = 10) -> QueryRanks:
    """The ranks of a score matrix."""
    found = rank(lambda texts, columns: sim[texts, columns], text_video, sim.shape[1], top=top)
    texts = [f"v{own}#{k}" for k, own in enumerate(text_video.tolist())]
    videos = tuple(f"v{k}" for k in range(sim.shape[1]))
    said = tuple(f"caption {text}" for text in texts)
    return QueryRanks(
        run, "test", (), tuple(texts), said, videos, text_video, found.texts, found.videos, found.first
    )  # fmt: skip


def model(videos: int, captions: int, skill: float, seed: int, same: bool = False) -> QueryRanks:
    """A model whose scores of own videos stand out by `skill`; `same`: captions of a video are one and the same."""
    rng = np.random.default_rng(seed)
    text_video = np.repeat(np.arange(videos), captions)
    sim = rng.standard_normal((videos, videos))
    sim = np.repeat(sim, captions, axis=0) if same else rng.standard_normal((videos * captions, videos))
    sim[np.arange(len(sim)), text_video] += skill
    return asked(sim, text_video)


def test_the_value_is_the_metric_and_lies_inside() -> None:
    ranks = model(80, 3, 2.0, 0)
    metrics = ranks.metrics()
    for way, intervals in confidence(ranks).items():
        assert intervals.keys() == {"r1", "r5", "r10", "sumr"}
        for name, interval in intervals.items():
            assert interval.value == pytest.approx(getattr(metrics[way], name))
            assert interval.low < interval.value < interval.high


def test_the_interval_is_that_of_a_share() -> None:
    """One caption a video: R@1 of n queries has the deviation of a binomial share."""
    ranks = model(400, 1, 2.5, 1)
    found = confidence(ranks, draws=4000)["t2v"]["r1"]
    share = found.value / 100
    half = 100 * 1.96 * np.sqrt(share * (1 - share) / 400)
    assert found.high - found.value == pytest.approx(half, rel=0.1)
    assert found.value - found.low == pytest.approx(half, rel=0.1)


def test_intervals_cover_what_other_queries_give() -> None:
    """Of test sets drawn from one world, about 95 % have an interval that holds the world's recall."""
    world = [confidence(model(60, 1, 2.0, seed), draws=400)["t2v"]["r5"] for seed in range(300)]
    truth = np.mean([interval.value for interval in world])
    covered = np.mean([interval.low <= truth <= interval.high for interval in world])
    assert 0.9 < covered < 0.99


def test_captions_of_one_video_are_drawn_together() -> None:
    """Ten captions that say the same tell no more than one: the interval must not get narrower by them."""
    one, ten = model(100, 1, 2.0, 3, same=True), model(100, 10, 2.0, 3, same=True)
    single, many = confidence(one)["t2v"]["r1"], confidence(ten)["t2v"]["r1"]
    assert many == single
    apart = confidence(model(100, 10, 2.0, 3))["t2v"]["r1"]
    assert apart.high - apart.low < 0.6 * (many.high - many.low)


def test_videos_with_more_captions_weigh_more() -> None:
    """Captions are the queries: a video's ten count ten times."""
    text_video = np.array([0] * 10 + [1, 2, 3])
    sim = np.zeros((13, 4))
    sim[np.arange(10), 0] = 1
    sim[10:, 0] = 1
    assert confidence(asked(sim, text_video))["t2v"]["r1"].value == pytest.approx(1000 / 13)


def test_seeds_repeat() -> None:
    ranks = model(50, 2, 1.5, 0)
    assert confidence(ranks) == confidence(ranks)
    assert confidence(ranks) != confidence(ranks, seed=1)
    other = model(50, 2, 1.0, 1)
    assert difference(ranks, other) == difference(ranks, other)
    assert difference(ranks, other) != difference(ranks, other, seed=1)
    wide, narrow = (confidence(ranks, level=level)["t2v"]["r1"] for level in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_parts_of_the_draws_are_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = model(50, 2, 1.5, 0)
    whole = confidence(ranks)
    monkeypatch.setattr("teachclip.stages.retrieval.confidence._AT_ONCE", 50 * 7)
    assert confidence(ranks) == whole


def test_a_difference_is_paired() -> None:
    """Two runs that answer nearly the same differ surely by little, though each by itself is unsure."""
    rng = np.random.default_rng(0)
    text_video = np.arange(200)
    sim = rng.standard_normal((200, 200))
    sim[text_video, text_video] += 1.8
    better = sim.copy()
    better[text_video[:12], text_video[:12]] += 9
    first, second = asked(better, text_video, "better"), asked(sim, text_video)
    found = difference(first, second)["t2v"]["r1"]
    alone = confidence(second)["t2v"]["r1"]
    assert found.value == pytest.approx(first.metrics()["t2v"].r1 - second.metrics()["t2v"].r1)
    assert 0 < found.low < found.high
    assert found.high - found.low < 0.7 * (alone.high - alone.low)
    other_way = difference(second, first)["t2v"]["r1"]
    assert (other_way.low, other_way.high) == pytest.approx((-found.high, -found.low))


def test_a_run_does_not_differ_from_itself_in_another_order() -> None:
    rng = np.random.default_rng(0)
    text_video = np.repeat(np.arange(20), 2)
    sim = rng.standard_normal((40, 20))
    sim[np.arange(40), text_video] += 1
    first = asked(sim, text_video)
    texts, videos = rng.permutation(40), rng.permutation(20)
    found = rank(lambda t, c: sim[texts][:, videos][t, c], np.argsort(videos)[text_video[texts]], 20)
    second = QueryRanks(
        "shuffled", "test", (),
        tuple(first.text_ids[k] for k in texts), tuple(first.captions[k] for k in texts),
        tuple(first.video_ids[k] for k in videos), np.argsort(videos)[text_video[texts]],
        found.texts, found.videos, found.first,
    )  # fmt: skip
    for way in difference(first, second).values():
        assert {(interval.value, interval.low, interval.high) for interval in way.values()} == {(0, 0, 0)}


def test_runs_that_were_asked_something_else_are_not_compared() -> None:
    with pytest.raises(DataError, match="not asked the same: 30 texts"):
        difference(model(20, 1, 1.0, 0), model(50, 1, 1.0, 0))


def test_the_first_answers_are_a_sorted_row() -> None:
    rng = np.random.default_rng(0)
    sim = rng.integers(0, 6, (33, 21)).astype(float)
    text_video = rng.integers(0, 21, 33)
    expected = np.argsort(-sim, axis=1, kind="stable")[:, :10]
    for block in (1, 5, 64):
        found = rank(lambda t, c: sim[t, c], text_video, 21, block=block, top=10)
        np.testing.assert_array_equal(found.first, expected)
    assert rank(lambda t, c: sim[t, c], text_video, 21, top=50).first.shape == (33, 21)


def test_the_file_gives_back_what_was_written(tmp_path) -> None:
    rng = np.random.default_rng(0)
    sim = rng.integers(0, 4, (60, 30)).astype(float)
    text_video = np.repeat(np.arange(30), 2)
    written = asked(sim, text_video)
    save_query_ranks(tmp_path / "ranks-test.npz", written)
    read = read_query_ranks(tmp_path / "ranks-test.npz")
    assert (read.text_ids, read.captions, read.video_ids) == (written.text_ids, written.captions, written.video_ids)
    np.testing.assert_array_equal(read.first, written.first)
    for ties in ("fair", "published"):
        assert read.metrics(ties) == retrieval_metrics(sim, text_video, 30, ties=ties)
    assert confidence(read) == confidence(written)


@pytest.mark.parametrize("harm", ["cut", "other", "short", "none", "text", "format"])
def test_a_damaged_file_is_named(tmp_path, harm: str) -> None:
    path = tmp_path / "ranks-test.npz"
    save_query_ranks(path, model(12, 2, 1.0, 0))
    arrays = dict(np.load(path, allow_pickle=False))
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif harm == "other":
        np.savez(path, a=np.zeros(3))
    elif harm == "short":
        np.savez(path, **{**arrays, "t2v_better": arrays["t2v_better"][:-1]})
    elif harm == "none":
        path.unlink()
    elif harm == "text":
        path.write_text("nothing of the kind")
    else:
        meta = bytes(arrays["meta"]).replace(b'"format": 1', b'"format": 9')
        np.savez(path, **{**arrays, "meta": np.frombuffer(meta, np.uint8)})
    with pytest.raises(DataError, match=r"damaged|no such ranks|format 9"):
        read_query_ranks(path)
