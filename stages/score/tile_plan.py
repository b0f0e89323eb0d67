"""Which tiles scores are kept in: every pair, or blocks of videos; and what a data set that has grown adds to them.

Tiles are never changed: what no tile holds becomes further tiles. What is added depends only on what is there and on
what is asked for, so that a killed run, another worker and another machine add the same.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from ...cache.scores.format.arrays import TileSpec
from ...cache.scores.format.sizes import tile_bytes
from ...cache.scores.lookup import Coverage, Held, look_up
from ...cache.scores.store import ScoreCache, ScoreStore
from ...cache.scores.tile import Key, Tile
from ...cache.storage.identity import digest_of
from ...configs.schema import ScoreConfig

type Layout = Literal["dense", "blocks"]

DENSE, MORE, BLOCK = "dense", "more-", "block-"


@dataclass(frozen=True)
class NewTile:
    """A tile that is to be added: places of its texts and videos in the request, ascending."""

    kind: str
    texts: np.ndarray
    videos: np.ndarray

    @property
    def pairs(self) -> int:
        return len(self.texts) * len(self.videos)

    def name(self, texts: Sequence[Key], videos: Sequence[Key]) -> str:
        """Its name, `dense` or one that stands for its contents: nobody gives another tile the same one."""
        if self.kind == DENSE:
            return DENSE
        keys = [*(texts[place] for place in self.texts), *(videos[place] for place in self.videos)]
        return self.kind + digest_of([f"{len(self.texts)} texts", *(part for key in keys for part in key)])


@dataclass(frozen=True)
class TilePlan:
    """What is to be added to a cache so that it holds what is asked for.

    Attributes:
        tiles: in the order in which they are to be made.
        new_texts, new_videos: asked for, in no tile yet.
        unasked_texts, unasked_videos: in a tile, but not asked for: their scores stay.
    """

    tiles: tuple[NewTile, ...]
    new_texts: int
    new_videos: int
    unasked_texts: int
    unasked_videos: int

    @property
    def pairs(self) -> int:
        """Pairs that are added."""
        return sum(tile.pairs for tile in self.tiles)


def block_tiles(store: ScoreStore, name: str) -> list[Sequence[str]]:
    """Ids of the videos of each block of a store's other teachers, who are met with in training."""
    others = [store.teacher(other) for other in store.teachers if other != name]
    return [ids for cache in others for ids in _blocks_of([t for t in cache.tiles if t.name.startswith(BLOCK)])]


def _blocks_of(tiles: Sequence[Tile]) -> list[Sequence[str]]:
    """Ids of the videos of each block of a teacher, with those that further tiles have added to its texts."""
    blocks = {tile.name: list(tile.video_ids) for tile in tiles if _is_home(tile)}
    homes = [tile for tile in tiles if tile.name in blocks]
    for tile in (tile for tile in tiles if tile.name not in blocks):
        home = next((home for home in homes if tile.text_ids[0] in home.text_rows), None)
        if home is not None:
            blocks[home.name] += tile.video_ids
    return list(blocks.values())


def _is_home(tile: Tile) -> bool:
    """Whether a tile has texts' own videos; one that has none adds videos to texts of other tiles, and is no block."""
    return bool((tile.text_video >= 0).any())


def tile_layout(
    settings: ScoreConfig,
    texts: Sequence[str],
    videos: Sequence[str],
    frames: int,
    frame_logits: bool,
    sparse: int = 0,
) -> TileSpec:
    """The sizes of one tile with all these texts and videos."""
    of_texts, of_videos = (len("\n".join(ids).encode(errors="surrogatepass")) for ids in (texts, videos))
    shard_texts, sizes = min(settings.shard_texts, len(texts)), (len(texts), len(videos))
    return TileSpec(*sizes, frames, frame_logits, settings.coarse, shard_texts, of_texts, of_videos, sparse)


def choose_layout(settings: ScoreConfig, cache: ScoreCache | None, dense: TileSpec) -> Layout:
    """The layout that is configured; `auto`: dense within the budget, and blocks stay blocks.

    Args:
        settings: the section `score`.
        cache: what there is of the teacher.
        dense: the one tile that a dense cache would be.
    """
    if settings.layout != "auto":
        return settings.layout
    if cache is not None and any(tile.name.startswith(BLOCK) for tile in cache.tiles):
        return "blocks"
    return "dense" if tile_bytes(dense) <= settings.budget else "blocks"


