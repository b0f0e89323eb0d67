"""Blocks: texts are scored with the videos of their own video's block, and blocks stay what they are."""

from typing import Any

import numpy as np
import pytest
from teachclip.cache.frames.cache import FrameCache
from teachclip.cache.scores.reading.reader import ScoreReader
from teachclip.cache.scores.store import ScoreCache, ScoreStore
from teachclip.cache.storage.identity import text_digest
from teachclip.configs.schema import Config, ScoreConfig
from teachclip.errors import CacheError
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.data.usable_split import UsableSplit, usable_split
from teachclip.stages.score import tile_plan
from teachclip.stages.score.estimate import estimate_scores
from teachclip.stages.score.stage import score

BLOCKS = {"layout": "blocks", "block_videos": 5}


def cache_of(config: Config, name: str = "fake") -> ScoreCache:
    return ScoreStore.open(config.score_store).teacher(name)


def reader_of(config: Config, name: str = "fake") -> tuple[UsableSplit, ScoreReader]:
    frames = FrameCache.open(config.frames_folder)
    split = usable_split(read_dataset(config.data), ["train"], frames)
    texts = [(text.id, text_digest(text.caption)) for text in split.texts]
    return split, cache_of(config, name).reader(texts, [(video, frames.digest(video)) for video in split.videos])


def blocks_of(config: Config, name: str = "fake") -> list[set[str]]:
    """Videos of each group of texts."""
    split, reader = reader_of(config, name)
    assert reader.groups is not None
    own = np.array(split.videos)[split.text_video]
    return [set(own[reader.groups == group]) for group in np.unique(reader.groups)]


def test_pairs_within_blocks_have_the_scores_of_a_dense_store(process: Any, new_world: Any, fake_teacher: Any) -> None:
    root = new_world()
    config, dense = process.config_of(root, **BLOCKS), process.config_of(root, store="dense.zarr")
    (scores,) = score(config).teachers
    tiles = cache_of(config).tiles
    assert sorted(tile.spec.videos for tile in tiles) == [4, 4, 4, 5]
    assert all((tile.text_video >= 0).all() for tile in tiles)
    assert scores.layout == "blocks"
    assert scores.new_pairs == fake_teacher.pairs_scored == sum(t.spec.texts * t.spec.videos for t in tiles)
    assert scores.new_pairs < 38 * 17 / 3
    score(dense)
    (split, ours), (_, theirs) = reader_of(config), reader_of(dense)
    assert theirs.groups is None
    np.testing.assert_allclose(ours.frame_logits, theirs.frame_logits, rtol=0, atol=5e-6)
    for group in np.unique(ours.groups):
        texts = np.flatnonzero(ours.groups == group)
        videos = split.text_video[texts]
        np.testing.assert_allclose(
            ours.read(texts, videos).coarse, theirs.read(texts, videos).coarse, rtol=0, atol=4e-5
        )
    first, other = (np.flatnonzero(ours.groups == group)[0] for group in np.unique(ours.groups)[:2])
    with pytest.raises(CacheError, match="pairs of this batch have no score") as caught:
        ours.read(np.array([first, other]), split.text_video[[first, other]])
    assert "groups" in (caught.value.hint or "")


def test_what_is_estimated_is_what_is_made(process: Any, new_world: Any, fake_teacher: Any) -> None:
    root = new_world()
    for settings in (BLOCKS, {"layout": "dense"}):
        config = process.config_of(root, **settings, store=f"{settings['layout']}.zarr")
        (before,) = estimate_scores(config).teachers
        (scores,) = score(config).teachers
        (after,) = estimate_scores(config).teachers
        assert (before.layout, before.pairs_left, before.shards_left) == (
            scores.layout,
            scores.new_pairs,
            scores.shards_now,
        )
        assert (after.pairs, after.pairs_left, after.bytes) == (before.pairs, 0, before.bytes)
        files = [path for path in cache_of(config).folder.joinpath("tiles").rglob("*") if path.is_file()]
        assert before.bytes == sum(path.stat().st_size for path in files if path.parent.name != "tiles")
    process.grow(root, 18, [(17, "new")])
    assert estimate_scores(config).teachers[0].pairs_left == 39 * 18 - 38 * 17


def test_the_budget_chooses_and_blocks_stay_blocks(process: Any, new_world: Any, fake_teacher: Any) -> None:
    root = new_world()
    dense = estimate_scores(process.config_of(root)).teachers[0].bytes
    settings = {"block_videos": 5, "store": "auto.zarr"}
    assert score(process.config_of(root, **settings, budget=dense - 1)).teachers[0].layout == "blocks"
    assert score(process.config_of(root, **settings, budget=dense)).teachers[0].layout == "blocks"
    assert score(process.config_of(root, budget=dense)).teachers[0].layout == "dense"


