"""Scores of many pairs in blocks of texts and videos, so that what a pair needs meanwhile stays small."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .network import Features

BLOCK_BYTES = {"cpu": 2 << 20, "cuda": 128 << 20}
"""Of the largest tensor of a block; on a CPU it should stay in the cache."""


def score_in_blocks(
    score: Callable[[Features, Features], Tensor], texts: Features, videos: Features, bytes_per_pair: int
) -> Tensor:
    """`score` of every pair [T, V], about as many texts as videos at a time: what is read of either is used often."""
    count = _count(texts)
    device = next(iter(videos.values())).device.type
    pairs = max(1, BLOCK_BYTES.get(device, BLOCK_BYTES["cpu"]) // bytes_per_pair)
    at_once = min(count, math.isqrt(pairs))
    rows = []
    for text_block in _blocks(texts, at_once):
        columns = [score(text_block, block) for block in _blocks(videos, pairs // at_once)]
        rows.append(columns[0] if len(columns) == 1 else torch.cat(columns, dim=1))
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _blocks(features: Features, size: int) -> Iterator[Features]:
    for start in range(0, _count(features), size):
        yield {key: value[start : start + size] for key, value in features.items()}


def _count(features: Features) -> int:
    return len(next(iter(features.values())))
