"""OnlineTeacher: a teacher inside the training step, the published way."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

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
    from ..models.frozen.teacher import NetworkTeacher, Teacher

type UintFrames = tuple[Tensor, Tensor, Tensor]
"""uint8 frames, mask and times of a batch's videos, as `VideoInputs.read` gives them."""


@dataclass(frozen=True)
class OnlineTeacher:
    """A teacher inside the training step, the published way.

    Attributes:
        folder: its frame cache, by which it finds its frames in a batch.
        frame_scores: whether the fine loss wants its frame scores, and it has any.
        carrier: takes them to the student's frames; None where both see the same.
        captions: of all training texts; ids: their token ids [T, W], of a network of ours.
    """

    name: str
    teacher: "Teacher"
    folder: Path | str
    frame_scores: bool
    carrier: FrameCarrier | None
    captions: Sequence[str]
    ids: Tensor | None

    def ids_of(self, texts: np.ndarray) -> Tensor | None:
        """Token ids of these texts, of all that the teacher reads of them."""
        if self.ids is None:
            return None
        return cast("NetworkTeacher", self.teacher).network.needed_ids(self.ids[torch.from_numpy(texts)])

    @torch.no_grad()
    def labels(
        self, texts: np.ndarray, videos: np.ndarray, frames: UintFrames, ids: Tensor | None, device: torch.device
    ) -> Labels[Tensor]:
        """Labels of a batch, raw scores [b, b + u] and frame-text logits [b, F], as the store's are.

        Args:
            texts: indices of b texts; videos: of their videos [b].
            frames: of these videos, and of u others behind them, on `device`.
            ids: what `ids_of` gives of the texts, on `device`.
        """
        encoded = self.teacher.encode_videos(*frames)
        if ids is None:
            features = self.teacher.encode_texts([self.captions[k] for k in texts])
        else:
            features = cast("NetworkTeacher", self.teacher).encode_ids(ids)
        scores = self.teacher.score(features, encoded)
        own = {key: value[: len(texts)] for key, value in encoded.items()}
        logits = self.teacher.frame_logits(features, own) if self.frame_scores else None
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
    # Training from the cache knows no teacher.
    from ..models.frozen.teacher import NetworkTeacher, load_teacher, refuse_resized
    from .frame_scores import gives_frame_logits

    known = {teacher.name: teacher for teacher in config.score.teachers}
    fine = config.train.loss.fine > 0
    teachers = []
    for name in config.train.teachers:
        checkpoint, precision = config.teacher_checkpoint(known[name]), config.train.online_precision
        teacher = load_teacher(known[name], checkpoint, device, reporter, precision)
        video, caption = split.videos[0], split.texts[0].caption
        shown = seen.caches[seen.folders[name]]
        refuse_resized(teacher, shown.resize_mode, shown.interpolation)
        has = fine and gives_frame_logits(teacher, shown, video, caption, device)
        if fine and not has:
            tell_without(name, reporter)
        carrier = carrier_of(config, name, split, seen[name].times(split.videos), frames, reporter) if has else None
        ids = teacher.tokenize(split.captions) if isinstance(teacher, NetworkTeacher) else None
        teachers.append(OnlineTeacher(name, teacher, seen.folders[name], has, carrier, split.captions, ids))
    if fine and not any(teacher.frame_scores for teacher in teachers):
        raise no_frame_scores(config)
    return tuple(teachers)


def teacher_inputs(
    teachers: Sequence[OnlineTeacher], seen: TeacherFrames, videos: Sequence[str], pin: bool
) -> dict[Path | str, VideoInputs]:
    """uint8 frames for teachers inside the step, each cache once; with `pin`, in page-locked memory."""
    return {teacher.folder: FrameInputs(seen.caches[teacher.folder], videos, pin) for teacher in teachers}
