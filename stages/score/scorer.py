"""Scores of the shards of one tile, block by block."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
import torch

from ...cache.read_ahead import read_ahead
from ...cache.scores.tile import Tile
from ..models.common.network import Features
from ..models.frozen.teacher import Teacher, may_be_shared, texts_encoder
from ..runtime.threads import spread

SCORED_AT_ONCE = 1024
"""Columns scored at a time: fixed, since the last bits of a score can depend on it."""
_AHEAD = 4  # blocks whose tokens wait to be encoded
type _Rows = tuple[np.ndarray, np.ndarray | None]
"""Raw scores float32 [rows,V], and frame-text logits [rows,F] or None."""
type Block = tuple[int, np.ndarray, np.ndarray | None]
"""A block's first row, and its scores and frame-text logits."""


class BlockScorer(ABC):
    """Scores the shards of one tile.

    Texts are scored in blocks of `batch` rows, counted from the tile's first row, and every block is computed whole
    whichever of its rows a shard needs: the last bits of a row depend on the rows computed with it, and so they depend
    neither on the size of shards nor on which of them were there before.

    Args:
        tile: the tile.
        batch: texts of a block.
    """

    def __init__(self, tile: Tile, batch: int) -> None:
        self.tile, self.batch = tile, batch

    @abstractmethod
    def _made(self, firsts: Iterator[int]) -> Iterator[Block]:
        """The blocks of texts that begin at these rows, in order."""

    def score(self, shards: Iterable[int], advance: Callable[[int], None]) -> Iterator[tuple[int, _Rows]]:
        """Each shard with its raw scores float32 [rows,V] and frame-text logits [rows,F]; `advance` is told of pairs.

        `shards`, ascending, are taken as they are needed, some ahead.
        """
        pairs = ((first, shard) for shard in shards for first in self._firsts(shard))
        # Neighbouring shards share a block, which is computed once.
        shared = ((first, [shard for _, shard in each]) for first, each in groupby(pairs, itemgetter(0)))
        taken: deque[list[int]] = deque()

        def firsts() -> Iterator[int]:
            for first, wanting in shared:
                taken.append(wanting)
                yield first

        coarse, fine = list[np.ndarray](), list[np.ndarray]()
        for first, scores, logits in self._made(firsts()):
            for shard in taken.popleft():
                rows = self.tile.spec.rows(shard)
                wanted = slice(max(rows.start - first, 0), rows.stop - first)
                coarse.append(scores[wanted])
                if logits is not None:
                    fine.append(logits[wanted])
                advance(len(coarse[-1]) * self.tile.spec.per_text)
                if first + self.batch >= rows.stop:
                    yield shard, (np.concatenate(coarse), np.concatenate(fine) if fine else None)
                    coarse, fine = [], []

    def _firsts(self, shard: int) -> range:
        """First rows of the blocks that hold a shard's rows."""
        rows = self.tile.spec.rows(shard)
        return range(rows.start - rows.start % self.batch, rows.stop, self.batch)


class Scorer(BlockScorer):
    """Scores every pair. On a CPU a block is computed by one thread, several blocks at a time.

    Args:
        teacher: the teacher.
        tile: the tile.
        videos: features of the tile's videos, in order.
        captions: caption of every row's text; any string for rows that are in no block of the shards to be scored.
        batch: texts of a block.
    """

    def __init__(self, teacher: Teacher, tile: Tile, videos: Features, captions: Sequence[str], batch: int) -> None:
        super().__init__(tile, batch)
        self.teacher, self.videos, self.captions = teacher, videos, captions
        self.columns = list(_blocks(videos, tile.spec.videos))

    def _made(self, firsts: Iterator[int]) -> Iterator[Block]:
        device = next(iter(self.videos.values())).device
        prepare = texts_encoder(self.teacher)

        def prepared(first: int) -> tuple[int, Callable[[], Features]]:
            return first, prepare(self.captions[first : first + self.batch])

        # Tokens are made by a thread of their own: a GPU need not wait for them.
        with read_ahead(prepared, firsts, _AHEAD) as ahead:
            yield from spread(self._block, ahead, device, alone=True, several=may_be_shared(self.teacher))

    @torch.inference_mode()
    def _block(self, block: tuple[int, Callable[[], Features]]) -> Block:
        """The block of texts that begins at this row, and is encoded so: its scores and frame-text logits."""
        first, encode = block
        rows = slice(first, min(first + self.batch, self.tile.spec.texts))
        texts = encode()
        scores = torch.cat([self.teacher.score(texts, columns).float() for columns in self.columns], dim=1)
        fine = self._frame_logits(texts, rows) if self.tile.spec.frame_logits else None
        return first, scores.cpu().numpy(), fine

    def _frame_logits(self, texts: Features, rows: slice) -> np.ndarray:
        own = torch.from_numpy(self.tile.text_video[rows].clip(min=0))
        videos = {key: value[own.to(value.device)] for key, value in self.videos.items()}
        logits = self.teacher.frame_logits(texts, videos)
        assert logits is not None
        return logits.float().cpu().numpy()


def _blocks(videos: Features, count: int) -> Iterator[Features]:
    for start in range(0, count, SCORED_AT_ONCE):
        yield {key: value[start : start + SCORED_AT_ONCE] for key, value in videos.items()}
