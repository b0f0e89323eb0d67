"""Stage one on a Ray cluster: workers each make parts of the shards, which a killed one leaves to the others."""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ....configs.schema import Config
from ....errors import ConfigError
from ...runtime.cluster import OnCluster, Place, connected, marked, on_cluster, room
from ...runtime.launch import launch
from ...runtime.reporting import Remembered, Reporter, Silent
from ..one_teacher import OneTeacher, together
from ..stage import ScoreResult, Scoring, refuse_nobody
from ..worker_part import WHOLE, WorkerPart

PARTS_EACH = 16
"""Into so many parts for each worker a teacher's shards are cut: one that is faster, or comes later, takes more."""

type Task = tuple[int, WorkerPart]
"""Number of the teacher, and the part."""
type Made = tuple[ScoreResult, list[str], list[str]]
"""What a task made, and the messages and warnings of meanwhile."""


def score_on_cluster(config: Config, how: OnCluster, reporter: Reporter | None = None) -> ScoreResult:
    """As `score`, by workers of a Ray cluster, which each load the teacher once; the bytes of the store are the same.

    Workers publish shard by shard, as without Ray: when one is killed, or its node, or this process, what was finished
    stays. Nothing is computed in this process, and no score passes through it.

    Raises:
        ConfigError: no teacher is configured; Ray is not installed, or there is no such cluster; its nodes see other
            files, or have other versions or devices; torchrun has started this process.
        TeachclipError: a part lost its worker again and again; else as `score`.
    """
    reporter = reporter or Silent()
    refuse_nobody(config)
    if launch().ranks > 1:
        raise ConfigError("torchrun has started the processes: Ray is not asked for more")
    begun, told = time.monotonic(), set[str]()
    results: dict[int, list[ScoreResult]] = defaultdict(list)
    with connected(how.address) as ray, _seen_by_workers(config) as place:
        parts = PARTS_EACH * room(ray, how, place)
        for number, teacher in enumerate(config.score.teachers):
            tasks = [(number, WorkerPart(index, parts)) for index in range(parts)]
            with reporter.progress(f"scores of {teacher.name}", len(tasks), "part") as progress:
                made: Made
                for made in on_cluster(ray, how, place, scoring_worker, (config,), tasks, reporter):
                    result, infos, warnings = made
                    for message in set(warnings) - told:
                        reporter.warn(message)
                    if result.teachers[0].shards_now or not results[number]:
                        for message in [each for each in infos if each not in told]:
                            reporter.info(message)
                    told |= {*infos, *warnings}
                    results[number].append(result)
                    progress.advance(1)
    teachers = tuple(together([result.teachers[0] for result in each]) for each in results.values())
    return replace(results[0][0], teachers=teachers, part=None, seconds=time.monotonic() - begun)


def scoring_worker(config: Config) -> Callable[[Task], Made]:
    """What does a task in a worker: the data set is opened once, and a teacher loaded once for all of its parts."""
    reporter = Remembered()
    scoring = Scoring(config, reporter)
    present: dict[int, OneTeacher] = {}

    def work(task: Task) -> Made:
        begun, (number, part) = time.monotonic(), task
        if number not in present:
            present.clear()
            present[number] = scoring.teacher(number, WHOLE)
        made = present[number].run_part(part)
        return scoring.result([made], time.monotonic() - begun), *reporter.taken()

    return work


@contextmanager
def _seen_by_workers(config: Config) -> Iterator[Place]:
    """What workers have to see, files among it that nobody but those who share the disks has."""
    checkpoints = (config.teacher_checkpoint(teacher) for teacher in config.score.teachers)
    files = [str(path) for path in checkpoints if path is not None and path.exists()]
    folders = {
        config.work if isinstance(place, Path) else place for place in (config.frames_folder, config.score_store)
    }
    with marked(folders) as marks:
        yield Place(os.getcwd(), (*files, *marks), config.score.device)
