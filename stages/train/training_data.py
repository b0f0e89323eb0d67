"""What a training run is made from: the captions and videos it uses, their frames, and the scores that teach."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...cache.scores.store import ScoreStore
from ...cache.storage.identity import JSON, canonical, digest_of, identity_digest
from ...configs.schema import Config
from ...errors import ConfigError, DataError
from ...remedies import Change, Prepare, Remedy
from ..data.dataset import Dataset
from ..data.experts.inputs import WordSet
from ..data.teacher_frames import TeacherFrames
from ..data.usable_split import UsableSplit, UsableUnlabelled, usable_split, usable_unlabelled
from ..data.views import View, open_words, student_view, texts_of
from ..labels.cached import CachedTeacher, batch_groups, cached_teachers
from ..labels.caption_mask import captions_digest, read_mask
from ..labels.named_teachers import made_from
from ..models.checkpoints.files import checkpoint_digest
from ..models.checkpoints.shared import is_there
from ..runtime.reporting import Reporter
from .dataloader.unlabelled import UnlabelledSampler


class Masked(NamedTuple):
    """What a mask left out: how many captions, and videos with all of theirs; `digest` stands for the mask."""

    digest: str
    texts: int
    videos: int


@dataclass(frozen=True)
class TrainingData:
    """What a run is trained and validated on.

    Attributes:
        frames: what the student sees; seen: what each teacher sees.
        masked: the captions that a mask left out of `train`; None without one.
        cached: the teachers whose scores are read; empty where they run inside the step.
        online: digests of those that run inside the step, by name.
        groups: the group of each training text [T], within which batches are drawn; None for one group.
        unlabelled: videos without captions of which some are drawn for every step, by `draws`; none, and None, without
            `train.unlabelled`.
        words: of the captions, for a network on experts.
        validated_on: `val` is the validation split, or the test split, as `data.validation` said.
    """

    frames: View
    seen: TeacherFrames
    masked: Masked | None
    train: UsableSplit
    val: UsableSplit
    cached: tuple[CachedTeacher, ...]
    online: dict[str, str]
    groups: np.ndarray | None
    start: dict[str, str]
    validated_on: str = "the validation split"
    unlabelled: UsableUnlabelled = field(default_factory=UsableUnlabelled)
    draws: UnlabelledSampler | None = None
    words: WordSet | None = None

    @property
    def videos(self) -> tuple[str, ...]:
        """Everything that is trained on: the videos of the training texts, and behind these those without captions."""
        return (*self.train.videos, *self.unlabelled.videos)

    def identity(self) -> dict[str, str]:
        """What the run's numbers depend on beside its configuration."""
        identity = {} if self.masked is None else {"captions mask": self.masked.digest}
        if self.words is not None:
            identity["words"] = identity_digest(self.words.cache.identity)
        for name, split in (("train", self.train), ("val", self.val)):
            identity[f"{name} captions"] = captions_digest(split.texts)
            identity[f"{name} frames"] = digest_of(self.frames.digest(video) for video in split.videos)
        for name, cache in self.seen.others().items():
            identity[f"frames of {name}"] = digest_of(cache.digest(video) for video in self.train.videos)
        for teacher in self.cached:
            identity[f"scores of {teacher.name}"] = teacher.digest
            if count := np.count_nonzero(teacher.other_pixels):
                seen = digest_of(map(bytes, teacher.reader.video_digests))
                identity[f"pixels that {teacher.name} saw"] = f"{seen}, other than here in {count} videos"
        if self.draws is not None:
            views = [self.frames, *self.seen.others().values()]
            digests = (view.digest(video) for view in views for video in self.unlabelled.videos)
            drawn_from = (places.tobytes() for places in self.draws.candidates)
            identity["videos without captions"] = digest_of([*digests, *drawn_from])
        if self.groups is not None:
            identity["groups of batches"] = digest_of([self.groups.tobytes()])
        return identity | self.start | {f"teacher {name}": digest for name, digest in self.online.items()}


