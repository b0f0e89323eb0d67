"""The three losses of TeachCLIP (section 3.3; specs: TeachCLIP 2): InfoNCE, coarse and fine teaching.

Notation: b texts and their b videos in a batch, F frame slots. Logits are scores times exp(logit_scale); rows are
texts, columns videos, text i belongs to video i. Everything is computed in float32 or wider.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..configs.schema import LossConfig

CoarseKind = Literal["pearson", "huber", "ce"]
FineKind = Literal["ce", "pearson", "huber"]
Reduction = Literal["per-video", "per-frame"]

ONE_HOT = 1e4  # a logit whose softmax is 1
FLAT = 1e-7  # a distribution that varies less than float32 rounding does not correlate with anything


class LossParts(NamedTuple):
    """The weighted total and its unweighted parts, scalars; `auxiliary` is what a network's own training adds."""

    total: Tensor
    infonce: Tensor
    coarse: Tensor
    fine: Tensor
    auxiliary: Tensor

    def with_auxiliary(self, loss: Tensor) -> "LossParts":
        """The same with a further part, weighted already."""
        return self._replace(total=self.total + loss, auxiliary=loss)


def total_loss(
    config: LossConfig,
    student_logits: Tensor,
    raw_weights: Tensor | None,
    teacher_logits: Sequence[Tensor],
    teacher_frame_logits: Sequence[Tensor],
    mask: Tensor | None = None,
    same_video: Tensor | None = None,
    *,
    student_scale: Tensor | float = 1.0,
    teacher_scales: Sequence[float] = (),
) -> LossParts:
    """The weighted sum of the losses that `config` asks for and the batch has labels for.

    Args:
        student_logits: [b, b].
        raw_weights: AFA's scores before softmax [b, F]; None for mean pooling, which has no fine loss.
        teacher_logits: per teacher [b, b], times the teacher's scale.
        teacher_frame_logits: per teacher [b, F], before softmax; empty without a fine loss.
        mask: valid frames [b, F]; None lets padding take part (published code).
        same_video: off-diagonal pairs [b, b] of a text with its own video again, no negatives; None: they are.
        student_scale, teacher_scales: exp(logit_scale), taken out again for `coarse_on: cosines`.
    """
    student_logits = _wide(student_logits)
    infonce = info_nce(student_logits, same_video, config.label_smoothing)
    coarse = fine = infonce.new_zeros(())
    if config.coarse_target == "one-hot":
        own = torch.eye(len(student_logits), device=student_logits.device, dtype=student_logits.dtype)
        teacher_logits, teacher_scales = [own * ONE_HOT], [1.0]
    if config.coarse and teacher_logits:
        student, teachers = student_logits, [_wide(logits) for logits in teacher_logits]
        if config.coarse_on == "cosines":
            student = student / student_scale
            teachers = [logits / scale for logits, scale in zip(teachers, teacher_scales, strict=True)]
        coarse = _combine(config, [coarse_loss(config.coarse_kind, student, logits) for logits in teachers])
    if config.fine and teacher_frame_logits and raw_weights is not None:
        reduction, temperature = config.fine_reduction, config.fine_temperature
        fine = _combine(
            config,
            [
                fine_loss(config.fine_kind, _wide(raw_weights), _wide(logits), mask, reduction, temperature)
                for logits in teacher_frame_logits
            ],
        )
    total = config.infonce * infonce + config.coarse * coarse + config.fine * fine
    return LossParts(total, infonce, coarse, fine, infonce.new_zeros(()))


