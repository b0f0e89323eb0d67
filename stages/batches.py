"""Which (text, video) pairs make up each step, and reading what a step needs ahead of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..cache.reader import Labels
from .inputs import VideoInputs
from .labels import CachedTeacher, UintFrames


@dataclass(frozen=True)
class Order:
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


def rank_rows(size: int, rank: int, ranks: int) -> slice:
    """The rows of a batch of `size` that are one rank's: sizes differ by at most one, the larger ones come first."""
    each, larger = divmod(size, ranks)
    start = rank * each + min(rank, larger)
    return slice(start, start + each + (rank < larger))


@dataclass(frozen=True)
class Batch:
    """What one step needs: b texts and, in the same order, their b videos; of both, a rank's own share of r rows.

    Attributes:
        texts: indices of the texts [b]; videos: indices of their videos [b]; of all ranks.
        rows: which of them are this rank's own, and so the r rows of what follows; all b in a single process.
        ids: token ids [r, W]; frames: what `VideoInputs.read` gives; mask: valid frames [r, F].
        labels: one entry per cached teacher: scores [r, b] of own texts with all of the batch's videos, and frame
            logits [r, F] of own pairs.
        uint8_frames: for teachers that run inside the step, by frame cache: all b videos, whatever the rank.
    """

    step: int
    texts: np.ndarray
    videos: np.ndarray
    rows: slice
    ids: Tensor
    frames: Tensor
    mask: Tensor
    labels: tuple[Labels, ...]
    uint8_frames: Mapping[Path, UintFrames]

    def to(self, device: torch.device) -> "Batch":
        """The same batch with the network's inputs on `device`."""
        ids, frames, mask = (t.to(device, non_blocking=True) for t in (self.ids, self.frames, self.mask))
        return replace(self, ids=ids, frames=frames, mask=mask)


@dataclass(frozen=True)
class BatchReader:
    """Reads one step's inputs and labels; called in the background thread of `cache.stream.read_ahead`.

    Attributes:
        ids: token ids of all texts [T, W]; text_video: index of each text's own video [T].
        inputs: the student's frames or class tokens; cached: the teachers whose scores are read.
        teacher_frames: uint8 frames for teachers inside the step, by frame cache.
        pin: keep the tensors in page-locked memory, so that their copy to the GPU overlaps with the step.
        rank, ranks: whose rows of each batch are read (`rank_rows`), of how many processes; all of them by default.
    """

    ids: Tensor
    text_video: np.ndarray
    inputs: VideoInputs
    cached: Sequence[CachedTeacher]
    teacher_frames: Mapping[Path, VideoInputs]
    pin: bool
    rank: int = 0
    ranks: int = 1

    def __call__(self, item: tuple[int, np.ndarray]) -> Batch:
        step, texts = item
        videos = self.text_video[texts]
        rows = rank_rows(len(texts), self.rank, self.ranks)
        pending = [teacher.start(texts[rows], videos) for teacher in self.cached]  # read while the frames are
        frames, mask, _ = self.inputs.read(videos[rows])
        ids = self.ids[torch.from_numpy(texts[rows])]
        if self.pin:
            ids, frames, mask = ids.pin_memory(), frames.pin_memory(), mask.pin_memory()
        uint8_frames = {folder: inputs.read(videos) for folder, inputs in self.teacher_frames.items()}
        labels = tuple(each.result() for each in pending)
        return Batch(step, texts, videos, rows, ids, frames, mask, labels, uint8_frames)
