"""Several teachers' scores of the same pairs, side by side, in blocks of texts.

Tiles that share texts or videos form an area; a dense cache, with what extends it, is one, and each block of videos one
of its own. Pairs are looked at area by area, so that work grows with the pairs that are scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .reading.tile_rows import TileRows
from .shard import missing_shards
from .store import ScoreCache
from .tile import Key, Tile


@dataclass(frozen=True)
class Area:
    """Texts and videos that share no tile with others.

    Attributes:
        texts: T texts; one whose caption changed between two teachers is two. videos: ids of V videos.
        own: index of each text's own video [T]; -1 where no tile says.
        tiles: each teacher's, by its name.
    """

    texts: Sequence[Key]
    videos: Sequence[str]
    own: np.ndarray
    tiles: dict[str, tuple[Tile, ...]]

    def rows(self, teacher: str) -> "AreaRows":
        """What a teacher has scored of it."""
        return AreaRows(self, self.tiles.get(teacher, ()))


class AreaRows:
    """One teacher's scores in an area; what is not scored (yet) is NaN.

    Raises:
        CacheError: from the methods, when a shard is damaged; names it and what to do.
    """

    def __init__(self, area: Area, tiles: Sequence[Tile]) -> None:
        self.area = area
        text_index = {key: place for place, key in enumerate(area.texts)}
        video_index = {key: place for place, key in enumerate(area.videos)}
        self._parts = [_JoinedTile(tile, text_index, video_index) for tile in tiles]

    @cached_property
    def held(self) -> np.ndarray:
        """Texts that the teacher's tiles name, scored or not: bool [T]."""
        found = np.zeros(len(self.area.texts), dtype=bool)
        for part in self._parts:
            found[part.named] = True
        return found

    @cached_property
    def own(self) -> np.ndarray:
        """Texts whose pair with their own video is scored: bool [T]."""
        found = np.zeros(len(self.area.texts), dtype=bool)
        for part in self._parts:
            complete = part.rows >= 0
            found[complete] |= part.tile.text_video[part.rows[complete]] >= 0
        return found

    def scores(self, texts: np.ndarray) -> np.ndarray:
        """Raw scores float32 [t,V] of texts, given by index."""
        scores = np.full((len(texts), len(self.area.videos)), np.nan, dtype=np.float32)
        for part in self._parts:
            here = part.rows[texts] >= 0
            if here.any():
                scores[np.ix_(here, part.columns)] = part.reader.scores(part.rows[texts][here])
        return scores

    def frame_logits(self, texts: np.ndarray) -> np.ndarray | None:
        """Frame-text logits float32 [t,F] of texts with their own videos, NaN in padded slots too; None without any."""
        logits = None
        for part in self._parts:
            if not part.tile.spec.frame_logits:
                continue
            if logits is None:
                logits = np.full((len(texts), part.tile.spec.frames), np.nan, dtype=np.float32)
            rows = part.rows[texts]
            here = np.flatnonzero(rows >= 0)
            here = here[part.tile.text_video[rows[here]] >= 0]
            if len(here):
                padded = np.isnan(part.tile.frame_times[part.tile.text_video[rows[here]]])
                logits[here] = np.where(padded, np.float32(np.nan), part.reader.read("fine", rows[here]))
        return logits


class _JoinedTile:
    """Where an area's texts lie in a tile (-1: not there, or not scored yet), and the tile's videos in the area."""

    def __init__(self, tile: Tile, texts: dict[Key, int], videos: dict[str, int]) -> None:
        self.tile = tile
        self.named = np.array([texts[key] for key in _texts(tile)])
        self.rows = np.full(len(texts), -1, dtype=np.int64)
        self.rows[self.named] = np.arange(tile.spec.texts)
        self.rows[np.isin(self.rows // tile.spec.shard_texts, missing_shards(tile))] = -1
        self.columns = np.array([videos[key] for key in tile.video_ids])

    @cached_property
    def reader(self) -> TileRows:
        return TileRows(self.tile)


def find_areas(caches: Sequence[ScoreCache]) -> list[Area]:
    """The areas of some teachers of one store, in the order in which their tiles come."""
    tiles = [(cache.name, tile) for cache in caches for tile in cache.tiles]
    group = list(range(len(tiles)))

    def leader(number: int) -> int:
        while group[number] != number:
            group[number] = number = group[group[number]]
        return number

    holder: dict[object, int] = {}
    for number, (_, tile) in enumerate(tiles):
        for key in (*_texts(tile), *tile.video_ids):
            other = leader(holder.setdefault(key, number))
            mine = leader(number)
            group[max(mine, other)] = min(mine, other)
    members: dict[int, list[tuple[str, Tile]]] = {}
    for number, member in enumerate(tiles):
        members.setdefault(leader(number), []).append(member)
    return [_area(members[number]) for number in sorted(members)]


def _texts(tile: Tile) -> list[Key]:
    return list(zip(tile.text_ids, map(bytes, tile.text_digests), strict=True))


def _area(members: Sequence[tuple[str, Tile]]) -> Area:
    texts = {key: place for place, key in enumerate(dict.fromkeys(key for _, tile in members for key in _texts(tile)))}
    names = dict.fromkeys(key for _, tile in members for key in tile.video_ids)
    videos = {key: place for place, key in enumerate(names)}
    own = np.full(len(texts), -1, dtype=np.int64)
    tiles: dict[str, tuple[Tile, ...]] = {}
    for name, tile in members:
        tiles[name] = (*tiles.get(name, ()), tile)
        known = np.flatnonzero(tile.text_video >= 0)
        places = np.array([texts[key] for key in _texts(tile)])
        columns = np.array([videos[key] for key in tile.video_ids])
        own[places[known]] = columns[tile.text_video[known]]
    return Area(tuple(texts), tuple(videos), own, tiles)
