"""A video that is gone, from the data or from the disk, is no answer; how many are left out is told."""

import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from teachclip.configs.schema import Config, DataConfig
from teachclip.errors import DataError
from teachclip.remedies import Prune
from teachclip.stages.data.dataset import file_finder, named_videos
from teachclip.stages.prepare.stage import prepare
from teachclip.stages.search.gone import MISSING, UNNAMED, Gone
from teachclip.stages.search.index import index
from teachclip.stages.search.searcher import Searcher, SearchResult
from teachclip.stages.search.stage import open_searcher, search

QUERY = "clip number 2"


@pytest.fixture
def indexed(place: Any) -> Any:
    index(place.config())
    return place


def answers(result: SearchResult) -> list[str]:
    (found,) = result.queries
    assert [answer.rank for answer in found.answers] == [*range(1, len(found.answers) + 1)]
    return [answer.video for answer in found.answers]


def every(place: Any) -> list[str]:
    """All videos, nearest first, as they are found while all are there."""
    return answers(search(place.config(top=50), [QUERY]))


def unnamed(place: Any, *videos: str) -> None:
    """Take videos out of the captions; their files stay."""
    path = place.root / "own/captions.csv"
    kept = [line for line in path.read_text().splitlines() if line.rsplit(",", 2)[0] not in videos]
    path.write_text("\n".join(kept) + "\n")


def test_a_deleted_file_is_no_answer_and_is_told(indexed: Any) -> None:
    ranked = every(indexed)
    (indexed.root / "own" / ranked[0]).unlink()
    result = search(indexed.config(top=2), [QUERY])
    assert answers(result) == ranked[1:3]
    assert (result.gone, result.videos) == ((Gone(ranked[0], unnamed=False),), 5)


def test_a_video_that_the_data_no_longer_names_is_no_answer_and_is_told(indexed: Any) -> None:
    ranked = every(indexed)
    unnamed(indexed, ranked[0])
    result = search(indexed.config(top=2), [QUERY])
    assert answers(result) == ranked[1:3]
    assert result.gone == (Gone(ranked[0], unnamed=True),)


def test_only_what_is_nearer_than_the_last_answer_is_told(indexed: Any) -> None:
    ranked = every(indexed)
    (indexed.root / "own" / ranked[3]).unlink()
    assert search(indexed.config(top=3), [QUERY]).gone == ()
    result = search(indexed.config(top=50), [QUERY])
    assert answers(result) == [*ranked[:3], ranked[4]]
    assert result.gone == (Gone(ranked[3], unnamed=False),)


def test_many_are_looked_through_until_there_are_enough(indexed: Any) -> None:
    ranked = every(indexed)
    unnamed(indexed, *ranked[:2])
    for video in ranked[2:4]:
        (indexed.root / "own" / video).unlink()
    result = search(indexed.config(top=1), [QUERY])
    assert answers(result) == [ranked[4]]
    assert result.gone == tuple(Gone(video, unnamed=video in ranked[:2]) for video in ranked[:4])


def test_when_all_are_gone_it_says_so(indexed: Any) -> None:
    for path in (indexed.root / "own/clips").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="every video that could be found is gone") as caught:
        search(indexed.config(top=2), [QUERY])
    assert "data.videos" in str(caught.value.hint)
    assert len(caught.value.details) == 5
    (indexed.root / "own/captions.csv").write_text("video,caption\nother.mp4,x\n")
    with pytest.raises(DataError, match="is gone") as caught:
        search(indexed.config(top=2), [QUERY])
    assert caught.value.hint is UNNAMED


def test_an_open_searcher_notices_what_goes_meanwhile(indexed: Any) -> None:
    ranked = every(indexed)
    with open_searcher(indexed.config()) as searcher:
        assert answers(searcher.search([QUERY])) == ranked
        (indexed.root / "own" / ranked[0]).unlink()
        assert answers(searcher.search([QUERY])) == ranked[1:]
    with Searcher.open(indexed.config()) as searcher:  # the index as it is, wherever the videos are
        assert answers(searcher.search([QUERY])) == ranked


