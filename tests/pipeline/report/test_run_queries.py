"""Which queries a report shows."""

from dataclasses import replace

import numpy as np
from teachclip.pipeline.report.collect.queries import SharedQueries
from teachclip.stages.retrieval.metrics import Ranks
from teachclip.stages.retrieval.query_ranks import QueryRanks


def of_ranks(ranks: np.ndarray, captions: int) -> QueryRanks:
    """Texts at these ranks, several of a video after each other."""
    own = np.arange(len(ranks)) // captions
    videos, zeros = int(own[-1]) + 1, np.zeros(len(ranks), np.int64)
    places = Ranks(np.asarray(ranks, np.int64) - 1, zeros, zeros)
    of_videos = Ranks(*(np.zeros(videos, np.int64) for _ in range(3)))
    names = tuple(f"text {k}" for k in range(len(ranks)))
    ids = tuple(f"video {k}" for k in range(videos))
    return QueryRanks("run", "test", (), names, names, ids, own, places, of_videos, np.full((len(ranks), 1), -1))


def test_examples_are_the_gains_the_loss_the_worst_and_a_lot_each_of_another_video() -> None:
    before, after = np.full(40, 10), np.full(40, 10)
    after[6], after[7], after[12] = 1, 1, 2  # 6 and 7 belong to one video
    before[30], after[30] = 3, 19
    after[20], after[24], after[36], after[38] = 17, 18, 1, 1
    before[36] = before[38] = 1
    queries = SharedQueries({"before": of_ranks(before, 2), "after": of_ranks(after, 2)}, "after")
    found = queries.examples("before")
    assert [each.text for each in found][:5] == [6, 12, 30, 24, 20]
    assert {each.text for each in found[6:]} == {36, 38}
    assert [each.why.split(",")[0].split(" by")[0] for each in found] == [
        *["gained most"] * 2, "lost most", *["ranked worst"] * 3, *["ranked first"] * 2,
    ]  # fmt: skip
    assert len({each.text // 2 for each in found}) == len(found)


def test_few_videos_give_few_examples() -> None:
    ranks = {"before": of_ranks(np.array([1, 2]), 2), "after": of_ranks(np.array([2, 1]), 2)}
    assert len(SharedQueries(ranks, "after").examples("before")) == 1
    assert [each.why for each in SharedQueries(ranks, "after").examples(None)] == ["ranked worst by after"]


def test_runs_are_compared_text_by_text_in_whatever_order_they_were_asked() -> None:
    ranks = of_ranks(np.arange(1, 21), 1)
    order = np.random.default_rng(0).permutation(20)
    turned = replace(
        ranks,
        text_ids=tuple(ranks.text_ids[k] for k in order),
        captions=tuple(ranks.captions[k] for k in order),
        text_video=ranks.text_video[order],
        texts=Ranks(ranks.texts.better[order], ranks.texts.equal, ranks.texts.equal_before),
    )
    queries = SharedQueries({"a": ranks, "b": turned}, "a")
    np.testing.assert_array_equal(queries.expected("b"), queries.expected("a"))
    assert {each.why.split(",")[0] for each in queries.examples("b")} == {"ranked worst by a", "ranked first by a"}
