"""Two teachers' scores side by side: how far apart they are, and where. Rows are read in blocks."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ....errors import CacheError
from ....plurals import counted
from ....remedies import DescribeScores, Remedy
from ...storage.identity import JSON
from ..reading.tile_rows import TileRows
from ..shard import missing_shards
from ..store import ScoreCache, ScoreStore
from ..tile import Key, Tile

_BLOCK_VALUES = 2**20
SHOWN = 10


@dataclass(frozen=True)
class Field:
    """A field in which two caches differ; None where one has none."""

    name: str
    first: JSON
    second: JSON


@dataclass(frozen=True)
class Pair:
    """A text with the video where its labels differ most, and the two labels."""

    text: str
    video: str
    first: float
    second: float


@dataclass(frozen=True)
class ScoreComparison:
    """How two caches agree. Labels are scores x scale.

    Attributes:
        first, second: STORE:TEACHER.
        fields: of identity, scale, dtype, frames, frame logits that differ.
        texts, videos: in both, of the same digest; changed_texts, changed_videos: in both, of other digests.
        pairs: scored in both, of these texts and videos.
        largest, mean: absolute difference of labels; None without pairs.
        pearson: correlation of labels over all pairs; None when one side does not vary.
        same_best: share of texts with the same best video; None without texts that have two pairs.
        frame_largest, frame_mean: absolute difference of frame-text logits; None when they cannot be compared.
        apart: the texts whose labels differ most, by their largest difference.
    """

    first: str
    second: str
    fields: tuple[Field, ...]
    texts: int
    videos: int
    changed_texts: int
    changed_videos: int
    pairs: int
    largest: float | None
    mean: float | None
    pearson: float | None
    same_best: float | None
    frame_largest: float | None
    frame_mean: float | None
    apart: tuple[Pair, ...]


def open_caches(first: str, second: str) -> tuple[ScoreCache, ScoreCache]:
    """The teachers that STORE or STORE:TEACHER name; one that is left out is the other's, or the only one.

    Raises:
        CacheError: there is no such store or teacher, or it is not clear which.
    """
    (left, a), (right, b) = _named(first), _named(second)
    return _teacher(left, a or b), _teacher(right, b or a)


def _named(where: str) -> tuple[ScoreStore, str | None]:
    path, colon, teacher = where.rpartition(":")
    if not colon or "/" in teacher or Path(where).exists():  # s3://bucket/store has a colon, but names no teacher
        return ScoreStore.open(where), None
    return ScoreStore.open(path), teacher


def _teacher(store: ScoreStore, name: str | None) -> ScoreCache:
    if name is None and len(store.teachers) != 1:
        have = ", ".join(store.teachers) or "none"
        raise CacheError(f"which teacher? There are: {have}", where=str(store.path), hint=f"{store.path}:TEACHER")
    return store.teacher(name or store.teachers[0])


class Diff:
    """Compares what is complete in both caches.

    Raises:
        CacheError: they have no text or no video in common.
    """

    def __init__(self, first: ScoreCache, second: ScoreCache) -> None:
        self.first, self.second = first, second
        self.texts, self.changed_texts = _common(_texts(first), _texts(second))
        self.videos, self.changed_videos = _common(_videos(first), _videos(second))
        if not self.texts or not self.videos:
            changed = (
                f" ({counted(self.changed_texts, 'caption')} and "
                f"{counted(self.changed_videos, 'video has', 'videos have')} the same id, but changed)"
            )
            raise CacheError(
                "no text or no video in common" + (changed if self.changed_texts or self.changed_videos else ""),
                where=f"{first.folder} and {second.folder}",
                hint=Remedy(
                    "look what each was made from",
                    DescribeScores(str(first.folder.parent), first.name),
                    then=DescribeScores(str(second.folder.parent), second.name),
                ),
            )

    def run(self, advance: Callable[[int], None] = lambda _: None) -> ScoreComparison:
        """Read both; `advance` is told of texts.

        Raises:
            CacheError: a shard is damaged.
        """
        sides = _Side(self.first, self.texts, self.videos), _Side(self.second, self.texts, self.videos)
        frames = self.first.frame_logits and self.second.frame_logits and self.first.frames == self.second.frames
        labels, logits = _Agreement(self.texts, self.videos), _Moments()
        widest = max(tile.spec.videos for cache in (self.first, self.second) for tile in cache.tiles)
        step = max(1, _BLOCK_VALUES // widest)
        for start in range(0, len(self.texts), step):
            block = np.arange(start, min(start + step, len(self.texts)))
            labels.add(block, *(side.labels(block) for side in sides))
            if frames:
                logits.add(*(side.frame_logits(block) for side in sides))
            advance(len(block))
        return ScoreComparison(
            f"{self.first.folder.parent}:{self.first.name}",
            f"{self.second.folder.parent}:{self.second.name}",
            _fields(self.first, self.second),
            len(self.texts),
            len(self.videos),
            self.changed_texts,
            self.changed_videos,
            labels.moments.count,
            labels.moments.largest,
            labels.moments.mean,
            labels.moments.pearson,
            labels.same / labels.ranked if labels.ranked else None,
            logits.largest,
            logits.mean,
            tuple(labels.apart),
        )


def _texts(cache: ScoreCache) -> list[Key]:
    return [
        (key, bytes(row)) for tile in cache.tiles for key, row in zip(tile.text_ids, tile.text_digests, strict=True)
    ]


def _videos(cache: ScoreCache) -> list[Key]:
    keys = [zip(tile.video_ids, tile.video_digests, strict=True) for tile in cache.tiles]
    return [(key, bytes(row)) for tile in keys for key, row in tile]


def _common(first: Sequence[Key], second: Sequence[Key]) -> tuple[list[str], int]:
    """Ids in both with the same digest, in the first's order; and how many have another."""
    mine, theirs = dict(first), dict(second)
    both = [key for key in mine if key in theirs]
    same = [key for key in both if mine[key] == theirs[key]]
    return same, len(both) - len(same)


