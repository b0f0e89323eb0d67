"""Stage zero: videos and captions -> frame cache, and what it will cost before it runs.

Run again, prepare decodes only what is missing: videos that are in no shard yet, those whose file changed since, those
whose file was missing and is there now, those that ran out of time or failed for want of the machine, and, once, those
that an older reader called damaged. A shard in which one of these lies is replaced whole, its other videos are copied.
A file of another time and the same size is compared by its hash first, where that is known. A video whose file is gone
keeps its frames; so does one that the data no longer names, until it is pruned.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from ...cache.frames.cache import FrameCache, FrameFolder
from ...cache.frames.record import FileStamp, ReadBy, VideoRecord, VideoStatus
from ...configs.schema import Config, PrepareConfig
from ...errors import DataError
from ...plurals import counted
from ...remedies import Prepare, Remedy
from ..data.dataset import Dataset, read_dataset, tell_left_out
from ..data.usable_split import usable_unlabelled
from ..data.video.decode import DAMAGED
from ..data.video.workers import decode_videos
from ..runtime.background import BackgroundWriter
from ..runtime.cores import cores
from ..runtime.reporting import Progress, Reporter, Silent
from .estimate import refuse_without_room
from .plan import ShardPlan, frame_settings, plan_shards
from .pruning import NOTHING, find_unnamed, remove
from .renewal import renew

SHOWN = 20
KNOWN = ("ok", *DAMAGED)  # what the bytes say
FOLDER = "data.videos names the folder that the video paths start from"
AFTER_FAILURE = Remedy(
    "the machine failed, not these files; they are tried again, one at a time with", Prepare({"prepare.workers": 1})
)


type Make = Callable[[Sequence[ShardPlan], FrameFolder, PrepareConfig, Progress], int]
"""What decodes the videos of shards and writes these: how many videos came out as they were before."""


def after_timeout(config: PrepareConfig) -> Remedy:
    """What helps videos that ran out of time."""
    return Remedy("give them longer", Prepare({"prepare.timeout": math.ceil(4 * config.timeout)}))


@dataclass(frozen=True)
class PrepareResult:
    """What prepare made.

    Attributes:
        folder: the frame cache.
        videos: V, videos of the data set, with captions or without.
        counts: videos by status; statuses without videos are absent.
        left_out: the first 20 videos that are not usable, with reasons; those that failed come first.
        decoded: videos decoded by this run; the others were there already.
        pruned: videos that the data no longer names, whose frames were removed; freed: the bytes of these.
        renewed: videos whose files have another time, while the bytes, or the frames decoded of them, are the same.
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
    renewed: int = 0
    pruned: tuple[str, ...] = ()
    freed: int = 0


def prepare(
    config: Config,
    reporter: Reporter = Silent(),  # noqa: B008
    prune: bool = False,
    make: Make | None = None,
) -> PrepareResult:
    """Decode every video of the data set into the frame cache; run again, only what is missing.

    Args:
        prune: before that, remove the frames of videos that the data names in no split. Other configurations that
            share the cache lose them, too; scores stay. `estimate_frames` lists them beforehand.
        make: what makes the shards; by default processes of this machine.

    Raises:
        DataError: captions that cannot be used, or no video at all that can.
        CacheMismatchError: the cache was begun with other settings.
        CacheError: the folder is not a frame cache, cannot be written, or has no room; pruned, no frames would remain.
    """
    begun = time.monotonic()
    given = read_dataset(config.data)
    tell_left_out(given, reporter)
    dataset = given.with_unlabelled()
    folder = FrameFolder.claim(config.frames_folder, frame_settings(config.prepare))
    for damage in folder.damaged:
        reporter.warn(f"{damage}; made again")
    unnamed = find_unnamed(folder, dataset, config.data) if prune else NOTHING
    remove(folder, unnamed)
    renewal = renew(plan_shards(dataset, folder, config.prepare.shard_videos), folder, config.prepare, reporter)
    plans = renewal.plans
    decoded = sum(len(plan.jobs) for plan in plans)
    same = 0
    if decoded:
        refuse_without_room(dataset, plans, config)
        done = len(dataset.videos) - decoded
        with reporter.progress("decode videos", len(dataset.videos), "video", done) as progress:
            same = (make or make_here)(plans, folder, config.prepare, progress)
    folder.complete()
    if given.unlabelled:
        reporter.info(usable_unlabelled(given, FrameCache.open(config.frames_folder)).told)
    result = _result(dataset, folder, config.prepare, decoded, time.monotonic() - begun)
    return replace(result, renewed=renewal.renewed + same, pruned=unnamed.videos, freed=unnamed.bytes)