def plan_tiles(
    cache: ScoreCache | None,
    texts: Sequence[str],
    videos: Sequence[str],
    text_video: np.ndarray,
    layout: Layout,
    block_videos: int,
    others: Sequence[Sequence[str]] = (),
) -> TilePlan:
    """What to add to `cache` so that it holds what is asked for.

    Args:
        cache: what there is of the teacher; None for nothing.
        texts, videos: unique ids; text_video: place of each text's own video [T]. Videos may have no text.
        layout: dense, every pair; blocks: each text with the videos of its own video's block, among which those
            without texts are dealt out.
        block_videos: videos of a new block, at most.
        others: videos of other teachers' blocks, which are kept to.
    """
    tiles = cache.tiles if cache else ()
    held = look_up(tiles, texts, videos)
    coverage = Coverage(held, len(texts))
    if layout == "dense":
        groups: list[np.ndarray] = [np.arange(len(videos))]
        group_of = np.zeros(len(videos), np.int64)
    else:
        groups, group_of = _blocks(held, others, videos, text_video, block_videos)
    kind = BLOCK if layout == "blocks" else MORE if tiles else DENSE
    added: dict[bytes, tuple[np.ndarray, list[np.ndarray]]] = {}
    for group, block, rows in _by_need(group_of[text_video], coverage.text_class):
        missing = np.setdiff1d(groups[group], coverage.videos[block], assume_unique=True)
        if len(missing):
            added.setdefault(missing.tobytes(), (missing, []))[1].append(rows)
    new = tuple(NewTile(kind, np.sort(np.concatenate(rows)), missing) for missing, rows in added.values())
    return TilePlan(
        new,
        len(texts) - len(_union([one.texts for one in held])),
        len(videos) - len(_union([one.videos for one in held])),
        len({key for tile in tiles for key in tile.text_ids} - set(texts)),
        len({key for tile in tiles for key in tile.video_ids} - set(videos)),
    )


def _union(places: Sequence[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate(places)) if places else np.empty(0, np.int64)


def _by_need(group: np.ndarray, held: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """(group, class, places) of the texts of each group and class."""
    both, which = np.unique(np.stack([group, held]), axis=1, return_inverse=True)
    order = np.argsort(which, kind="stable")
    edges = np.searchsorted(which[order], np.arange(both.shape[1] + 1))
    return [(int(both[0, k]), int(both[1, k]), order[start:stop]) for k, (start, stop) in enumerate(pairwise(edges))]


def _blocks(
    held: Sequence[Held],
    others: Sequence[Sequence[str]],
    videos: Sequence[str],
    text_video: np.ndarray,
    block_videos: int,
) -> tuple[list[np.ndarray], np.ndarray]:
    """The blocks of videos, places ascending, and the block of each video [V].

    A block, once made, keeps its videos; those with texts that are in none fill new ones, by the order of their ids'
    hashes, of about one size; then those without are dealt out. The larger come first: what a killed run left is cut as
    it would have been.
    """
    captioned = np.zeros(len(videos), bool)
    captioned[text_video] = True
    homes = [one for one in held if _is_home(one.tile)]
    # Larger ones hold smaller ones.
    known = [one.videos for one in sorted(homes, key=lambda one: (-len(one.videos), one.tile.name))]
    place = {video: number for number, video in enumerate(videos)}
    known += [np.sort(np.array([place[key] for key in ids if key in place], np.int64)) for ids in others]
    groups: list[np.ndarray] = []
    group_of = np.full(len(videos), -1)
    for each in known:
        free = each[group_of[each] < 0]
        if captioned[free].any():
            group_of[free] = len(groups)
            groups.append(each)
    rest = sorted(np.flatnonzero(captioned & (group_of < 0)).tolist(), key=lambda place: _hash(videos[place]))
    if rest:
        for each in np.array_split(np.array(rest), -(-len(rest) // block_videos)):
            group_of[each] = len(groups)
            groups.append(np.sort(each))
    if not captioned.all():
        for one in (one for one in held if one.pairs and not _is_home(one.tile)):
            group_of[one.videos[group_of[one.videos] < 0]] = group_of[text_video[one.texts[0]]]
        _deal_out(group_of, captioned, [_hash(video) for video in videos], len(groups))
        groups = [np.union1d(each, np.flatnonzero(group_of == group)) for group, each in enumerate(groups)]
    return groups, group_of


def _deal_out(group_of: np.ndarray, captioned: np.ndarray, hashes: Sequence[bytes], groups: int) -> None:
    """Give videos without texts that are in no group to those that have the fewest of them, in the order of hashes."""
    left = sorted(np.flatnonzero(group_of < 0).tolist(), key=hashes.__getitem__)
    have = np.bincount(group_of[~captioned & (group_of >= 0)], minlength=groups)
    own = [np.flatnonzero(captioned & (group_of == group)).tolist() for group in range(groups)]
    first = [min(hashes[place] for place in places) for places in own]
    order = sorted(range(groups), key=lambda group: (-have[group], first[group]))
    for group, share in zip(order, np.array_split(np.arange(len(left) + have.sum()), groups), strict=True):
        taken = left[: max(0, len(share) - int(have[group]))]
        group_of[taken] = group
        left = left[len(taken) :]


def _hash(video: str) -> bytes:
    return hashlib.blake2b(video.encode(), digest_size=16, person=b"teachclip-blocks").digest()
