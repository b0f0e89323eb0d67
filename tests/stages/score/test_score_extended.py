"""A data set that has grown: only what is new is scored, into further tiles, and nothing that is there changes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.scores.reading.labels import Labels
from teachclip.cache.scores.store import ScoreCache, ScoreStore
from teachclip.cache.storage.identity import text_digest
from teachclip.configs.schema import Config
from teachclip.errors import CacheMismatchError
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.data.usable_split import usable_split
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.score.stage import score

from .conftest import tree

MORE = ((17, "new"), (18, "new"), (19, "new"), (19, "new too"), (5, "in other words"))


class Heard(Silent):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def info(self, message: str) -> None:
        self.messages.append(message)


def cache_of(config: Config) -> ScoreCache:
    return ScoreStore.open(config.score_store).teacher("fake")


def all_labels(config: Config) -> tuple[list[str], Labels]:
    """Scores of everything that the configuration asks for."""
    from teachclip.cache.frames.cache import FrameCache

    frames = FrameCache.open(config.frames_folder)
    split = usable_split(read_dataset(config.data), ["train"], frames)
    reader = cache_of(config).reader(
        [(text.id, text_digest(text.caption)) for text in split.texts],
        [(video, frames.digest(video)) for video in split.videos],
    )
    assert reader.groups is None
    found = reader.read(np.arange(len(split.texts)), np.arange(len(split.videos)))
    return [text.id for text in split.texts], found


def compare(config: Config, fresh: Config, atol: float) -> None:
    """The scores of a store that was extended are those of one that was made at once."""
    score(fresh)
    (texts, ours), (same, theirs) = all_labels(config), all_labels(fresh)
    assert texts == same
    np.testing.assert_allclose(ours.coarse, theirs.coarse, rtol=0, atol=atol)
    np.testing.assert_allclose(ours.frame_logits, theirs.frame_logits, rtol=0, atol=5e-6)


# 5e-6 is what other blocks move a score by at most; a code's step is a 65534th of a row's range, which is below 2.
@pytest.mark.parametrize(("dtype", "atol"), [("float32", 5e-6), ("uint16", 4e-5)])
def test_only_what_is_new_is_scored(process: Any, new_world: Any, fake_teacher: Any, dtype: str, atol: float) -> None:
    root = new_world()
    config = process.config_of(root, coarse=dtype)
    (first,) = score(config).teachers
    assert first.new_pairs == 38 * 17
    before = tree(config.score_store)
    process.grow(root, 20, MORE)
    fake_teacher.videos_encoded = fake_teacher.pairs_scored = 0
    heard = Heard()
    (scores,) = score(config, heard).teachers
    assert "fake: 5 captions and 3 videos are new; 214 pairs in 2 tiles are added, nothing that is there changes" in (
        heard.messages
    )
    new = 43 * 20 - 38 * 17
    assert (scores.texts, scores.videos, scores.new_pairs, scores.layout) == (43, 20, new, "dense")
    assert (fake_teacher.pairs_scored, fake_teacher.videos_encoded) == (new, 3)
    assert before.items() <= tree(config.score_store).items()
    tiles = {tile.name.split("-")[0]: tile for tile in cache_of(config).tiles}
    assert sorted((tile.spec.texts, tile.spec.videos) for tile in cache_of(config).tiles) == [
        (5, 20),
        (38, 3),
        (38, 17),
    ]
    assert tiles["dense"].spec.texts == 38
    compare(config, process.config_of(root, coarse=dtype, store="fresh.zarr"), atol)


def test_several_extensions_in_a_row(process: Any, new_world: Any, fake_teacher: Any) -> None:
    root = new_world(scored=True)
    config = process.config_of(root)
    for videos, captions in ((17, MORE[4:]), (18, MORE[:1]), (20, MORE[1:4]), (21, [(20, "last"), (0, "again")])):
        process.grow(root, videos, captions)
        fake_teacher.videos_encoded = fake_teacher.pairs_scored = 0
        scores = score(config).teachers[0]
        assert fake_teacher.pairs_scored == scores.new_pairs
        assert score(config).teachers[0].shards_now == 0
    held = sum(tile.spec.texts * tile.spec.videos for tile in cache_of(config).tiles)
    assert held == scores.texts * scores.videos == 45 * 21, "no pair twice"
    assert len(cache_of(config).tiles) == 1 + 1 + 2 + 2 + 2
    compare(config, process.config_of(root, store="fresh.zarr"), 4e-5)


def test_new_videos_between_old_ones_are_encoded_alone(process: Any, new_world: Any, fake_teacher: Any) -> None:
    root = new_world(scored=True)
    process.grow(root, 20, MORE)
    header, *lines = (root / "captions.csv").read_text().splitlines()
    (root / "captions.csv").write_text("\n".join([header, *lines[-5:-1], *lines[:-5], lines[-1]]))
    score(process.config_of(root))
    assert fake_teacher.videos_encoded == 3
    score(process.config_of(root))
    assert fake_teacher.videos_encoded == 3


def test_a_changed_caption_is_refused_beside_new_ones(process: Any, new_world: Any, fake_teacher: Any) -> None:
    root = new_world(scored=True)
    process.grow(root, 20, MORE)
    captions = (root / "captions.csv").read_text()
    (root / "captions.csv").write_text(captions.replace("number 3 in round 1", "number 3 in Round 1"))
    before = tree(root / "work/scores.zarr")
    with pytest.raises(CacheMismatchError, match="captions changed") as caught:
        score(process.config_of(root))
    assert caught.value.details == ("v003.mp4#1",)
    assert tree(root / "work/scores.zarr") == before


def test_captions_exported_again_in_another_order_keep_their_scores(
    process: Any, new_world: Any, fake_teacher: Any
) -> None:
    root = new_world(scored=True)
    header, *lines = (root / "captions.csv").read_text().splitlines()
    before = tree(root / "work/scores.zarr")
    for kept in (lines[::-1], [line for line in lines if line != lines[0]]):  # a removed one costs only itself
        (root / "captions.csv").write_text("\n".join([header, *kept]))
        score(process.config_of(root))
        assert tree(root / "work/scores.zarr") == before
    new = lines[0].replace("number", "NUMBER")
    assert new != lines[0]
    (root / "captions.csv").write_text("\n".join([header, *lines[:0:-1], new]))
    score(process.config_of(root))
    after = tree(root / "work/scores.zarr")
    assert before.items() <= after.items()
    score(process.config_of(root))
    assert tree(root / "work/scores.zarr") == after


def test_what_is_gone_stays_and_what_is_new_is_added(process: Any, new_world: Any, fake_teacher: Any) -> None:
    root = new_world(scored=True)
    process.grow(root, 18, [(17, "new")])
    lines = [line for line in (root / "captions.csv").read_text().splitlines() if not line.startswith("v004")]
    (root / "captions.csv").write_text("\n".join(lines))
    heard = Heard()
    config = process.config_of(root)
    (scores,) = score(config, heard).teachers
    assert "fake: 2 captions and 1 video of the store are not asked for now; their scores stay" in heard.messages
    assert scores.new_pairs == 36 * 1 + 17
    compare(config, process.config_of(root, store="fresh.zarr"), 4e-5)


@pytest.fixture(scope="module")
def extended(process: Any, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished new_world, grown and scored without interruption."""
    root = tmp_path_factory.mktemp("extended") / "world"
    shutil.copytree(finished, root)
    process.grow(root, 20, MORE)
    before, process.one_teacher.load_teacher = process.one_teacher.load_teacher, process.load_fake
    try:
        score(process.config_of(root))
    finally:
        process.one_teacher.load_teacher = before
    return root


@pytest.mark.parametrize(("kills", "workers", "changes"), [(8, 1, 150), (4, 2, 0), (0, 2, 0)])
def test_an_extension_killed_or_raced_equals_the_uninterrupted_one(
    process: Any,
    scored_by_processes: Callable[..., tuple[int, int]],
    new_world: Callable[..., Path],
    extended: Path,
    kills: int,
    workers: int,
    changes: int,
) -> None:
    """Killed at random changes to the disk, where a kill costs three scored shards at most, or at random moments."""
    root = new_world(scored=True)
    process.grow(root, 20, MORE)
    killed, redone = scored_by_processes(root, kills, 7, workers, changes)
    assert killed >= (2 if changes else 0)
    shards = sum(tile.spec.shards for tile in cache_of(process.config_of(root)).tiles)
    assert redone <= 3 * killed + shards * (workers - 1)  # each worker may make one that the other makes, too
    assert tree(root / "work/scores.zarr") == tree(extended / "work/scores.zarr")
