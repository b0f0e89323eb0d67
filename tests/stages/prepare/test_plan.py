"""Which shards are written: those with a video that changed, and new ones under the numbers that are free."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from teachclip.cache.frames.cache import FrameFolder
from teachclip.cache.frames.record import FileStamp, ReadBy, Status, VideoStatus
from teachclip.configs.schema import PrepareConfig
from teachclip.stages.data.dataset import Dataset, Video
from teachclip.stages.data.video.decode import READER
from teachclip.stages.data.video.source import stamp_of
from teachclip.stages.prepare.plan import ShardPlan, frame_settings, plan_shards


@pytest.fixture
def videos(tmp_path: Path) -> list[Video]:
    made = []
    for k in range(9):
        path = tmp_path / f"{k}.mp4"
        path.write_bytes(b"x" * (k + 1))
        made.append(Video(path.name, path, "train"))
    return made


def shard(videos: list[Video], status: Status = "ok", reader: int = READER, **stamps: FileStamp) -> Any:
    """What planning looks at: the videos of a shard and the files that they were read from."""
    return SimpleNamespace(
        statuses=[VideoStatus(video.id, status) for video in videos],
        stamps=[stamps.get(f"v{video.id[0]}", stamp_of(video.source)) for video in videos],
        read_by=[ReadBy("pyav", reader)] * len(videos),
    )


def planned(videos: list[Video], shards: dict[int, Any], size: int = 2) -> list[tuple[int, str, Any]]:
    """Number, videos to be decoded, and old shard of each plan."""
    folder: FrameFolder = SimpleNamespace(shards=shards)  # type: ignore[assignment]
    plans = plan_shards(Dataset(tuple(videos), ()), folder, size)
    assert all(isinstance(plan, ShardPlan) for plan in plans)
    return [(plan.number, "".join(video.id[0] for video in plan.jobs), plan.old) for plan in plans]


def test_an_empty_folder_gets_every_video_in_order(videos: list[Video]) -> None:
    assert planned(videos[:5], {}) == [(0, "01", None), (1, "23", None), (2, "4", None)]
    assert planned(videos[:4], {}) == [(0, "01", None), (1, "23", None)]
    assert planned([], {}) == []


def test_what_is_there_is_left_and_new_videos_take_the_free_numbers(videos: list[Video]) -> None:
    shards = {3: shard(videos[2:4]), 1: shard(videos[:2])}
    assert planned(videos[:4], shards) == []
    assert planned(videos, shards) == [(0, "45", None), (2, "67", None), (4, "8", None)]


def test_a_changed_file_is_decoded_within_its_old_shard(videos: list[Video]) -> None:
    seen = stamp_of(videos[1].source)
    shards = {0: shard(videos[:2], v1=FileStamp(seen.size, seen.mtime_ns - 1)), 1: shard(videos[2:4])}
    assert planned(videos[:5], shards) == [(0, "1", shards[0]), (2, "4", None)]
    shards = {0: shard(videos[:2], v0=FileStamp(seen.size + 7, stamp_of(videos[0].source).mtime_ns))}
    assert planned(videos[:2], shards) == [(0, "0", shards[0])]


def test_of_two_shards_that_hold_a_video_the_last_counts_as_for_readers(videos: list[Video]) -> None:
    first, last = shard(videos[:2]), shard(videos[1:3], "timeout")
    assert planned(videos[:3], {0: first, 1: last}) == [(1, "12", last)]
    assert planned(videos[:3], {0: last, 1: first}) == [(0, "2", last)]


@pytest.mark.parametrize(
    ("status", "again"),
    [("missing", True), ("timeout", True), ("failed", True), ("corrupt", False), ("short", False)],
)
def test_videos_that_may_have_come_back_are_tried_again(videos: list[Video], status: Status, again: bool) -> None:
    old = shard(videos[:2], status)
    assert planned(videos[:2], {0: old}) == ([(0, "01", old)] if again else [])


@pytest.mark.parametrize(("status", "again"), [("corrupt", True), ("short", True), ("ok", False)])
@pytest.mark.parametrize("reader", [0, READER - 1])
def test_what_an_older_reader_called_damaged_is_asked_again(
    videos: list[Video], status: Status, again: bool, reader: int
) -> None:
    old = shard(videos[:2], status, reader)
    assert planned(videos[:2], {0: old}) == ([(0, "01", old)] if again else [])
    assert ShardPlan(0, tuple(videos[:1]), old).asked_again == again
    assert ShardPlan(0, tuple(videos[:1])).asked_again == 0


def test_a_file_that_is_gone_and_a_video_that_nobody_asks_for_keep_their_frames(videos: list[Video]) -> None:
    old = shard(videos[:3], "missing")
    os.remove(videos[0].path)
    assert planned(videos[:2], {0: old}) == [(0, "1", old)]


def test_only_what_decides_the_frames_is_in_their_identity() -> None:
    config = PrepareConfig(
        sample_fps=2, choice="head", max_frames=7, image_size=96, storage="jpeg", jpeg_quality=81, last_second=5
    )
    assert frame_settings(config) == {
        "sample_fps": 2,
        "choice": "head",
        "max_frames": 7,
        "image_size": 96,
        "storage": "jpeg",
        "last_second": 5,
        "jpeg_quality": 81,
    }
