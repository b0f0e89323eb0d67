"""Batches of labels out of a score store: ids looked up and digests compared once, rows read batch by batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ....errors import CacheError
from ....plurals import counted
from ...storage.locations import Location, at_once
from ..lookup import Coverage, Held
from ..shard import RESCORE, incomplete, problem
from ..tile import Key, Tile
from .labels import Arrays, Labels
from .pairs import PairScores, PendingScores, RequestedPairs, TilePart, any_absent
from .request import find, refuse_unscored, some_of
from .tile_rows import TileRows


@dataclass(frozen=True, eq=False)
class ScoreReader:
    """Labels of given texts and videos; made by `ScoreCache.reader`.

    Attributes:
        folder: the teacher's.
        texts, videos: what was asked for.
        scale: exp(logit_scale), which makes a score a logit.
        slots: F, the teacher's frame slots.
        held: what each tile holds of it, of the tiles that hold any pair.
        requested: the same in plain form, which another process can be sent.
        scores: what reads the scores themselves.
        frame_logits: float32 [T,F], each text with its own video; None when the teacher gives none.
        sparse: NaN stands for pairs that a tile holds and the teacher did not score; else that is an error.
    """

    folder: Location
    texts: Sequence[Key]
    videos: Sequence[Key]
    scale: float
    slots: int
    held: Sequence[Held]
    requested: RequestedPairs
    scores: PairScores
    frame_logits: np.ndarray | None
    sparse: bool = False

    @classmethod
    def open(
        cls,
        folder: Location,
        tiles: Sequence[Tile],
        scale: float,
        texts: Sequence[Key],
        videos: Sequence[Key],
        times: np.ndarray | None = None,
        sparse: bool = False,
    ) -> "ScoreReader":
        """A reader of what these tiles of a teacher hold; see `ScoreCache.reader`."""
        found = find(folder, tiles, texts, videos, times)
        refuse_unscored(folder, "captions", texts, [one.texts for one in found])
        refuse_unscored(folder, "videos", videos, [one.videos for one in found])
        held = [one for one in found if one.pairs]
        opened = at_once(folder, _open, held)
        slots = max((tile.spec.frames for tile in tiles), default=0)
        requested = RequestedPairs([part for part, _ in opened], len(texts))
        rows = [tile_rows for _, tile_rows in opened]
        scores = PairScores(requested, [each.arrays["coarse"] for each in rows])
        logits = _frame_logits(folder, texts, slots, held, rows)
        return cls(folder, texts, videos, scale, slots, held, requested, scores, logits, sparse)

    def with_frame_logits(self, frame_logits: np.ndarray | None) -> "ScoreReader":
        """The same reader with other frame-text logits in its labels, float32 [T,any], or with none."""
        return replace(self, frame_logits=frame_logits)

    @cached_property
    def groups(self) -> np.ndarray | None:
        """int64 [T]: texts of one group are all scored with each other's videos, those of two are not; None where every
        text is scored with every video. The texts of a batch must be of one group."""
        return self._coverage.text_class if len(self._coverage.videos) > 1 else None

    def scored_with(self, text: int) -> np.ndarray:
        """int64 [n]: places of the videos that the text at this place is scored with, and with it all of its group;
        ascending."""
        return self._coverage.videos[int(self._coverage.text_class[text])]

    @cached_property
    def _coverage(self) -> Coverage:
        return Coverage(self.held, len(self.texts))

    @property
    def frame_times(self) -> np.ndarray:
        """float64 [V,F]: seconds of the frames of each video that the teacher saw, NaN in padded slots and, throughout,
        for videos in tiles that hold none of the texts."""
        times = np.full((len(self.videos), self.slots), np.nan)
        for one in self.held:
            times[one.videos] = one.tile.frame_times[one.columns]
        return times

    @property
    def video_digests(self) -> np.ndarray:
        """uint8 [V,16]: digests of the frames that the teacher saw; zeros for videos in tiles that hold no text."""
        digests = np.zeros((len(self.videos), 16), dtype=np.uint8)
        for one in self.held:
            digests[one.videos] = one.tile.video_digests[one.columns]
        return digests

    def precision(self, text_index: np.ndarray) -> float:
        """How far a stored score of these texts can be from the one that was written: half a step of its type."""
        return self.scores.precision(np.asarray(text_index))

    def start(self, text_index: np.ndarray, video_index: np.ndarray) -> "PendingLabels":
        """Begin to read the labels of a batch: threads of TensorStore's own go on with it, so that several teachers'
        labels, or labels and frames, are read at once. As `read` else; errors come with the result."""
        texts, videos = np.asarray(text_index), np.asarray(video_index)
        return PendingLabels(self, texts, videos, self.scores.start(texts, videos))

    def read(self, text_index: np.ndarray, video_index: np.ndarray) -> Arrays:
        """Labels of a batch.

        Args:
            text_index, video_index: int [T], [V]: places in the lists that the reader was made with.

        Raises:
            CacheError: a shard is missing or damaged, or a pair that no tile holds; names it.
        """
        return self.start(text_index, video_index).result()

    def refuse_absent(self, texts: np.ndarray, videos: np.ndarray, scores: np.ndarray) -> None:
        """Refuse a batch [T,V] with pairs that have no score: of a sparse teacher, that no tile holds.

        Raises:
            CacheError: there are some; names one.
        """
        absent = self.scores.unheld(texts, videos) if self.sparse else np.isnan(scores)
        if absent.any():
            row, column = np.argwhere(absent)[0]
            pair = f"{self.texts[texts[row]][0]} with {self.videos[videos[column]][0]}"
            raise CacheError(
                f"{counted(int(absent.sum()), 'pair of this batch has', 'pairs of this batch have')} "
                f"no score, {pair} for one",
                where=str(self.folder),
                hint="draw the texts of a batch from one of the reader's `groups`",
            )


@dataclass(frozen=True, eq=False)
class PendingLabels:
    """One teacher's labels of a batch, while they are read; made by `ScoreReader.start`.

    Args:
        reader: whose.
        texts, videos: the batch's places.
        scores: of these.
    """

    reader: ScoreReader
    texts: np.ndarray
    videos: np.ndarray
    scores: PendingScores

    def result(self) -> Arrays:
        """Wait for them; raises as `ScoreReader.read` does."""
        coarse, logits = self.scores.result(), self.reader.frame_logits
        if any_absent(coarse):
            self.reader.refuse_absent(self.texts, self.videos, coarse)
        own = None if logits is None else logits.take(self.texts, axis=0)
        return Labels(coarse, own, self.reader.scale, self.reader.sparse)


def _open(held: Held) -> tuple[TilePart, TileRows]:
    """Check the shards of a tile that are needed, and load their rows' codecs."""
    tile = held.tile
    shards = np.unique(held.rows // tile.spec.shard_texts).tolist()
    for shard, why in zip(shards, at_once(tile.folder, lambda k: problem(tile, k), shards), strict=True):
        if why:
            raise incomplete(tile, shard)
    tile_rows = TileRows(tile)
    codec = tile_rows.read("coarse_codec", held.rows) if tile.spec.dtype == "uint16" else None
    return TilePart(tile.facts, held.texts, held.rows, held.videos, held.columns, codec), tile_rows


def _frame_logits(
    folder: Location, texts: Sequence[Key], slots: int, held: Sequence[Held], rows: Sequence[TileRows]
) -> np.ndarray | None:
    """float32 [T,F] of all texts; None when the teacher gives none."""
    if not held or not held[0].tile.spec.frame_logits:
        return None
    loaded = np.zeros((len(texts), slots), dtype=np.float32)
    found = np.zeros(len(texts), dtype=bool)
    for one, tile_rows in zip(held, rows, strict=True):
        own = one.tile.text_video[one.rows] >= 0
        if own.any():
            places = one.texts[own]
            loaded[places] = tile_rows.read("fine", one.rows[own])
            found[places] = True
    if not found.all():
        raise CacheError(
            "captions without frame scores: their own videos were not scored",
            where=str(folder),
            hint=RESCORE,
            details=some_of(~found, texts),
        )
    return loaded
