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
from ...models.clip.tokens import lengths
from ...models.common.valid_frames import Frames, ValidFrames, valid_places
from ...runtime.launch import rank_rows
from .unlabelled import UnlabelledSampler

_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Known:
    """What of a batch's ids and mask is known where the batch is made; a GPU would have to be waited for.

    Attributes:
        words: of each text, EOT too [r]; frames: valid ones of each video [r + s].
    """

    words: np.ndarray
    frames: np.ndarray

    @classmethod
    def of(cls, ids: Tensor, mask: Tensor) -> "Known":
        """Of token ids [r, W], or words [r, W, D], and valid frames [r + s, F] on the CPU."""
        words = lengths(ids) if ids.ndim == 2 else torch.full((len(ids),), ids.shape[1])
        return cls(words.numpy(), mask.sum(1).numpy())


@dataclass(frozen=True)
class Batch:
    """What one step needs: b texts and, in the same order, their b videos; of both, a rank's own share of r rows.

    Attributes:
        texts: indices of the texts [b]; videos: indices of their videos [b]; of all ranks.
        rows: which of them are this rank's own, and so the r rows of what follows; all b in a single process.
        ids: token ids [r, W], or words [r, W, D]; frames: what `VideoInputs.read` gives of `encoded`; mask: valid
            frames [r + s, F], or experts; places: `valid_places` of the mask; known: sizes of all these.
        labels: of each teacher whose scores are cached: coarse [r, b + u], own texts with `columns`; frame logits
            [r, F] of own pairs.
        uint8_frames: for teachers that run inside the step, by frame cache: of `columns`, whatever the rank; where they
            are the student's, the same tensors. teacher_ids: token ids of `texts`, by teacher.
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
    places: Tensor
    known: Known
    labels: tuple[Labels[Tensor], ...]
    uint8_frames: Mapping[Path | str, UintFrames]
    teacher_ids: Mapping[str, Tensor] = field(default_factory=dict)
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

    def texts_of(self, rows: slice, *, padded: bool) -> Tensor:
        """Token ids of this process's texts at `rows`: with all columns, or `padded` not, up to their longest's EOT."""
        words = self.known.words[rows]
        return self.ids[rows] if padded or not len(words) else self.ids[rows, : int(words.max())]

    def frames_of(self, rows: slice) -> Frames:
        """Frames of this process's videos at `rows`, as networks take them."""
        if self.frames.dtype != torch.uint8:
            return self.frames[rows]
        start, stop, _ = rows.indices(len(self.mask))
        ends = np.concatenate([[0], self.known.frames.cumsum()])
        places = self.places[ends[start] : ends[stop]] - start * self.mask.shape[1]
        return ValidFrames(self.frames[rows], places)

    def to(self, device: torch.device) -> "Batch":
        """The same batch with the network's inputs and the labels on `device`."""
        ahead = device.type == "cuda"  # towards a CPU, memory would be handed out before it is filled
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=ahead))
        if self.resident is None:
            return moved
        frames = self.resident.take(self.encoded)
        of_teachers = {
            folder: (frames if given[0] is moved.frames else given[0], *given[1:])
            for folder, given in moved.uint8_frames.items()
        }
        return replace(moved, frames=frames, uint8_frames=of_teachers, resident=None)

    def pinned(self) -> "Batch":
        """The same batch in page-locked memory, from where it is copied to a GPU without anybody waiting."""
        return self._each(Tensor.pin_memory)

    def keep_for(self, stream: torch.cuda.Stream) -> None:
        """Nobody may reuse this batch's GPU memory before what `stream` has been asked for so far is done."""
        self._each(lambda tensor: tensor.record_stream(stream) or tensor)  # type: ignore[func-returns-value]

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        changed: dict[int, Tensor] = {}

        def once(tensor: Tensor) -> Tensor:
            if id(tensor) not in changed:
                changed[id(tensor)] = change(tensor)
            return changed[id(tensor)]

        return replace(
            self,
            ids=once(self.ids),
            frames=once(self.frames),
            mask=once(self.mask),
            places=once(self.places),
            labels=tuple(each.map(change) for each in self.labels),
            uint8_frames={
                folder: (once(frames), once(mask), once(times))
                for folder, (frames, mask, times) in self.uint8_frames.items()
            },
            teacher_ids={name: once(ids) for name, ids in self.teacher_ids.items()},
        )


@dataclass(frozen=True)
class BatchLoader:
    """Reads one step's inputs and labels; called in the background thread of `cache.read_ahead.read_ahead`.

    Attributes:
        ids: token ids of all texts [T, W], or their words; text_video: index of each text's own video [T].
        inputs: the student's frames or class tokens; labels: makes those of the teachers whose scores are cached.
        teacher_frames: uint8 frames for teachers inside the step, by frame cache; students: that of `inputs`, whose
            frames such teachers share, None where they are others. teacher_ids: gives their token ids of texts.
        unlabelled: draws videos without captions, as indices of the same inputs; None: there are none.
        pin: keep the tensors in page-locked memory, so that their copy to the GPU overlaps with the step.
        rank, ranks: whose rows of each batch are read (`rank_rows`), of how many processes; all of them by default.
    """

    ids: TextInputs
    text_video: np.ndarray
    inputs: VideoInputs | DeviceFrames
    labels: LabelSource
    teacher_frames: Mapping[Path | str, VideoInputs]
    pin: bool
    rank: int = 0
    ranks: int = 1
    students: Path | str | None = None
    teacher_ids: Mapping[str, Callable[[np.ndarray], Tensor | None]] = field(default_factory=dict)
    unlabelled: UnlabelledSampler | None = None

    def __call__(self, item: tuple[int, np.ndarray]) -> Batch:
        step, texts = item
        videos = self.text_video[texts]
        rows = rank_rows(len(texts), self.rank, self.ranks)
        unlabelled = _NONE if self.unlabelled is None else self.unlabelled.draw(step, texts)
        unlabelled_rows = rank_rows(len(unlabelled), self.rank, self.ranks)
        columns = np.concatenate([videos, unlabelled])
        labels = self.labels.start(texts[rows], columns)  # read while the frames are
        ids = self.ids[torch.from_numpy(texts[rows])]
        own = self.inputs.read(np.concatenate([videos[rows], unlabelled[unlabelled_rows]]))
        frames, mask, _ = own
        shared = self.students if self.ranks == 1 else None  # of several, each encodes its own share alone
        batch = Batch(
            step,
            texts,
            videos,
            rows,
            ids=ids,
            frames=frames,
            mask=mask,
            places=valid_places(mask),
            known=Known.of(ids, mask),
            uint8_frames={
                folder: own if folder == shared else inputs.read(columns)
                for folder, inputs in self.teacher_frames.items()
            },
            teacher_ids={name: given for name, give in self.teacher_ids.items() if (given := give(texts)) is not None},
            labels=tuple(each.map(torch.from_numpy) for each in labels.result()),
            resident=self.inputs if isinstance(self.inputs, DeviceFrames) else None,
            unlabelled=unlabelled,
            unlabelled_rows=unlabelled_rows,
        )
        return batch.pinned() if self.pin else batch
