"""One optimiser step: encode, compare, lose, update; in one process or in many, at once or in chunks.

Many processes (b pairs a batch in all): each encodes its own rows of the batch; the videos' features are gathered; each
scores its own texts with all videos, [r, b]; these rows are gathered too, and every process computes the losses of the
whole [b, b]. Videos without captions, u beside the pairs, are encoded and gathered alike, and are further columns:
[r, b + u], [b, b + u]. The mean of the processes' gradients is then that of a single process (`World.gather`).

Chunks (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"): the features of all
rows are computed without a graph, some rows at a time; the losses' gradients with respect to the features are computed
once; then each chunk is encoded again, now with its graph, and gets its features' gradients. Memory holds one chunk's
graph. The gradients are those of the step at once, but for rounding.

Noise (dropout, TS2-Net's selection) is drawn anew by every process and chunk, so that networks which have it differ by
the number of both; the chunk's second pass draws the same as its first.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ....cache.scores.reading.labels import Labels
from ....configs.schema import TrainConfig
from ...labels.online import OnlineTeacher
from ...models.common.network import Features, VideoTextNetwork
from ...retrieval.encode import join_features
from ...runtime.device import autocast
from ...runtime.processes import World
from ..dataloader.batch import Batch, Known
from ..losses.combined import Losses, LossParts
from .optimizer import ScheduledOptimizer
from .shared_gradients import SharedGradients


class Done(NamedTuple):
    """What is kept of a step; its losses stay on the device until they are read.

    Args:
        step: from 0; videos: indices of the batch's videos [b + u]; parts: scalars.
        norm: of all gradients, before the clip; lrs: learning rates, per part of the network.
    """

    step: int
    videos: np.ndarray
    parts: LossParts
    norm: Tensor
    lrs: dict[str, float]


class TrainingStep:
    """Trains a network by one batch at a time.

    Args:
        online: teachers that run inside the step; the labels of the others come with the batch.
        world: the processes that take the step together; by default the current one.
    """

    def __init__(
        self,
        network: VideoTextNetwork,
        optimiser: ScheduledOptimizer,
        settings: TrainConfig,
        online: Sequence[OnlineTeacher],
        world: World | None = None,
    ) -> None:
        self.network, self.optimiser, self.settings, self.online = network, optimiser, settings, online
        self.world = world or World.current()
        self.losses = Losses(settings.loss, settings.teachers)
        self.device = network.logit_scale.device
        self._shared = SharedGradients(network, self.world, in_parts=settings.chunk is not None)

    def __call__(self, batch: Batch) -> Done:
        """One optimiser step."""
        batch = _with_a_row(batch.to(self.device))
        self.optimiser.zero_grad()
        # The largest of all processes' shares: all do the same.
        largest = sum(math.ceil(len(each) / self.world.ranks) for each in (batch.texts, batch.unlabelled))
        chunk = self.settings.chunk or largest
        parts = self._in_chunks(batch, chunk) if chunk < largest else self._at_once(batch)
        norm = self.optimiser.step()
        parts = LossParts(*(value.detach() for value in parts))
        return Done(batch.step, batch.columns, parts, norm, dict(self.optimiser.lrs))

    def _at_once(self, batch: Batch) -> LossParts:
        """The losses; their gradients are with the parameters."""
        parts = self._shared(lambda: self._losses(batch, *self._encode(batch, 0, slice(None))))
        parts.total.backward()  # type: ignore[no-untyped-call]
        return parts

    def _in_chunks(self, batch: Batch, size: int) -> LossParts:
        """As `_at_once`, with the graph of `size` rows at a time: of pairs, and behind them of further videos."""
        chunks = [slice(start, start + size) for start in range(0, len(batch.frames), size)]
        with torch.no_grad():
            encoded = [self._encode(batch, number, rows) for number, rows in enumerate(chunks)]
        texts, videos = (
            _leaves(join_features([part for part in parts if part])) for parts in zip(*encoded, strict=True)
        )
        del encoded
        parts = self._losses(batch, texts, videos)
        parts.total.backward()  # type: ignore[no-untyped-call]
        for number, rows in enumerate(chunks):

            def towards(number: int = number, rows: slice = rows) -> tuple[Tensor]:
                return (_towards(self._encode(batch, number, rows), (texts, videos), rows),)

            # Processes share gradients once, with the last chunk: those of all chunks and of the losses' parameters.
            (total,) = self._shared(towards) if rows is chunks[-1] else towards()
            total.backward()  # type: ignore[no-untyped-call]
        return parts

    def _encode(self, batch: Batch, number: int, rows: slice) -> tuple[Features, Features]:
        """Texts and videos of a chunk of this process's rows; no texts where these are videos without captions."""
        chunk = (self.world.rank, number)
        self._seed(batch.step, *(chunk if any(chunk) else ()))
        with autocast(self.device, self.settings.precision):
            ids = batch.texts_of(rows, padded=self.network.reads_padding)
            texts = self.network.encode_texts(ids) if len(ids) else {}
            return texts, self.network.encode_videos(batch.frames_of(rows), batch.mask[rows])

    def _seed(self, step: int, *place: int) -> None:
        """Noise that a resumed run draws again, and a chunk in its second pass."""
        seed = np.random.SeedSequence([self.settings.seed, step, *place])
        torch.manual_seed(int(seed.generate_state(1)[0]))

    def _losses(self, batch: Batch, texts: Features, videos: Features) -> LossParts:
        """Losses of the whole batch, the same in every process, of this one's texts and videos."""
        settings = self.settings
        with torch.autocast(self.device.type, enabled=False):
            unlabelled = {key: value[len(batch.ids) :] for key, value in videos.items()}
            videos = self._gathered(videos, batch)
            scale = self.network.logit_scale.exp()
            columns = self._with_unlabelled(videos, unlabelled, batch)
            logits = scale * self._gather(self.network.score(texts, columns), batch)
            self._seed(batch.step)  # what the losses draw is the same in all processes, whatever the chunks
            parts = self.losses(
                logits,
                videos.get("raw_weights"),
                self._labels(batch),
                self._gather(batch.mask, batch) if settings.network.mask_padding else None,
                self._same_video(batch.videos) if settings.loss.mask_same_video else None,
                student_scale=scale,
            )
            texts = self._gathered(texts, batch) if self.network.has_auxiliary_loss else texts
            auxiliary = self.network.auxiliary_loss(texts, videos)
        return parts if auxiliary is None else parts.with_auxiliary(auxiliary)

    def _gather(self, own: Tensor, batch: Batch) -> Tensor:
        """Rows [b, ...] of all processes."""
        return self.world.gather(own, len(batch.texts))

    def _gathered(self, own: Features, batch: Batch) -> Features:
        return {key: self._gather(value, batch) for key, value in own.items()}

    def _with_unlabelled(self, videos: Features, unlabelled: Features, batch: Batch) -> Features:
        """Features of the batch's videos [b + u], of all processes; of unlabelled ones this process's own are given."""
        if not len(batch.unlabelled):
            return videos
        gathered = {key: self.world.gather(value, len(batch.unlabelled)) for key, value in unlabelled.items()}
        return join_features([videos, gathered])

    def _same_video(self, videos: np.ndarray) -> Tensor:
        """Off-diagonal pairs [b, b] of a text with its own video again."""
        same = torch.from_numpy(videos[:, None] == videos[None, :]).fill_diagonal_(False)
        if self.device.type == "cuda":
            same = same.pin_memory()  # else the copy would wait until the GPU has encoded the batch
        return same.to(self.device, non_blocking=True)

    def _labels(self, batch: Batch) -> list[Labels[Tensor]]:
        """Of each teacher, of the whole batch: scores [b, b + u] and frame-text logits [b, F]."""
        cached = [labels.map(lambda rows: self._gather(rows, batch)) for labels in batch.labels]
        return cached + [
            teacher.labels(
                batch.texts,
                batch.videos,
                batch.uint8_frames[teacher.folder],
                batch.teacher_ids.get(teacher.name),
                self.device,
            )
            for teacher in self.online
        ]


