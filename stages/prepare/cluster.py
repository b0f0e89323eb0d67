"""Stage zero on a Ray cluster: a worker decodes a shard's videos and publishes it; a killed one leaves it to others."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ...cache.frames.cache import FrameFolder
from ...cache.frames.shard import FrameShard
from ...cache.storage.identity import JSON
from ...configs.schema import Config, PrepareConfig
from ...errors import CacheError
from ...plurals import counted
from ..data.readers.video_folder import file_there
from ..data.video.workers import Decoded, Decoders
from ..runtime.cluster import OnCluster, Place, connected, cpus_each, marked, on_cluster, refuse_unseen, some_of
from ..runtime.reporting import Progress, Reporter, Silent
from .plan import ShardPlan, frame_settings
from .stage import PrepareResult, as_before, prepare, write_shard


@dataclass(frozen=True)
class Task:
    """A shard to be made.

    Attributes:
        plan: which videos are decoded for it; what it holds already is read where it is made.
        again: whether it is there, and gets other videos.
        there: files of these videos that there are.
    """

    plan: ShardPlan
    again: bool
    there: tuple[Path, ...]


type Made = tuple[int, int]
"""How many videos were decoded, and how many of these came out as they were before."""


def prepare_on_cluster(
    config: Config, how: OnCluster, reporter: Reporter | None = None, prune: bool = False
) -> PrepareResult:
    """As `prepare`, with shards made by workers of a Ray cluster; the bytes of the cache are the same.

    What is to be decoded is planned here, touched files are compared here, pruning is done here. Workers decode by as
    many processes as `prepare.workers` says, or as they have cores, and publish their shards themselves: when one is
    killed, or its node, or this process, what was finished stays. No frame passes through this process.

    Raises:
        ConfigError: Ray is not installed, or there is no such cluster; its nodes see other files, or have other
            versions.
        TeachclipError: a shard lost its worker again and again; else as `prepare`.
    """
    reporter = reporter or Silent()
    with connected(how.address) as ray:
        return prepare(config, reporter, prune, partial(_make, ray, how, config, reporter))


def _make(
    ray: Any,
    how: OnCluster,
    config: Config,
    reporter: Reporter,
    plans: Sequence[ShardPlan],
    folder: FrameFolder,
    settings: PrepareConfig,
    progress: Progress,
) -> int:
    tasks = [_task(plan) for plan in plans]
    each = config.model_copy(
        update={"prepare": settings.model_copy(update={"workers": settings.workers or cpus_each(how)})}
    )
    same = 0
    with marked([folder.folder]) as marks:
        seen = (*some_of([file for task in tasks for file in task.there]), *marks)
        made: Made
        for made in on_cluster(ray, how, Place(os.getcwd(), seen, "cpu"), preparing_worker, (each,), tasks, reporter):
            same += made[1]
            progress.advance(made[0])
    folder.shards |= FrameFolder.look(folder.folder, folder.identity).shards
    if unseen := [plan.number for plan in plans if plan.number not in folder.shards]:
        raise CacheError(
            f"{counted(len(unseen), 'shard')} that workers have written cannot be seen from here",
            where=str(folder.folder),
            hint="a disk that several machines share may show it later: the same again goes on with what is there",
        )
    return same


def _task(plan: ShardPlan) -> Task:
    there = dict.fromkeys(video.path for video in plan.jobs if file_there(video.path))
    return Task(replace(plan, old=None), plan.old is not None, tuple(there))


def preparing_worker(config: Config) -> Callable[[Task], Made]:
    """What makes a shard in a worker: the processes that decode stay from one to the next."""
    identity = frame_settings(config.prepare)
    folder = FrameFolder.look(config.frames_folder, identity)
    decoders = Decoders.of_videos(config.prepare)

    def work(task: Task) -> Made:
        refuse_unseen(task.there)
        plan = task.plan
        if task.again:
            plan = replace(plan, old=_as_it_is(config.frames_folder, identity, plan.number))
        jobs = [(video.id, video.source) for video in plan.jobs]
        results = [each for each in decoders.run(jobs, len(jobs)) if isinstance(each, Decoded)]
        records = {each.record.status.video: each.record for each in results}
        write_shard(plan, records, folder)
        return len(jobs), as_before(plan, records)

    return work


def _as_it_is(folder: Path | str, identity: dict[str, JSON], number: int) -> FrameShard:
    """A shard as it lies there now, which a worker that died may have replaced already."""
    shard = FrameFolder.look(folder, identity).shards.get(number)
    if shard is None:
        hint = "the same again makes what it held, too"
        raise CacheError(f"shard {number} was whole a moment ago, and is not now", where=str(folder), hint=hint)
    return shard
