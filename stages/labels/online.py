"""OnlineTeacher: a teacher inside the training step, the published way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...cache.frames.cache import FrameCache
from ...cache.scores.reading.labels import Labels
from ...configs.schema import Config
from ..data.teacher_frames import TeacherFrames
from ..data.usable_split import UsableSplit
from ..data.video_inputs import FrameInputs, VideoInputs
from ..runtime.reporting import Reporter
from .frame_scores import carrier_of, no_frame_scores, tell_without
from .frame_times import FrameCarrier

if TYPE_CHECKING:
    from ..models.frozen.teacher import Teacher

type UintFrames = tuple[Tensor, Tensor, Tensor]
"""uint8 frames, mask and times of a batch's videos, as `VideoInputs.read` gives them."""


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

    @torch.no_grad()
    def labels(
        self, captions: Sequence[str], videos: np.ndarray, frames: Mapping[Path, UintFrames], device: torch.device
    ) -> Labels[Tensor]:
        """Labels of a batch, raw scores [b, b + u] and frame-text logits [b, F], as the store's are.

        Args:
            captions: b captions; videos: indices of their videos [b].
            frames: of these videos, and of u others behind them, by frame cache.
        """
        encoded = self.teacher.encode_videos(*(tensor.to(device) for tensor in frames[self.folder]))
        texts = self.teacher.encode_texts(captions)
        scores = self.teacher.score(texts, encoded)
        own = {key: value[: len(captions)] for key, value in encoded.items()}
        logits = self.teacher.frame_logits(texts, own) if self.frame_scores else None
        if logits is not None and self.carrier is not None:
            logits = torch.from_numpy(self.carrier(logits.float().cpu().numpy(), videos))
        return Labels(scores, logits, self.teacher.scale).map(lambda tensor: tensor.to(device))


def online_teachers(
    config: Config,
    split: UsableSplit,
    frames: FrameCache,
    seen: TeacherFrames,
    device: torch.device,
    reporter: Reporter,
) -> tuple[OnlineTeacher, ...]:
    """The teachers of `train.teachers`, loaded; see `cached_teachers`.

    Raises:
        CheckpointError: a teacher cannot be loaded.
        CacheMismatchError: frame scores that cannot be carried to the student's frames.
        ConfigError: there is a fine loss, and no teacher with frame scores.
    """
    from ..models.frozen.teacher import load_teacher, refuse_resized  # training from the cache knows no teacher
    from .frame_scores import gives_frame_logits

    known = {teacher.name: teacher for teacher in config.score.teachers}
    fine = config.train.loss.fine > 0
    teachers = []
    for name in config.train.teachers:
        teacher = load_teacher(known[name], config.teacher_checkpoint(known[name]), device, reporter)
        refuse_resized(teacher, seen[name].resize_mode, seen[name].interpolation)
        video, caption = split.videos[0], split.texts[0].caption
        has = fine and gives_frame_logits(teacher, seen[name], video, caption, device)
        if fine and not has:
            tell_without(name, reporter)
        carrier = carrier_of(config, name, split, seen[name].times(split.videos), frames, reporter) if has else None
        teachers.append(OnlineTeacher(name, teacher, seen.folders[name], has, carrier))
    if fine and not any(teacher.frame_scores for teacher in teachers):
        raise no_frame_scores(config)
    return tuple(teachers)


def teacher_inputs(
    teachers: Sequence[OnlineTeacher], seen: TeacherFrames, videos: Sequence[str]
) -> dict[Path, VideoInputs]:
    """uint8 frames for teachers inside the step, each cache once."""
    return {teacher.folder: FrameInputs(seen.caches[teacher.folder], videos) for teacher in teachers}
