"""Does a store still say what its teacher says: a seeded sample, scored anew from the frames, beside what is stored.

Neither the stored features of videos nor the blocks of the first time are used, so the numbers agree to rounding only
(docs/reference/determinism.md), and to what the stored type keeps of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ...cache.scores.reading.reader import ScoreReader
from ...cache.scores.store import ScoreCache, ScoreStore
from ...cache.storage.identity import JSON, refuse_difference
from ...configs.schema import Config, TeacherConfig
from ...errors import ConfigError
from ..data.usable_split import UsableSplit
from ..data.video_inputs import encoded
from ..data.views import student_view, texts_of, view_inputs
from ..labels.open_scores import open_reader
from ..labels.scored_split import scored_split
from ..labels.teacher_view import teacher_view, teacher_words
from ..models.common.network import Features
from ..models.frozen.teacher import Teacher, load_teacher, may_be_shared
from ..retrieval.encode import join_features
from ..runtime.device import choose_device
from ..runtime.reporting import Reporter

BOUND = 2e-5
"""How far scores of size one may move with blocks, threads and devices (docs/reference/determinism.md)."""


@dataclass(frozen=True)
class Rescored:
    """One teacher's sample. Errors are absolute differences of raw scores; labels are `scale` times as far apart.

    Attributes:
        texts, videos: sampled; every one of their pairs was scored anew.
        largest, mean: error of video-text scores.
        allowed: largest error that rounding and the stored type explain.
        frames_largest, frames_allowed: the same of frame-text logits, each text with its own video, relative to those
            that are larger than 1; None without any.
        rank1_disagree: captions whose first video among the sampled ones is another now.
        agrees: whether no error is larger than allowed.
    """

    teacher: str
    texts: int
    videos: int
    scale: float
    largest: float
    mean: float
    allowed: float
    frames_largest: float | None
    frames_allowed: float | None
    rank1_disagree: int
    agrees: bool


def rescore(config: Config, teacher: str | None, sample: int, seed: int, reporter: Reporter) -> list[Rescored]:
    """Score a sample of what `config.score_store` holds anew, with the teachers that `score.teachers` configures.

    Args:
        teacher: one teacher's name; by default every configured one that has scores in the store.
        sample: captions, and videos, that are sampled per teacher; in a store of blocks within one block.

    Raises:
        ConfigError: no such teacher.
        DataError: nothing to sample.
        CheckpointError, PluginError: the teacher cannot be loaded.
        CacheMismatchError: the store was made by other weights, or from other captions or frames.
        CacheError: scores are missing or damaged.
    """
    store = ScoreStore.open(config.score_store)
    known = {each.name: each for each in config.score.teachers}
    names = [teacher] if teacher else [name for name in store.teachers if name in known]
    if not names or names[0] not in known:
        what = f"score.teachers does not name {teacher!r}" if teacher else "score.teachers names none of the store's"
        raise ConfigError(f"{what}: who should score again?", hint=f"in the store: {', '.join(store.teachers)}")
    return [_rescore(config, known[name], store.teacher(name), sample, seed, reporter) for name in names]


def _rescore(
    config: Config, settings: TeacherConfig, cache: ScoreCache, sample: int, seed: int, reporter: Reporter
) -> Rescored:
    dataset = texts_of(config)
    students = student_view(config, dataset)
    frames = teacher_view(config, settings, students, dataset)
    split, _ = scored_split(config, dataset, *dict.fromkeys((students, frames)))
    device = choose_device(config.score.device)
    words = teacher_words(config, settings, dataset)
    teacher = load_teacher(settings, config.teacher_checkpoint(settings), device, words=words)
    refuse_difference(
        _identity(teacher), {key: cache.identity.get(key) for key in _identity(teacher)}, str(cache.folder)
    )
    reader, _ = open_reader(cache, split, frames, config.train.accept, reporter)
    texts, videos = choose_sample(split, reader.groups, sample, seed, reader.scored_with)
    title = f"{len(texts):,} x {len(videos):,} pairs of {settings.name}, again"
    inputs, parts = view_inputs(frames, split.videos), []
    with torch.inference_mode(), reporter.progress(title, len(videos), "video") as progress:
        encode, several = teacher.encode_videos, may_be_shared(teacher)
        for batch, features in encoded(inputs, videos, encode, device, config.score.video_batch, several=several):
            parts.append(features)
            progress.advance(len(batch))
    return _compare(teacher, split, reader, (texts, videos), join_features(parts), config.score.text_batch)


def choose_sample(
    split: UsableSplit,
    groups: np.ndarray | None,
    sample: int,
    seed: int,
    scored_with: Callable[[int], np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the sampled texts and videos, each at most `sample` and ascending; their own videos first of all.

    Args:
        groups: of each text, where not all pairs are scored: the sample is then drawn within one group [T].
        scored_with: places of the videos that a text, and all of its group, is scored with, ascending; by default the
            own videos of its group's texts.
    """
    random = np.random.default_rng(seed)
    among = np.arange(len(split.texts))
    if groups is not None:
        among = np.flatnonzero(groups == groups[random.integers(len(groups))])
    texts = np.sort(random.permutation(among)[:sample])
    own = np.unique(split.text_video[texts])
    every = split.text_video[among] if scored_with is None else scored_with(int(among[0]))
    others = np.setdiff1d(every, own)
    return texts, np.sort(np.concatenate([own, random.permutation(others)[: sample - len(own)]]))


@torch.inference_mode()
def _compare(
    teacher: Teacher,
    split: UsableSplit,
    reader: ScoreReader,
    chosen: tuple[np.ndarray, np.ndarray],
    encoded: Features,
    batch: int,
) -> Rescored:
    texts, videos = chosen
    own = np.searchsorted(videos, split.text_video[texts])
    scores, logits = [], []
    for start in range(0, len(texts), batch):
        rows = slice(start, start + batch)
        features = teacher.encode_texts([split.texts[k].caption for k in texts[rows]])
        scores.append(teacher.score(features, encoded).float().cpu().numpy())
        if reader.frame_logits is not None:
            found = teacher.frame_logits(features, {key: value[own[rows]] for key, value in encoded.items()})
            assert found is not None
            logits.append(found.float().cpu().numpy())
    again, stored = np.concatenate(scores), reader.read(texts, videos).coarse
    error = np.abs(again - stored)
    allowed = _allowed(again) + reader.precision(texts)
    frames_largest = frames_allowed = None
    if reader.frame_logits is not None:
        again_frames = np.concatenate(logits)
        # Frame by frame: a padded frame's logit may be large, and says nothing of what the others may differ by.
        apart = np.abs(again_frames - reader.frame_logits[texts]) / np.maximum(1.0, np.abs(again_frames))
        frames_largest, frames_allowed = float(apart.max()), BOUND
    return Rescored(
        teacher.name,
        len(texts),
        len(videos),
        teacher.scale,
        float(error.max()),
        float(error.mean()),
        allowed,
        frames_largest,
        frames_allowed,
        int(np.count_nonzero(again.argmax(1) != stored.argmax(1))),
        bool(error.max() <= allowed and (frames_largest or 0.0) <= (frames_allowed or 0.0)),
    )


def _allowed(values: np.ndarray) -> float:
    return BOUND * max(1.0, float(np.abs(values).max()))


def _identity(teacher: Teacher) -> dict[str, JSON]:
    return {
        "weights": teacher.weights_digest,
        "score_version": teacher.score_version,
        "words": teacher.words,
        "frames": teacher.frames,
    }
