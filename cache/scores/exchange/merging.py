"""Shards that several machines scored, brought together in one store."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ....errors import CacheError, CacheMismatchError
from ....remedies import CompareScores, Remedy
from ...storage.identity import refuse_difference
from ...storage.locations import Location, location_of, refuse_read_only
from ...storage.sealed import open_group
from ...storage.untrusted import Document
from ..reading.tile_rows import TileRows
from ..shard import marker_path, problem
from ..store import ScoreCache, ScoreStore
from ..tile import Tile
from .copying import Advance, copy_shard, copy_teacher, copy_tile, marker_of


@dataclass(frozen=True)
class Unlike:
    """A shard that is complete in two stores, with other bits.

    Attributes:
        files: that differ.
        largest: how far scores and frame-text logits are apart at most, relative where they are beyond 1; another
            number of threads, machine or release rounds otherwise, and moves them by some 1e-6.
    """

    tile: str
    shard: int
    files: tuple[str, ...]
    largest: float


@dataclass(frozen=True)
class Refused:
    """A shard that was not taken, and why."""

    tile: str
    shard: int
    why: str


@dataclass(frozen=True)
class TeacherMerge:
    """What became of one teacher of one store that was merged.

    Attributes:
        teacher, source: who, from where; added: whether the store did not have it before.
        tiles_added: tiles that the store did not have.
        taken: shards copied; same: complete in both, with the same bits; absent: complete in neither.
        unlike: complete in both with other bits; the store keeps its own.
        refused: shards of the source that are damaged.
    """

    teacher: str
    source: str
    added: bool
    tiles_added: tuple[str, ...]
    taken: int
    same: int
    absent: int
    unlike: tuple[Unlike, ...]
    refused: tuple[Refused, ...]


class Merge:
    """Bringing stores together: everything is compared here, before anything is written by `run`.

    Args:
        path: the store that takes; sources: the stores that give; each a folder or an address. teacher: only this one.

    Raises:
        CacheMismatchError: a teacher or a tile was made from something else; names the fields that differ.
        CacheError: a store is absent or damaged.
    """

    def __init__(self, path: str | Location, sources: Sequence[str | Location], teacher: str | None = None) -> None:
        self.path = location_of(path)
        refuse_read_only(self.path)
        self.store = ScoreStore.open(self.path)
        self._parts: list[tuple[ScoreCache, str]] = []
        for source in sources:
            given = location_of(source)
            if _place(given) == _place(self.path):
                raise CacheError("a store cannot be merged with itself", where=str(source))
            other = ScoreStore.open(given)
            for name in (teacher,) if teacher else other.teachers:
                self._parts.append((other.teacher(name), str(source)))
        # Those that give must fit each other too, and the first of a teacher's is as good as any.
        known = {name: self.store.teacher(name) for name in {cache.name for cache, _ in self._parts} & self._held}
        tiles = {(name, tile.name): tile for name, cache in known.items() for tile in cache.tiles}
        for cache, _ in self._parts:
            _refuse_other_teacher(known.setdefault(cache.name, cache), cache)
            for tile in cache.tiles:
                _refuse_other_tile(tiles.setdefault((cache.name, tile.name), tile), tile)

    @property
    def _held(self) -> set[str]:
        return set(self.store.teachers)

    @property
    def units(self) -> int:
        """Shards to look at."""
        return sum(tile.spec.shards for cache, _ in self._parts for tile in cache.tiles)

    def run(self, advance: Advance = lambda _: None) -> tuple[TeacherMerge, ...]:
        """Copy what the store does not have.

        Raises:
            CacheError: the disk cannot be written.
        """
        return tuple(self._merge(cache, source, advance) for cache, source in self._parts)

    def _merge(self, source: ScoreCache, name: str, advance: Advance) -> TeacherMerge:
        added = source.name not in self._held
        target = copy_teacher(source, self.path / source.name)
        held = {tile.name: tile for tile in target.tiles}
        taken, same, absent = 0, 0, 0
        unlike: list[Unlike] = []
        refused: list[Refused] = []
        for tile in source.tiles:
            own = held.get(tile.name) or copy_tile(tile, target)
            for shard in range(tile.spec.shards):
                advance(1)
                here, there = problem(own, shard) is None, marker_path(tile, shard).exists()
                if not there:
                    absent += not here
                    continue
                try:
                    if not here:
                        copy_shard(tile, own, shard)
                        taken += 1
                        continue
                    differing = _unlike_files(tile, own, shard)
                    largest = _largest_difference(tile, own, shard) if differing else 0.0
                except CacheError as error:
                    if _disk_error(error, own):
                        raise
                    refused.append(Refused(tile.name, shard, f"{error.where}: {error.what}"))
                    continue
                same += not differing
                if differing:
                    unlike.append(Unlike(tile.name, shard, differing, largest))
        tiles = tuple(tile.name for tile in source.tiles if tile.name not in held)
        return TeacherMerge(source.name, name, added, tiles, taken, same, absent, tuple(unlike), tuple(refused))


def _place(location: Location) -> str:
    return str(location.resolve() if isinstance(location, Path) else location)


def _disk_error(error: CacheError, target: Tile) -> bool:
    return isinstance(error.__cause__, OSError) and (error.where or "").startswith(str(target.folder))


def _unlike_files(first: Tile, second: Tile, shard: int) -> tuple[str, ...]:
    """The files of two complete copies of a shard whose hashes differ."""
    left, right = marker_of(first, shard)["files"], marker_of(second, shard)["files"]
    return tuple(file for file in left if left[file] != right[file])


def _largest_difference(first: Tile, second: Tile, shard: int) -> float:
    rows = np.array(first.spec.rows(shard))
    left, right = TileRows(first), TileRows(second)
    pairs = [(left.scores(rows), right.scores(rows))]
    if first.spec.frame_logits:
        pairs.append((left.read("fine", rows), right.read("fine", rows)))
    apart = (abs(a - b) / np.maximum(1, abs(b)) for a, b in pairs)
    return max(float(np.where(np.isnan(each), 0, each).max()) for each in apart)  # not scored in one, or in both


def _refuse_other_teacher(held: ScoreCache, other: ScoreCache) -> None:
    refuse_difference(
        {**other.identity, **_scoring(other)},
        {**held.identity, **_scoring(held)},
        where=str(held.folder),
        hint=Remedy(
            f"{other.folder} cannot be merged; keep both stores, and compare them",
            CompareScores(held.name, str(held.folder.parent), str(other.folder.parent)),
        ),
        what="this store",
        other="the other has",
    )


def _scoring(cache: ScoreCache) -> Document:
    return {"scale": cache.scale, "dtype": cache.dtype, "frames": cache.frames, "frame_logits": cache.frame_logits}


def _refuse_other_tile(held: Tile, other: Tile) -> None:
    if held.checksum == other.checksum:
        return
    mine, theirs = open_group(held.folder)[0], open_group(other.folder)[0]
    lines = [
        f"{key}: {mine[key]} in {held.folder}, {theirs[key]} in {other.folder}"
        for key in held.spec.attributes()
        if mine[key] != theirs[key]
    ]
    arrays = {file.split("/")[0] for file in mine["files"] if mine["files"][file] != theirs["files"].get(file)}
    lines += [f"{name}: other contents" for name in sorted(arrays)]
    raise CacheMismatchError(
        f"tile {held.name!r} is of other texts, videos or frames ({', '.join(line.split(':')[0] for line in lines)})",
        where=str(other.folder),
        details=lines,
        hint="shards are merged within the same tile: same captions, frames and score.shard_texts",
    )