def info_nce(logits: Tensor, same_video: Tensor | None = None, label_smoothing: float = 0.0) -> Tensor:
    """Symmetric InfoNCE: mean of the cross entropies of rows and of columns against the diagonal.

    Args:
        logits: [b, b].
        same_video: off-diagonal pairs [b, b] that are no negatives.
        label_smoothing: share of each target that is spread evenly over the pairs that take part.
    """
    own = torch.arange(len(logits), device=logits.device)
    if same_video is not None:
        logits = logits.masked_fill(same_video, float("-inf"))
    loss = (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
    if not label_smoothing:
        return loss
    taking_part = torch.isfinite(logits.detach())
    spread = (_mean_cross_entropy(logits, taking_part) + _mean_cross_entropy(logits.T, taking_part.T)) / 2
    return (1 - label_smoothing) * loss + label_smoothing * spread


def _mean_cross_entropy(logits: Tensor, taking_part: Tensor) -> Tensor:
    """Cross entropy of rows against an even distribution over the entries that take part."""
    log_p = logits.log_softmax(dim=-1).masked_fill(~taking_part, 0)
    return -(log_p.sum(dim=-1) / taking_part.sum(dim=-1)).mean()


def coarse_loss(kind: CoarseKind, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """How far the student's video-text scores [b, b] are from one teacher's.

    pearson: 1 - correlation of the softmaxes, mean over rows, plus the same over columns.
    ce: cross entropy of the softmaxes, mean over all b x b entries, rows plus columns.
    huber: smooth L1 of the logits themselves, mean over all entries.
    """
    if kind == "huber":
        return functional.smooth_l1_loss(student_logits, teacher_logits)
    one_way = _coarse_pearson if kind == "pearson" else _coarse_ce
    return one_way(student_logits, teacher_logits) + one_way(student_logits.T, teacher_logits.T)


def fine_loss(
    kind: FineKind,
    raw_weights: Tensor,
    teacher_frame_logits: Tensor,
    mask: Tensor | None = None,
    reduction: Reduction = "per-video",
    temperature: float = 1.0,
) -> Tensor:
    """How far AFA's weights w = softmax(raw_weights) are from y_f = softmax(teacher_frame_logits / temperature).

    ce: cross entropy, its sum over a video's frames (`per-video`) or its mean over them (`per-frame`), then the mean
    over videos. pearson: 1 - correlation over a video's frames, mean over videos. huber: smooth L1, mean over a
    video's frames, then over videos.

    Args:
        raw_weights, teacher_frame_logits: [V, F].
        mask: valid frames [V, F]; padded ones are left out of both softmaxes and of the loss. None: all take part.
    """
    valid = torch.ones_like(raw_weights, dtype=torch.bool) if mask is None else mask.bool()
    log_w = raw_weights.masked_fill(~valid, float("-inf")).log_softmax(dim=-1)
    y_f = (teacher_frame_logits / temperature).masked_fill(~valid, float("-inf")).softmax(dim=-1)
    frames = valid.sum(dim=-1)
    if kind == "pearson":
        distance = 1 - _correlation(log_w.exp(), y_f, valid)
        return distance.where(frames > 1, 0).mean()  # a single frame has nothing to learn
    if kind == "ce":
        per_video = -(y_f * log_w.masked_fill(~valid, 0)).sum(dim=-1)
        return (per_video if reduction == "per-video" else per_video / frames).mean()
    return (functional.smooth_l1_loss(log_w.exp(), y_f, reduction="none").sum(dim=-1) / frames).mean()


def _coarse_pearson(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    return (1 - _correlation(student_logits.softmax(dim=-1), teacher_logits.softmax(dim=-1))).mean()


def _coarse_ce(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    return -(teacher_logits.softmax(dim=-1) * student_logits.log_softmax(dim=-1)).mean()


def _correlation(a: Tensor, b: Tensor, valid: Tensor | None = None) -> Tensor:
    """Pearson correlation along the last dimension, over valid entries; 0 where one side does not vary."""
    return (_standardise(a, valid) * _standardise(b, valid)).sum(dim=-1)


def _standardise(values: Tensor, valid: Tensor | None) -> Tensor:
    if valid is None:
        centred = values - values.mean(dim=-1, keepdim=True)
    else:
        mean = (values * valid).sum(dim=-1, keepdim=True) / valid.sum(dim=-1, keepdim=True)
        centred = (values - mean) * valid
    return functional.normalize(centred, dim=-1, eps=FLAT)


def _combine(config: LossConfig, losses: Sequence[Tensor]) -> Tensor:
    stacked = torch.stack(list(losses))
    return stacked.mean() if config.teachers == "mean" else stacked.sum()


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
