"""Bytes and minutes that prepare will take, before anything runs."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from ...cache.frames.cache import FrameFolder
from ...cache.storage.publish import free_bytes
from ...configs.schema import Config
from ...errors import CacheError
from ...remedies import Change, Remedy
from ..data.dataset import Dataset, read_dataset
from ..data.readers.video_folder import file_there
from ..data.video.source import stamp_or_none
from ..data.video.workers import decode_videos
from ..runtime.cores import cores
from .plan import ShardPlan, frame_settings, plan_shards
from .pruning import NOTHING, find_unnamed

PROBED = 12


@dataclass(frozen=True)
class PrepareEstimate:
    """What prepare would cost.

    Attributes:
        videos: V, videos of the data set.
        remaining: videos that are still to be decoded, whose files are there.
        bytes: disk that these take, as far as a few of them tell.
        bytes_at_most: disk that they take when every video fills all its frames; None for JPEG.
        seconds: time that they take on `workers` processes.
        workers: decoding processes.
        free: bytes free where the cache lies; None at an address.
        probed: videos decoded for this estimate, spread over those that have a file.
        asked_again: videos to be decoded because an older reader called them damaged.
        compared: videos whose files have another time: they are read first, and decoded only if they hold something
            else; they are not among `remaining`.
        bytes_compared: of these files.
        pruned: videos that pruning removes; bytes_pruned: of their frames.
        missing: videos that have neither a file nor frames; they take no disk and no time.
    """

    videos: int
    remaining: int
    bytes: int
    bytes_at_most: int | None
    seconds: float
    workers: int
    free: int | None
    probed: int
    asked_again: int = 0
    compared: int = 0
    bytes_compared: int = 0
    pruned: tuple[str, ...] = ()
    bytes_pruned: int = 0
    missing: int = 0


def raw_bytes(videos: int, frames: int, image_size: int) -> int:
    """Bytes of uint8 RGB frames: V x F x 3 x S x S."""
    return videos * frames * 3 * image_size**2


def estimate_frames(config: Config, prune: bool = False) -> PrepareEstimate:
    """What prepare would cost in bytes and seconds, from a few videos decoded as a probe; nothing is written.

    Args:
        prune: say what pruning would remove, too.

    Raises:
        DataError: captions that cannot be used.
        CacheMismatchError: the cache was begun with other settings.
        CacheError: pruned, no frames would remain.
    """
    dataset = read_dataset(config.data).with_unlabelled()
    folder = FrameFolder.look(config.frames_folder, frame_settings(config.prepare))
    unnamed = find_unnamed(folder, dataset, config.data) if prune else NOTHING
    statuses = (status for shard in folder.shards.values() for status in shard.statuses)
    kept = {status.video for status in statuses if status.status == "ok"}
    missing = sum(video.id not in kept and not file_there(video.path) for video in dataset.videos)
    expected = _estimate(dataset, plan_shards(dataset, folder, config.prepare.shard_videos), config)
    return replace(expected, missing=missing, pruned=unnamed.videos, bytes_pruned=unnamed.bytes)


def _estimate(dataset: Dataset, plans: Sequence[ShardPlan], config: Config) -> PrepareEstimate:
    settings = config.prepare
    videos = [video for plan in plans for video in plan.jobs if file_there(video.path)]
    touched = [video for plan in plans for video in plan.touched]
    probe = videos[:: max(1, len(videos) // PROBED)][:PROBED]
    jobs = [(video.id, video.source) for video in probe]
    with closing(decode_videos(jobs, settings, len(jobs))) as results:
        seen = list(results)
    share = len(videos) / max(1, len(seen))
    workers = settings.workers or cores()
    full = raw_bytes(len(videos), settings.max_frames, settings.image_size)
    return PrepareEstimate(
        videos=len(dataset.videos),
        remaining=len(videos),
        bytes=round(share * sum(decoded.record.images.nbytes for decoded in seen)),
        bytes_at_most=None if settings.storage == "jpeg" else full,
        seconds=share * sum(decoded.seconds for decoded in seen) / workers,
        workers=workers,
        free=_free(config),
        probed=len(seen),
        asked_again=sum(plan.asked_again for plan in plans),
        compared=len(touched),
        bytes_compared=sum(stamp_or_none(video.source).size for video in touched),
    )


def refuse_without_room(dataset: Dataset, plans: Sequence[ShardPlan], config: Config) -> None:
    """Probe when full clips would not fit; refuse when what the probe tells would not either."""
    settings, free = config.prepare, _free(config)
    if (
        free is None
        or raw_bytes(sum(len(plan.jobs) for plan in plans), settings.max_frames, settings.image_size) < free
    ):
        return
    needed = _estimate(dataset, plans, config).bytes
    if needed > free:
        smaller = None if settings.storage == "jpeg" else Remedy("store JPEG", Change({"prepare.storage": "jpeg"}))
        raise CacheError(
            f"the frames need {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free",
            where=str(config.frames_folder),
            hint=Remedy("take a larger disk", Change({"work": "/other/folder"}), otherwise=smaller),
        )


def _free(config: Config) -> int | None:
    return free_bytes(config.frames_folder) if isinstance(config.frames_folder, Path) else None
