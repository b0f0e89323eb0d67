"""Which shards are to be written, and which videos are decoded for them."""

from dataclasses import dataclass

from ...cache.frames.cache import FrameFolder, frame_identity
from ...cache.frames.record import FileStamp, ReadBy, VideoStatus
from ...cache.frames.shard import FrameShard
from ...cache.storage.identity import JSON
from ...configs.schema import PrepareConfig
from ..data.dataset import Dataset, Video
from ..data.video.decode import DAMAGED, READER
from ..data.video.source import VideoSource, stamp_of


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
    )


@dataclass(frozen=True)
class ShardPlan:
    """A shard to be written: `jobs` are decoded, the other videos of `old` are copied."""

    number: int
    jobs: tuple[Video, ...]
    old: FrameShard | None = None

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
    plans = []
    for number, shard in sorted(folder.shards.items()):
        stale = [
            videos.pop(status.video)
            for status, stamp, who in zip(shard.statuses, shard.stamps, shard.read_by, strict=True)
            if status.video in videos and _stale(status, stamp, who, videos[status.video].source)
        ]
        if stale:
            plans.append(ShardPlan(number, tuple(stale), shard))
        for status in shard.statuses:
            videos.pop(status.video, None)
    numbers = (number for number in range(len(folder.shards) + len(videos)) if number not in folder.shards)
    new = list(videos.values())
    plans += [
        ShardPlan(next(numbers), tuple(new[start : start + shard_videos])) for start in range(0, len(new), shard_videos)
    ]
    return sorted(plans, key=lambda plan: plan.number)


def asked_again(status: VideoStatus, read_by: ReadBy) -> bool:
    """Whether an older reader called the video damaged, which this one may see otherwise."""
    return status.status in DAMAGED and read_by.reader < READER


def _stale(status: VideoStatus, stamp: FileStamp, read_by: ReadBy, source: VideoSource) -> bool:
    try:
        found = stamp_of(source)
    except OSError:
        return status.status == "failed"
    return found != stamp or status.status in ("missing", "timeout", "failed") or asked_again(status, read_by)
