"""Stage zero: videos and captions -> frame cache, and what it will cost before it runs.

Run again, prepare decodes only what is missing: videos that are in no shard yet, those whose file changed since (size
or modification time), those whose file was missing and is there now, and those that ran out of time. A shard in which
one of these lies is replaced whole, its other videos are copied. A video whose file is gone keeps its frames.
"""

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..cache.frame_shards import Shard
from ..cache.frames import FrameFolder, frame_identity
from ..cache.identity import JSON
from ..cache.records import FileStamp, VideoRecord, VideoStatus
from ..configs.schema import Config
from ..configs.videos import PrepareConfig
from ..errors import CacheError, DataError
from .data.captions import Dataset, Video, read_dataset
from .data.decode import cores, decode_videos
from .data.sources import Source, stamp_of
from .reporting import Progress, Reporter, Silent

SHOWN = 20
PROBED = 12


@dataclass(frozen=True)
class PrepareResult:
    """What prepare made.

    Attributes:
        folder: the frame cache.
        videos: V, videos of the data set.
        counts: videos by status; statuses without videos are absent.
        left_out: the first 20 videos that are not usable, with reasons.
        decoded: videos decoded by this run; the others were there already.
        seconds: time this run took.
        videos_per_second: of the decoded ones.
        bytes: size of the cache's shards.
    """

    folder: str
    videos: int
    counts: dict[str, int]
    left_out: tuple[VideoStatus, ...]
    decoded: int
    seconds: float
    videos_per_second: float
    bytes: int


@dataclass(frozen=True)
class PrepareEstimate:
    """What prepare would cost.

    Attributes:
        videos: V, videos of the data set.
        remaining: videos that are still to be decoded.
        bytes: disk that these take, as far as a few of them tell.
        bytes_at_most: disk that they take when every video fills all its frames; None for JPEG.
        seconds: time that they take on `workers` processes.
        workers: decoding processes.
        free: bytes free where the cache lies.
        probed: videos decoded for this estimate.
    """

    videos: int
    remaining: int
    bytes: int
    bytes_at_most: int | None
    seconds: float
    workers: int
    free: int
    probed: int


def raw_bytes(videos: int, frames: int, image_size: int) -> int:
    """Bytes of uint8 RGB frames: V x F x 3 x S x S."""
    return videos * frames * 3 * image_size**2


def prepare(config: Config, reporter: Reporter = Silent()) -> PrepareResult:  # noqa: B008
    """Decode every video of the data set into the frame cache; run again, only what is missing.

    Raises:
        DataError: captions that cannot be used, or no video at all that can.
        CacheMismatchError: the cache was begun with other settings.
        CacheError: the folder is not a frame cache, cannot be written, or has no room.
    """
    begun = time.monotonic()
    dataset = read_dataset(config.data)
    folder = FrameFolder.claim(config.frames_folder, identity(config.prepare))
    for damage in folder.damaged:
        reporter.warn(f"{damage}; made again")
    plans = _plans(dataset, folder, config.prepare.shard_videos)
    decoded = sum(len(plan.jobs) for plan in plans)
    if decoded:
        _refuse_without_room(dataset, plans, config)
        done = len(dataset.videos) - decoded
        with reporter.progress("decode videos", len(dataset.videos), "video", done) as progress:
            _make(plans, folder, config.prepare, progress)
    folder.complete()
    return _result(dataset, folder, decoded, time.monotonic() - begun)


def estimate(config: Config) -> PrepareEstimate:
    """What prepare would cost in bytes and seconds, from a few videos decoded as a probe; nothing is written.

    Raises:
        DataError: captions that cannot be used.
        CacheMismatchError: the cache was begun with other settings.
    """
    dataset = read_dataset(config.data)
    folder = FrameFolder.look(config.frames_folder, identity(config.prepare))
    return _estimate(dataset, _plans(dataset, folder, config.prepare.shard_videos), config)


def identity(config: PrepareConfig) -> dict[str, JSON]:
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
class _Plan:
    """A shard to be written: `jobs` are decoded, the other videos of `old` are copied."""

    number: int
    jobs: tuple[Video, ...]
    old: Shard | None = None