def test_each_sentence_gets_as_many_as_it_asks_for(indexed: Any) -> None:
    ranked = every(indexed)
    (indexed.root / "own" / ranked[0]).unlink()
    queries = [QUERY, "something else", "clip number 4"]
    result = search(indexed.config(top=2), queries)
    assert [len(found.answers) for found in result.queries] == [2, 2, 2]
    for query, found in zip(queries, result.queries, strict=True):
        (alone,) = search(indexed.config(top=2), [query]).queries
        # Sentences that are encoded together are summed in another order.
        cosines = [each.cosine for each in alone.answers]
        assert [each.cosine for each in found.answers] == pytest.approx(cosines, abs=1e-6)
        same = tuple(replace(each, cosine=cosine) for each, cosine in zip(found.answers, cosines, strict=True))
        assert replace(found, answers=same) == alone


def test_data_that_cannot_be_read_is_told_and_files_are_looked_for(indexed: Any, heard: Any) -> None:
    ranked = every(indexed)
    (indexed.root / "own" / ranked[0]).unlink()
    (indexed.root / "own/captions.csv").unlink()
    result = search(indexed.config(top=50), [QUERY], heard)
    assert answers(result) == ranked[1:]
    assert len(heard.warnings) == 1
    assert heard.warnings[0].startswith("the data cannot be read, so videos that it no longer names are answers, too: ")


def test_splits_that_are_not_read_are_answers(indexed: Any) -> None:
    ranked, config = every(indexed), indexed.config(top=50)
    config = config.model_copy(update={"data": config.data.model_copy(update={"splits": ("test",)})})
    assert answers(search(config, [QUERY])) == ranked


def test_pruned_videos_leave_the_index(indexed: Any) -> None:
    ranked = every(indexed)
    unnamed(indexed, ranked[0])
    assert UNNAMED.action == MISSING.action == Prune()
    assert prepare(indexed.config(), prune=True).pruned == (ranked[0],)
    made = index(indexed.config())
    assert (made.videos, made.removed, made.kept) == (4, 1, 4)
    result = search(indexed.config(top=50), [QUERY])
    assert (answers(result), result.gone) == (ranked[1:], ())


def test_copied_files_leave_vectors_as_they_are(indexed: Any) -> None:
    config: Config = indexed.config()
    for path in (indexed.root / "own/clips").iterdir():
        path.touch()
    assert prepare(config).renewed == 5
    made = index(config)
    assert (made.kept, made.added, made.removed, made.remade) == (5, 0, 0, None)


def test_files_are_found_where_each_kind_of_data_keeps_them(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    (clips / "deep").mkdir(parents=True)
    (clips / "deep/v1.avi").touch()
    (tmp_path / "test_list.txt").write_text("v1\nv2\n")
    (tmp_path / "captions_msvd.json").write_text('{"v1": ["x"], "v2": ["y"]}')
    published = DataConfig(set="msvd", annotations=tmp_path, videos=clips, splits=("test",))
    find = file_finder(published)
    assert (find("v1"), find("v2")) == (clips / "deep/v1.avi", None)
    (clips / "deep/v1.avi").unlink()
    assert find("v1") is None
    own = DataConfig(captions=tmp_path / "c.csv", videos=clips)
    (tmp_path / "c.csv").write_text("video,caption\na.mp4,\ncafe\u0301.mp4,x\n")
    (clips / "caf\u00e9.mp4").touch()
    assert named_videos(own) == {"a.mp4", "cafe\u0301.mp4"}
    assert file_finder(own)("cafe\u0301.mp4") == clips / "caf\u00e9.mp4"
    assert file_finder(own)("a.mp4") is None
    with tarfile.open(clips / "train-0.tar", "w") as tar:
        tar.add(tmp_path / "c.csv", "k.mp4")
        tar.add(tmp_path / "c.csv", "k.txt")
    shards = DataConfig(set="webdataset", videos=clips)
    find = file_finder(shards)
    assert named_videos(shards) == {"train-0/k"}
    assert (find("train-0/k"), find("train-1/k")) == (clips / "train-0.tar", None)
    (clips / "train-0.tar").unlink()
    assert find("train-0/k") is None
