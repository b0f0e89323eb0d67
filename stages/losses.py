"""The three losses of TeachCLIP (section 3.3; specs: TeachCLIP 2): InfoNCE, coarse and fine teaching.

And TeachText's two (specs: TeachText 2): max-margin ranking, and Huber on the mean of several teachers' scores.

Notation: b texts and their b videos in a batch, F frame slots. Logits are scores times exp(logit_scale); rows are
texts, columns videos, text i belongs to video i. Everything is computed in float32 or wider.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..configs.losses import LossConfig
from .own_losses import OwnLoss, is_own

Reduction = Literal["per-video", "per-frame"]
OneScale = Literal["raw", "standardised"]
type Scale = Tensor | float

ONE_HOT = 1e4  # a logit whose softmax is 1
FLAT = 1e-7  # a distribution that varies less than float32 rounding does not correlate with anything


class LossParts(NamedTuple):
    """The weighted total and its unweighted parts, scalars; `auxiliary` is what a network's own training adds.

    `infonce` is the ranking loss where `contrastive: max-margin` puts it in InfoNCE's place.
    """

    total: Tensor
    infonce: Tensor
    coarse: Tensor
    fine: Tensor
    auxiliary: Tensor

    def with_auxiliary(self, loss: Tensor) -> "LossParts":
        """The same with a further part, weighted already."""
        return self._replace(total=self.total + loss, auxiliary=loss)


class Losses:
    """The losses that a configuration asks for; a loss of the user's own is loaded here, once.

    Args:
        config: kinds, weights, and how teachers are combined.
        teachers: the teachers' names, in the order in which their soft labels will come.

    Raises:
        ConfigError: a loss of the user's own cannot be loaded.
    """

    def __init__(self, config: LossConfig, teachers: Sequence[str] = ()) -> None:
        self.config, self.teachers = config, tuple(teachers)
        self._own_coarse, self._own_fine = (
            OwnLoss(kind, f"train.loss.{key}") if is_own(kind) else None
            for key, kind in (("coarse_kind", config.coarse_kind), ("fine_kind", config.fine_kind))
        )

    def __call__(
        self,
        student_logits: Tensor,
        raw_weights: Tensor | None,
        teacher_logits: Sequence[Tensor],
        teacher_frame_logits: Sequence[Tensor | None],
        mask: Tensor | None = None,
        same_video: Tensor | None = None,
        *,
        student_scale: Scale = 1.0,
        teacher_scales: Sequence[float] = (),
    ) -> LossParts:
        """The weighted sum of the losses that are asked for and that the batch has labels for.

        Args:
            student_logits: [b, b].
            raw_weights: AFA's scores before softmax [b, F]; None for mean pooling, which has no fine loss.
            teacher_logits: per teacher [b, b], times the teacher's scale.
            teacher_frame_logits: per teacher [b, F], before softmax, or None for one that has none; empty without a
                fine loss.
            mask: valid frames [b, F]; None lets padding take part (published code).
            same_video: off-diagonal pairs [b, b] of a text with its own video again, no negatives; None: they are.
            student_scale, teacher_scales: exp(logit_scale), taken out again where raw scores are compared; by
                default 1.

        Raises:
            PluginError: a loss of the user's own fails.
        """
        config, student = self.config, _wide(student_logits)
        contrastive = self._contrastive(student, student_scale, same_video)
        coarse = fine = contrastive.new_zeros(())
        if config.coarse and (teacher_logits or config.coarse_target == "one-hot"):
            scales = tuple(teacher_scales) or (1.0,) * len(teacher_logits)
            coarse = self._coarse(student, student_scale, [_wide(logits) for logits in teacher_logits], scales)
        if config.fine and raw_weights is not None and any(logits is not None for logits in teacher_frame_logits):
            fine = self._combined([self._fine_loss(raw_weights, logits, mask) for logits in teacher_frame_logits])
        total = config.infonce * contrastive + config.coarse * coarse + config.fine * fine
        return LossParts(total, contrastive, coarse, fine, contrastive.new_zeros(()))

    def _contrastive(self, student_logits: Tensor, scale: Scale, same_video: Tensor | None) -> Tensor:
        if self.config.contrastive == "infonce":
            return info_nce(student_logits, same_video, self.config.label_smoothing)
        return max_margin(student_logits / scale, self.config.margin, self.config.fix_norm, same_video)

    def _coarse(
        self, student: Tensor, student_scale: Scale, teachers: list[Tensor], scales: tuple[float, ...]
    ) -> Tensor:
        on_cosines = self.config.coarse_on == "cosines"
        if on_cosines:
            student = student / student_scale
        if self.config.coarse_target == "one-hot":
            own = torch.eye(len(student), device=student.device, dtype=student.dtype)
            return self._coarse_loss(student, own * ONE_HOT)
        if self.config.teachers == "mean-similarity":
            target = mean_similarity(teachers, scales, self.config.one_scale)
            return self._coarse_loss(student, target if on_cosines else target * (sum(scales) / len(scales)))
        if on_cosines:
            teachers = [logits / scale for logits, scale in zip(teachers, scales, strict=True)]
        return self._combined([self._coarse_loss(student, logits) for logits in teachers])

    def _coarse_loss(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        if self._own_coarse is not None:
            return self._own_coarse(student_logits, teacher_logits)
        return coarse_loss(self.config.coarse_kind, student_logits, teacher_logits)

    def _fine_loss(self, raw_weights: Tensor, frame_logits: Tensor | None, mask: Tensor | None) -> Tensor | None:
        if frame_logits is None:
            return None
        config, raw, logits = self.config, _wide(raw_weights), _wide(frame_logits)
        if self._own_fine is not None:
            return self._own_fine(raw, logits / config.fine_temperature, _valid(raw, mask))
        return fine_loss(config.fine_kind, raw, logits, mask, config.fine_reduction, config.fine_temperature)

    def _combined(self, losses: Sequence[Tensor | None]) -> Tensor:
        """One loss of the teachers' losses, of those that have one: their mean, sum or weighted sum."""
        weighted = self.config.teachers == "weighted"
        weights = [self.config.teacher_weights[name] for name in self.teachers] if weighted else [1.0] * len(losses)
        given = [weight * loss for weight, loss in zip(weights, losses, strict=True) if loss is not None]
        total = torch.stack(given).sum()
        return total if self.config.teachers in ("sum", "weighted") else total / len(given)


