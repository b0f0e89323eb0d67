"""Stage one: what it stores, what it makes again, what it refuses."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from teachclip.cache.scores import shard as score_shards
from teachclip.cache.scores.reading.tile_rows import TileRows
from teachclip.cache.scores.shard import marker_path, missing_shards
from teachclip.cache.scores.store import ScoreCache, ScoreStore
from teachclip.cache.storage import untrusted
from teachclip.cache.storage.identity import text_digest
from teachclip.errors import CacheError, CacheMismatchError, CheckpointError, ConfigError, DataError
from teachclip.remedies import Change, Score
from teachclip.stages.score import scorer
from teachclip.stages.score.stage import score

from .conftest import tree


def cache_of(root: Path) -> ScoreCache:
    return ScoreStore.open(root / "work/scores.zarr").teacher("fake")


def test_the_store_holds_the_teachers_scores(process, new_world, fake_teacher) -> None:
    root = new_world()
    result = score(process.config_of(root, coarse="float32"))
    (scores,) = result.teachers
    assert (scores.texts, scores.videos, scores.shards, scores.shards_before, scores.shards_now) == (38, 17, 5, 0, 5)
    assert result.left_out_videos == 1

    cache = cache_of(root)
    assert (cache.scale, cache.frames, cache.frame_logits, cache.dtype) == (50.0, 3, True, "float32")
    assert cache.identity == {
        "weights": fake_teacher(root / "work/teacher.txt").weights_digest,
        "score_version": 1,
        "words": 8,
        "frames": 3,
        "prepare.sample_fps": 1,
        "prepare.choice": "uniform",
        "prepare.max_frames": 3,
        "prepare.image_size": 2,
        "prepare.storage": "raw",
    }
    (tile,) = cache.tiles
    np.testing.assert_array_equal(tile.frame_times[4], [0, 1, np.nan])
    teacher = fake_teacher(root / "work/teacher.txt")
    numbers = [int(video[1:4]) for video in tile.video_ids]
    videos = {"vector": teacher._vectors(numbers, 1)}
    texts = {"vector": teacher._vectors([numbers[k] for k in tile.text_video], 2)}
    keys = [(key, bytes(d)) for key, d in zip(tile.text_ids, tile.text_digests, strict=True)]
    video_keys = [(key, bytes(d)) for key, d in zip(tile.video_ids, tile.video_digests, strict=True)]
    labels = cache.reader(keys, video_keys).read(np.arange(38), np.arange(17))
    expected = texts["vector"] @ videos["vector"].T
    np.testing.assert_allclose(labels.coarse, expected, rtol=0, atol=1e-6)
    own = {"vector": videos["vector"][torch.tensor(tile.text_video)]}
    np.testing.assert_allclose(labels.frame_logits, teacher.frame_logits(texts, own), rtol=0, atol=1e-6)
    assert dict(keys)["v000.mp4#0"] == text_digest("number 0 in round 0")


def test_a_finished_store_is_left_alone_and_needs_no_teacher(process, new_world, monkeypatch) -> None:
    root = new_world(scored=True)
    before = {path: path.stat().st_mtime_ns for path in (root / "work/scores.zarr").rglob("*")}
    monkeypatch.setattr(process.one_teacher, "load_teacher", lambda *_: pytest.fail("the teacher was loaded"))
    (scores,) = score(process.config_of(root)).teachers
    assert (scores.shards_before, scores.shards_now) == (5, 0)
    assert scores.own_ranks is not None
    assert before == {path: path.stat().st_mtime_ns for path in (root / "work/scores.zarr").rglob("*")}


def test_only_missing_shards_are_made_and_no_video_is_encoded_again(process, new_world, fake_teacher) -> None:
    root = new_world(scored=True)
    before = tree(root)
    (tile,) = cache_of(root).tiles
    marker_path(tile, 1).unlink()
    (tile.folder / "coarse/c.3.0").write_bytes(b"")
    (tile.folder / "fine/.tmp-of-a-killed-run").write_bytes(b"x")
    (scores,) = score(process.config_of(root)).teachers
    assert (scores.shards_before, scores.shards_now) == (3, 2)
    assert fake_teacher.videos_encoded == 0
    assert tree(root) == before
    assert not list(tile.folder.rglob(".tmp-*"))


def test_what_killed_runs_left_is_removed_when_it_is_old(process, new_world, fake_teacher) -> None:
    root = new_world(scored=True)
    old, young = root / "work/scores.zarr/.tmp-1-fake", root / "work/scores.zarr/fake/videos/.tmp-2-x"
    (old / "tiles").mkdir(parents=True)
    young.write_bytes(b"x")
    os.utime(old, (1e9, 1e9))
    score(process.config_of(root))
    assert not old.exists()
    assert young.exists()


def test_the_order_of_shards_does_not_matter(process, new_world, fake_teacher, finished, monkeypatch) -> None:
    root = new_world()
    monkeypatch.setattr(process.one_teacher, "missing_shards", lambda tile: missing_shards(tile)[::-1])
    score(process.config_of(root))
    assert tree(root / "work/scores.zarr") == tree(finished / "work/scores.zarr")


def test_a_longer_batch_gives_the_same_scores_to_rounding(process, new_world, fake_teacher, finished) -> None:
    root = new_world()
    score(process.config_of(root, text_batch=64, video_batch=64, shard_texts=1024))
    ours, theirs = cache_of(root), cache_of(finished)
    assert ours.identity == theirs.identity
    keys = [
        [(key, bytes(d)) for key, d in zip(ids, digests, strict=True)]
        for ids, digests in (
            (theirs.tiles[0].text_ids, theirs.tiles[0].text_digests),
            (theirs.tiles[0].video_ids, theirs.tiles[0].video_digests),
        )
    ]
    index = np.arange(38), np.arange(17)
    np.testing.assert_allclose(
        ours.reader(*keys).read(*index).coarse, theirs.reader(*keys).read(*index).coarse, rtol=0, atol=3e-5
    )


def test_blocks_of_videos_are_put_together_in_order(process, new_world, fake_teacher, finished, monkeypatch) -> None:
    root = new_world()
    monkeypatch.setattr(scorer, "SCORED_AT_ONCE", 5)
    score(process.config_of(root))
    ours, theirs = (TileRows(cache_of(where).tiles[0]).scores(np.arange(38)) for where in (root, finished))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-5)


def test_what_another_worker_has_made_meanwhile_is_not_made_again(
    process, new_world, fake_teacher, monkeypatch
) -> None:
    root = new_world(scored=True)
    monkeypatch.setattr(process.one_teacher, "missing_shards", lambda tile: list(range(tile.spec.shards)))
    assert score(process.config_of(root)).teachers[0].shards_now == 0


def test_a_teacher_without_frame_scores(process, new_world, fake_teacher) -> None:
    root = new_world(teacher="plain")
    score(process.config_of(root))
    cache = cache_of(root)
    assert not cache.frame_logits
    assert cache.complete


def refused(process, root: Path, **settings: object) -> CacheMismatchError:
    before = tree(root / "work/scores.zarr")
    with pytest.raises(CacheMismatchError) as caught:
        score(process.config_of(root, **settings))
    assert tree(root / "work/scores.zarr") == before
    assert caught.value.hint.action.settings.keys() == {"score.store"}
    return caught.value


def test_a_changed_caption_is_refused(process, new_world, fake_teacher) -> None:
    root = new_world(scored=True)
    captions = (root / "captions.csv").read_text()
    (root / "captions.csv").write_text(captions.replace("number 3 in round 1", "number 3 in Round 1"))
    error = refused(process, root)
    assert "captions changed" in error.what
    assert error.details == ("v003.mp4#1",)


def test_fewer_captions_are_served(process, new_world, fake_teacher) -> None:
    root = new_world(scored=True)
    captions = (root / "captions.csv").read_text()
    (root / "captions.csv").write_text("\n".join(captions.splitlines()[:9]))
    (scores,) = score(process.config_of(root)).teachers
    assert (scores.texts, scores.shards_now) == (8, 0)


def test_captions_that_are_gone_are_missed_only_where_shards_are(process, new_world, fake_teacher, finished) -> None:
    root = new_world(scored=True)
    captions = (root / "captions.csv").read_text()
    (root / "captions.csv").write_text("\n".join(captions.splitlines()[:-1]))
    (tile,) = cache_of(root).tiles
    assert tile.text_ids[3] == "v000.mp4#3"
    marker_path(tile, 2).unlink()
    score(process.config_of(root))  # rows far from the one that is gone
    assert tree(root / "work/scores.zarr") == tree(finished / "work/scores.zarr")
    marker_path(tile, 0).unlink()
    error = refused(process, root)
    assert error.what == "1 caption of this store is gone from what is scored now, before they were scored"
    assert error.details == ("v000.mp4#3",)


def test_videos_that_are_gone_are_missed_only_while_shards_are(process, new_world, fake_teacher) -> None:
    root = new_world(scored=True)
    captions = [line for line in (root / "captions.csv").read_text().splitlines() if not line.startswith("v004")]
    (root / "captions.csv").write_text("\n".join(captions))
    (scores,) = score(process.config_of(root)).teachers
    assert (scores.texts, scores.videos, scores.shards_now) == (36, 16, 0)
    marker_path(cache_of(root).tiles[0], 0).unlink()
    assert refused(process, root).details == ("v004.mp4",)


def test_another_frame_choice_is_refused(process, new_world, fake_teacher) -> None:
    root = new_world(scored=True)
    for file in (root / "work/frames").iterdir():
        file.unlink()
    process.make_frames(root, 17, choice="head")
    error = refused(process, root)
    assert error.details == ('prepare.choice: the cache has "uniform", now it is "head"',)


def test_changed_frames_are_refused(process, new_world, fake_teacher) -> None:
    root = new_world(scored=True)
    for file in (root / "work/frames").iterdir():
        file.unlink()
    process.make_frames(root, 17, changed=[4, 6])
    error = refused(process, root)
    assert "frames changed" in error.what
    assert error.details == ("v004.mp4", "v006.mp4")


def test_another_checkpoint_is_refused_the_same_in_another_file_is_not(process, new_world, fake_teacher) -> None:
    root = new_world(scored=True)
    (root / "work/teacher.txt").write_text("plain")
    error = refused(process, root)
    assert len(error.details) == 1
    assert error.details[0].startswith('weights: the cache has "')
    (root / "work/teacher.txt").write_text("good # saved again")
    score(process.config_of(root))


def test_a_raised_score_version_is_refused(process, new_world, fake_teacher, monkeypatch) -> None:
    root = new_world(scored=True)
    fake_teacher.score_version = 2
    monkeypatch.setattr(process.one_teacher, "checkpoint_digest", lambda _: "as after any change of a score version")
    assert refused(process, root).details == ("score_version: the cache has 1, now it is 2",)


def test_another_precision_is_refused(process, new_world, fake_teacher) -> None:
    root = new_world(scored=True)
    error = refused(process, root, coarse="float32")
    assert error.details == ('score.coarse: the cache has "uint16", now it is "float32"',)


def test_ranks_near_chance_stop_after_a_shard_that_is_kept(process, new_world, fake_teacher) -> None:
    root = new_world(teacher="chance", texts=60, videos=40)
    config = process.config_of(root, shard_texts=40)
    for _ in range(2):  # also when it is tried again, and though the first shard is there
        with pytest.raises(CacheError, match="near chance") as caught:
            score(config)
        assert caught.value.hint.otherwise.action == Change({"score.chance_check": False})
        assert missing_shards(cache_of(root).tiles[0]) == [1]
    (scores,) = score(process.config_of(root, shard_texts=40, chance_check=False)).teachers
    assert (scores.shards_before, scores.shards_now) == (1, 1)
    assert scores.own_ranks.near_chance
    with pytest.raises(CacheError, match="near chance"):  # a finished store is no better
        score(config)


def test_values_that_are_not_finite_are_refused_by_name(process, new_world, fake_teacher) -> None:
    root = new_world(teacher="nan-video 3")
    with pytest.raises(DataError, match="not finite") as caught:
        score(process.config_of(root))
    assert caught.value.details == ("v003.mp4",)
    for kind in ("nan-pair", "inf-pair"):
        (root / "work/teacher.txt").write_text(f"{kind} 9 5")
        with pytest.raises(CacheError, match="2 scores that are not finite") as refusal:
            score(process.config_of(root, store=f"{kind}.zarr", shard_texts=64))
        assert set(refusal.value.details) == {"v009.mp4#0 with v005.mp4", "v009.mp4#1 with v005.mp4"}


def test_a_full_disk_keeps_finished_shards(process, new_world, fake_teacher, finished, monkeypatch) -> None:
    root = new_world()
    publish = score_shards.publish

    def full(path: Path, data: bytes) -> None:
        if path.name == "c.2.0":
            raise OSError(errno.ENOSPC, "No space left on device")
        publish(path, data)

    monkeypatch.setattr(score_shards, "publish", full)
    with pytest.raises(CacheError, match="No space left on device") as caught:
        score(process.config_of(root))
    assert "c.2.0" in (caught.value.where or "")
    assert caught.value.hint.action == Score()
    assert missing_shards(cache_of(root).tiles[0])[0] == 2
    monkeypatch.setattr(score_shards, "publish", publish)
    score(process.config_of(root))
    assert tree(root / "work/scores.zarr") == tree(finished / "work/scores.zarr")


def test_a_folder_that_cannot_be_written(process, new_world, fake_teacher, monkeypatch) -> None:
    root = new_world()

    def read_only(_: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(untrusted, "sync_folder", read_only)
    with pytest.raises(CacheError, match="cannot be written: Read-only file system"):
        score(process.config_of(root))


def test_what_is_missing_is_said_with_the_next_command(process, new_world, fake_teacher) -> None:
    root = new_world()
    with pytest.raises(ConfigError, match=r"score\.teachers is empty"):
        score(process.config_of(root, teachers=[]))
    with pytest.raises(CheckpointError):
        score(process.config_of(root, teachers=[{"name": "fake", "checkpoint": "absent.bin"}]))
    with pytest.raises(DataError, match=r"splits that are scored \(test\)"):
        score(process.config_of(root, splits=["test"]))


def test_progress_counts_pairs(process, new_world, fake_teacher) -> None:
    seen: dict[str, list[int]] = {}

    class Count:
        def __init__(self, title: str, done: int) -> None:
            self.title = title
            seen[title] = [done]

        def advance(self, n: int = 1, **fields: float | str) -> None:
            seen[self.title].append(n)

        def __enter__(self):
            return self

        def __exit__(self, *_: object) -> None:
            pass

    class Listener:
        def info(self, message: str) -> None:
            seen.setdefault(message, [])

        warn = info

        def progress(self, title: str, total: int | None, unit: str, done: int = 0) -> Count:
            seen[f"{unit} {total}"] = []
            return Count(title, done)

    root = new_world()
    score(process.config_of(root), Listener())
    assert "pair 646" in seen
    assert sum(seen["scores of fake"]) == 646
    assert seen["videos through fake"] == [0, 17]
    ranks = [line for line in seen if "own videos of" in line]
    assert len(ranks) == 1
    assert "chance 9" in ranks[0]
    marker_path(cache_of(root).tiles[0], 0).unlink()
    score(process.config_of(root), Listener())
    assert seen["scores of fake"][0] == 646 - 8 * 17
    assert sum(seen["scores of fake"]) == 646
