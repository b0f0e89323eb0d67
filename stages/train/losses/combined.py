"""The three losses of TeachCLIP (section 3.3; specs: TeachCLIP 2): InfoNCE, coarse and fine teaching.

And TeachText's two (specs: TeachText 2): max-margin ranking, and Huber on the mean of several teachers' scores.

Notation: b texts and their b videos in a batch, F frame slots. Logits are scores times exp(logit_scale); rows are
texts, columns videos, text i belongs to video i. Behind the b videos may stand u others that have no texts, in the
coarse loss alone. Everything is computed in float32 or wider.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ....cache.scores.reading.labels import Labels
from ....configs.schema import LossConfig
from .contrastive import info_nce, max_margin
from .own import OwnLoss, is_own
from .teaching import (
    coarse_loss,
    fine_loss,
    mean_similarity,
    sparse_coarse_loss,
    standardised,
    valid_weights,
    wide,
)

type Scale = Tensor | float
ONE_HOT = 1e4  # a logit whose softmax is 1


class LossParts(NamedTuple):
    """The weighted total and its unweighted parts, scalars; `auxiliary` is what a network's own training adds.

    `infonce` is the ranking loss where `contrastive: max-margin` puts it in InfoNCE's place. `untaught` is no loss: how
    many coarse losses had no pair of this batch to learn from, which a sparse teacher's can.
    """

    total: Tensor
    infonce: Tensor
    coarse: Tensor
    fine: Tensor
    auxiliary: Tensor
    untaught: Tensor

    def with_auxiliary(self, loss: Tensor) -> "LossParts":
        """The same with a further part, weighted already."""
        return self._replace(total=self.total + loss, auxiliary=loss)


class Losses(nn.Module):
    """The losses that a configuration asks for; a loss of the user's own is loaded here, once, with its parameters.

    Args:
        config: kinds, weights, and how teachers are combined.
        teachers: the teachers' names, in the order in which their soft labels will come.

    Raises:
        ConfigError, PluginError: a loss of the user's own cannot be loaded.
    """

    def __init__(self, config: LossConfig, teachers: Sequence[str] = ()) -> None:
        super().__init__()
        self.config, self.teachers = config, tuple(teachers)
        self.own_coarse = _own(config.coarse_kind, "train.loss.coarse_kind", config.coarse_options)
        self.own_fine = _own(config.fine_kind, "train.loss.fine_kind", config.fine_options)

    def forward(
        self,
        student_logits: Tensor,
        raw_weights: Tensor | None,
        labels: Sequence[Labels[Tensor]],
        mask: Tensor | None = None,
        same_video: Tensor | None = None,
        *,
        student_scale: Scale = 1.0,
    ) -> LossParts:
        """The weighted sum of the losses that are asked for and that the batch has labels for.

        Args:
            student_logits: [b, b + u].
            raw_weights: AFA's scores before softmax [b, F]; None for mean pooling, which has no fine loss.
            labels: per teacher, scores [b, b + u] and frame-text logits [b, F], before softmax; the latter are None for
                a teacher that has none, and without a fine loss.
            mask: valid frames [b, F]; None lets padding take part (published code).
            same_video: off-diagonal pairs [b, b] of a text with its own video again, no negatives; None: they are.
            student_scale: exp(logit_scale), taken out again where raw scores are compared.

        Raises:
            PluginError: a loss of the user's own fails.
        """
        config, student = self.config, wide(student_logits)
        contrastive = self._contrastive(student[:, : len(student)], student_scale, same_video)
        coarse = fine = untaught = contrastive.new_zeros(())
        if config.coarse and (labels or config.coarse_target == "one-hot"):
            coarse, untaught = self._coarse(student, student_scale, labels)
        if config.fine and raw_weights is not None and any(each.frame_logits is not None for each in labels):
            fine = self._combined([self._fine_loss(raw_weights, each.frame_logits, mask) for each in labels])
        total = config.infonce * contrastive + config.coarse * coarse + config.fine * fine
        return LossParts(total, contrastive, coarse, fine, contrastive.new_zeros(()), untaught)

    def mean_over_widths(self, whole: LossParts, shorter: Sequence[LossParts]) -> LossParts:
        """The same with the mean over whole vectors and those cut short in place of InfoNCE and of the coarse loss
        (Matryoshka Representation Learning, NeurIPS 2022, equation 1, all weights 1); the fine one has no vectors."""
        if not shorter:
            return whole
        infonce, coarse = (
            torch.stack([getattr(parts, name) for parts in (whole, *shorter)]).mean() for name in ("infonce", "coarse")
        )
        config = self.config
        total = config.infonce * infonce + config.coarse * coarse + config.fine * whole.fine
        return whole._replace(total=total, infonce=infonce, coarse=coarse)

    def _contrastive(self, student_logits: Tensor, scale: Scale, same_video: Tensor | None) -> Tensor:
        if self.config.contrastive == "infonce":
            return info_nce(student_logits, same_video, self.config.label_smoothing)
        return max_margin(student_logits / scale, self.config.margin, self.config.fix_norm, same_video)

    def _coarse(self, student: Tensor, student_scale: Scale, labels: Sequence[Labels[Tensor]]) -> tuple[Tensor, Tensor]:
        """The coarse loss, and how many of those that it is made of had nothing to learn from."""
        on_logits, none = self.config.coarse_on == "logits", student.new_zeros(())
        if not on_logits:
            student = student / student_scale
        if self.config.coarse_on == "standardised":
            student = standardised(student)
        if self.config.coarse_target == "one-hot":
            own = torch.eye(*student.shape, device=student.device, dtype=student.dtype)
            return self._coarse_loss(student, own * ONE_HOT), none
        sparse = [each.sparse for each in labels]
        if self.config.teachers == "mean-similarity":
            target = mean_similarity([_cosines(each) for each in labels], self.config.one_scale, any(sparse))
            mean_scale = sum(each.scale for each in labels) / len(labels)
            targets, sparse = [target * mean_scale if on_logits else self._on_scale(target)], [any(sparse)]
        else:
            targets = [wide(each.logits) if on_logits else self._on_scale(_cosines(each)) for each in labels]
        if not any(sparse):
            losses = [self._coarse_loss(student, target) for target in targets]
            return (losses[0] if self.config.teachers == "mean-similarity" else self._combined(losses)), none
        return self._sparse(student, targets, sparse)

    def _sparse(self, student: Tensor, targets: Sequence[Tensor], sparse: Sequence[bool]) -> tuple[Tensor, Tensor]:
        """As `_combined`, where some teachers did not score every pair: one without any takes no part in a mean."""
        losses, given = [], []
        for target, holes in zip(targets, sparse, strict=True):
            loss, there = self._sparse_loss(student, target) if holes else (self._coarse_loss(student, target), None)
            losses.append(loss)
            given.append(torch.ones_like(loss) if there is None else there)
        there = torch.stack(given)
        untaught = len(given) - there.sum()
        if self.config.teachers in ("sum", "weighted"):
            return self._combined(losses), untaught
        return torch.stack(losses).sum() / there.sum().clamp(min=1), untaught

    def _sparse_loss(self, student: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if self.own_coarse is None:
            return sparse_coarse_loss(self.config.coarse_kind, student, target)
        return self.own_coarse(student, target), student.new_ones(())

    def _on_scale(self, cosines: Tensor) -> Tensor:
        return standardised(cosines) if self.config.coarse_on == "standardised" else cosines

    def _coarse_loss(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        if self.own_coarse is not None:
            return cast(Tensor, self.own_coarse(student_logits, teacher_logits))
        return coarse_loss(self.config.coarse_kind, student_logits, teacher_logits)

    def _fine_loss(self, raw_weights: Tensor, frame_logits: Tensor | None, mask: Tensor | None) -> Tensor | None:
        if frame_logits is None:
            return None
        config, raw, logits = self.config, wide(raw_weights), wide(frame_logits)
        if self.own_fine is not None:
            own: Tensor = self.own_fine(raw, logits / config.fine_temperature, valid_weights(raw, mask))
            return own
        return fine_loss(config.fine_kind, raw, logits, mask, config.fine_reduction, config.fine_temperature)

    def _combined(self, losses: Sequence[Tensor | None]) -> Tensor:
        """One loss of the teachers' losses, of those that have one: their mean, sum or weighted sum."""
        weighted = self.config.teachers == "weighted"
        weights = [self.config.teacher_weights[name] for name in self.teachers] if weighted else [1.0] * len(losses)
        given = [weight * loss for weight, loss in zip(weights, losses, strict=True) if loss is not None]
        total = torch.stack(given).sum()
        return total if self.config.teachers in ("sum", "weighted") else total / len(given)


def _own(kind: str, key: str, options: Mapping[str, Any]) -> OwnLoss | None:
    return OwnLoss(kind, key, options) if is_own(kind) else None


def _cosines(labels: Labels[Tensor]) -> Tensor:
    """Raw scores [b, b + u]: out of the logits, which round otherwise than `coarse` does, as in every run so far."""
    return wide(labels.logits) / labels.scale