def _fields(first: ScoreCache, second: ScoreCache) -> tuple[Field, ...]:
    def all_of(cache: ScoreCache) -> dict[str, JSON]:
        own = {"scale": cache.scale, "dtype": cache.dtype, "frame slots": cache.frames}
        return {**cache.identity, **own, "frame logits": cache.frame_logits}

    mine, theirs = all_of(first), all_of(second)
    return tuple(
        Field(name, mine.get(name), theirs.get(name))
        for name in sorted(mine.keys() | theirs.keys())
        if json.dumps(mine.get(name)) != json.dumps(theirs.get(name))
    )


class _Side:
    """One cache's labels of given texts and videos, NaN where there is no score (yet)."""

    def __init__(self, cache: ScoreCache, texts: Sequence[str], videos: Sequence[str]) -> None:
        self.cache, self.videos = cache, len(videos)
        self.parts = [(TileRows(tile), _complete_rows(tile, texts), _columns(tile, videos)) for tile in cache.tiles]

    def labels(self, block: np.ndarray) -> np.ndarray:
        """float64 [block,V]."""
        labels = np.full((len(block), self.videos), np.nan)
        for reader, rows, columns in self.parts:
            held, here = rows[block] >= 0, columns >= 0
            if held.any() and here.any():
                labels[np.ix_(held, here)] = reader.scores(rows[block][held])[:, columns[here]]
        labels *= self.cache.scale
        return labels

    def frame_logits(self, block: np.ndarray) -> np.ndarray:
        """float64 [block,F]."""
        logits = np.full((len(block), self.cache.frames), np.nan)
        for reader, rows, _ in self.parts:
            held = rows[block] >= 0
            held[held] = reader.tile.text_video[rows[block][held]] >= 0
            if held.any():
                logits[held] = reader.read("fine", rows[block][held])
        return logits


def _complete_rows(tile: Tile, texts: Sequence[str]) -> np.ndarray:
    rows = np.array([tile.text_rows.get(key, -1) for key in texts])
    rows[np.isin(rows // tile.spec.shard_texts, missing_shards(tile))] = -1
    return rows


def _columns(tile: Tile, videos: Sequence[str]) -> np.ndarray:
    return np.array([tile.video_columns.get(key, -1) for key in videos])


class _Moments:
    """Largest and mean difference, and correlation, of values that come in blocks (Chan et al. 1979), NaN left out."""

    def __init__(self) -> None:
        self.count, self._sum, self._largest = 0, 0.0, 0.0
        self._means, self._co = np.zeros(2), np.zeros((2, 2))

    def add(self, first: np.ndarray, second: np.ndarray) -> None:
        both = np.isfinite(first) & np.isfinite(second)
        values = np.stack([first[both], second[both]])
        count = values.shape[1]
        if not count:
            return
        apart = np.abs(values[0] - values[1])
        self._sum += float(apart.sum())
        self._largest = max(self._largest, float(apart.max()))
        means = values.mean(axis=1)
        values -= means[:, None]
        step = means - self._means
        total = self.count + count
        self._co += values @ values.T + np.outer(step, step) * (self.count * count / total)
        self._means += step * (count / total)
        self.count = total

    @property
    def largest(self) -> float | None:
        return self._largest if self.count else None

    @property
    def mean(self) -> float | None:
        return self._sum / self.count if self.count else None

    @property
    def pearson(self) -> float | None:
        spread = float(np.sqrt(self._co[0, 0] * self._co[1, 1]))
        return float(np.clip(self._co[0, 1] / spread, -1, 1)) if spread > 0 else None


@dataclass
class _Agreement:
    """What blocks of labels add up to."""

    texts: Sequence[str]
    videos: Sequence[str]
    moments: _Moments = field(default_factory=_Moments)
    same: int = 0
    ranked: int = 0
    apart: list[Pair] = field(default_factory=list)

    def add(self, block: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
        self.moments.add(first, second)
        both = np.isfinite(first) & np.isfinite(second)
        several = both.sum(axis=1) > 1
        best = [np.where(both, labels, -np.inf).argmax(axis=1) for labels in (first, second)]
        self.ranked += int(several.sum())
        self.same += int((several & (best[0] == best[1])).sum())
        far = np.where(both, np.abs(first - second), -1.0)
        worst = far.argmax(axis=1)
        most = far[np.arange(len(block)), worst]
        for row in np.argsort(-most, kind="stable")[:SHOWN]:
            if most[row] > 0:
                values = float(first[row, worst[row]]), float(second[row, worst[row]])
                self.apart.append(Pair(self.texts[block[row]], self.videos[worst[row]], *values))
        self.apart = sorted(self.apart, key=lambda pair: -abs(pair.first - pair.second))[:SHOWN]