def _plans(dataset: Dataset, folder: FrameFolder, shard_videos: int) -> list[_Plan]:
    videos = {video.id: video for video in dataset.videos}
    plans = []
    for number, shard in sorted(folder.shards.items()):
        stale = [
            videos.pop(status.video)
            for status, stamp in zip(shard.statuses, shard.stamps, strict=True)
            if status.video in videos and _stale(status, stamp, videos[status.video].source)
        ]
        if stale:
            plans.append(_Plan(number, tuple(stale), shard))
        for status in shard.statuses:
            videos.pop(status.video, None)
    numbers = (number for number in range(len(folder.shards) + len(videos)) if number not in folder.shards)
    new = list(videos.values())
    plans += [
        _Plan(next(numbers), tuple(new[start : start + shard_videos])) for start in range(0, len(new), shard_videos)
    ]
    return sorted(plans, key=lambda plan: plan.number)


def _stale(status: VideoStatus, stamp: FileStamp, source: Source) -> bool:
    try:
        found = stamp_of(source)
    except OSError:
        return False
    return found != stamp or status.status in ("missing", "timeout")


def _make(plans: Sequence[_Plan], folder: FrameFolder, config: PrepareConfig, progress: Progress) -> None:
    """Decode, and write each shard in the background once its videos are there."""
    jobs = [(video.id, video.source) for plan in plans for video in plan.jobs]
    owner = [plan for plan in plans for _ in plan.jobs]
    collected: dict[int, dict[str, VideoRecord]] = {plan.number: {} for plan in plans}
    writing: Future[None] | None = None
    ahead = config.shard_videos + 2 * (config.workers or cores())
    with ThreadPoolExecutor(1) as writer, closing(decode_videos(jobs, config, ahead)) as results:
        for decoded in results:
            plan = owner[decoded.index]
            records = collected[plan.number]
            records[decoded.record.status.video] = decoded.record
            if len(records) == len(plan.jobs):
                if writing is not None:
                    writing.result()
                writing = writer.submit(_write, plan, collected.pop(plan.number), folder)
            progress.advance(1)
        if writing is not None:
            writing.result()


def _write(plan: _Plan, decoded: dict[str, VideoRecord], folder: FrameFolder) -> None:
    if plan.old is None:
        folder.write(plan.number, [decoded[video.id] for video in plan.jobs])
        return
    old = [plan.old.record(k, folder.frame_shape) for k in range(len(plan.old.statuses))]
    new = [decoded.get(record.status.video, record) for record in old]
    if [_outcome(record) for record in new] != [_outcome(record) for record in old]:
        folder.write(plan.number, new)


def _outcome(record: VideoRecord) -> tuple[VideoStatus, FileStamp, bytes]:
    return record.status, record.stamp, record.digest


def _result(dataset: Dataset, folder: FrameFolder, decoded: int, seconds: float) -> PrepareResult:
    found = {status.video: status for shard in folder.shards.values() for status in shard.statuses}
    statuses = [found[video.id] for video in dataset.videos]
    left_out = [status for status in statuses if status.status != "ok"]
    if len(left_out) == len(statuses):
        raise DataError(
            f"none of the {len(statuses)} videos can be used",
            where=str(dataset.videos[0].path.parent),
            hint="data.videos names the folder that the video paths start from",
            details=[f"{status.video}: {status.status}, {status.reason}" for status in left_out[:SHOWN]],
        )
    return PrepareResult(
        folder=str(folder.folder),
        videos=len(statuses),
        counts=dict(Counter(status.status for status in statuses)),
        left_out=tuple(left_out[:SHOWN]),
        decoded=decoded,
        seconds=seconds,
        videos_per_second=decoded / seconds,
        bytes=sum(shard.bytes for shard in folder.shards.values()),
    )


def _estimate(dataset: Dataset, plans: Sequence[_Plan], config: Config) -> PrepareEstimate:
    settings = config.prepare
    videos = [video for plan in plans for video in plan.jobs]
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
        free=_free(config.frames_folder),
        probed=len(seen),
    )


def _refuse_without_room(dataset: Dataset, plans: Sequence[_Plan], config: Config) -> None:
    """Probe when full clips would not fit; refuse when what the probe tells would not either."""
    settings, free = config.prepare, _free(config.frames_folder)
    if raw_bytes(sum(len(plan.jobs) for plan in plans), settings.max_frames, settings.image_size) < free:
        return
    needed = _estimate(dataset, plans, config).bytes
    if needed > free:
        hint = "set work (or prepare.frames) to a larger disk"
        raise CacheError(
            f"the frames need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            where=str(config.frames_folder),
            hint=hint if settings.storage == "jpeg" else f"{hint}, or store JPEG: --set prepare.storage=jpeg",
        )


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
