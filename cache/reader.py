"""Batches of labels out of a score store: ids looked up and digests compared once, rows read batch by batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CacheError, CacheMismatchError
from .arrays import open_array
from .codes import decode_scores
from .coverage import Coverage, Held, look_up
from .places import Pending, Place, at_once, patient, refuse_unreachable
from .score_shards import RESCORE, incomplete, problem, unreadable
from .tiles import Key, Tile

_SHOWN = 5
_OTHER_CAPTIONS = "undo the change, or score into another store: teachclip score CONFIG --set score.store=NAME.zarr"
_SCORE_THEM = "score what is new, nothing that is there changes: teachclip score CONFIG"
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


type Reading = Pending[np.ndarray]
"""Rows that are being read."""


class TileRows:
    """Reads rows of one tile.

    Raises:
        CacheError: from every method, when a shard is missing or damaged; names it and what to do.
    """

    def __init__(self, tile: Tile) -> None:
        self.tile = tile
        self._arrays = {name: open_array(tile.folder / name, tile.arrays[name]) for name in tile.layout.scored}

    def start(self, name: str, rows: np.ndarray, columns: np.ndarray | None = None) -> Reading:
        """Read rows of `coarse`, `coarse_codec` or `fine` in the background: all of their columns, or these."""
        array = self._arrays[name]
        started: Reading = (array.oindex[rows] if columns is None else array.oindex[rows, columns]).read()
        return started

    def finish(self, future: Reading, rows: np.ndarray) -> np.ndarray:
        """What `start` promised."""
        try:
            values = np.asarray(self._wait(future, rows))
        except (ValueError, OSError) as error:
            refuse_unreachable(self.tile.folder, error)
            self.tile.refuse_replaced()
            raise unreadable(self.tile, rows, error) from error
        self.tile.refuse_replaced()
        return values

    def _wait(self, future: Reading, rows: np.ndarray) -> np.ndarray:
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
    """What one tile holds of a request, and what its rows are decoded with.

    In another process (pickled) it has no `tile_rows` until it is given some.
    """

    def __init__(self, held: Held) -> None:
        self.held, self.tile = held, held.tile

    def open(self) -> None:
        """Check the shards that are needed and load their rows' codecs."""
        shards = np.unique(self.held.rows // self.tile.layout.shard_texts).tolist()
        for shard, why in zip(shards, at_once(self.tile.folder, lambda k: problem(self.tile, k), shards), strict=True):
            if why:
                raise incomplete(self.tile, shard)
        self.tile_rows = TileRows(self.tile)
        coded = self.tile.layout.dtype == "uint16"
        self.codec = self.tile_rows.read("coarse_codec", self.held.rows) if coded else None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "tile_rows"}

    def precision(self, texts: np.ndarray) -> float:
        """Half the largest step between stored scores of these texts."""
        _, row = _find(self.held.texts, texts)
        if not len(row) or self.tile.layout.dtype == "float32":
            return 0.0
        if self.codec is not None:
            return float(self.codec[row, 0].max() / 2)
        largest = np.abs(self.tile_rows.scores(self.held.rows[row])).max()
        return float(np.spacing(np.float16(largest)) / 2)

    def start(self, texts: np.ndarray, videos: np.ndarray) -> "Share | None":
        """Begin to read what this tile holds of a batch; None when that is nothing."""
        here, row = _find(self.held.texts, texts)
        there, column = _find(self.held.videos, videos)
        if not (len(here) and len(there)):
            return None
        rows = self.held.rows[row]
        codec = None if self.codec is None else self.codec.take(row, axis=0)
        future = self.tile_rows.start("coarse", rows, self.held.columns[column])
        return Share(self.tile_rows, future, here, there, rows, codec)