def _with_a_row(batch: Batch) -> Batch:
    """A process whose share of the batch is empty encodes a black video, which `World.gather` cuts off again."""
    if len(batch.ids):
        return batch
    ids, frames, mask = (t.new_zeros((1, *t.shape[1:])) for t in (batch.ids, batch.frames, batch.mask))
    frames, mask = torch.cat([frames, batch.frames]), torch.cat([torch.ones_like(mask), batch.mask])
    slots = mask.shape[1]
    places = torch.cat([torch.arange(slots, device=mask.device), batch.places + slots])
    known = Known(np.ones(1, np.int64), np.concatenate([[slots], batch.known.frames]))
    return replace(batch, ids=ids, frames=frames, mask=mask, places=places, known=known)


def _leaves(features: Features) -> Features:
    """The same values, which gather gradients where they can."""
    return {key: value.requires_grad_(value.is_floating_point()) for key, value in features.items()}


def _towards(encoded: tuple[Features, ...], leaves: tuple[Features, ...], rows: slice) -> Tensor:
    """A scalar whose gradient with respect to features of a chunk is what their rows of `leaves` have gathered."""
    pairs = [(own[key], whole[key].grad) for own, whole in zip(encoded, leaves, strict=True) for key in own]
    return torch.stack(
        [(value * gradient[rows]).sum().float() for value, gradient in pairs if gradient is not None]
    ).sum()
