"""Batches of expert features, as the networks take them (specs: experts 1).

An expert is a vector per video, or a sequence of vectors; a video may lack any of them. Names are sorted everywhere.
Short sequences are filled up with zero rows, which take part in the pooling like all others: that is what the
published code does.

A batch also travels as two plain tensors, in the places of frames and their mask: the experts' features side by side
[V, P], and which are there [V, M].
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


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
