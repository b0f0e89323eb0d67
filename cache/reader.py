"""Batches of labels out of a score store: ids looked up and digests compared once, rows read batch by batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorstore as ts

from ..errors import CacheError, CacheMismatchError
from .arrays import open_array
from .codes import decode_scores
from .places import Place, at_once, patient, refuse_unreachable
from .score_shards import RESCORE, incomplete, problem, unreadable
from .tiles import Key, Tile

_SHOWN = 5
_OTHER_CAPTIONS = "undo the change, or score into another store: teachclip score CONFIG --set score.store=NAME.zarr"
_OTHER_FRAMES = (
    f"{_OTHER_CAPTIONS}; a teacher that saw other frames needs its frame cache named, as `prepared`; scores of the "
    "same data set prepared elsewhere, at the same times, may teach: teachclip train CONFIG --accept pixels"
)
_OTHER_TIMES = "prepare the frames with the settings that the scores were made with: teachclip cache info STORE TEACHER"
SAME_TIME = 1e-6
"""Seconds by which two decoders' times of one frame may differ."""


@dataclass(frozen=True)
class Labels:
    """A batch of a teacher's labels.

    Args:
        coarse: float32 [T,V] raw scores; label logits are `coarse * scale`.
        frame_logits: float32 [T,F], text i with its own video; None when the teacher gives none.
    """

    coarse: np.ndarray
    frame_logits: np.ndarray | None


