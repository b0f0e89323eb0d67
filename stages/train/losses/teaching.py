"""Coarse and fine teaching, each in its kinds."""

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn import functional

from ....cache.scores.reading.labels import LEAST

Reduction = Literal["per-video", "per-frame"]
OneScale = Literal["raw", "standardised"]
FLAT = 1e-7  # a distribution that varies less than float32 rounding does not correlate with anything


def mean_similarity(teacher_scores: Sequence[Tensor], one_scale: OneScale, sparse: bool = False) -> Tensor:
    """The arithmetic mean [b, v] of several teachers' raw scores, on one scale (specs: TeachText 2, 8).

    Args:
        teacher_scores: per teacher [b, v]; NaN where it did not score. The mean is over those that scored the pair, NaN
            where nobody did, and so are means and deviations.
        one_scale: `raw` takes the scores as they are: right for cosines, as TeachText's are. `standardised` brings each
            teacher's matrix of this batch to mean 0 and deviation 1 before the mean, and then gives it the teachers'
            mean deviation and mean: for teachers whose raw scores differ in spread.
        sparse: a teacher may have NaN.
    """
    scores = torch.stack(tuple(teacher_scores))
    if sparse:
        return _sparse_mean(scores, one_scale)
    if one_scale == "standardised":
        mean = scores.mean(dim=(1, 2), keepdim=True)
        deviation = (scores - mean).square().mean(dim=(1, 2), keepdim=True).sqrt()
        return ((scores - mean) / deviation.clamp(min=FLAT)).mean(dim=0) * deviation.mean() + mean.mean()
    return scores.mean(dim=0)


def _sparse_mean(scores: Tensor, one_scale: OneScale) -> Tensor:
    if one_scale == "standardised":
        mean = scores.nanmean(dim=(1, 2), keepdim=True)
        deviation = (scores - mean).square().nanmean(dim=(1, 2), keepdim=True).sqrt()
        one = ((scores - mean) / deviation.clamp(min=FLAT)).nanmean(dim=0)
        return one * deviation.nanmean() + mean.nanmean()
    return scores.nanmean(dim=0)


def standardised(scores: Tensor) -> Tensor:
    """A batch's scores [b, v] at mean 0 and deviation 1, over all its pairs that are scored."""
    centred = scores - scores.nanmean()
    return centred / centred.square().nanmean().sqrt().clamp(min=FLAT)


def coarse_loss(kind: str, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """How far the student's video-text scores [b, v] are from one teacher's.

    The b videos of the texts come first; with v > b, videos without texts follow, and count like the others: as
    candidates of each row, and as columns of their own.

    pearson: 1 - correlation of the softmaxes, mean over the b rows, plus the same over the v columns.
    ce: cross entropy of the softmaxes, mean over all b x v entries, rows plus columns.
    huber: smooth L1 of the logits themselves, mean over all entries.
    """
    if kind == "huber":
        return functional.smooth_l1_loss(student_logits, teacher_logits)
    one_way = _coarse_pearson if kind == "pearson" else _coarse_ce
    return one_way(student_logits, teacher_logits) + one_way(student_logits.T, teacher_logits.T)


def sparse_coarse_loss(kind: str, student_logits: Tensor, teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
    """`coarse_loss` over the pairs that the teacher scored; and whether there was anything to learn from, 1 or 0.

    pearson, ce: softmaxes over the scored entries of a row or column; those with fewer than `LEAST` drop out of the
    mean, in pearson also those where a side does not vary. ce takes each row's mean over its scored entries, huber the
    mean over all of them. Where nothing is left the loss is 0. With every pair scored it is `coarse_loss`.

    Args:
        teacher_logits: [b, v], NaN where not scored.
    """
    scored = ~teacher_logits.isnan()
    taught = teacher_logits.masked_fill(~scored, 0)
    if kind == "huber":
        apart = functional.smooth_l1_loss(student_logits, taught, reduction="none") * scored
        return apart.sum() / scored.sum().clamp(min=1), scored.any().to(apart.dtype)
    rows, some_rows = _sparse_one_way(kind, student_logits, taught, scored)
    columns, some_columns = _sparse_one_way(kind, student_logits.T, taught.T, scored.T)
    return rows + columns, torch.maximum(some_rows, some_columns)


def _sparse_one_way(kind: str, student: Tensor, teacher: Tensor, scored: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the rows' losses over those that count, and 1, or 0 and 0 where none does."""
    counts = scored.sum(dim=-1) >= LEAST
    valid = scored | ~counts[:, None]  # rows that do not count stay finite, and so do their gradients
    log_s = student.masked_fill(~valid, float("-inf")).log_softmax(dim=-1)
    t = teacher.masked_fill(~valid, float("-inf")).softmax(dim=-1)
    if kind == "pearson":
        s = log_s.exp()
        counts = counts & _varies(s.detach(), valid) & _varies(t, valid)
        losses = 1 - _correlation(s, t, valid)
    else:
        losses = -(t * log_s.masked_fill(~valid, 0)).sum(dim=-1) / valid.sum(dim=-1)
    loss = losses.where(counts, 0).sum() / counts.sum().clamp(min=1)
    return loss, counts.any().to(loss.dtype)


def _varies(values: Tensor, valid: Tensor) -> Tensor:
    mean = (values * valid).sum(dim=-1, keepdim=True) / valid.sum(dim=-1, keepdim=True)
    return cast(Tensor, torch.linalg.vector_norm((values - mean) * valid, dim=-1) > FLAT)


def fine_loss(
    kind: str,
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
    valid = valid_weights(raw_weights, mask)
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


def valid_weights(raw_weights: Tensor, mask: Tensor | None) -> Tensor:
    return torch.ones_like(raw_weights, dtype=torch.bool) if mask is None else mask.bool()


def wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
