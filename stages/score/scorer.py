"""Scores of the shards of one tile, block by block."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from ...cache.scores.tile import Tile
from ..models.common.network import Features
from ..models.frozen.teacher import Teacher

SCORED_AT_ONCE = 1024
"""Columns scored at a time: fixed, since the last bits of a score can depend on it."""
type _Rows = tuple[np.ndarray, np.ndarray | None]
"""Raw scores float32 [rows,V], and frame-text logits [rows,F] or None."""


class Scorer:
    """Scores the shards of one tile.

    Texts are encoded and scored in blocks of `batch` rows, counted from the tile's first row, and every block is
    computed whole whichever of its rows a shard needs: the last bits of a row depend on the rows computed with it, and
    so they depend neither on the size of shards nor on which of them were there before.

    Args:
        teacher: the teacher.
        tile: the tile.
        videos: features of the tile's videos, in order.
        captions: caption of every row's text; any string for rows that are in no block of the shards to be scored.
        batch: texts of a block.
    """

    def __init__(self, teacher: Teacher, tile: Tile, videos: Features, captions: Sequence[str], batch: int) -> None:
        self.teacher, self.tile, self.captions, self.batch = teacher, tile, captions, batch
        self.videos = videos
        self.columns = list(_blocks(videos, tile.spec.videos))
        self._last: tuple[int, _Rows] | None = None  # neighbouring shards share a block

    def score(self, shard: int, advance: Callable[[int], None]) -> _Rows:
        """Raw scores float32 [rows,V] and frame-text logits [rows,F] of a shard; `advance` is told of pairs."""
        rows = self.tile.spec.rows(shard)
        coarse, fine = [], []
        for first in range(rows.start - rows.start % self.batch, rows.stop, self.batch):
            wanted = slice(max(rows.start - first, 0), rows.stop - first)
            scores, logits = self._block(first)
            coarse.append(scores[wanted])
            if logits is not None:
                fine.append(logits[wanted])
            advance(coarse[-1].size)
        return np.concatenate(coarse), np.concatenate(fine) if fine else None

    @torch.inference_mode()
    def _block(self, first: int) -> _Rows:
        """Scores and frame-text logits of the block of texts that begins at row `first`."""
        if self._last is None or self._last[0] != first:
            rows = slice(first, min(first + self.batch, self.tile.spec.texts))
            texts = self.teacher.encode_texts(self.captions[rows])
            scores = torch.cat([self.teacher.score(texts, columns).float() for columns in self.columns], dim=1)
            fine = self._frame_logits(texts, rows) if self.tile.spec.frame_logits else None
            self._last = first, (scores.cpu().numpy(), fine)
        return self._last[1]

    def _frame_logits(self, texts: Features, rows: slice) -> np.ndarray:
        own = torch.from_numpy(self.tile.text_video[rows].clip(min=0))
        videos = {key: value[own.to(value.device)] for key, value in self.videos.items()}
        logits = self.teacher.frame_logits(texts, videos)
        assert logits is not None
        return logits.float().cpu().numpy()


def _blocks(videos: Features, count: int) -> Iterator[Features]:
    for start in range(0, count, SCORED_AT_ONCE):
        yield {key: value[start : start + SCORED_AT_ONCE] for key, value in videos.items()}