def test_blocks_stay_when_the_data_set_grows(process: Any, new_world: Any, fake_teacher: Any) -> None:
    root = new_world()
    config = process.config_of(root, **BLOCKS)
    score(config)
    before = blocks_of(config)
    process.grow(root, 23, [*((k, "new") for k in range(17, 23)), (5, "in other words"), (5, "in a word")])
    fake_teacher.videos_encoded = fake_teacher.pairs_scored = 0
    (scores,) = score(config).teachers
    after = blocks_of(config)
    fifth = next(block for block in before if "v005.mp4" in block)
    assert all(block in after for block in before)
    new = [len(block) for block in after if block not in before]
    assert new == [3, 3], "six new videos in two blocks of at most five"
    assert scores.new_pairs == fake_teacher.pairs_scored == 3 * 3 * 2 + 2 * len(fifth)
    assert fake_teacher.videos_encoded == 6
    assert score(config).teachers[0].shards_now == 0


def test_blocks_made_halfway_go_on_as_they_would_have(
    process: Any, new_world: Any, fake_teacher: Any, score_two_tiles: Any
) -> None:
    root = new_world()
    for block_videos in (2, 3, 5, 7):
        whole = process.config_of(root, layout="blocks", block_videos=block_videos, store=f"whole-{block_videos}.zarr")
        score(whole)
        names = [tile.name for tile in cache_of(whole).tiles]
        cut = process.config_of(root, layout="blocks", block_videos=block_videos, store=f"cut-{block_videos}.zarr")
        score_two_tiles(cut)
        assert len(cache_of(cut).tiles) == 2
        score(cut)
        assert [tile.name for tile in cache_of(cut).tiles] == names


def test_another_teacher_takes_the_blocks_that_are_there(process: Any, new_world: Any, fake_teacher: Any) -> None:
    root = new_world()
    config = process.config_of(root, **BLOCKS)
    score(config)
    process.grow(root, 20, [(17, "new"), (18, "new"), (19, "new")])
    score(config)
    both = [{"name": name, "checkpoint": "teacher.txt"} for name in ("fake", "later")]
    score(process.config_of(root, **BLOCKS, teachers=both))
    assert sorted(map(sorted, blocks_of(config, "later"))) == sorted(map(sorted, blocks_of(config)))


def test_a_blocks_store_becomes_dense_when_that_is_asked_for(process: Any, new_world: Any, fake_teacher: Any) -> None:
    root = new_world()
    score(process.config_of(root, **BLOCKS))
    fake_teacher.pairs_scored = fake_teacher.videos_encoded = 0
    config = process.config_of(root, layout="dense")
    (scores,) = score(config).teachers
    tiles = cache_of(config).tiles
    assert sum(tile.spec.texts * tile.spec.videos for tile in tiles) == 38 * 17, "no pair twice"
    assert fake_teacher.pairs_scored == scores.new_pairs
    assert fake_teacher.videos_encoded == 0
    assert reader_of(config)[1].groups is None


def test_a_dense_store_grows_by_blocks_when_dense_is_too_much(process: Any, new_world: Any, fake_teacher: Any) -> None:
    root = new_world(scored=True)
    process.grow(root, 23, [*((k, "new") for k in range(17, 23)), (5, "in other words")])
    config = process.config_of(root, budget=1, block_videos=5)
    (scores,) = score(config).teachers
    assert scores.new_pairs == 2 * 3 * 3 + 17
    assert sorted(map(len, blocks_of(config))) == [3, 3, 17]


def test_blocks_are_cut_by_hashes_of_ids_alone() -> None:
    ids = [f"v{k}" for k in range(50)]
    own = np.arange(50)
    plan = tile_plan.plan_tiles(None, ids, ids, own, "blocks", 16)
    order = np.random.default_rng(1).permutation(50)
    shuffled = [ids[k] for k in order]
    other = tile_plan.plan_tiles(None, shuffled, shuffled, own, "blocks", 16)
    assert {frozenset(ids[k] for k in tile.videos) for tile in plan.tiles} == {
        frozenset(shuffled[k] for k in tile.videos) for tile in other.tiles
    }
    assert [len(tile.videos) for tile in plan.tiles] == [13, 13, 12, 12]


@pytest.mark.parametrize("videos", [50_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_very_many_videos_are_planned_by_counts_alone(videos: int) -> None:
    """Every video lies in one block with all of its captions, and pairs grow with the videos, not with their square."""
    settings, captions = ScoreConfig(), 2
    ids = [f"v{k}" for k in range(videos)]
    texts = [f"{key}#{k}" for key in ids for k in range(captions)]
    own = np.repeat(np.arange(videos), captions)
    dense = tile_plan.tile_layout(settings, texts, ids, 12, True)
    assert tile_plan.choose_layout(settings, None, dense) == ("blocks" if videos == 1_000_000 else "dense")
    plan = tile_plan.plan_tiles(None, texts, ids, own, "blocks", settings.block_videos)
    sizes = [len(tile.videos) for tile in plan.tiles]
    assert len(sizes) == -(-videos // settings.block_videos)
    assert max(sizes) - min(sizes) <= 1
    assert np.array_equal(np.sort(np.concatenate([tile.videos for tile in plan.tiles])), np.arange(videos))
    assert all(np.array_equal(np.unique(own[tile.texts]), tile.videos) for tile in plan.tiles)
    assert sum(len(tile.texts) for tile in plan.tiles) == len(texts)
    assert plan.pairs <= len(texts) * settings.block_videos
