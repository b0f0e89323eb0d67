"""Which texts make up each step: only seed and epoch decide."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class BatchSampler:
    """Every text once per epoch, in an order that only the seed and the epoch decide.

    The last texts of an epoch that do not fill a batch are left to other epochs (drop-last, as published). With groups,
    each batch is of one group, and the batches of all groups come in one shuffled order; the last texts of each group
    are left to other epochs, a group smaller than a batch is one batch, and a text alone in its group is never drawn.

    Attributes:
        texts: how many; batch_size: b, at most that many; seed: of the order.
        groups: the group of each text [T]; None draws from all.
    """

    texts: int
    batch_size: int
    seed: int
    groups: np.ndarray | None = None

    @cached_property
    def steps_per_epoch(self) -> int:
        return sum(len(members) // self._size(members) for members in self._members)

    @property
    def left_over(self) -> int:
        """Texts that an epoch leaves to others."""
        drawn = sum(len(members) // self._size(members) * self._size(members) for members in self._members)
        return self.texts - drawn

    @cached_property
    def _members(self) -> list[np.ndarray]:
        """The texts of each group of two or more."""
        if self.groups is None:
            return [np.arange(self.texts)]
        order = np.argsort(self.groups, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(self.groups[order])) + 1)
        return [members for members in parts if len(members) > 1]

    def _size(self, members: np.ndarray) -> int:
        return min(self.batch_size, len(members))

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that step number `step`, from 0, belongs to."""
        return step // self.steps_per_epoch

    def steps(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        """(step, text indices [b]) for start <= step < stop."""
        epoch, batches = -1, list[np.ndarray]()
        for step in range(start, stop):
            if self.epoch(step) != epoch:
                epoch = self.epoch(step)
                batches = self._batches(epoch)
            yield step, batches[step % self.steps_per_epoch]

    def _batches(self, epoch: int) -> list[np.ndarray]:
        rng = np.random.default_rng([self.seed, epoch])
        batches = []
        for members in self._members:
            order, size = members[rng.permutation(len(members))], self._size(members)
            batches += [order[first : first + size] for first in range(0, len(order) - size + 1, size)]
        return batches if self.groups is None else [batches[k] for k in rng.permutation(len(batches))]
