"""Training videos without captions: every caption is scored with them, in a store of its own or an extended one."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.frames.cache import FrameCache, FrameFolder
from teachclip.cache.frames.record import FileStamp, VideoRecord, VideoStatus
from teachclip.cache.scores.reading.reader import ScoreReader
from teachclip.cache.scores.store import ScoreCache, ScoreStore
from teachclip.cache.scores.upkeep.check import Check
from teachclip.cache.storage.identity import text_digest
from teachclip.configs.schema import Config
from teachclip.errors import CacheMismatchError
from teachclip.remedies import Score
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.data.usable_split import UsableSplit
from teachclip.stages.labels.scored_split import scored_split
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.score.estimate import estimate_scores
from teachclip.stages.score.rescore import choose_sample
from teachclip.stages.score.stage import score

BLOCKS = {"layout": "blocks", "block_videos": 5}
CAPTIONED, FURTHER = 17, 9


class Heard(Silent):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def info(self, message: str) -> None:
        self.messages.append(message)


def further(process: Any, root: Path, count: int, start: int = CAPTIONED) -> None:
    """Videos without captions, numbered from `start`; and a copy of the frames of the video 3."""
    names = [*(f"v{k:03d}.mp4" for k in range(start, start + count))]
    with (root / "captions.csv").open("a", newline="") as file:
        csv.writer(file).writerows((name, "", "train") for name in [*names, *(["copy.mp4"] * (start == CAPTIONED))])
    config = process.config_of(root)
    identity = FrameCache.open(config.frames_folder).identity
    folder = FrameFolder.claim(config.frames_folder, identity)
    records = [(f"v{k:03d}.mp4", k) for k in range(start, start + count)]
    records += [("copy.mp4", 3)] * (start == CAPTIONED)
    made = []
    for name, k in records:
        frames = 1 + k % process.FRAMES
        images = [np.full((3, process.SIZE, process.SIZE), k, np.uint8) for _ in range(frames)]
        status = VideoStatus(name, "ok", frames=frames, duration=float(frames))
        made.append(VideoRecord.of(status, images, list(np.arange(float(frames))), FileStamp(1, 1)))
    folder.write(len(folder.shards), made)
    folder.complete()


def config_of(process: Any, root: Path, uncaptioned: str = "train", **settings: Any) -> Config:
    config = process.config_of(root, **settings)
    return config.model_copy(update={"data": config.data.model_copy(update={"uncaptioned": uncaptioned})})


def cache_of(config: Config, name: str = "fake") -> ScoreCache:
    return ScoreStore.open(config.score_store).teacher(name)


def reader_of(config: Config, name: str = "fake") -> tuple[UsableSplit, ScoreReader]:
    frames = FrameCache.open(config.frames_folder)
    split, _ = scored_split(config, read_dataset(config.data), frames)
    texts = [(text.id, text_digest(text.caption)) for text in split.texts]
    return split, cache_of(config, name).reader(texts, [(video, frames.digest(video)) for video in split.videos])


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def root(process: Any, new_world: Any, fake_teacher: Any) -> Path:
    made: Path = new_world()
    further(process, made, FURTHER)
    return made


def test_every_caption_is_scored_with_them(process: Any, root: Path, fake_teacher: Any) -> None:
    config, heard = config_of(process, root), Heard()
    (expected,) = estimate_scores(config).teachers
    result = score(config, heard)
    (scores,) = result.teachers
    assert heard.messages[1] == "9 videos without captions; left out: 1 with the frames of a captioned video"
    assert (scores.texts, scores.videos, result.unlabelled) == (38, CAPTIONED + FURTHER, FURTHER)
    assert scores.new_pairs == expected.pairs == fake_teacher.pairs_scored == 38 * (CAPTIONED + FURTHER)
    assert (expected.texts, expected.videos) == (38, CAPTIONED + FURTHER)
    split, reader = reader_of(config)
    assert reader.groups is None
    assert reader.scored_with(0).tolist() == list(range(CAPTIONED + FURTHER))
    found = reader.read(np.arange(38), np.arange(CAPTIONED + FURTHER)).coarse
    assert found.shape == (38, CAPTIONED + FURTHER)
    assert split.videos[CAPTIONED:] == tuple(f"v{k:03d}.mp4" for k in range(CAPTIONED, CAPTIONED + FURTHER))
    assert Check(config.score_store, "fake", full=True).run().damage == ()


def test_scores_that_are_there_stay_and_the_others_are_added(process: Any, root: Path, fake_teacher: Any) -> None:
    told = process.config_of(root)
    rows = (root / "captions.csv").read_text()
    (root / "captions.csv").write_text("".join(line for line in rows.splitlines(True) if ",," not in line))
    score(told)
    before, identity = bytes_of(told.score_store), cache_of(told).identity
    (root / "captions.csv").write_text(rows)
    config = config_of(process, root)
    assert estimate_scores(config).teachers[0].pairs_left == 38 * FURTHER
    fake_teacher.videos_encoded = fake_teacher.pairs_scored = 0
    (scores,) = score(config).teachers
    assert (scores.new_pairs, fake_teacher.pairs_scored) == (38 * FURTHER, 38 * FURTHER)
    assert fake_teacher.videos_encoded == FURTHER
    after = bytes_of(config.score_store)
    assert {name: after[name] for name in before} == before
    assert cache_of(config).identity == identity
    fresh = config_of(process, root, store="fresh.zarr")
    score(fresh)
    (_, ours), (_, theirs) = reader_of(config), reader_of(fresh)
    every = np.arange(38), np.arange(CAPTIONED + FURTHER)
    np.testing.assert_allclose(ours.read(*every).coarse, theirs.read(*every).coarse, rtol=0, atol=4e-5)
    assert ours.groups is None


def test_videos_that_were_not_scored_are_named(process: Any, root: Path) -> None:
    config = config_of(process, root)
    score(config)
    further(process, root, 2, CAPTIONED + FURTHER)
    with pytest.raises(CacheMismatchError, match="2 videos have no scores") as caught:
        reader_of(config)
    assert isinstance(caught.value.hint.action, Score)  # type: ignore[union-attr]


def test_without_the_training_split_they_are_not_scored(process: Any, root: Path) -> None:
    rows = (root / "captions.csv").read_text().splitlines()
    rows = [row.replace(",train", ",test") if row.startswith("v000") else row for row in rows]
    (root / "captions.csv").write_text("\n".join(rows))
    result = score(config_of(process, root, splits=("test",)))
    assert (result.teachers[0].videos, result.unlabelled) == (1, 0)
    both = config_of(process, root, splits=("train", "test"))
    assert score(both).teachers[0].videos == CAPTIONED + FURTHER


def dealt(config: Config, name: str = "fake") -> dict[frozenset[str], set[str]]:
    """The videos without captions of each block, by its videos with captions."""
    split, reader = reader_of(config, name)
    assert reader.groups is not None
    found = {}
    for group in np.unique(reader.groups):
        texts = np.flatnonzero(reader.groups == group)
        videos = reader.scored_with(int(texts[0]))
        assert set(split.text_video[texts]) <= set(videos)
        assert not np.isnan(reader.read(texts, videos).coarse).any()
        own = frozenset(split.videos[k] for k in videos if k < CAPTIONED)
        found[own] = {split.videos[k] for k in videos if k >= CAPTIONED}
    return found


def test_blocks_share_them(process: Any, root: Path, fake_teacher: Any) -> None:
    config = config_of(process, root, **BLOCKS)
    (expected,) = estimate_scores(config).teachers
    (scores,) = score(config).teachers
    assert expected.pairs == scores.new_pairs == fake_teacher.pairs_scored
    found = dealt(config)
    assert sorted(map(len, found)) == [4, 4, 4, 5]
    assert sorted(map(len, found.values())) == [2, 2, 2, 3]
    assert set().union(*found.values()) == {f"v{k:03d}.mp4" for k in range(CAPTIONED, CAPTIONED + FURTHER)}
    assert score(config).teachers[0].shards_now == 0
    later = [{"name": name, "checkpoint": "teacher.txt"} for name in ("fake", "later")]
    score(config_of(process, root, **BLOCKS, teachers=later))
    assert dealt(config, "later") == found


def test_blocks_that_are_there_get_them(process: Any, root: Path, fake_teacher: Any) -> None:
    rows = (root / "captions.csv").read_text()
    (root / "captions.csv").write_text("".join(line for line in rows.splitlines(True) if ",," not in line))
    score(process.config_of(root, **BLOCKS))
    (root / "captions.csv").write_text(rows)
    config = config_of(process, root, **BLOCKS)
    tiles = {tile.name for tile in cache_of(config).tiles}
    score(config)
    assert tiles < {tile.name for tile in cache_of(config).tiles}
    first = dealt(config)
    assert sorted(map(len, first)) == [4, 4, 4, 5]
    assert sorted(map(len, first.values())) == [2, 2, 2, 3]
    further(process, root, 7, CAPTIONED + FURTHER)
    score(config)
    second = dealt(config)
    assert {key: len(more) for key, more in second.items()} == dict.fromkeys(second, 4)
    assert all(first[key] < second[key] for key in first)
    pairs = sum(tile.spec.texts * tile.spec.videos for tile in cache_of(config).tiles)
    (again,) = estimate_scores(config).teachers
    assert (again.pairs, again.pairs_left) == (pairs, 0)
    later = [{"name": name, "checkpoint": "teacher.txt"} for name in ("fake", "later")]
    score(config_of(process, root, **BLOCKS, teachers=later))
    assert dealt(config, "later") == second


def test_blocks_made_halfway_get_those_that_they_would_have_got(process: Any, root: Path, score_two_tiles: Any) -> None:
    for block_videos in (2, 3, 5, 7):
        whole, cut = (
            config_of(process, root, layout="blocks", block_videos=block_videos, store=f"{name}-{block_videos}.zarr")
            for name in ("whole", "cut")
        )
        score(whole)
        score_two_tiles(cut)
        score(cut)
        assert [tile.name for tile in cache_of(cut).tiles] == [tile.name for tile in cache_of(whole).tiles]


def test_a_sample_holds_some_of_them(process: Any, root: Path) -> None:
    for settings in ({}, BLOCKS):
        config = config_of(process, root, **settings, store=f"{len(settings)}.zarr")
        score(config)
        split, reader = reader_of(config)
        texts, videos = choose_sample(split, reader.groups, 100, 0, reader.scored_with)
        assert videos.tolist() == reader.scored_with(int(texts[0])).tolist()
        assert videos.max() >= CAPTIONED
