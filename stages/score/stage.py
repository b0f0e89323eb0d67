"""Stage one: frozen teachers -> score cache (DESIGN: the cache holds raw scores; softmax belongs to training).

Each teacher sees each video and each caption once. What is complete is never made again; what a data set that has grown
adds is scored into further tiles (tile_plan.py); a store made from other captions, frames or weights is refused, naming
what differs.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
        UnreachableError: the store is at an address, whose server fails; what is finished is kept.
    """
    reporter, part = reporter or Silent(), part.of_process(launch())
    begun = time.monotonic()
    scoring = Scoring(config, reporter)
    results = []
    for number in range(len(config.score.teachers)):
        made = scoring.teacher(number, part).run()
        results.append(made)
        if made.shards_left:
            reporter.info(
                f"{made.teacher}: part {part} is complete; {made.shards_left} of "
                f"{counted(made.shards, 'shard is', 'shards are')} others' parts"
            )
    shown = None if part == WHOLE else str(part)
    return scoring.result(results, time.monotonic() - begun, shown)


def refuse_nobody(config: Config) -> None:
    """Refuse to score with no teacher.

    Raises:
        ConfigError: none is configured.
    """
    if not config.score.teachers:
        raise ConfigError(
            "score.teachers is empty: there is nobody to score",
            hint=Remedy("name one", Change({"score.teachers": "[{name: xclip, checkpoint: runs/teacher}]"})),
        )


class Scoring:
    """What is to be scored, with whatever teacher: captions, videos and the store, opened once."""

    def __init__(self, config: Config, reporter: Reporter) -> None:
        refuse_nobody(config)
        self.config, self.reporter = config, reporter
        tell_device(choose_device(config.score.device), reporter)
        self.dataset = texts_of(config)
        self.frames = student_view(config, self.dataset)
        self.split, self.unlabelled = scored_split(config, self.dataset, self.frames)
        if self.unlabelled != UsableUnlabelled():
            reporter.info(self.unlabelled.told)
        if self.split.left_out:
            one, many = "video has no usable frames and is left out", "videos have no usable frames and are left out"
            reporter.warn(counted(self.split.left_out, one, many))
        self.seen = [teacher_view(config, teacher, self.frames, self.dataset) for teacher in config.score.teachers]
        self.store = ScoreStore.create(config.score_store)
        if isinstance(self.store.path, Path):
            remove_leftovers(self.store.path)

    def teacher(self, number: int, part: WorkerPart) -> OneTeacher:
        """This worker's part with one of `score.teachers`."""
        settings, own, split = self.config.score.teachers[number], self.seen[number], self.split
        if own is not self.frames:
            split, further = scored_split(self.config, self.dataset, self.frames, own)
            more = split.left_out + further.left_out - self.split.left_out - self.unlabelled.left_out
            if more:
                of_frames = f"usable frames in {self.config.teacher_frames(settings)}"
                what = "features" if isinstance(own, ExpertView) else of_frames
                one = f"more video has no {what} and is left out"
                many = f"more videos have no {what} and are left out"
                self.reporter.warn(f"{settings.name}: {counted(more, one, many)}")
        kind = OneTeacher if settings.cross_encoder is None else SparseTeacher
        return kind(self.config, settings, split, own, self.store, self.reporter, part, self.dataset)

    def result(self, teachers: Sequence[TeacherScores], seconds: float, part: str | None = None) -> ScoreResult:
        """What was made in this time."""
        count = len(self.unlabelled.videos)
        return ScoreResult(str(self.store.path), tuple(teachers), self.split.left_out, seconds, part, count)
