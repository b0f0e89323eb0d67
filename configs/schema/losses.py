"""The losses that teach, and how those of several teachers are combined."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticKnownError

from .section import Fraction, Name, Positive, Section, Weight

_OWN = re.compile(r"entry:\S+|\w+(\.\w+)*:[^\W\d]\w*")  # a loss of the user's own


def _or_own(*known: str) -> AfterValidator:
    """Text that is one of `known` or names a loss of the user's own: `module:function`, or `entry:name`."""

    def check(kind: str) -> str:
        if kind in known or _OWN.fullmatch(kind):
            return kind
        expected = (*known, "module:function", "entry:name")
        raise PydanticKnownError("literal_error", {"expected": ", ".join(f"'{name}'" for name in expected)})

    return AfterValidator(check)


class LossConfig(Section):
    """The three losses (TeachCLIP section 3.3), their weights, and how several teachers are combined."""

    infonce: Weight = Field(
        0.2, description="Weight of InfoNCE, or of what `contrastive` puts in its place; of a teacher's training 1."
    )
    coarse: Weight = Field(1.0, description="Weight of the coarse loss: teacher's video-text scores.")
    fine: Weight = Field(1.0, description="Weight of the fine loss: teacher's frame-text scores -> AFA weights.")
    contrastive: Literal["infonce", "max-margin"] = Field(
        "infonce", description="InfoNCE, or TeachText's ranking loss on raw scores."
    )
    margin: Annotated[float, Field(gt=0)] = Field(
        0.0938, description="Its margin (TeachText: MSR-VTT 0.0938, MSVD 0.3076, DiDeMo 0.1664, ActivityNet 0.0605)."
    )
    fix_norm: bool = Field(True, description="Its mean is over wrong pairs only; `false` averages the diagonal in.")
    coarse_kind: Annotated[str, _or_own("pearson", "huber", "ce")] = Field(
        "pearson", description="Form of the coarse loss: pearson, huber, ce, or your own as module:function."
    )
    coarse_options: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments for a coarse loss of your own."
    )
    coarse_target: Literal["teacher", "one-hot"] = Field(
        "teacher", description="`one-hot` is a control: the same loss against each text's own video, without a teacher."
    )
    coarse_on: Literal["logits", "cosines", "standardised"] = Field(
        "logits",
        description="The coarse loss compares scores times exp(logit scale) (code), raw scores (paper), or raw scores "
        "at mean 0 and deviation 1 in each batch.",
    )
    fine_kind: Annotated[str, _or_own("ce", "pearson", "huber")] = Field(
        "ce", description="Form of the fine loss: ce, pearson, huber, or your own as module:function."
    )
    fine_options: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments for a fine loss of your own."
    )
    fine_reduction: Literal["per-video", "per-frame"] = Field(
        "per-video", description="Fine CE summed over a video's frames (paper) or averaged over them (code)."
    )
    fine_temperature: Annotated[float, Field(gt=0)] = Field(
        1.0, description="Temperature on the teacher's frame-text scores (published: 1, nearly flat)."
    )
    teachers: Literal["mean", "sum", "weighted", "mean-similarity"] = Field(
        "mean",
        description="Several teachers: their losses averaged, summed or weighted, or one coarse loss on the mean of "
        "their scores (TeachText).",
    )
    teacher_weights: dict[Name, Weight] = Field(
        default_factory=dict, description="For `weighted`: each teacher's factor by name, used as it is."
    )
    one_scale: Literal["raw", "standardised"] = Field(
        "raw", description="For `mean-similarity`: scores without logit scale, or each batch's brought to one spread."
    )
    matryoshka: tuple[Positive, ...] = Field(
        (), description="Lengths to which vectors may be cut: they are trained beside the whole ones, all alike."
    )
    label_smoothing: Fraction = Field(0.0, description="Label smoothing of InfoNCE (published: none).")
    mask_same_video: bool = Field(
        True, description="Other captions of a text's own video are no negatives of InfoNCE (published code: they are)."
    )

    def mistake(self, teachers: tuple[str, ...]) -> str | None:
        """What does not fit together when `teachers` teach; begins with the key it is about."""
        weights, named = "train.loss.teacher_weights", set(self.teacher_weights)
        kinds = {"coarse": (self.coarse_kind, self.coarse_options), "fine": (self.fine_kind, self.fine_options)}
        for key, (kind, options) in kinds.items():
            if options and ":" not in kind:
                return f"train.loss.{key}_options: options are for a loss of your own, and {key}_kind is {kind}"
        if self.contrastive == "max-margin" and self.label_smoothing:
            return "train.loss.label_smoothing: max-margin has no labels to smooth; set it to 0"
        if self.teachers != "weighted":
            return f"{weights}: train.loss.teachers is {self.teachers}; set it to weighted" if named else None
        if teachers and (missing := sorted(set(teachers) - named)):
            return f"{weights}: no weight for {', '.join(missing)}, which train.teachers names"
        if teachers and (unknown := sorted(named - set(teachers))):
            return f"{weights}: {', '.join(unknown)} is not among train.teachers: {', '.join(teachers)}"
        return None
