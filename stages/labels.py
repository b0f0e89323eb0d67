"""What teaches a student: cached scores, or teachers inside the step; both speak of the student's frames in the end.

A teacher may see other frames of the same videos than the student (more of them, other sizes): it then has a frame
cache of its own (`prepared`), and its frame scores are carried to the student's frames by time (frame_times.py). A
teacher may have no frame scores: with several, the fine loss uses those that have.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from ..cache.frames import FrameCache
from ..cache.identity import identity_digest
from ..cache.label_process import LabelProcess
from ..cache.reader import PendingLabels, ScoreReader
from ..cache.scores import ScoreStore
from ..configs.schema import Config
from ..errors import CacheError, CacheMismatchError, ConfigError
from .frame_times import FrameCarrier, frame_carrier
from .inputs import FrameInputs, VideoInputs
from .reporting import Reporter
from .score_reading import open_reader
from .splits import Split
from .teacher_frames import TeacherFrames

if TYPE_CHECKING:
    from .models.teachers import Teacher

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
    config: Config, split: Split, frames: FrameCache, seen: TeacherFrames, reporter: Reporter
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
            _tell_without(name, reporter)
        if logits is not None:
            carrier = _carrier(config, name, split, reader.frame_times, frames, reporter)
            logits = carrier(logits, split.text_video) if carrier else logits
        teachers.append(CachedTeacher(name, cache.scale, identity_digest(cache.identity), reader, logits, other))
    if fine and all(teacher.frame_logits is None for teacher in teachers):
        raise _no_frame_scores(config)
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
                hint=f"score {name} again, it then takes the blocks that are there: "
                f"teachclip cache rm {store} {name}, then teachclip score CONFIG",
            )
    if np.bincount(groups).max() < 2:
        raise CacheError(
            "no block of videos has two captions to compare",
            where=str(store),
            hint="score larger blocks into another store: --set score.block_videos=4096 --set score.store=OTHER.zarr",
        )
    return groups


def _in_order(groups: np.ndarray) -> np.ndarray:
    """The same groups, numbered as they first appear."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    number: np.ndarray = np.argsort(np.argsort(first))[group]
    return number


@dataclass(frozen=True)
class OnlineTeacher:
    """A teacher inside the training step, the published way.

    Attributes:
        folder: its frame cache, by which it finds its frames in a batch.
        frame_scores: whether the fine loss wants its frame scores, and it has any.
        carrier: takes them to the student's frames; None where both see the same.
    """

    name: str
    teacher: "Teacher"
    folder: Path
    frame_scores: bool
    carrier: FrameCarrier | None

    @property
    def scale(self) -> float:
        return self.teacher.scale

    @torch.no_grad()
    def labels(
        self, captions: Sequence[str], videos: np.ndarray, frames: Mapping[Path, UintFrames], device: torch.device
    ) -> tuple[Tensor, Tensor | None]:
        """Raw scores [b, b], and frame-text logits of the pairs [b, F].

        Args:
            captions: b captions; videos: indices of their videos [b]; frames: of these videos, by frame cache.
        """
        encoded = self.teacher.encode_videos(*(tensor.to(device) for tensor in frames[self.folder]))
        texts = self.teacher.encode_texts(captions)
        scores = self.teacher.score(texts, encoded)
        logits = self.teacher.frame_logits(texts, encoded) if self.frame_scores else None
        if logits is not None and self.carrier is not None:
            logits = torch.from_numpy(self.carrier(logits.float().cpu().numpy(), videos))
        return scores.to(device), None if logits is None else logits.to(device)


def online_teachers(
    config: Config, split: Split, frames: FrameCache, seen: TeacherFrames, device: torch.device, reporter: Reporter
) -> tuple[OnlineTeacher, ...]:
    """The teachers of `train.teachers`, loaded; see `cached_teachers`.

    Raises:
        CheckpointError: a teacher cannot be loaded.
        CacheMismatchError: frame scores that cannot be carried to the student's frames.
        ConfigError: there is a fine loss, and no teacher with frame scores.
    """
    from .models.teachers import load_teacher  # training from the cache knows no teacher
    from .scoring import gives_frame_logits

    known = {teacher.name: teacher for teacher in config.score.teachers}
    fine = config.train.loss.fine > 0
    teachers = []
    for name in config.train.teachers:
        teacher = load_teacher(known[name], config.teacher_checkpoint(known[name]), device)
        video, caption = split.videos[0], split.texts[0].caption
        has = fine and gives_frame_logits(teacher, seen[name], video, caption, device)
        if fine and not has:
            _tell_without(name, reporter)
        carrier = _carrier(config, name, split, seen[name].times(split.videos), frames, reporter) if has else None
        teachers.append(OnlineTeacher(name, teacher, seen.folders[name], has, carrier))
    if fine and not any(teacher.frame_scores for teacher in teachers):
        raise _no_frame_scores(config)
    return tuple(teachers)


def teacher_inputs(
    teachers: Sequence[OnlineTeacher], seen: TeacherFrames, videos: Sequence[str]
) -> dict[Path, VideoInputs]:
    """uint8 frames for teachers inside the step, each cache once."""
    return {teacher.folder: FrameInputs(seen.caches[teacher.folder], videos) for teacher in teachers}


def _carrier(
    config: Config, name: str, split: Split, teacher_times: np.ndarray, frames: FrameCache, reporter: Reporter
) -> FrameCarrier | None:
    student_times = frames.times(split.videos)
    padding_counts = not config.train.network.mask_padding
    carrier = frame_carrier(name, split.videos, teacher_times, student_times, padding_counts=padding_counts)
    if carrier is not None:
        counts = f"{teacher_times.shape[1]} frames carried to {student_times.shape[1]}"
        reporter.info(f"{name}: frame scores of {counts} by time")
    return carrier


def _tell_without(name: str, reporter: Reporter) -> None:
    reporter.info(f"{name} has no frame scores: the fine loss goes without it")


def _no_frame_scores(config: Config) -> ConfigError:
    names = ", ".join(config.train.teachers)
    return ConfigError(
        f"train.loss.fine is {config.train.loss.fine:g}, but there are no frame scores to teach with: {names}",
        hint="use --set train.loss.fine=0, or add a teacher that has them",
    )