def open_training_data(config: Config, reporter: Reporter) -> TrainingData:
    """What `config.train` is to be trained on.

    Raises:
        DataError: nothing to train on.
        CacheError: frames or scores, or the mask of captions, are missing, incomplete or damaged.
        CacheMismatchError: the scores or the mask were made from something else.
        ConfigError: there is a fine loss, and no teacher with frame scores; or fewer videos without captions than a
            step is to have.
    """
    dataset = texts_of(config)
    if not dataset.texts_of("train"):
        raise DataError(
            "no caption is of the split train",
            where=str(config.data.origin),
            hint="give the word train, in the column split or as the data set's files do, to those to train on",
        )
    frames = student_view(config, dataset)
    network = config.train.network
    words = open_words(config, network.experts, dataset) if network.on_experts else None
    seen = TeacherFrames(config, config.train.teachers, frames, _scored(config))
    train_split = usable_split(dataset, ["train"], *seen.views)
    train_split, masked = _masked(config, dataset, train_split, reporter)
    val_split = usable_split(dataset, [dataset.validation], frames)
    if len(train_split.texts) < 2:
        raise DataError(
            "fewer than two usable captions to train on",
            where=str(config.data.origin),
            hint=Remedy("look which videos cannot be used, and why", Prepare()),
        )
    unlabelled = UsableUnlabelled()
    if config.train.unlabelled:
        unlabelled = usable_unlabelled(dataset, *seen.views)
    cached: tuple[CachedTeacher, ...] = ()
    online: dict[str, str] = {}
    if config.train.teaching == "online":
        online = {name: _teacher_digest(config, name) for name in config.train.teachers}
    elif config.train.teachers:
        cached = cached_teachers(config, train_split, frames, seen, reporter, unlabelled.videos)
    groups = batch_groups(cached, config.score_store)
    validated_on = _validated_on(dataset, reporter)
    start = _start_digests(config)
    draws = _draws(config, unlabelled, len(train_split.videos), cached, groups) if config.train.unlabelled else None
    return TrainingData(
        *(frames, seen, masked, train_split, val_split, cached, online, groups, start, validated_on),
        unlabelled=unlabelled,
        draws=draws,
        words=words,
    )


def _scored(config: Config) -> dict[str, Mapping[str, JSON]]:
    """What the scores that teach were made from."""
    if config.train.teaching == "online" or not config.train.teachers:
        return {}
    return made_from(ScoreStore.open(config.score_store), config.train.teachers)


def _draws(
    config: Config,
    unlabelled: UsableUnlabelled,
    captioned: int,
    cached: Sequence[CachedTeacher],
    groups: np.ndarray | None,
) -> UnlabelledSampler:
    """Draws, for the texts of each group, from the videos without captions that all teachers have scored with them.

    Args:
        captioned: videos with captions, behind which the others have their places.
    """
    count = config.train.unlabelled
    if count > (there := len(unlabelled.videos)):
        raise _too_few(count, f"there are {unlabelled.told}", there)
    every = np.arange(captioned, captioned + there)
    firsts = [0] if groups is None else np.unique(groups, return_index=True)[1].tolist()
    candidates = [
        reduce(np.intersect1d, (teacher.reader.scored_with(first) for teacher in cached), every) for first in firsts
    ]
    if count > (fewest := min(map(len, candidates))):
        raise _too_few(count, f"a block of videos has {fewest:,} without captions", fewest)
    return UnlabelledSampler(count, config.train.seed, candidates, groups)


def _too_few(wanted: int, there_are: str, most: int) -> ConfigError:
    hint = Remedy("name more of them as data.unlabelled, or take fewer", Change({"train.unlabelled": most}))
    return ConfigError(f"train.unlabelled is {wanted:,}, but {there_are}", hint=hint)


def _validated_on(dataset: Dataset, reporter: Reporter) -> str:
    if dataset.validation != "test":
        return "the validation split"
    reporter.warn("the test split chooses the network (data.validation: test), so its numbers flatter the network")
    return "the test split, as published (data.validation: test)"


def _teacher_digest(config: Config, name: str) -> str:
    """Stands for a teacher inside the step: its settings and precision, and its checkpoint's bytes wherever they lie,
    or what it says of its weights where it has no checkpoint."""
    precision = config.train.online_precision
    settings = next(teacher for teacher in config.score.teachers if teacher.name == name)
    shown = canonical(settings.model_dump(mode="json", exclude={"checkpoint", "prepared"}))
    shown += b"" if precision == "float32" else precision.encode()  # earlier runs had no other
    checkpoint = config.teacher_checkpoint(settings)
    if checkpoint is not None:
        return digest_of([shown, checkpoint_digest(checkpoint)])
    from ..models.frozen.teacher import load_teacher  # training from the cache knows no teacher

    teacher = load_teacher(settings, None)
    return digest_of([shown, teacher.weights_digest, str(teacher.score_version), f"{teacher.scale:.6g}"])


def _start_digests(config: Config) -> dict[str, str]:
    """What stands for the weights that training starts from, where they are files: paths may get other contents."""
    weights = config.train.network.trunk.weights
    files = {"init": config.init_checkpoint, "trunk weights": Path(weights) if weights else None}
    if config.init_checkpoint is not None:
        del files["trunk weights"]  # init brings them
    return {name: checkpoint_digest(path) for name, path in files.items() if path is not None and is_there(path)}


def _masked(
    config: Config, dataset: Dataset, split: UsableSplit, reporter: Reporter
) -> tuple[UsableSplit, Masked | None]:
    """The split without the captions that `train.captions_mask` leaves out."""
    path = config.captions_mask
    if path is None:
        return split, None
    mask = read_mask(path)
    mask.refuse_other(dataset.texts_of("train"), path)
    kept = split.without(mask.dropped)
    masked = Masked(mask.digest, len(split.texts) - len(kept.texts), len(split.videos) - len(kept.videos))
    videos = f", and with them {masked.videos} videos" if masked.videos else ""
    reporter.info(f"{path.name} leaves out {masked.texts} of {len(split.texts)} captions{videos}")
    return kept, masked
