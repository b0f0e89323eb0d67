"""Which texts make up each step: only seed, epoch and step decide."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_TEXT = 2  # apart from what else is drawn of seed and step


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


@dataclass(frozen=True)
class VideoSampler:
    """Every video once per epoch, each time with one of its texts, all of them as likely (TeachText, MMT).

    The last videos of an epoch that do not fill a batch are left to other epochs.

    Attributes:
        text_video: each text's own video [T], of videos 0 to V - 1 that have a text each.
        batch_size: b, at most that many videos; seed: of order and draws.
        groups: the group of each text [T], the same for all texts of a video; None draws from all.
    """

    text_video: np.ndarray
    batch_size: int
    seed: int
    groups: np.ndarray | None = None

    @cached_property
    def _order(self) -> np.ndarray:
        """The texts, those of a video beside each other."""
        return np.argsort(self.text_video, kind="stable")

    @cached_property
    def _starts(self) -> np.ndarray:
        """Where the texts of each video begin in that order, and where they end [V + 1]."""
        return np.concatenate([[0], np.cumsum(np.bincount(self.text_video))])

    @cached_property
    def _videos(self) -> BatchSampler:
        groups = None if self.groups is None else self.groups[self._order[self._starts[:-1]]]
        return BatchSampler(len(self._starts) - 1, self.batch_size, self.seed, groups)

    @property
    def texts(self) -> int:
        """Texts of an epoch: one a video."""
        return self._videos.texts

    @property
    def steps_per_epoch(self) -> int:
        return self._videos.steps_per_epoch

    @property
    def left_over(self) -> int:
        """Videos that an epoch leaves to others."""
        return self._videos.left_over

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that step number `step`, from 0, belongs to."""
        return self._videos.epoch(step)

    def steps(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        """(step, text indices [b]) for start <= step < stop."""
        for step, videos in self._videos.steps(start, stop):
            drawn = np.random.default_rng([self.seed, step, _TEXT]).random(len(videos))
            first, last = self._starts[videos], self._starts[videos + 1]
            yield step, self._order[first + (drawn * (last - first)).astype(np.int64)]
