"""Stage one: frozen teachers -> score cache (DESIGN: the cache holds raw scores; softmax belongs to training).

Each teacher sees each video and each caption once. What is complete is never made again; what a data set that has grown
adds is scored into further tiles (tile_plan.py); a store made from other captions, frames or weights is refused, naming
what differs.
"""

import time
from dataclasses import dataclass

from ...cache.scores.store import ScoreStore
from ...cache.storage.publish import remove_leftovers
from ...configs.schema import Config
from ...errors import ConfigError
from ...plurals import counted
from ...remedies import Change, Remedy
from ..data.usable_split import UsableUnlabelled
from ..data.views import ExpertView, student_view, texts_of
from ..labels.scored_split import scored_split
from ..labels.teacher_view import teacher_view
from ..runtime.device import choose_device, tell_device
from ..runtime.launch import launch
from ..runtime.reporting import Reporter, Silent
from .one_teacher import OneTeacher, TeacherScores
from .sparse import SparseTeacher
from .worker_part import WHOLE, WorkerPart


@dataclass(frozen=True)
class ScoreResult:
    """The store, each teacher's scores in it, and the videos that have no usable frames in `prepare.frames`.

    `part`: the worker's part of several, as "0/8"; None when one worker makes all. `unlabelled`: videos without
    captions, scored with all captions.
    """

    store: str
    teachers: tuple[TeacherScores, ...]
    left_out_videos: int
    seconds: float
    part: str | None = None
    unlabelled: int = 0


def score(config: Config, reporter: Reporter | None = None, part: WorkerPart = WHOLE) -> ScoreResult:
    """Score the captions and videos of `config.score.splits` with every configured teacher.

    Training videos without captions are scored with all captions, where `train` is among the splits.

    A killed run goes on where it was; a finished one is only reported; captions and videos that are new are added.
    Several may run at once. A teacher that sees frames of its own (`prepared`) scores the videos that have frames in
    both caches: stage two needs the student's.

    Args:
        config: the configuration.
        reporter: is told what happens.
        part: of the shards, which this worker makes; processes that torchrun started together share it.

    Raises:
        ConfigError: no teacher is configured, or there is no such model or class.
        DataError: nothing to score, features that are not finite.
        CheckpointError: a teacher cannot be loaded.
        PluginError: a teacher of the user's own fails, or is none.
        CacheMismatchError: the store was made from other captions, frames or weights; names what differs.
        CacheError: no frames, a damaged store, a disk that cannot be written, scores that are not finite, or ranks
            near chance.
    """
    reporter, part = reporter or Silent(), part.of_process(launch())
    begun = time.monotonic()
    if not config.score.teachers:
        raise ConfigError(
            "score.teachers is empty: there is nobody to score",
            hint=Remedy("name one", Change({"score.teachers": "[{name: xclip, checkpoint: runs/teacher}]"})),
        )
    tell_device(choose_device(config.score.device), reporter)
    dataset = texts_of(config)
    frames = student_view(config, dataset)
    split, unlabelled = scored_split(config, dataset, frames)
    if unlabelled != UsableUnlabelled():
        reporter.info(unlabelled.told)
    if split.left_out:
        one, many = "video has no usable frames and is left out", "videos have no usable frames and are left out"
        reporter.warn(counted(split.left_out, one, many))
    seen = [(teacher, teacher_view(config, teacher, frames, dataset)) for teacher in config.score.teachers]
    store = ScoreStore.create(config.score_store)
    remove_leftovers(store.local)
    results = []
    for teacher, own in seen:
        scored, further = (split, unlabelled) if own is frames else scored_split(config, dataset, frames, own)
        if more := scored.left_out + further.left_out - split.left_out - unlabelled.left_out:
            what = "features" if isinstance(own, ExpertView) else f"usable frames in {config.teacher_frames(teacher)}"
            one = f"more video has no {what} and is left out"
            many = f"more videos have no {what} and are left out"
            reporter.warn(f"{teacher.name}: {counted(more, one, many)}")
        kind = OneTeacher if teacher.cross_encoder is None else SparseTeacher
        results.append(kind(config, teacher, scored, own, store, reporter, part, dataset).run())
    shown = None if part == WHOLE else str(part)
    count = len(unlabelled.videos)
    return ScoreResult(str(store.path), tuple(results), split.left_out, time.monotonic() - begun, shown, count)
