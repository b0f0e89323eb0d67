"""Pruning: frames of videos that the data no longer names go, all others stay as they are."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.frames.cache import FrameCache
from teachclip.configs.schema import Config
from teachclip.errors import CacheError, DataError
from teachclip.remedies import CheckData
from teachclip.stages.prepare import stage
from teachclip.stages.prepare.estimate import estimate_frames
from teachclip.stages.prepare.stage import prepare

CLIP = 3 * 3 * 96**2  # bytes of three frames


def files(config: Config) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(config.frames_folder.iterdir())}


@pytest.fixture
def seven(collection: Any) -> Any:
    """Seven clips in four shards: (0, 1), (2, 3), (4, 5), (6)."""
    for k in range(7):
        collection.clip(f"{k}.mp4", first=k)
    prepare(collection.config())
    return collection


def only(collection: Any, *kept: int) -> None:
    """Leave captions of these alone."""
    collection.rows = [(f"{k}.mp4", f"clip {k}") for k in kept]
    collection.caption()


def test_what_the_data_does_not_name_goes_and_the_rest_stays(seven: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = seven.config()
    cache, before = FrameCache.open(config.frames_folder), files(config)
    known = {video: cache.digest(video) for video in cache.usable}
    clips = cache.read(["1.mp4", "6.mp4"])
    only(seven, 1, 6, 2, 3)
    assert prepare(config).pruned == ()  # nobody asked
    assert files(config) == before
    expected = estimate_frames(config, prune=True)
    assert (expected.pruned, expected.bytes_pruned) == (("0.mp4", "4.mp4", "5.mp4"), 3 * CLIP)
    assert files(config) == before
    monkeypatch.setattr(stage, "decode_videos", None)
    result = prepare(config, prune=True)
    assert (result.pruned, result.freed, result.decoded) == (("0.mp4", "4.mp4", "5.mp4"), 3 * CLIP, 0)
    assert sum(map(len, before.values())) - sum(map(len, files(config).values())) >= 3 * CLIP
    after = files(config)
    assert list(after) == ["00000.h5", "00001.h5", "00003.h5", "frames.json"]
    assert {name for name in after if after[name] == before[name]} == {"00001.h5", "00003.h5"}
    assert json.loads(after["frames.json"])["shards"] == ["00000.h5", "00001.h5", "00003.h5"]
    cache = FrameCache.open(config.frames_folder)
    assert cache.usable == ("1.mp4", "2.mp4", "3.mp4", "6.mp4")
    assert all(cache.digest(video) == known[video] for video in cache.usable)
    np.testing.assert_array_equal(cache.read(["1.mp4", "6.mp4"]).frames, clips.frames)
    assert prepare(config, prune=True).pruned == ()
    assert files(config) == after


def test_new_videos_take_the_room_that_was_made(seven: Any) -> None:
    config = seven.config()
    only(seven, 0, 1)
    seven.clip("new.mp4", first=40)
    result = prepare(config, prune=True)
    assert (result.decoded, len(result.pruned), result.counts) == (1, 5, {"ok": 3})
    assert list(files(config)) == ["00000.h5", "00001.h5", "frames.json"]
    assert FrameCache.open(config.frames_folder).usable == ("0.mp4", "1.mp4", "new.mp4")


def test_named_videos_whose_files_are_gone_keep_their_frames(seven: Any) -> None:
    shutil.rmtree(seven.videos)
    seven.videos.mkdir()
    result = prepare(seven.config(), prune=True)
    assert (result.pruned, result.counts) == ((), {"ok": 7})


@pytest.mark.parametrize("ask", [prepare, estimate_frames])
def test_it_is_refused_when_nothing_would_remain(seven: Any, ask: Any) -> None:
    config, before = seven.config(), files(seven.config())
    seven.rows = []
    seven.clip("other.mp4")
    with pytest.raises(CacheError, match="nothing would remain") as caught:
        ask(config, prune=True)
    assert caught.value.hint.action == CheckData()
    assert caught.value.details == tuple(f"{k}.mp4" for k in range(7))
    assert files(config) == before


@pytest.mark.parametrize("ask", [prepare, estimate_frames])
def test_it_is_refused_when_the_data_cannot_be_read(seven: Any, ask: Any) -> None:
    config, before = seven.config(), files(seven.config())
    with config.data.captions.open("a") as file:
        file.write("../1.mp4,a video elsewhere\n")
    with pytest.raises(DataError):
        ask(config, prune=True)
    config.data.captions.unlink()
    with pytest.raises(DataError):
        ask(config, prune=True)
    assert files(config) == before


def test_splits_that_are_not_read_are_named_all_the_same(seven: Any) -> None:
    rows = [f"{k}.mp4,clip {k},{'test' if k % 2 else 'train'}\n" for k in range(6)]
    seven.config().data.captions.write_text("video,caption,split\n" + "".join(rows))
    config = seven.config()
    config = config.model_copy(update={"data": config.data.model_copy(update={"splits": ("train",)})})
    assert prepare(config, prune=True).pruned == ("6.mp4",)
    assert len(FrameCache.open(config.frames_folder).usable) == 6


def test_a_cache_that_is_not_complete_is_not_called_so(seven: Any) -> None:
    config = seven.config()
    manifest = config.frames_folder / "frames.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"shards": None}))
    only(seven, 0, 1)
    folder = stage.FrameFolder.look(config.frames_folder, stage.frame_settings(config.prepare))
    stage.remove(folder, stage.find_unnamed(folder, stage.read_dataset(config.data), config.data))
    assert list(files(config)) == ["00000.h5", "frames.json"]
    assert json.loads(manifest.read_text())["shards"] is None


@pytest.mark.parametrize("at", [1, 2])
def test_killed_on_the_way_every_video_that_is_named_is_there(
    seven: Any, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, calls = seven.config(), []
    only(seven, 1, 3)
    real = stage.FrameFolder.write

    def killed(self: Any, *arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == at:
            raise KeyboardInterrupt
        real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(stage.FrameFolder, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(config, prune=True)
    cache = FrameCache.open(config.frames_folder)
    assert {"1.mp4", "3.mp4"} <= set(cache.usable)
    assert cache.read(cache.usable).mask.all()
    assert len(prepare(config, prune=True).pruned) == 6 - at
    assert FrameCache.open(config.frames_folder).usable == ("1.mp4", "3.mp4")


def test_removed_from_the_list_before_the_files_go(seven: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = seven.config()
    only(seven, 0, 1)
    real = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.name == "00002.h5":
            raise KeyboardInterrupt
        real(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(config, prune=True)
    assert FrameCache.open(config.frames_folder).usable == ("0.mp4", "1.mp4")
    assert prepare(config, prune=True).pruned == ("4.mp4", "5.mp4", "6.mp4")
    assert list(files(config)) == ["00000.h5", "frames.json"]
