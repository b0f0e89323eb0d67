"""Which (text, video) pairs make up each step, and reading what a step needs ahead of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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

    The last texts of an epoch that do not fill a batch are left to other epochs (drop-last, as published).
    """

    texts: int
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return self.texts // self.batch_size

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that step number `step`, from 0, belongs to."""
        return step // self.steps_per_epoch

    def steps(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        """(step, text indices [b]) for start <= step < stop."""
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(start, stop):
            if self.epoch(step) != epoch:
                epoch = self.epoch(step)
                order = np.random.default_rng([self.seed, epoch]).permutation(self.texts)
            first = step % self.steps_per_epoch * self.batch_size
            yield step, order[first : first + self.batch_size]


@dataclass(frozen=True)
class Batch:
    """What one step needs: b texts and, in the same order, their b videos.

    Attributes:
        texts: indices of the texts [b]; videos: indices of their videos [b].
        ids: token ids [b, W]; frames: what `VideoInputs.read` gives; mask: valid frames [b, F].
        labels: one entry per cached teacher, text x video scores of the batch and frame logits of the pairs.
        uint8_frames: for teachers that run inside the step, by frame cache.
    """

    step: int
    texts: np.ndarray
    videos: np.ndarray
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
    """

    ids: Tensor
    text_video: np.ndarray
    inputs: VideoInputs
    cached: Sequence[CachedTeacher]
    teacher_frames: Mapping[Path, VideoInputs]
    pin: bool

    def __call__(self, item: tuple[int, np.ndarray]) -> Batch:
        step, texts = item
        videos = self.text_video[texts]
        frames, mask, _ = self.inputs.read(videos)
        ids = self.ids[torch.from_numpy(texts)]
        if self.pin:
            ids, frames, mask = ids.pin_memory(), frames.pin_memory(), mask.pin_memory()
        labels = tuple(teacher.read(texts, videos) for teacher in self.cached)
        uint8_frames = {folder: inputs.read(videos) for folder, inputs in self.teacher_frames.items()}
        return Batch(step, texts, videos, ids, frames, mask, labels, uint8_frames)
