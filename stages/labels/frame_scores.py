"""Whether a teacher has frame scores, and their way to the student's frames."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from ...cache.frames.cache import FrameCache
from ...configs.schema import Config
from ...errors import ConfigError
from ...plurals import counted
from ...remedies import Change, Remedy
from ..data.usable_split import UsableSplit
from ..runtime.reporting import Reporter
from .frame_times import FrameCarrier, frame_carrier

if TYPE_CHECKING:
    from ..models.frozen.teacher import Teacher


@torch.inference_mode()
def gives_frame_logits(teacher: "Teacher", frames: FrameCache, video: str, caption: str, device: torch.device) -> bool:
    """Whether a teacher has frame-text scores: found by asking for those of one caption."""
    clips = frames.read([video])
    features = teacher.encode_videos(*(torch.from_numpy(a).to(device) for a in (clips.frames, clips.mask, clips.times)))
    return teacher.frame_logits(teacher.encode_texts([caption]), features) is not None


def carrier_of(
    config: Config, name: str, split: UsableSplit, teacher_times: np.ndarray, frames: FrameCache, reporter: Reporter
) -> FrameCarrier | None:
    student_times = frames.times(split.videos)
    padding_counts = not config.train.network.mask_padding
    carrier = frame_carrier(name, split.videos, teacher_times, student_times, padding_counts=padding_counts)
    if carrier is not None:
        counts = f"{counted(teacher_times.shape[1], 'frame')} carried to {student_times.shape[1]}"
        reporter.info(f"{name}: frame scores of {counts} by time")
    return carrier


def tell_without(name: str, reporter: Reporter) -> None:
    reporter.info(f"{name} has no frame scores: the fine loss goes without it")


def no_frame_scores(config: Config) -> ConfigError:
    names = ", ".join(config.train.teachers)
    return ConfigError(
        f"train.loss.fine is {config.train.loss.fine:g}, but there are no frame scores to teach with: {names}",
        hint=Remedy("add a teacher that has them, or train without the fine loss", Change({"train.loss.fine": 0})),
    )
