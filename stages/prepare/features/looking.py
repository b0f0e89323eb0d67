"""What features will cost, what there is of them, and whether it is whole; nothing is written."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from ....cache.experts.cache import FeatureCache, FeatureFolder, refuse_mismatch
from ....cache.storage.publish import free_bytes
from ....configs.schema import Config
from ...data.dataset import Dataset, read_dataset
from ...runtime.reporting import Reporter, Silent
from .maker import FeatureSource, shards_to_make
from .stage import MadeFeatures, described, expert_maker, refuse_nothing, words_maker

PROBED = 8
SHOWN = 20


@dataclass(frozen=True)
class FeatureEstimate:
    """What the features of one expert or text encoder would cost.

    Attributes:
        videos: of the data set; remaining: whose features are still to be made.
        bytes, seconds: that these take, as far as a few of them tell; probed: how many.
        free: bytes free where the cache lies.
    """

    part: str
    name: str
    videos: int
    remaining: int
    bytes: int
    seconds: float
    probed: int
    free: int


@dataclass(frozen=True)
class FeatureCheck:
    """Whether a cache is whole, every byte.

    Attributes:
        problems: what is wrong with the first 20 videos; wrong: with how many of `videos`.
    """

    part: str
    name: str
    videos: int
    wrong: int
    problems: tuple[str, ...]


def estimate_features(config: Config, reporter: Reporter = Silent()) -> list[FeatureEstimate]:  # noqa: B008
    """What the features that are missing would cost, from a few videos of each.

    Raises:
        TeachclipError: as `features`.
    """
    refuse_nothing(config)
    dataset = read_dataset(config.data)
    found = []
    for part, name, folder, making in _makers(config, dataset, reporter):
        with making as maker:
            found.append(_estimated(part, name, folder, maker))
    return found


def look_at_features(config: Config) -> list[MadeFeatures]:
    """The caches that there are, in numbers.

    Raises:
        CacheError: one is not there, not complete or damaged.
    """
    refuse_nothing(config)
    return [described(part, name, FeatureCache.open(folder), 0) for part, name, folder in _folders(config)]


def check_features(config: Config, reporter: Reporter = Silent()) -> list[FeatureCheck]:  # noqa: B008
    """Read every byte of the caches and compare it with its hash.

    Raises:
        CacheError: one is not there, not complete, or its tables are damaged.
    """
    refuse_nothing(config)
    found = []
    for part, name, folder in _folders(config):
        cache, problems = FeatureCache.open(folder), []
        with reporter.progress(f"check {name}", len(cache.videos), "video") as progress:
            for problem in cache.problems():
                problems += [problem] if problem else []
                progress.advance(1)
        found.append(FeatureCheck(part, name, len(cache.videos), len(problems), tuple(problems[:SHOWN])))
    return found


def _estimated(part: str, name: str, folder: Path, maker: FeatureSource) -> FeatureEstimate:
    claimed = FeatureFolder(folder, maker.identity)
    if (identity := claimed.stored_identity()) is not None:
        refuse_mismatch(folder, identity, maker.identity)
    missing, _, _ = shards_to_make(maker, claimed)
    todo = [video for shard in missing for video in maker.videos[shard.videos]]
    probe = todo[:: max(1, len(todo) // PROBED)][:PROBED]
    begun = time.monotonic()
    records = maker.make(probe) if probe else []
    share = len(todo) / max(1, len(probe))
    return FeatureEstimate(
        part=part,
        name=name,
        videos=len(maker.videos),
        remaining=len(todo),
        bytes=round(share * sum(array.nbytes for record in records for array in record.parts)),
        seconds=share * (time.monotonic() - begun) if probe else 0.0,
        probed=len(probe),
        free=free_bytes(folder),
    )


def _makers(
    config: Config, dataset: Dataset, reporter: Reporter
) -> Iterator[tuple[str, str, Path, AbstractContextManager[FeatureSource]]]:
    for expert in config.features.experts:
        folder = config.expert_folder(expert.name)
        yield "experts", expert.name, folder, expert_maker(config, expert, dataset, reporter)
    for encoder in config.features.texts:
        folder = config.words_folder(encoder.name)
        yield "texts", encoder.name, folder, words_maker(config, encoder, dataset, reporter)


def _folders(config: Config) -> Iterator[tuple[str, str, Path]]:
    for expert in config.features.experts:
        yield "experts", expert.name, config.expert_folder(expert.name)
    for encoder in config.features.texts:
        yield "texts", encoder.name, config.words_folder(encoder.name)
