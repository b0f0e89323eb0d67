"""Which shards are to be written, and which videos are decoded for them."""

from dataclasses import dataclass
from typing import Literal

from ...cache.frames.cache import FrameFolder, frame_identity
from ...cache.frames.record import FileStamp, ReadBy, VideoStatus
from ...cache.frames.shard import FrameShard
from ...cache.storage.identity import JSON
from ...configs.schema import PrepareConfig
from ..data.dataset import Dataset, Video
from ..data.video.content import UNKNOWN
from ..data.video.decode import DAMAGED, READER
from ..data.video.source import VideoSource, stamp_of

Need = Literal["decode", "compare", "nothing"]


def frame_settings(config: PrepareConfig) -> dict[str, JSON]:
    """The settings that decide what the frame cache holds."""
    return frame_identity(
        sample_fps=config.sample_fps,
        choice=config.choice,
        max_frames=config.max_frames,
        image_size=config.image_size,
        storage=config.storage,
        jpeg_quality=config.jpeg_quality,
        last_second=config.last_second,
        resize_mode=config.resize_mode,
        interpolation=config.interpolation,
    )


@dataclass(frozen=True)
class ShardPlan:
    """A shard to be written: `jobs` are decoded, the other videos of `old` are copied.

    `touched`: videos whose files have another time and the same size, and are known by their hash: these are compared
    first, and decoded only if they differ.
    """

    number: int
    jobs: tuple[Video, ...]
    old: FrameShard | None = None
    touched: tuple[Video, ...] = ()

    @property
    def asked_again(self) -> int:
        """How many of the jobs an older reader called damaged."""
        if self.old is None:
            return 0
        wanted = {video.id for video in self.jobs}
        seen = zip(self.old.statuses, self.old.read_by, strict=True)
        return sum(status.video in wanted and asked_again(status, who) for status, who in seen)


def plan_shards(dataset: Dataset, folder: FrameFolder, shard_videos: int) -> list[ShardPlan]:
    videos = {video.id: video for video in dataset.videos}
    held = {status.video: number for number, shard in sorted(folder.shards.items()) for status in shard.statuses}
    plans = []
    for number, shard in sorted(folder.shards.items()):
        found: dict[Need, list[Video]] = {"decode": [], "compare": [], "nothing": []}
        for status, stamp, who in zip(shard.statuses, shard.stamps, shard.read_by, strict=True):
            if held[status.video] == number and (video := videos.pop(status.video, None)) is not None:
                found[_need(status, stamp, who, video.source)].append(video)
        if found["decode"] or found["compare"]:
            plans.append(ShardPlan(number, tuple(found["decode"]), shard, tuple(found["compare"])))
    numbers = (number for number in range(len(folder.shards) + len(videos)) if number not in folder.shards)
    new = list(videos.values())
    plans += [
        ShardPlan(next(numbers), tuple(new[start : start + shard_videos])) for start in range(0, len(new), shard_videos)
    ]
    return sorted(plans, key=lambda plan: plan.number)


def asked_again(status: VideoStatus, read_by: ReadBy) -> bool:
    """Whether an older reader called the video damaged, which this one may see otherwise."""
    return status.status in DAMAGED and read_by.reader < READER


def _need(status: VideoStatus, stamp: FileStamp, read_by: ReadBy, source: VideoSource) -> Need:
    """What a video that is in a shard needs."""
    try:
        found = stamp_of(source)
    except OSError:
        return "decode" if status.status == "failed" else "nothing"
    if status.status in ("missing", "timeout", "failed") or asked_again(status, read_by):
        return "decode"
    if (found.size, found.mtime_ns) == (stamp.size, stamp.mtime_ns):
        return "nothing"
    return "compare" if found.size == stamp.size and stamp.content != UNKNOWN else "decode"
