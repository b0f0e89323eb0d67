"""One feature cache, made shard by shard of whatever gives the features."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from ....cache.experts.cache import SHARD_VIDEOS, FeatureCache, FeatureFolder
from ....cache.experts.shard import FeatureRecord, FeatureShard
from ....cache.storage.identity import JSON
from ....errors import DataError
from ....plurals import counted
from ...data.experts.checked import width_of
from ...runtime.background import BackgroundWriter
from ...runtime.reporting import Reporter

SHOWN = 20
MUCH = 2**26
"""Bytes of a shard from which on the next is not made while it is written, so that only one is in memory."""


class FeatureSource(Protocol):
    """Gives the features of videos, some at a time.

    Attributes:
        title: what it is, for people; where: what it reads, for errors.
        identity: what the features are made from, beside what `sources` stands for.
        videos: of the data set, by id, in its order; sources: 16 bytes for each of them, of what is its own.
    """

    title: str
    where: str
    identity: dict[str, JSON]
    videos: Sequence[str]
    sources: Sequence[bytes]

    def make(self, videos: Sequence[str]) -> list[FeatureRecord]:
        """The records of some videos, in their order, without sources.

        Raises:
            TeachclipError: something is wrong with one of them.
        """
        ...


@dataclass(frozen=True)
class ShardToMake:
    """A shard that is to be written: its number and its videos, a slice of the data set's."""

    number: int
    videos: slice


def shards_to_make(maker: FeatureSource, folder: FeatureFolder) -> tuple[list[ShardToMake], int, int]:
    """Shards that are missing, damaged, or of other videos; how many there are in all; D of those that are there."""
    missing, width = [], 0
    starts = range(0, len(maker.videos), SHARD_VIDEOS)
    for number, start in enumerate(starts):
        part = slice(start, start + SHARD_VIDEOS)
        found: FeatureShard | None = folder.found(number, maker.videos[part], maker.sources[part])
        if found is None:
            missing.append(ShardToMake(number, part))
        else:
            width = max(width, found.width)
    return missing, len(starts), width


def make_features(maker: FeatureSource, folder: Path, reporter: Reporter) -> tuple[FeatureCache, int]:
    """Make what is missing of the cache in `folder`.

    Returns:
        The cache, and of how many videos the features were made now.

    Raises:
        CacheMismatchError: it was begun with other features.
        CacheError: it cannot be written.
        DataError: widths differ, or no video has features; names videos. What was finished before stays.
    """
    claimed = FeatureFolder.claim(folder, maker.identity)
    missing, count, width = shards_to_make(maker, claimed)
    todo = sum(len(maker.videos[each.videos]) for each in missing)
    if todo:
        done = len(maker.videos) - todo
        with (
            reporter.progress(maker.title, len(maker.videos), "video", done) as progress,
            BackgroundWriter("write-features") as writer,
        ):
            for shard in missing:
                kept, width = _made(maker, shard.videos, width)
                writer.start(partial(claimed.write, shard.number, kept))
                if sum(part.nbytes for record in kept for part in record.parts) > MUCH:
                    writer.finish()
                progress.advance(len(kept))
                del kept  # before the next are made
    cache = claimed.complete(count)
    if not any(map(cache.has, cache.videos)):
        reasons = dict.fromkeys(cache.reasons.values())
        details = (
            [f"{video}: {cache.reasons[video]}" for video in cache.videos[:SHOWN]] if len(reasons) > 1 else reasons
        )
        videos = counted(len(cache.videos), "video")
        raise DataError(f"{maker.title}: none of the {videos} has features", where=maker.where, details=[*details])
    return cache, todo


def _made(maker: FeatureSource, videos: slice, width: int) -> tuple[list[FeatureRecord], int]:
    """The records of some videos, with their sources; and D, which has to be `width` unless that is 0."""
    records = maker.make(maker.videos[videos])
    width = one_width(records, width, maker)
    return [replace(each, source=own) for each, own in zip(records, maker.sources[videos], strict=True)], width


def one_width(records: Sequence[FeatureRecord], width: int, maker: FeatureSource) -> int:
    """D of all records and of what is there already; 0 where nothing has rows.

    Raises:
        DataError: they differ; names videos.
    """
    wrong = []
    for record in records:
        found = _width(record, maker)
        width = width or found or 0
        if found not in (None, width):
            wrong.append(f"{record.video}: {found} numbers a row")
    if wrong:
        what = f"{maker.title}: other widths than {width}, which the videos before have"
        raise DataError(what, where=maker.where, details=_first(wrong))
    return width


def refuse_problems(problems: Sequence[str], title: str, where: str) -> None:
    """Refuse what is wrong with single videos (DataError), naming the first."""
    if problems:
        what = f"{title}: {counted(len(problems), 'video')} with features that cannot be used"
        raise DataError(what, where=where, details=_first(problems))


def _first(lines: Sequence[str]) -> list[str]:
    more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [*lines[:SHOWN], *more]


def _width(record: FeatureRecord, maker: FeatureSource) -> int | None:
    try:
        return width_of(record.parts)
    except ValueError as error:
        raise DataError(f"{maker.title}: {record.video!r} has {error}", where=maker.where) from None
