"""Batches of expert features and of words, as the networks take them (specs: experts 1).

An expert is a vector per video, or a sequence of vectors; a video may lack any of them. Names are sorted everywhere.
Short sequences and short captions are filled up with zero rows, which take part in the pooling like all others: that
is what the published code does.

A batch also travels as two plain tensors, in the places of frames and their mask: the experts' features side by side
[V, P], and which are there [V, M].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class ExpertShape:
    """How an expert's features come: D numbers a video, or `tokens` rows of them; tokens 0: one vector."""

    width: int
    tokens: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one video: (D,) or (N, D)."""
        return (self.tokens, self.width) if self.tokens else (self.width,)

    @property
    def numbers(self) -> int:
        """How many numbers a video has."""
        return self.width * max(1, self.tokens)


@dataclass(frozen=True)
class ExpertBatch:
    """Expert features of V videos.

    Attributes:
        features: by name, sorted: [V, D] or [V, N, D]; zero where the expert is missing or a sequence has ended.
        available: which videos have which expert [V, M] bool, in the order of the names.
    """

    features: Mapping[str, Tensor]
    available: Tensor

    def __post_init__(self) -> None:
        if list(self.features) != sorted(self.features):
            raise ValueError(f"experts are not sorted by name: {', '.join(self.features)}")

    def packed(self) -> tuple[Tensor, Tensor]:
        """The features side by side [V, P], and which are there [V, M]."""
        return torch.cat([value.flatten(1) for value in self.features.values()], dim=1), self.available


def unpacked(values: Tensor, available: Tensor, shapes: Mapping[str, ExpertShape]) -> ExpertBatch:
    """The batch that `ExpertBatch.packed` gave [V, P], [V, M]; `shapes` are of its experts.

    Raises:
        ValueError: other numbers than these experts have.
    """
    names = sorted(shapes)
    sizes = [shapes[name].numbers for name in names]
    if values.shape[1:] != (sum(sizes),) or available.shape[1:] != (len(names),):
        raise ValueError(f"{list(values.shape)} and {list(available.shape)} are not of {', '.join(names)}")
    parts = values.split_with_sizes(sizes, dim=1)
    features = {name: part.reshape(len(values), *shapes[name].shape) for name, part in zip(names, parts, strict=True)}
    return ExpertBatch(features, available)


def expert_batch(
    videos: Sequence[Mapping[str, Array]], shapes: Mapping[str, ExpertShape], dtype: torch.dtype = torch.float32
) -> ExpertBatch:
    """The batch of V videos, each with its arrays by expert; a missing one is not in the mapping.

    A sequence is cut after `tokens` rows or filled up with zero rows; where one vector is wanted, a sequence's mean
    over time is taken (published: `temporal` avg).

    Raises:
        ValueError: an expert of another width.
    """
    names = sorted(shapes)
    features = {name: torch.zeros(len(videos), *shapes[name].shape, dtype=dtype) for name in names}
    available = torch.zeros(len(videos), len(names), dtype=torch.bool)
    for row, video in enumerate(videos):
        for column, name in enumerate(names):
            if (array := video.get(name)) is not None:
                _fill(features[name][row], torch.from_numpy(np.asarray(array)).to(dtype), name)
                available[row, column] = True
    return ExpertBatch(features, available)


def _fill(place: Tensor, value: Tensor, name: str) -> None:
    if value.shape[-1:] != place.shape[-1:] or value.ndim > 2:
        raise ValueError(f"{name}: {list(value.shape)} instead of vectors of {place.shape[-1]} numbers")
    if place.ndim == 1:
        place.copy_(value if value.ndim == 1 else value.mean(dim=0))
        return
    rows = value.reshape(-1, value.shape[-1])[: len(place)]
    place[: len(rows)] = rows


def word_batch(captions: Sequence[Array], words: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Words [T, W, D_t] of T captions of any number of words each [w, D_t]: cut after W, zero rows behind.

    A caption without any word, or one that does not exist, is all zero.

    Raises:
        ValueError: words of another width.
    """
    found = torch.zeros(len(captions), words, width, dtype=dtype)
    for row, caption in enumerate(captions):
        value = torch.from_numpy(np.asarray(caption)).to(dtype)
        if len(value) and value.shape[1:] != (width,):
            raise ValueError(f"words {list(value.shape)} instead of vectors of {width} numbers")
        first = value[:words]
        if len(first):
            found[row, : len(first)] = first
    return found


def fused(captions: Sequence[Array]) -> Array:
    """All captions of a video as one, their words one caption after the other (published: `fuse_captions`)."""
    return np.concatenate([np.asarray(caption) for caption in captions])
