"""Copied files keep their frames: where only the time differs, and the bytes do not, the stamp is renewed."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from ...cache.frames.cache import FrameFolder
from ...cache.frames.record import FileStamp
from ...configs.schema import PrepareConfig
from ...plurals import counted
from ..data.video.content import read_again
from ..data.video.workers import decode_videos
from ..runtime.cores import cores
from ..runtime.reporting import Progress, Reporter
from .plan import ShardPlan


@dataclass(frozen=True)
class Renewal:
    """What is left to be decoded once touched files were compared, and how many stamps were renewed."""

    plans: list[ShardPlan]
    renewed: int


def renew(plans: Sequence[ShardPlan], folder: FrameFolder, config: PrepareConfig, reporter: Reporter) -> Renewal:
    """Compare the files that were touched with what was read, and renew the stamps of those that hold the same.

    They are read, not decoded, by as many processes as decode. A shard's stamps are put down as soon as its files are
    compared, so that a killed run is gone on with. What cannot be read now keeps its frames, and is asked again.
    """
    left = {plan.number: plan for plan in plans}
    renewed = unread = 0
    count = sum(len(plan.touched) for plan in plans)
    if count:
        with reporter.progress("compare files", count, "file") as progress:
            for plan, now in _compared(plans, config, progress):
                compared = _Compared.of(plan, now)
                folder.renew(plan.number, compared.same)
                jobs = (*plan.jobs, *(video for video in plan.touched if video.id in compared.changed))
                left[plan.number] = ShardPlan(plan.number, jobs, folder.shards[plan.number])
                renewed, unread = renewed + len(compared.same), unread + compared.unread
    if unread:
        reporter.warn(
            f"{counted(unread, 'touched file')} could not be read, or not within prepare.timeout: "
            f"{'its' if unread == 1 else 'their'} frames are kept, and the next prepare looks again"
        )
    return Renewal([plan for plan in left.values() if plan.jobs], renewed)


def _compared(
    plans: Sequence[ShardPlan], config: PrepareConfig, progress: Progress
) -> Iterator[tuple[ShardPlan, dict[str, FileStamp | None]]]:
    """Each plan with what its touched files are now, by id; None where that cannot be said."""
    jobs = [(video.id, video.source) for plan in plans for video in plan.touched]
    owner = [plan for plan in plans for _ in plan.touched]
    found: dict[int, dict[str, FileStamp | None]] = {plan.number: {} for plan in plans}
    ahead = config.shard_videos + 2 * (config.workers or cores())
    no_decoder = config.model_copy(update={"decoder": "pyav"})  # which needs nothing to be loaded
    with closing(decode_videos(jobs, no_decoder, ahead, read_again)) as results:
        for each in results:
            plan, status = owner[each.index], each.record.status
            found[plan.number][status.video] = each.record.stamp if status.status == "ok" else None
            if len(found[plan.number]) == len(plan.touched):
                yield plan, found.pop(plan.number)
            progress.advance(1)


@dataclass(frozen=True)
class _Compared:
    """Of a shard's touched files: times of those that hold the same, by position; ids of those that do not."""

    same: dict[int, int]
    changed: set[str]
    unread: int

    @classmethod
    def of(cls, plan: ShardPlan, now: dict[str, FileStamp | None]) -> "_Compared":
        assert plan.old is not None
        same: dict[int, int] = {}
        changed: set[str] = set()
        for position, (status, before) in enumerate(zip(plan.old.statuses, plan.old.stamps, strict=True)):
            stamp = now.get(status.video)
            if stamp is not None and stamp == replace(before, mtime_ns=stamp.mtime_ns):
                same[position] = stamp.mtime_ns
            elif stamp is not None:
                changed.add(status.video)
        return cls(same, changed, len(now) - len(same) - len(changed))
