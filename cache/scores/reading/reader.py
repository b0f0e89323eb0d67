"""Batches of labels out of a score store: ids looked up and digests compared once, rows read batch by batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ....errors import CacheError
from ...storage.locations import Location, at_once
from ..lookup import Coverage
from ..shard import RESCORE
from ..tile import Key, Tile
from .pairs import PairScores, PendingScores, any_absent
from .request import find, refuse_unscored, some_of
from .tile_rows import TilePart


@dataclass(frozen=True)
class Labels:
    """A batch of a teacher's labels.

    Args:
        coarse: float32 [T,V] raw scores; label logits are `coarse * scale`.
        frame_logits: float32 [T,F], text i with its own video; None when the teacher gives none.
    """

    coarse: np.ndarray
    frame_logits: np.ndarray | None


class ScoreReader:
    """Scores of given texts and videos; made by `ScoreCache.reader`.

    Attributes:
        frame_logits: float32 [T,F], each text with its own video; None when the teacher gives none.
        pair_scores: what reads the scores themselves.
    """

    def __init__(
        self,
        folder: Location,
        tiles: Sequence[Tile],
        texts: Sequence[Key],
        videos: Sequence[Key],
        times: np.ndarray | None = None,
    ) -> None:
        self.folder = folder
        self._texts = texts
        self._videos = videos
        self._slots = max((tile.spec.frames for tile in tiles), default=0)
        held = find(folder, tiles, texts, videos, times)
        refuse_unscored(folder, "captions", texts, [one.texts for one in held])
        refuse_unscored(folder, "videos", videos, [one.videos for one in held])
        self._parts = [TilePart(one) for one in held if one.pairs]
        self.pair_scores = PairScores(self._parts, len(texts))
        at_once(folder, TilePart.open, self._parts)
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
        if not self._parts or not self._parts[0].tile.spec.frame_logits:
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
                details=some_of(~found, self._texts),
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
