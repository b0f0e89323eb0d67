"""Features: files of experts and of words, open_clip trunks, text models -> feature caches that training reads.

Run again, only what is missing or of other videos is made. A file of features that has changed is refused, so that
nobody trains on a mixture of two; the cache is deleted by hand then.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ....cache.experts.cache import FeatureCache
from ....cache.frames.cache import FrameCache
from ....cache.storage.identity import JSON
from ....configs.schema import Config, ExpertConfig, TextEncoderConfig
from ....errors import ConfigError
from ....remedies import ReadPage, Remedy
from ...data.dataset import Dataset, read_dataset, tell_left_out
from ...data.experts.feature_files import feature_bytes, feature_digest, open_features
from ...data.readers.caption_tables import read_captions
from ...runtime.reporting import Reporter, Silent
from .from_files import FromFile
from .maker import FeatureSource, make_features


@dataclass(frozen=True)
class MadeFeatures:
    """One feature cache.

    Attributes:
        name: of the expert or text encoder; part: `experts` or `texts`.
        folder: of its cache; width: D.
        videos: of the data set; counts: of them by status.
        made: of how many the features were made now; rows: vectors in all; bytes: on disk.
    """

    part: str
    name: str
    folder: str
    width: int
    videos: int
    counts: dict[str, int]
    made: int
    rows: int
    bytes: int


@dataclass(frozen=True)
class FeaturesResult:
    """What there is now.

    Attributes:
        caches: one for each expert and text encoder, as configured.
        without_experts: the first 20 videos that have no expert at all, and how many there are.
        seconds: that it took.
    """

    caches: tuple[MadeFeatures, ...]
    without_experts: tuple[str, ...]
    without_experts_count: int
    seconds: float


def features(config: Config, reporter: Reporter = Silent()) -> FeaturesResult:  # noqa: B008
    """Make the feature caches of `config.features`; run again, only what is missing.

    Raises:
        ConfigError: nothing is asked for, or a plug-in or an extra is not there.
        DataError: a file of features cannot be used; names videos.
        CacheMismatchError: a cache was made from something else.
        CacheError: frames are missing, or the disk cannot be written.
    """
    begun = time.monotonic()
    refuse_nothing(config)
    dataset = read_dataset(config.data)
    tell_left_out(dataset, reporter)
    made, experts = [], []
    for expert in config.features.experts:
        with expert_maker(config, expert, dataset, reporter) as maker:
            cache, now = make_features(maker, config.expert_folder(expert.name), reporter)
        experts.append(cache)
        made.append(described("experts", expert.name, cache, now))
    for encoder in config.features.texts:
        with words_maker(config, encoder, dataset, reporter) as maker:
            cache, now = make_features(maker, config.words_folder(encoder.name), reporter)
        made.append(described("texts", encoder.name, cache, now))
    bare = [video for video in experts[0].videos if not any(cache.has(video) for cache in experts)] if experts else []
    return FeaturesResult(tuple(made), tuple(bare[:20]), len(bare), time.monotonic() - begun)


def refuse_nothing(config: Config) -> None:
    """Refuse a configuration that names no features (ConfigError)."""
    if not config.features.experts and not config.features.texts:
        hint = Remedy("name files or models under features.experts and features.texts", ReadPage("guide/teachtext"))
        raise ConfigError("features: no expert and no text encoder is named", hint=hint)


@contextmanager
def expert_maker(config: Config, expert: ExpertConfig, dataset: Dataset, reporter: Reporter) -> Iterator[FeatureSource]:
    """What makes the features of an expert; reads no features yet."""
    title = f"expert {expert.name!r}"
    if expert.file is not None:
        identity: dict[str, JSON] = {"made by": "file", "file": feature_digest(expert.file)}
        with open_features(expert.file) as file:
            maker = FromFile(file, title, identity, dataset)
            maker.tell_other_videos(reporter)
            yield maker
        return
    from .from_frames import plugin_frames, trunk_frames  # networks, which files of features need not wait for

    frames = FrameCache.open(config.frames_folder)
    if expert.model is not None:
        yield trunk_frames(config, expert, frames, dataset, reporter)
    else:
        yield plugin_frames(config, expert, frames, dataset)


@contextmanager
def words_maker(
    config: Config, encoder: TextEncoderConfig, dataset: Dataset, reporter: Reporter
) -> Iterator[FeatureSource]:
    """What makes the words of captions; reads no words yet."""
    if encoder.file is not None:
        identity: dict[str, JSON] = {"made by": "file", "file": feature_digest(encoder.file)}
        theirs = None
        if encoder.captions is not None:
            identity["captions"] = feature_digest(encoder.captions)
            theirs = read_captions(encoder.captions)
        with open_features(encoder.file, captions=True) as file:
            title, captions = f"text encoder {encoder.name!r}", config.features.captions
            maker = FromFile(file, title, identity, dataset, captions, theirs)
            maker.tell_other_videos(reporter)
            yield maker
    else:
        from .from_captions import FromCaptions

        yield FromCaptions(config, encoder, dataset)


def described(part: str, name: str, cache: FeatureCache, made: int) -> MadeFeatures:
    """A cache in numbers."""
    counts: dict[str, int] = {}
    for status in cache.statuses.values():
        counts[status] = counts.get(status, 0) + 1
    return MadeFeatures(
        part=part,
        name=name,
        folder=str(cache.folder),
        width=cache.width,
        videos=len(cache.videos),
        counts=counts,
        made=made,
        rows=sum(shard.rows for shard in cache.shards),
        bytes=feature_bytes(cache.folder),
    )
