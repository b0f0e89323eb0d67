"""One optimiser step: encode, compare, lose, update."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..configs.schema import TrainConfig
from .batches import Batch
from .device import autocast
from .labels import CachedTeacher, OnlineTeacher
from .losses import Losses, LossParts
from .models.network import VideoTextNetwork
from .optim import Optimiser


class Done(NamedTuple):
    """What is kept of a step; its losses stay on the device until they are read.

    Args:
        step: from 0; videos: indices of the batch's videos [b]; parts: scalars.
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
        captions: of all training texts.
        cached: teachers whose labels come with the batch; online: teachers that run inside the step.
    """

    def __init__(
        self,
        network: VideoTextNetwork,
        optimiser: Optimiser,
        settings: TrainConfig,
        captions: Sequence[str],
        cached: Sequence[CachedTeacher],
        online: Sequence[OnlineTeacher],
    ) -> None:
        self.network, self.optimiser, self.settings, self.captions = network, optimiser, settings, captions
        self.cached, self.online = cached, online
        self.losses = Losses(settings.loss, settings.teachers)
        self.scales = [teacher.scale for teacher in cached] + [teacher.scale for teacher in online]
        self.device = network.logit_scale.device

    def __call__(self, batch: Batch) -> Done:
        """One optimiser step."""
        batch = batch.to(self.device)
        # Noise (dropout, token selection) that a resumed run draws again.
        torch.manual_seed(int(np.random.SeedSequence([self.settings.seed, batch.step]).generate_state(1)[0]))
        parts = self._losses(batch)
        self.optimiser.zero_grad()
        parts.total.backward()  # type: ignore[no-untyped-call]
        norm = self.optimiser.step()
        parts = LossParts(*(value.detach() for value in parts))
        return Done(batch.step, batch.videos, parts, norm, dict(self.optimiser.lrs))

    def _losses(self, batch: Batch) -> LossParts:
        settings = self.settings
        with autocast(self.device, settings.precision):
            texts = self.network.encode_texts(batch.ids)
            videos = self.network.encode_videos(batch.frames, batch.mask)
        with torch.autocast(self.device.type, enabled=False):
            scale = self.network.logit_scale.exp()
            logits = scale * self.network.score(texts, videos)
            teacher_logits, teacher_frames = self._soft_labels(batch)
            parts = self.losses(
                logits,
                videos.get("raw_weights"),
                teacher_logits,
                teacher_frames,
                batch.mask if settings.network.mask_padding else None,
                self._same_video(batch.videos) if settings.loss.mask_same_video else None,
                student_scale=scale,
                teacher_scales=self.scales,
            )
            if (auxiliary := self.network.auxiliary_loss(texts, videos)) is not None:
                parts = parts.with_auxiliary(auxiliary)
        return parts

    def _same_video(self, videos: np.ndarray) -> Tensor:
        """Off-diagonal pairs [b, b] of a text with its own video again."""
        same = torch.from_numpy(videos[:, None] == videos[None, :]).to(self.device)
        return same.fill_diagonal_(False)

    def _soft_labels(self, batch: Batch) -> tuple[list[Tensor], list[Tensor | None]]:
        """Per teacher: video-text logits [b, b]; and frame-text logits [b, F], None where the fine loss does not want
        them or the teacher has none."""
        coarse: list[Tensor] = []
        fine: list[Tensor | None] = []
        for cached, labels in zip(self.cached, batch.labels, strict=True):
            coarse.append(torch.from_numpy(labels.coarse).to(self.device) * cached.scale)
            fine.append(None if labels.frame_logits is None else torch.from_numpy(labels.frame_logits).to(self.device))
        captions = [self.captions[k] for k in batch.texts]
        for online in self.online:
            scores, frame_logits = online.labels(captions, batch.videos, batch.uint8_frames, self.device)
            coarse.append(scores * online.scale)
            fine.append(frame_logits)
        return coarse, fine
