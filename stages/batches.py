"""Which (text, video) pairs make up each step, and reading what a step needs ahead of it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..cache.label_process import LabelProcess
from ..cache.reader import Labels
from .inputs import DeviceFrames, VideoInputs
from .labels import CachedTeacher, UintFrames
from .launch import rank_rows


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


class SoftLabels(NamedTuple):
    """What one cached teacher says of a batch.

    Args:
        coarse: raw scores float32 [r, b] of a rank's own texts with all of the batch's videos.
        frame_logits: float32 [r, F] of own pairs; None where the fine loss does not want them, or there are none.
    """

    coarse: Tensor
    frame_logits: Tensor | None


@dataclass(frozen=True)
class Batch:
    """What one step needs: b texts and, in the same order, their b videos; of both, a rank's own share of r rows.

    Attributes:
        texts: indices of the texts [b]; videos: indices of their videos [b]; of all ranks.
        rows: which of them are this rank's own, and so the r rows of what follows; all b in a single process.
        ids: token ids [r, W]; frames: what `VideoInputs.read` gives; mask: valid frames [r, F].
        labels: one entry per cached teacher.
        uint8_frames: for teachers that run inside the step, by frame cache: all b videos, whatever the rank.
        resident: the frames of all videos, of which this batch's are taken when it moves to their GPU.
    """

    step: int
    texts: np.ndarray
    videos: np.ndarray
    rows: slice
    ids: Tensor
    frames: Tensor
    mask: Tensor
    labels: tuple[SoftLabels, ...]
    uint8_frames: Mapping[Path, UintFrames]
    resident: DeviceFrames | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same batch with the network's inputs and the labels on `device`."""
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=True))
        if self.resident is None:
            return moved
        return replace(moved, frames=self.resident.take(self.videos[self.rows]), resident=None)

    def pinned(self) -> "Batch":
        """The same batch in page-locked memory, from where it is copied to a GPU without anybody waiting."""
        return self._each(Tensor.pin_memory)

    def keep_for(self, stream: torch.cuda.Stream) -> None:
        """Nobody may reuse this batch's GPU memory before what `stream` has been asked for so far is done."""
        self._each(lambda tensor: tensor.record_stream(stream) or tensor)  # type: ignore[func-returns-value]

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        labels = tuple(
            SoftLabels(change(coarse), None if logits is None else change(logits)) for coarse, logits in self.labels
        )
        return replace(self, ids=change(self.ids), frames=change(self.frames), mask=change(self.mask), labels=labels)


@dataclass(frozen=True)
class BatchReader:
    """Reads one step's inputs and labels; called in the background thread of `cache.stream.read_ahead`.

    Attributes:
        ids: token ids of all texts [T, W]; text_video: index of each text's own video [T].
        inputs: the student's frames or class tokens; cached: the teachers whose scores are read.
        teacher_frames: uint8 frames for teachers inside the step, by frame cache.
        pin: keep the tensors in page-locked memory, so that their copy to the GPU overlaps with the step.
        label_process: reads the teachers' labels in another process; None reads them in this one.
        rank, ranks: whose rows of each batch are read (`rank_rows`), of how many processes; all of them by default.
    """

    ids: Tensor
    text_video: np.ndarray
    inputs: VideoInputs | DeviceFrames
    cached: Sequence[CachedTeacher]
    teacher_frames: Mapping[Path, VideoInputs]
    pin: bool
    label_process: LabelProcess | None = None
    rank: int = 0
    ranks: int = 1

    def __call__(self, item: tuple[int, np.ndarray]) -> Batch:
        step, texts = item
        videos = self.text_video[texts]
        rows = rank_rows(len(texts), self.rank, self.ranks)
        labels = self._start(texts[rows], videos)  # read while the frames are
        frames, mask, _ = self.inputs.read(videos[rows])
        batch = Batch(
            step,
            texts,
            videos,
            rows,
            ids=self.ids[torch.from_numpy(texts[rows])],
            frames=frames,
            mask=mask,
            labels=(),
            uint8_frames={folder: inputs.read(videos) for folder, inputs in self.teacher_frames.items()},
            resident=self.inputs if isinstance(self.inputs, DeviceFrames) else None,
        )
        batch = replace(batch, labels=tuple(map(_tensors, labels())))
        return batch.pinned() if self.pin else batch

    def _start(self, texts: np.ndarray, videos: np.ndarray) -> Callable[[], list[Labels]]:
        if self.label_process is not None:
            return self.label_process.start(texts, videos).result
        pending = [teacher.start(texts, videos) for teacher in self.cached]
        return lambda: [each.result() for each in pending]


def _tensors(labels: Labels) -> SoftLabels:
    logits = labels.frame_logits
    return SoftLabels(torch.from_numpy(labels.coarse), None if logits is None else torch.from_numpy(logits))


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches on `device`; the next one is copied to a GPU while the present one is used.

    Copies have a stream of their own; the present one waits for them on the GPU, not here. An error of `batches` is
    raised where its batch was due.
    """
    if device.type != "cuda":
        return (batch.to(device) for batch in batches)
    return _copied_ahead(iter(batches), device)


def _copied_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    copies.wait_stream(torch.cuda.current_stream(device))  # frames that are kept on the GPU have to be there

    def copied() -> tuple[Batch, torch.cuda.Event] | None:
        if (batch := next(batches, None)) is None:
            return None
        with torch.cuda.stream(copies):
            return batch.to(device), copies.record_event()

    ahead, failed = copied(), None
    while ahead is not None:
        batch, done = ahead
        try:
            ahead = copied()
        except Exception as error:  # of the next batch
            ahead, failed = None, error
        present = torch.cuda.current_stream(device)
        present.wait_event(done)
        batch.keep_for(present)
        yield batch
    if failed is not None:
        raise failed