class TileRows:
    """Reads rows of one tile.

    Raises:
        CacheError: from every method, when a shard is missing or damaged; names it and what to do.
    """

    def __init__(self, tile: Tile) -> None:
        self.tile = tile
        self._arrays = {name: open_array(tile.folder / name, tile.arrays[name]) for name in tile.layout.scored}

    def start(self, name: str, rows: np.ndarray, columns: np.ndarray | None = None) -> "ts.Future[np.ndarray]":
        """Read rows of `coarse`, `coarse_codec` or `fine` in the background: all of their columns, or these."""
        array = self._arrays[name]
        return (array.oindex[rows] if columns is None else array.oindex[rows, columns]).read()

    def finish(self, future: "ts.Future[np.ndarray]", rows: np.ndarray) -> np.ndarray:
        """What `start` promised."""
        try:
            values = np.asarray(self._wait(future, rows))
        except (ValueError, OSError) as error:
            refuse_unreachable(self.tile.folder, error)
            self.tile.refuse_replaced()
            raise unreadable(self.tile, rows, error) from error
        self.tile.refuse_replaced()
        return values

    def _wait(self, future: "ts.Future[np.ndarray]", rows: np.ndarray) -> np.ndarray:
        if isinstance(self.tile.folder, Path):
            return future.result()
        return patient(future, 4 * len(rows) * self.tile.layout.videos)

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows of one array."""
        return self.finish(self.start(name, rows), rows)

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """Raw scores float32 [rows,V] with every video of the tile."""
        codec = self.read("coarse_codec", rows) if self.tile.layout.dtype == "uint16" else None
        return decode_scores(self.read("coarse", rows), codec)


class Part:
    """What one tile holds of a request: where each text and video lies in it, -1 for those it has not."""

    def __init__(self, tile: Tile, texts: Sequence[Key], videos: Sequence[Key]) -> None:
        self.tile = tile
        self.rows = np.array([tile.text_rows.get(key, -1) for key, _ in texts], dtype=np.int64)
        self.columns = np.array([tile.video_columns.get(key, -1) for key, _ in videos], dtype=np.int64)

    @property
    def used(self) -> bool:
        return bool((self.rows >= 0).any() and (self.columns >= 0).any())

    def open(self) -> None:
        """Check the shards that are needed and load their rows' codecs."""
        held = self.rows[self.rows >= 0]
        shards = np.unique(held // self.tile.layout.shard_texts).tolist()
        for shard, why in zip(shards, at_once(self.tile.folder, lambda k: problem(self.tile, k), shards), strict=True):
            if why:
                raise incomplete(self.tile, shard)
        self.tile_rows = TileRows(self.tile)
        self.codec: np.ndarray | None = None
        if self.tile.layout.dtype == "uint16":
            self.codec = np.zeros((len(self.rows), 2))
            self.codec[self.rows >= 0] = self.tile_rows.read("coarse_codec", held)

    def start(self, texts: np.ndarray, videos: np.ndarray) -> "Share | None":
        """Begin to read what this tile holds of a batch; None when that is nothing."""
        rows, columns = self.rows[texts], self.columns[videos]
        here, there = rows >= 0, columns >= 0
        if not (here.any() and there.any()):
            return None
        rows = rows[here]
        codec = None if self.codec is None else self.codec[texts[here]]
        return Share(self.tile_rows, self.tile_rows.start("coarse", rows, columns[there]), here, there, rows, codec)


@dataclass(frozen=True)
class Share:
    """What one tile holds of a batch, while it is read.

    Args:
        tile_rows: the tile.
        future: what is stored [rows,columns].
        texts, videos: bool [T], [V]: which of the batch's it holds.
        rows: the tile's rows of these texts.
        codec: scale and offset of these rows, where there are codes.
    """

    tile_rows: TileRows
    future: "ts.Future[np.ndarray]"
    texts: np.ndarray
    videos: np.ndarray
    rows: np.ndarray
    codec: np.ndarray | None

    def scores(self) -> np.ndarray:
        """float32 [rows,columns]."""
        return decode_scores(self.tile_rows.finish(self.future, self.rows), self.codec)


def _some(chosen: np.ndarray, keys: Sequence[Key]) -> list[str]:
    ids = [keys[i][0] for i in np.flatnonzero(chosen)[:_SHOWN]]
    more = np.count_nonzero(chosen) - len(ids)
    return [*ids, *([f"... and {more:,} more"] if more else [])]


def changed(keys: Sequence[Key], held: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Whose digest is another: bool [N].

    Args:
        keys: N texts or videos.
        held: per tile, where it holds each of them [N], -1 for none, and the digests of what it holds [n,16].
    """
    expected = np.frombuffer(b"".join(key for _, key in keys), dtype=np.uint8).reshape(len(keys), 16)
    found = np.zeros(len(keys), dtype=bool)
    for places, digests in held:
        here = places >= 0
        found[here] |= (digests[places[here]] != expected[here]).any(axis=1)
    return found


def _refuse_changed(folder: Place, what: str, keys: Sequence[Key], changed: np.ndarray) -> None:
    if changed.any():
        raise CacheMismatchError(
            f"{what} changed since the scores were made",
            where=str(folder),
            hint=_OTHER_FRAMES if what == "frames" else _OTHER_CAPTIONS,
            details=_some(changed, keys),
        )


def _refuse_unscored(folder: Place, what: str, keys: Sequence[Key], held: list[np.ndarray]) -> None:
    absent = np.ones(len(keys), dtype=bool)
    for places in held:
        absent &= places < 0
    if absent.any():
        raise CacheMismatchError(
            f"{np.count_nonzero(absent):,} {what} have no scores",
            where=str(folder),
            hint="score them into another store: teachclip score CONFIG --set score.store=NAME.zarr",
            details=_some(absent, keys),
        )


def _refuse_other_times(
    folder: Place, videos: Sequence[Key], other: np.ndarray, parts: Sequence[Part], times: np.ndarray
) -> None:
    """Refuse videos with other pixels whose frames are not of the moments that the teacher saw."""
    moved = np.zeros(len(videos), dtype=bool)
    for part in parts:
        here = np.flatnonzero(other & (part.columns >= 0))
        seen = part.tile.frame_times[part.columns[here]]
        same = seen.shape == times[here].shape and np.isclose(seen, times[here], rtol=0, atol=SAME_TIME, equal_nan=True)
        moved[here] |= ~np.broadcast_to(same, seen.shape).all(axis=1)
    if moved.any():
        raise CacheMismatchError(
            f"frames of {np.count_nonzero(moved):,} videos are of other moments than those that were scored: more than "
            "their pixels differs",
            where=str(folder),
            hint=_OTHER_TIMES,
            details=_some(moved, videos),
        )


def find_parts(
    folder: Place,
    tiles: Sequence[Tile],
    texts: Sequence[Key],
    videos: Sequence[Key],
    times: np.ndarray | None = None,
) -> list[Part]:
    """What each tile holds of these texts and videos; `times` as in `ScoreCache.reader`.

    Raises:
        CacheMismatchError: captions or frames changed, or texts and videos that are in no tile; names them.
    """
    parts = [Part(tile, texts, videos) for tile in tiles]
    _refuse_changed(folder, "captions", texts, changed(texts, [(p.rows, p.tile.text_digests) for p in parts]))
    other = changed(videos, [(p.columns, p.tile.video_digests) for p in parts])
    if times is None:
        _refuse_changed(folder, "frames", videos, other)
    else:
        _refuse_other_times(folder, videos, other, parts, times)
    _refuse_unscored(folder, "captions", texts, [part.rows for part in parts])
    _refuse_unscored(folder, "videos", videos, [part.columns for part in parts])
    return parts


class ScoreReader:
    """Scores of given texts and videos; made by `ScoreCache.reader`.

    Attributes:
        frame_logits: float32 [T,F], each text with its own video; None when the teacher gives none.
    """

    def __init__(
        self,
        folder: Place,
        tiles: Sequence[Tile],
        texts: Sequence[Key],
        videos: Sequence[Key],
        times: np.ndarray | None = None,
    ) -> None:
        self.folder = folder
        self._texts = texts
        self._videos = videos
        self._slots = max((tile.layout.frames for tile in tiles), default=0)
        self._parts = [part for part in find_parts(folder, tiles, texts, videos, times) if part.used]
        for part in self._parts:
            part.open()
        self.frame_logits = self._load_frame_logits()

    @property
    def frame_times(self) -> np.ndarray:
        """float64 [V,F]: seconds of the frames of each video that the teacher saw, NaN in padded slots and, throughout,
        for videos in tiles that hold none of the texts."""
        times = np.full((len(self._videos), self._slots), np.nan)
        for part in self._parts:
            held = part.columns >= 0
            times[held] = part.tile.frame_times[part.columns[held]]
        return times

    @property
    def video_digests(self) -> np.ndarray:
        """uint8 [V,16]: digests of the frames that the teacher saw; zeros for videos in tiles that hold no text."""
        digests = np.zeros((len(self._videos), 16), dtype=np.uint8)
        for part in self._parts:
            held = part.columns >= 0
            digests[held] = part.tile.video_digests[part.columns[held]]
        return digests

    def _load_frame_logits(self) -> np.ndarray | None:
        if not self._parts or not self._parts[0].tile.layout.frame_logits:
            return None
        loaded = np.zeros((len(self._texts), self._slots), dtype=np.float32)
        found = np.zeros(len(self._texts), dtype=bool)
        for part in self._parts:
            own = (part.rows >= 0) & (part.tile.text_video[part.rows] >= 0)
            loaded[own] = part.tile_rows.read("fine", part.rows[own])
            found |= own
        if not found.all():
            raise CacheError(
                "captions without frame scores: their own videos were not scored",
                where=str(self.folder),
                hint=RESCORE,
                details=_some(~found, self._texts),
            )
        return loaded

    def read(self, text_index: np.ndarray, video_index: np.ndarray) -> Labels:
        """Labels of a batch.

        Args:
            text_index, video_index: int [T], [V]: places in the lists that the reader was made with.

        Raises:
            CacheError: a shard is missing or damaged, or a pair that no tile holds; names it.
        """
        texts, videos = np.asarray(text_index), np.asarray(video_index)
        coarse = self._gather(texts, videos)
        if np.isnan(coarse.min(initial=0)):
            absent = np.isnan(coarse)
            row, column = np.argwhere(absent)[0]
            pair = f"{self._texts[texts[row]][0]} with {self._videos[videos[column]][0]}"
            raise CacheError(
                f"{np.count_nonzero(absent):,} pairs of this batch have no score, {pair} for one",
                where=str(self.folder),
                hint="draw batches within the tiles of the store",
            )
        return Labels(coarse, None if self.frame_logits is None else self.frame_logits[texts])

    def _gather(self, texts: np.ndarray, videos: np.ndarray) -> np.ndarray:
        shares = [share for part in self._parts if (share := part.start(texts, videos)) is not None]
        if len(shares) == 1 and shares[0].texts.all() and shares[0].videos.all():
            return shares[0].scores()
        coarse = np.full((len(texts), len(videos)), np.nan, dtype=np.float32)
        for share in shares:
            coarse[np.ix_(share.texts, share.videos)] = share.scores()
        return coarse
