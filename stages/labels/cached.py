"""Labels out of the store: the teachers' readers for the texts and videos of a split, and who reads their labels."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ...cache.frames.cache import FrameCache
from ...cache.scores.reading.label_process import LabelProcess
from ...cache.scores.reading.label_threads import LabelThreads
from ...cache.scores.reading.labels import LEAST, LabelSource
from ...cache.scores.reading.reader import ScoreReader
from ...cache.scores.store import ScoreCache, ScoreStore
from ...cache.storage.identity import identity_digest
from ...configs.schema import Config
from ...errors import CacheError, CacheMismatchError
from ...plurals import counted
from ...remedies import Remedy, RemoveScores, Score
from ..data.teacher_frames import TeacherFrames
from ..data.usable_split import UsableSplit
from ..data.views import View
from ..runtime.reporting import Reporter
from .frame_scores import carrier_of, no_frame_scores, tell_without
from .named_teachers import told_how_to_score
from .open_scores import open_reader


@dataclass(frozen=True)
class CachedTeacher:
    """One teacher's scores in the store.

    Attributes:
        digest: stands for everything that the scores were made from.
        reader: of its labels; their frame-text logits are on the student's frames, and left out where the fine loss
            does not want them.
        other_pixels: videos whose frames are others than those that were scored, accepted all the same, bool [V + U],
            those without texts last.
    """

    name: str
    digest: str
    reader: ScoreReader
    other_pixels: np.ndarray


def cached_teachers(
    config: Config,
    split: UsableSplit,
    frames: View,
    seen: TeacherFrames,
    reporter: Reporter,
    unlabelled: Sequence[str] = (),
) -> tuple[CachedTeacher, ...]:
    """The teachers of `train.teachers` as the store has them, for the texts and videos of `split`.

    Args:
        frames: what the student sees; seen: what each teacher sees.
        unlabelled: videos without texts, whose places in the readers are behind those of the split's videos.

    Raises:
        CacheError: scores are missing, incomplete or damaged.
        CacheMismatchError: captions or frames changed since, or frame scores that cannot be carried.
        ConfigError: there is a fine loss, and no teacher with frame scores.
    """
    store = ScoreStore.open(config.score_store)
    fine = config.train.loss.fine > 0
    teachers = []
    for name in config.train.teachers:
        with told_how_to_score(config, store, "train.teachers", config.train.teachers, name):
            cache = store.teacher(name)
            wanted = split.beside(unlabelled)
            reader, other = open_reader(cache, wanted, seen[name], config.train.accept, reporter, holes=True)
        if reader.sparse:
            tell_sparse(cache, reader, config.train.batch_size, reporter)
        logits = reader.frame_logits if fine else None
        if fine and logits is None:
            tell_without(name, reporter)
        if logits is not None:
            assert isinstance(frames, FrameCache)  # a student on experts has no fine loss
            carrier = carrier_of(config, name, split, reader.frame_times[: len(split.videos)], frames, reporter)
            logits = carrier(logits, split.text_video) if carrier else logits
        carried = reader.with_frame_logits(logits)
        teachers.append(CachedTeacher(name, identity_digest(cache.identity), carried, other))
    if fine and all(teacher.reader.frame_logits is None for teacher in teachers):
        raise no_frame_scores(config)
    return tuple(teachers)


def tell_sparse(cache: ScoreCache, reader: ScoreReader, pairs: int, reporter: Reporter) -> None:
    """Say how many of a batch's videos a sparse teacher has scored for each caption, on average.

    The own video always, another of the n that a caption may meet in a batch with probability top / n.
    """
    groups = np.zeros(len(reader.texts), np.int64) if reader.groups is None else reader.groups
    firsts = np.unique(groups, return_index=True)[1].tolist()
    among = max(2, round(float(np.mean([len(reader.scored_with(first)) for first in firsts]))))
    scored = 1 + (min(pairs, among) - 1) * min(1.0, cache.sparse / (among - 1))
    told = (
        f"{cache.name} scored {cache.sparse} of {counted(among, 'video')} for each caption: in a batch of {pairs}, "
        f"{scored:.1f} on average"
    )
    if scored >= LEAST:
        reporter.info(told)
    else:
        reporter.warn(f"{told}; rows and columns with fewer than {LEAST} teach nothing (docs/guide/teachers.md)")


def label_source(
    how: Literal["auto", "thread", "process"], teachers: Sequence[CachedTeacher], device: torch.device
) -> AbstractContextManager[LabelSource]:
    """What reads the labels of `teachers`, until the body ends.

    Args:
        how: `train.label_reader`. A GPU's steps are short and launched by a busy interpreter, so there `auto` takes a
            process; steps on the CPU are long.
    """
    readers = [teacher.reader for teacher in teachers]
    if readers and (how == "process" or (how == "auto" and device.type == "cuda")):
        return LabelProcess(readers)
    return nullcontext(LabelThreads(readers))


def batch_groups(teachers: Sequence[CachedTeacher], store: Path | str) -> np.ndarray | None:
    """The group of each text [T], counted from the first, within which batches must be drawn; None for one group.

    Raises:
        CacheMismatchError: two teachers were scored in other blocks of videos.
        CacheError: no block has two of the texts.
    """
    found = [(teacher.name, teacher.reader.groups) for teacher in teachers]
    named = [(name, _in_order(groups)) for name, groups in found if groups is not None]
    if not named:
        return None
    (first, groups), *others = named
    for name, other in others:
        if not np.array_equal(groups, other):
            raise CacheMismatchError(
                f"{first} and {name} were scored in other blocks of videos: no batch would suit both",
                where=str(store),
                hint=Remedy(
                    f"remove the scores of {name} and score again, it then takes the blocks that are there",
                    RemoveScores(str(store), name),
                    then=Score(),
                ),
            )
    if np.bincount(groups).max() < 2:
        raise CacheError(
            "no block of videos has two captions to compare",
            where=str(store),
            hint=Remedy(
                "score larger blocks into another store",
                Score({"score.block_videos": 4096, "score.store": "OTHER.zarr"}),
            ),
        )
    return groups


def _in_order(groups: np.ndarray) -> np.ndarray:
    """The same groups, numbered as they first appear."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    number: np.ndarray = np.argsort(np.argsort(first))[group]
    return number
