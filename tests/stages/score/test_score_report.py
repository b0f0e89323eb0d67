"""The report card of a store that stage one made agrees with stage one's own ranks and knows its captions."""

from pathlib import Path

import pytest
from teachclip.cache.scores.store import ScoreStore
from teachclip.stages.analysis.report_card import report_card
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.score.chance_check import own_ranks


def test_ranks_are_those_of_stage_one(process, finished: Path) -> None:
    store = ScoreStore.open(finished / "work/scores.zarr")
    captions = {text.id: text.caption for text in read_dataset(process.config_of(finished).data).texts}
    card = report_card(store, captions)
    (tile,) = store.teacher("fake").tiles
    reader = store.teacher("fake").reader(
        [(key, bytes(row)) for key, row in zip(tile.text_ids, tile.text_digests, strict=True)],
        [(key, bytes(row)) for key, row in zip(tile.video_ids, tile.video_digests, strict=True)],
    )
    texts, videos = tile.spec.texts, tile.spec.videos
    ranks = own_ranks(reader.read(list(range(texts)), list(range(videos))).coarse, tile.text_video)
    (found,) = card.teachers
    assert ranks is not None
    assert found.t2v is not None
    assert (found.texts, found.t2v.mdr, found.t2v.mnr) == (ranks.texts, ranks.median, pytest.approx(ranks.mean))
    assert (found.t2v.r1, found.t2v.r5, found.t2v.r10) == pytest.approx((ranks.r1, ranks.r5, ranks.r10))
    assert found.flatness is not None
    assert card.other_captions == 0
    assert all(each.caption == captions[each.id] for each in card.doubtful)
