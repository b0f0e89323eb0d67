"""CachedTeacher: a teacher's scores in the store, for the texts and videos of a split."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from ...cache.frames.cache import FrameCache
from ...cache.scores.reading.label_process import LabelProcess
from ...cache.scores.reading.reader import PendingLabels, ScoreReader
from ...cache.scores.store import ScoreStore
from ...cache.storage.identity import identity_digest
from ...configs.schema import Config
from ...errors import CacheError, CacheMismatchError
from ...remedies import Remedy, RemoveScores, Score
from ..data.teacher_frames import TeacherFrames
from ..data.usable_split import UsableSplit
from ..runtime.reporting import Reporter
from .frame_scores import carrier_of, no_frame_scores, tell_without
from .open_scores import open_reader

if TYPE_CHECKING:
    pass

type UintFrames = tuple[Tensor, Tensor, Tensor]
"""uint8 frames, mask and times of a batch's videos, as `VideoInputs.read` gives them."""


@dataclass(frozen=True)
class CachedTeacher:
    """One teacher's scores in the store.

    Attributes:
        scale: exp(logit_scale): a soft label is a score times this.
        digest: stands for everything that the scores were made from.
        frame_logits: on the student's frames, float32 [T, F], each text with its own video; None where the fine loss
            does not want them, or the teacher has none.
        other_pixels: videos whose frames are others than those that were scored, accepted all the same, bool [V].
    """

    name: str
    scale: float
    digest: str
    reader: ScoreReader
    frame_logits: np.ndarray | None
    other_pixels: np.ndarray

    def start(self, texts: np.ndarray, videos: np.ndarray) -> PendingLabels:
        """Begin to read the labels of a batch: raw scores [b, b], and frame-text logits of the pairs [b, F]."""
        return replace(self.reader.start(texts, videos), frame_logits=self.frame_logits)


def cached_teachers(
    config: Config, split: UsableSplit, frames: FrameCache, seen: TeacherFrames, reporter: Reporter
) -> tuple[CachedTeacher, ...]:
    """The teachers of `train.teachers` as the store has them, for the texts and videos of `split`.

    Args:
        frames: what the student sees; seen: what each teacher sees.

    Raises:
        CacheError: scores are missing, incomplete or damaged.
        CacheMismatchError: captions or frames changed since, or frame scores that cannot be carried.
        ConfigError: there is a fine loss, and no teacher with frame scores.
    """
    store = ScoreStore.open(config.score_store)
    fine = config.train.loss.fine > 0
    teachers = []
    for name in config.train.teachers:
        cache = store.teacher(name)
        reader, other = open_reader(cache, split, seen[name], config.train.accept, reporter)
        logits = reader.frame_logits if fine else None
        if fine and logits is None:
            tell_without(name, reporter)
        if logits is not None:
            carrier = carrier_of(config, name, split, reader.frame_times, frames, reporter)
            logits = carrier(logits, split.text_video) if carrier else logits
        teachers.append(CachedTeacher(name, cache.scale, identity_digest(cache.identity), reader, logits, other))
    if fine and all(teacher.frame_logits is None for teacher in teachers):
        raise no_frame_scores(config)
    return tuple(teachers)


@contextmanager
def label_process(
    reader: Literal["auto", "thread", "process"], teachers: Sequence[CachedTeacher], device: torch.device
) -> Iterator[LabelProcess | None]:
    """The process that reads the labels of `teachers` until the body ends; None where training's own thread does.

    Args:
        reader: `train.label_reader`. A GPU's steps are short and launched by a busy interpreter, so there `auto` takes
            a process; steps on the CPU are long.
    """
    wanted = reader == "process" or (reader == "auto" and device.type == "cuda")
    if not (wanted and teachers):
        yield None
        return
    with LabelProcess([each.reader for each in teachers], [each.frame_logits for each in teachers]) as process:
        yield process


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
