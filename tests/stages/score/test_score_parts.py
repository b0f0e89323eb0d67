"""Several machines: each makes its part of the shards, in one store or in stores that are brought together."""

from pathlib import Path
from typing import Any

import pytest
from teachclip.cache.scores.exchange.merging import Merge
from teachclip.cache.scores.store import ScoreStore
from teachclip.errors import CacheError, ConfigError
from teachclip.remedies import Score
from teachclip.stages.runtime.launch import Launch
from teachclip.stages.score.stage import score
from teachclip.stages.score.worker_part import WorkerPart

from .conftest import tree


def test_parts_in_one_store_make_the_whole(process: Any, new_world: Any, fake_teacher: Any, finished: Path) -> None:
    root = new_world()
    config = process.config_of(root)
    made = [score(config, part=WorkerPart(index, 3)) for index in (2, 0, 1)]
    assert [result.part for result in made] == ["2/3", "0/3", "1/3"]
    assert [result.teachers[0].shards_now for result in made] == [1, 2, 2]
    assert [result.teachers[0].shards_left for result in made] == [4, 2, 0]
    assert fake_teacher.videos_encoded == 17 + 1, "once for all, and one to ask for frame scores"
    assert tree(config.score_store) == tree(finished / "work/scores.zarr")
    again = score(config, part=WorkerPart(0, 3)).teachers[0]
    assert (again.shards_now, again.shards_left) == (0, 0)


def test_what_a_part_leaves_is_told_when_it_is_missed(process: Any, new_world: Any, fake_teacher: Any) -> None:
    root = new_world()
    config = process.config_of(root)
    score(config, part=WorkerPart(1, 2))
    cache = ScoreStore.open(config.score_store).teacher("fake")
    tile = cache.tiles[0]
    texts = [(key, bytes(row)) for key, row in zip(tile.text_ids, tile.text_digests, strict=True)]
    videos = [(key, bytes(row)) for key, row in zip(tile.video_ids, tile.video_digests, strict=True)]
    with pytest.raises(CacheError, match="shard 0 is not complete") as caught:
        cache.reader(texts, videos)
    assert caught.value.hint.action == Score()


def test_parts_made_apart_are_merged(process: Any, new_world: Any, fake_teacher: Any, finished: Path) -> None:
    root = new_world()
    stores = []
    for index in range(2):
        config = process.config_of(root, store=f"machine-{index}.zarr")
        score(config, part=WorkerPart(index, 2))
        stores.append(config.score_store)
    (merged,) = Merge(stores[0], stores[1:]).run()
    assert (merged.taken, merged.absent, merged.unlike, merged.refused) == (2, 0, (), ())
    assert tree(stores[0] / "fake/tiles") == tree(finished / "work/scores.zarr/fake/tiles")


def test_processes_that_torchrun_started_together_share_the_shards(
    process: Any, new_world: Any, fake_teacher: Any, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = process.config_of(new_world())
    made = []
    for rank in (1, 0):
        place = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}
        for name, value in place.items():
            monkeypatch.setenv(name, str(value))
        made.append(score(config).teachers[0])
    assert [each.shards_left == 0 for each in made] == [False, True]
    assert all(each.shards_now for each in made)
    assert tree(config.score_store) == tree(finished / "work/scores.zarr")


@pytest.mark.parametrize(("part", "rank", "expected"), [("0/1", 2, "2/4"), ("1/3", 0, "1/12"), ("2/3", 3, "11/12")])
def test_a_part_is_shared_by_processes_that_start_together(part: str, rank: int, expected: str) -> None:
    """Whether one process makes part 1/3 or four, the shards are the same: other parts may count on it."""
    assert str(WorkerPart.parse(part).of_process(Launch(rank, 4, rank))) == expected
    assert WorkerPart.parse(part).of_process(Launch()) == WorkerPart.parse(part)


def test_an_extension_in_parts(process: Any, new_world: Any, fake_teacher: Any) -> None:
    root = new_world(scored=True)
    config = process.config_of(root)
    process.grow(root, 20, [(17, "new"), (18, "new"), (19, "new")])
    made = [score(config, part=WorkerPart(index, 2)).teachers[0] for index in range(2)]
    assert all(each.shards_now for each in made)
    assert [each.new_pairs > 0 for each in made] == [True, False]
    assert made[1].shards_left == 0
    assert fake_teacher.videos_encoded == 3
    assert ScoreStore.open(config.score_store).teacher("fake").complete


def test_which_units_a_part_has() -> None:
    assert [unit for unit in range(8) if WorkerPart(1, 3).has(unit)] == [1, 4, 7]
    assert WorkerPart(1, 3).first(range(8)) == [1, 4, 7, 2, 5, 0, 3, 6]
    assert WorkerPart.parse("7/8") == WorkerPart(7, 8)


@pytest.mark.parametrize("text", ["8/8", "1", "-1/2", "1/0", "a/b", "1/2/3", ""])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not one of 0/n to n-1/n"):
        WorkerPart.parse(text)
