"""Scores of many pairs in blocks of texts and videos, so that what a pair needs meanwhile stays small."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .network import Features

BLOCK_BYTES = {"cpu": 4 << 20, "cuda": 128 << 20}
"""Of the largest tensor of a block; on a CPU it should stay in the cache."""
VECTOR = 16


def score_in_blocks(
    score: Callable[[Features, Features], Tensor], texts: Features, videos: Features, bytes_per_pair: int
) -> Tensor:
    """`score` of every pair [T, V], about as many texts as videos at a time: what is read of either is used often."""
    count = _count(texts)
    pairs = max(1, block_bytes(next(iter(videos.values()))) // bytes_per_pair)
    side = _whole_vectors(math.isqrt(pairs))
    at_once = max(1, min(count, pairs // side))
    rows = []
    for text_block in blocks(texts, at_once):
        columns = [score(text_block, block) for block in video_blocks(videos, max(1, pairs // at_once))]
        rows.append(columns[0] if len(columns) == 1 else torch.cat(columns, dim=1))
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _whole_vectors(videos: int) -> int:
    """So many videos or a few more, that rows of them fill a processor's vectors."""
    return -(-videos // VECTOR) * VECTOR if videos > VECTOR else videos


def block_bytes(values: Tensor) -> int:
    """`BLOCK_BYTES` of the device where `values` lie."""
    return BLOCK_BYTES.get(values.device.type, BLOCK_BYTES["cpu"])


def blocks(features: Features, size: int) -> Iterator[Features]:
    """Features of at most `size` texts or videos at a time, of about as many each time."""
    yield from _cut(features, _even(_count(features), size))


def video_blocks(features: Features, size: int) -> Iterator[Features]:
    """As `blocks`, but for a few videos more, so that rows of them fill a processor's vectors."""
    yield from _cut(features, _whole_vectors(_even(_count(features), size)))


def _even(count: int, size: int) -> int:
    return math.ceil(count / math.ceil(count / size))


def _cut(features: Features, size: int) -> Iterator[Features]:
    for start in range(0, _count(features), size):
        yield {key: value[start : start + size] for key, value in features.items()}


def _count(features: Features) -> int:
    return len(next(iter(features.values())))
