"""A teacher's frame weights, from the store or from the teacher itself."""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from ...cache.frames.cache import FrameCache
from ...cache.scores.store import ScoreCache, ScoreStore
from ...configs.schema import Config, TeacherConfig
from ...errors import CacheError, ConfigError
from ..data.usable_split import UsableSplit
from ..data.video_inputs import VIDEOS_AT_ONCE, FrameInputs, encoded
from ..labels.frame_times import frame_carrier
from ..labels.open_scores import open_reader
from ..models.frozen.teacher import Teacher, load_teacher, may_be_shared
from ..runtime.reporting import Reporter
from .closeness import softmax_over

SplitName = Literal["train", "val", "test"]
LogitsSource = Literal["store", "teacher"]


def teacher_weights(
    config: Config,
    name: str,
    split: UsableSplit,
    split_name: SplitName,
    frames: FrameCache,
    seen: FrameCache,
    temperature: float,
    device: torch.device,
    reporter: Reporter,
) -> tuple[np.ndarray, LogitsSource]:
    """A teacher's weights [T, F] of texts and their own videos, on the students' frame slots; and where its scores come
    from.

    Args:
        name: the teacher. split: the texts; split_name: where they come from.
        frames: the students'; seen: the teacher's.
        temperature: of the softmax over its frame-text scores.

    Raises:
        ConfigError: no such teacher, or one without frame scores.
        CacheError: its scores are incomplete, or do not fit.
        CheckpointError: it cannot be loaded.
    """
    known = next((each for each in config.score.teachers if each.name == name), None)
    scores = _teacher_scores(config, name, known, split, split_name, seen, device, reporter)
    times = frames.times(split.videos)
    carrier = frame_carrier(name, split.videos, scores.times, times, padding_counts=False)
    logits = scores.logits if carrier is None else carrier(scores.logits, split.text_video)
    return softmax_over(~np.isnan(times)[split.text_video], logits / temperature), scores.source


def first_teacher(config: Config) -> str:
    names = [*config.train.teachers, *(teacher.name for teacher in config.score.teachers)]
    if not names:
        raise ConfigError(
            "neither train.teachers nor score.teachers names a teacher: whose frame weights are the target?",
            hint="name one among score.teachers",
        )
    return names[0]


class _FrameLogits(NamedTuple):
    """Frame-text scores [T, G] on the teacher's own frame slots, before softmax, each text with its own video; seconds
    of the slots [V, G]; and where the scores come from."""

    logits: np.ndarray
    times: np.ndarray
    source: LogitsSource


def _teacher_scores(
    config: Config,
    name: str,
    known: TeacherConfig | None,
    split: UsableSplit,
    split_name: SplitName,
    seen: FrameCache,
    device: torch.device,
    reporter: Reporter,
) -> _FrameLogits:
    if split_name in config.score.splits and (cache := _stored(config, name)) is not None:
        reader, _ = open_reader(cache, split, seen, config.train.accept, reporter)
        if reader.frame_logits is None:
            raise _without_frame_scores(name)
        return _FrameLogits(reader.frame_logits, reader.frame_times, "store")
    if known is None:
        raise ConfigError(
            f"score.teachers does not name {name!r}, and the score store does not have it for the {split_name} split",
            hint=f"teachers: {', '.join(each.name for each in config.score.teachers) or 'none'}",
        )
    teacher = load_teacher(known, config.teacher_checkpoint(known), device)
    return _FrameLogits(_asked(teacher, split, seen, device, reporter), seen.times(split.videos), "teacher")


def _stored(config: Config, name: str) -> ScoreCache | None:
    """What the score store has of a teacher; None without a store or without the teacher."""
    try:
        store = ScoreStore.open(config.score_store)
    except CacheError:
        if isinstance(config.score_store, Path) and not config.score_store.exists():
            return None
        raise
    return store.teacher(name) if name in store.teachers else None


@torch.inference_mode()
def _asked(
    teacher: Teacher, split: UsableSplit, seen: FrameCache, device: torch.device, reporter: Reporter
) -> np.ndarray:
    """A teacher's frame-text scores [T, G], computed now."""
    logits = np.zeros((len(split.texts), seen.max_frames), np.float32)
    inputs, index = FrameInputs(seen, split.videos), np.arange(len(split.videos))
    with reporter.progress(f"frame scores of {teacher.name}", len(index), "video") as progress:
        encode, several = teacher.encode_videos, may_be_shared(teacher)
        for batch, videos in encoded(inputs, index, encode, device, VIDEOS_AT_ONCE, several=several):
            rows = np.flatnonzero(np.isin(split.text_video, batch))
            texts = teacher.encode_texts([split.texts[k].caption for k in rows])
            own = torch.from_numpy(split.text_video[rows] - batch[0]).to(device)
            found = teacher.frame_logits(texts, {key: value[own] for key, value in videos.items()})
            if found is None:
                raise _without_frame_scores(teacher.name)
            logits[rows] = found.float().cpu().numpy()
            progress.advance(len(batch))
    return logits


def _without_frame_scores(name: str) -> ConfigError:
    return ConfigError(
        f"{name} has no frame scores, only scores of whole videos: there are no weights to compare with",
        hint="name another teacher",
    )