def mean_similarity(teacher_logits: Sequence[Tensor], scales: Sequence[float], one_scale: OneScale) -> Tensor:
    """The arithmetic mean [b, b] of several teachers' scores, on one scale (specs: TeachText 2, 8).

    Args:
        teacher_logits: per teacher [b, b], times its scale.
        scales: exp(logit_scale) of each teacher.
        one_scale: `raw` takes each teacher's logit scale out: right for cosines, as TeachText's are. `standardised`
            further brings each teacher's matrix of this batch to mean 0 and deviation 1 before the mean, and then gives
            it the teachers' mean deviation and mean: for teachers whose raw scores differ in spread.
    """
    scores = torch.stack([logits / scale for logits, scale in zip(teacher_logits, scales, strict=True)])
    if one_scale == "standardised":
        mean = scores.mean(dim=(1, 2), keepdim=True)
        deviation = (scores - mean).square().mean(dim=(1, 2), keepdim=True).sqrt()
        return ((scores - mean) / deviation.clamp(min=FLAT)).mean(dim=0) * deviation.mean() + mean.mean()
    return scores.mean(dim=0)


def max_margin(scores: Tensor, margin: float, fix_norm: bool = True, same_video: Tensor | None = None) -> Tensor:
    """TeachText's bidirectional ranking loss: the mean of relu(margin - s_ii + s_ij) and relu(margin - s_ii + s_ji).

    Args:
        scores: [b, b], without logit scale.
        margin: by how much the own video shall score above others, in the scores' unit.
        fix_norm: the mean is over wrong pairs; otherwise the diagonal's terms, which are `margin`, are averaged in.
        same_video: off-diagonal pairs [b, b] that take no part.
    """
    own = scores.diagonal()
    rows, columns = functional.relu(margin - own[:, None] + scores), functional.relu(margin - own[None, :] + scores)
    takes_part = torch.ones_like(scores, dtype=torch.bool)
    if fix_norm:
        takes_part = ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    if same_video is not None:
        takes_part = takes_part & ~same_video
    # A batch whose pairs are all of one video has no wrong pair: its loss is 0.
    return ((rows + columns) * takes_part).sum() / (2 * takes_part.sum()).clamp(min=1)


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


def coarse_loss(kind: str, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
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
    valid = _valid(raw_weights, mask)
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


def _valid(raw_weights: Tensor, mask: Tensor | None) -> Tensor:
    return torch.ones_like(raw_weights, dtype=torch.bool) if mask is None else mask.bool()


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