def make_here(plans: Sequence[ShardPlan], folder: FrameFolder, config: PrepareConfig, progress: Progress) -> int:
    """Decode, and write each shard in the background once its videos are there; how many came out as before."""
    same = 0
    jobs = [(video.id, video.source) for plan in plans for video in plan.jobs]
    owner = [plan for plan in plans for _ in plan.jobs]
    collected: dict[int, dict[str, VideoRecord]] = {plan.number: {} for plan in plans}
    ahead = config.shard_videos + 2 * (config.workers or cores())
    with BackgroundWriter("write-frames") as writer, closing(decode_videos(jobs, config, ahead)) as results:
        for decoded in results:
            plan = owner[decoded.index]
            records = collected[plan.number]
            records[decoded.record.status.video] = decoded.record
            if len(records) == len(plan.jobs):
                same += as_before(plan, records)
                writer.start(partial(write_shard, plan, collected.pop(plan.number), folder))
            progress.advance(1)
    return same


def write_shard(plan: ShardPlan, decoded: Mapping[str, VideoRecord], folder: FrameFolder) -> None:
    """Publish a shard with what was decoded for it, by id, unless nothing differs from what is there.

    Raises:
        CacheError: it cannot be written.
    """
    if plan.old is None:
        folder.write(plan.number, [decoded[video.id] for video in plan.jobs])
        return
    old = [plan.old.record(k, folder.frame_shape) for k in range(len(plan.old.statuses))]
    new = [decoded.get(record.status.video, record) for record in old]
    if [_outcome(record) for record in new] != [_outcome(record) for record in old]:
        folder.write(plan.number, new)


def as_before(plan: ShardPlan, decoded: Mapping[str, VideoRecord]) -> int:
    """How many videos were decoded because their files were touched, and gave what they gave before."""
    if plan.old is None:
        return 0
    return sum(
        (new := decoded.get(status.video)) is not None
        and status.status in KNOWN
        and new.stamp.mtime_ns != stamp.mtime_ns
        and (new.status.status, new.digest) == (status.status, digest)
        for status, stamp, digest in zip(plan.old.statuses, plan.old.stamps, plan.old.digests, strict=True)
    )


def _outcome(record: VideoRecord) -> tuple[VideoStatus, FileStamp, bytes, ReadBy]:
    return record.status, record.stamp, record.digest, record.read_by


def _told(status: VideoStatus, instead: str) -> VideoStatus:
    return replace(status, reason=f"{status.reason}; {instead}") if instead and status.status == "missing" else status


def _result(
    dataset: Dataset, folder: FrameFolder, config: PrepareConfig, decoded: int, seconds: float
) -> PrepareResult:
    found = {status.video: status for _, shard in sorted(folder.shards.items()) for status in shard.statuses}
    statuses = [_told(found[video.id], video.instead) for video in dataset.videos]
    left_out = sorted((status for status in statuses if status.status != "ok"), key=lambda one: one.status != "failed")
    if len(left_out) == len(statuses):
        raise DataError(
            f"none of the {counted(len(statuses), 'video')} can be used",
            where=str(dataset.videos[0].path.parent),
            hint={"failed": AFTER_FAILURE, "timeout": after_timeout(config)}.get(left_out[0].status, FOLDER),
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
