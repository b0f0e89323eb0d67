"""Which (text, video) pairs make up each step, and reading what a step needs ahead of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ....cache.scores.reading.labels import Labels, LabelSource
from ...data.video_inputs import DeviceFrames, TextInputs, VideoInputs
from ...labels.online import UintFrames
from ...runtime.launch import rank_rows
from .unlabelled import UnlabelledSampler

_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Batch:
    """What one step needs: b texts and, in the same order, their b videos; of both, a rank's own share of r rows.

    Attributes:
        texts: indices of the texts [b]; videos: indices of their videos [b]; of all ranks.
        rows: which of them are this rank's own, and so the r rows of what follows; all b in a single process.
        ids: token ids [r, W], or words [r, W, D]; frames, and mask: what `VideoInputs.read` gives of `encoded` [r + s].
        labels: of each teacher whose scores are cached: coarse [r, b + u], own texts with `columns`; frame logits
            [r, F] of own pairs.
        uint8_frames: for teachers that run inside the step, by frame cache: of `columns`, whatever the rank.
        resident: the frames of all videos, of which this batch's are taken when it moves to their GPU.
        unlabelled: indices of the videos without captions [u] beside the pairs, of all ranks; unlabelled_rows: which s
            of them are this rank's own.
    """

    step: int
    texts: np.ndarray
    videos: np.ndarray
    rows: slice
    ids: Tensor
    frames: Tensor
    mask: Tensor
    labels: tuple[Labels[Tensor], ...]
    uint8_frames: Mapping[Path, UintFrames]
    resident: DeviceFrames | None = None
    unlabelled: np.ndarray = field(default_factory=lambda: _NONE)
    unlabelled_rows: slice = slice(0, 0)

    @property
    def columns(self) -> np.ndarray:
        """Indices of the videos that the texts are compared with [b + u]: those of all pairs, then the unlabelled."""
        return np.concatenate([self.videos, self.unlabelled])

    @property
    def encoded(self) -> np.ndarray:
        """Indices of the videos that this rank encodes [r + s]: those of its pairs, then its unlabelled ones."""
        return np.concatenate([self.videos[self.rows], self.unlabelled[self.unlabelled_rows]])

    def to(self, device: torch.device) -> "Batch":
        """The same batch with the network's inputs and the labels on `device`."""
        ahead = device.type == "cuda"  # towards a CPU, memory would be handed out before it is filled
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=ahead))
        if self.resident is None:
            return moved
        return replace(moved, frames=self.resident.take(self.encoded), resident=None)

    def pinned(self) -> "Batch":
        """The same batch in page-locked memory, from where it is copied to a GPU without anybody waiting."""
        return self._each(Tensor.pin_memory)

    def keep_for(self, stream: torch.cuda.Stream) -> None:
        """Nobody may reuse this batch's GPU memory before what `stream` has been asked for so far is done."""
        self._each(lambda tensor: tensor.record_stream(stream) or tensor)  # type: ignore[func-returns-value]

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        labels = tuple(each.map(change) for each in self.labels)
        return replace(self, ids=change(self.ids), frames=change(self.frames), mask=change(self.mask), labels=labels)


@dataclass(frozen=True)
class BatchLoader:
    """Reads one step's inputs and labels; called in the background thread of `cache.read_ahead.read_ahead`.

    Attributes:
        ids: token ids of all texts [T, W], or their words; text_video: index of each text's own video [T].
        inputs: the student's frames or class tokens; labels: makes those of the teachers whose scores are cached.
        teacher_frames: uint8 frames for teachers inside the step, by frame cache.
        unlabelled: draws videos without captions, as indices of the same inputs; None: there are none.
        pin: keep the tensors in page-locked memory, so that their copy to the GPU overlaps with the step.
        rank, ranks: whose rows of each batch are read (`rank_rows`), of how many processes; all of them by default.
    """

    ids: TextInputs
    text_video: np.ndarray
    inputs: VideoInputs | DeviceFrames
    labels: LabelSource
    teacher_frames: Mapping[Path, VideoInputs]
    pin: bool
    rank: int = 0
    ranks: int = 1
    unlabelled: UnlabelledSampler | None = None

    def __call__(self, item: tuple[int, np.ndarray]) -> Batch:
        step, texts = item
        videos = self.text_video[texts]
        rows = rank_rows(len(texts), self.rank, self.ranks)
        unlabelled = _NONE if self.unlabelled is None else self.unlabelled.draw(step, texts)
        unlabelled_rows = rank_rows(len(unlabelled), self.rank, self.ranks)
        columns = np.concatenate([videos, unlabelled])
        labels = self.labels.start(texts[rows], columns)  # read while the frames are
        frames, mask, _ = self.inputs.read(np.concatenate([videos[rows], unlabelled[unlabelled_rows]]))
        batch = Batch(
            step,
            texts,
            videos,
            rows,
            ids=self.ids[torch.from_numpy(texts[rows])],
            frames=frames,
            mask=mask,
            uint8_frames={folder: inputs.read(columns) for folder, inputs in self.teacher_frames.items()},
            labels=tuple(each.map(torch.from_numpy) for each in labels.result()),
            resident=self.inputs if isinstance(self.inputs, DeviceFrames) else None,
            unlabelled=unlabelled,
            unlabelled_rows=unlabelled_rows,
        )
        return batch.pinned() if self.pin else batch