def _find(places: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of `wanted` are among the ascending `places`, and where: both as indices."""
    if not len(places):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if places[-1] == len(places) - 1 and (not len(wanted) or 0 <= wanted.min() <= wanted.max() <= places[-1]):
        return np.arange(len(wanted)), wanted  # every place from 0 on, as in a store of one tile
    at = np.searchsorted(places, wanted).clip(max=len(places) - 1)
    found = np.flatnonzero(places[at] == wanted)
    return found, at[found]


@dataclass(frozen=True)
class Share:
    """What one tile holds of a batch, while it is read.

    Args:
        tile_rows: the tile.
        future: what is stored [rows,columns].
        texts, videos: which of the batch's it holds, as indices.
        rows: the tile's rows of these texts.
        codec: scale and offset of these rows, where there are codes.
    """

    tile_rows: TileRows
    future: Reading
    texts: np.ndarray
    videos: np.ndarray
    rows: np.ndarray
    codec: np.ndarray | None

    def scores(self) -> np.ndarray:
        """float32 [rows,columns]."""
        return decode_scores(self.tile_rows.finish(self.future, self.rows), self.codec)


class _Holders:
    """Which parts hold each text: a batch asks these, not every tile of the store."""

    def __init__(self, parts: Sequence[Part], texts: int) -> None:
        self._count = len(parts)
        places = np.concatenate([np.empty(0, np.int64), *(part.held.texts for part in parts)])
        numbers = np.repeat(np.arange(len(parts)), [len(part.held.texts) for part in parts])
        order = np.argsort(places, kind="stable")
        self._parts, self._starts = numbers[order], np.searchsorted(places[order], np.arange(texts + 1))

    def of(self, texts: np.ndarray) -> list[int]:
        """Numbers of the parts that hold any of these texts."""
        if self._count < 2:
            return list(range(self._count))
        first = self._starts[texts]
        counts = self._starts[texts + 1] - first
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        numbers: list[int] = np.unique(self._parts[np.repeat(first, counts) + within]).tolist()
        return numbers


def _some(chosen: np.ndarray, keys: Sequence[Key]) -> list[str]:
    ids = [keys[i][0] for i in np.flatnonzero(chosen)[:_SHOWN]]
    more = np.count_nonzero(chosen) - len(ids)
    return [*ids, *([f"... and {more:,} more"] if more else [])]


def changed(keys: Sequence[Key], held: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Whose digest is another: bool [N].

    Args:
        keys: N texts or videos.
        held: per tile, the places of those that it holds, and its digests of them [n,16].
    """
    expected = np.frombuffer(b"".join(key for _, key in keys), dtype=np.uint8).reshape(len(keys), 16)
    found = np.zeros(len(keys), dtype=bool)
    for places, digests in held:
        found[places] |= (digests != expected[places]).any(axis=1)
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
        absent[places] = False
    if absent.any():
        raise CacheMismatchError(
            f"{np.count_nonzero(absent):,} {what} have no scores",
            where=str(folder),
            hint=_SCORE_THEM,
            details=_some(absent, keys),
        )


def _refuse_other_times(
    folder: Place, videos: Sequence[Key], other: np.ndarray, held: Sequence[Held], times: np.ndarray
) -> None:
    """Refuse videos with other pixels whose frames are not of the moments that the teacher saw."""
    moved = np.zeros(len(videos), dtype=bool)
    for one in held:
        chosen = other[one.videos]
        here = one.videos[chosen]
        seen = one.tile.frame_times[one.columns[chosen]]
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


def find(
    folder: Place,
    tiles: Sequence[Tile],
    texts: Sequence[Key],
    videos: Sequence[Key],
    times: np.ndarray | None = None,
) -> list[Held]:
    """What each tile holds of these texts and videos; `times` as in `ScoreCache.reader`.

    Raises:
        CacheMismatchError: captions or frames changed; names them.
    """
    held = look_up(tiles, [key for key, _ in texts], [key for key, _ in videos])
    other = changed(texts, [(one.texts, one.tile.text_digests[one.rows]) for one in held])
    _refuse_changed(folder, "captions", texts, other)
    other = changed(videos, [(one.videos, one.tile.video_digests[one.columns]) for one in held])
    if times is None:
        _refuse_changed(folder, "frames", videos, other)
    else:
        _refuse_other_times(folder, videos, other, held, times)
    return held


class PairScores:
    """Raw scores of pairs, out of the parts of tiles that hold them; can be sent to another process."""

    def __init__(self, parts: Sequence[Part], texts: int) -> None:
        self.parts = parts
        self._holders = _Holders(parts, texts)

    def start(self, texts: np.ndarray, videos: np.ndarray) -> "PendingScores":
        """Begin to read the scores of these texts with these videos."""
        parts = [self.parts[number] for number in self._holders.of(texts)]
        shares = [share for part in parts if (share := part.start(texts, videos)) is not None]
        return PendingScores(len(texts), len(videos), shares)


@dataclass(frozen=True)
class PendingScores:
    """Scores [texts,videos] that are being read: of each tile its share."""

    texts: int
    videos: int
    shares: Sequence[Share]

    def result(self) -> np.ndarray:
        """float32 [texts,videos], NaN for pairs that no tile holds."""
        shape = self.texts, self.videos
        if len(self.shares) == 1 and (len(self.shares[0].texts), len(self.shares[0].videos)) == shape:
            return self.shares[0].scores()
        scores = np.full(shape, np.nan, dtype=np.float32)
        for share in self.shares:
            scores[np.ix_(share.texts, share.videos)] = share.scores()
        return scores


def any_absent(scores: np.ndarray) -> bool:
    """Whether there are pairs without scores among them."""
    return bool(np.isnan(scores.min(initial=0)))


class ScoreReader:
    """Scores of given texts and videos; made by `ScoreCache.reader`.

    Attributes:
        frame_logits: float32 [T,F], each text with its own video; None when the teacher gives none.
        pair_scores: what reads the scores themselves.
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
        held = find(folder, tiles, texts, videos, times)
        _refuse_unscored(folder, "captions", texts, [one.texts for one in held])
        _refuse_unscored(folder, "videos", videos, [one.videos for one in held])
        self._parts = [Part(one) for one in held if one.pairs]
        self.pair_scores = PairScores(self._parts, len(texts))
        at_once(folder, Part.open, self._parts)
        self.frame_logits = self._load_frame_logits()

    @cached_property
    def groups(self) -> np.ndarray | None:
        """int64 [T]: texts of one group are all scored with each other's videos, those of two are not; None where every
        text is scored with every video. The texts of a batch must be of one group."""
        coverage = Coverage([part.held for part in self._parts], len(self._texts))
        return coverage.text_class if len(coverage.videos) > 1 else None

    @property
    def frame_times(self) -> np.ndarray:
        """float64 [V,F]: seconds of the frames of each video that the teacher saw, NaN in padded slots and, throughout,
        for videos in tiles that hold none of the texts."""
        times = np.full((len(self._videos), self._slots), np.nan)
        for part in self._parts:
            times[part.held.videos] = part.tile.frame_times[part.held.columns]
        return times

    @property
    def video_digests(self) -> np.ndarray:
        """uint8 [V,16]: digests of the frames that the teacher saw; zeros for videos in tiles that hold no text."""
        digests = np.zeros((len(self._videos), 16), dtype=np.uint8)
        for part in self._parts:
            digests[part.held.videos] = part.tile.video_digests[part.held.columns]
        return digests

    def precision(self, text_index: np.ndarray) -> float:
        """How far a stored score of these texts can be from the one that was written: half a step of its type."""
        texts = np.asarray(text_index)
        return max((part.precision(texts) for part in self._parts), default=0.0)

    def _load_frame_logits(self) -> np.ndarray | None:
        if not self._parts or not self._parts[0].tile.layout.frame_logits:
            return None
        loaded = np.zeros((len(self._texts), self._slots), dtype=np.float32)
        found = np.zeros(len(self._texts), dtype=bool)
        for part in self._parts:
            own = part.tile.text_video[part.held.rows] >= 0
            if own.any():
                places = part.held.texts[own]
                loaded[places] = part.tile_rows.read("fine", part.held.rows[own])
                found[places] = True
        if not found.all():
            raise CacheError(
                "captions without frame scores: their own videos were not scored",
                where=str(self.folder),
                hint=RESCORE,
                details=_some(~found, self._texts),
            )
        return loaded

    def start(self, text_index: np.ndarray, video_index: np.ndarray) -> "PendingLabels":
        """Begin to read the labels of a batch: threads of TensorStore's own go on with it, so that several teachers'
        labels, or labels and frames, are read at once. As `read` else; errors come with the result."""
        texts, videos = np.asarray(text_index), np.asarray(video_index)
        return PendingLabels(self, texts, videos, self.pair_scores.start(texts, videos), self.frame_logits)

    def read(self, text_index: np.ndarray, video_index: np.ndarray) -> Labels:
        """Labels of a batch.

        Args:
            text_index, video_index: int [T], [V]: places in the lists that the reader was made with.

        Raises:
            CacheError: a shard is missing or damaged, or a pair that no tile holds; names it.
        """
        return self.start(text_index, video_index).result()

    def refuse_absent(self, texts: np.ndarray, videos: np.ndarray, absent: np.ndarray) -> None:
        """Refuse a batch with pairs that no tile holds, bool [T,V].

        Raises:
            CacheError: there are some; names one.
        """
        if absent.any():
            row, column = np.argwhere(absent)[0]
            pair = f"{self._texts[texts[row]][0]} with {self._videos[videos[column]][0]}"
            raise CacheError(
                f"{np.count_nonzero(absent):,} pairs of this batch have no score, {pair} for one",
                where=str(self.folder),
                hint="draw the texts of a batch from one of the reader's `groups`",
            )


@dataclass(frozen=True)
class PendingLabels:
    """Labels of a batch, while they are read; made by `ScoreReader.start`.

    Args:
        reader: whose.
        texts, videos: the batch's places.
        scores: of these.
        frame_logits: float32 [T,F] of all the reader's texts, or None.
    """

    reader: ScoreReader
    texts: np.ndarray
    videos: np.ndarray
    scores: PendingScores
    frame_logits: np.ndarray | None

    def result(self) -> Labels:
        """Wait for them; raises as `ScoreReader.read` does."""
        coarse = self.scores.result()
        if any_absent(coarse):
            self.reader.refuse_absent(self.texts, self.videos, np.isnan(coarse))
        return Labels(coarse, None if self.frame_logits is None else self.frame_logits.take(self.texts, axis=0))
