"""Section `denoise`: captions that training leaves out."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from .section import Name, Positive, Section


class DenoiseConfig(Section):
    """Captions that the teachers cannot place are left out of training; the rule is teachclip's own."""

    mask: Path = Field(
        Path("captions-mask.json"), description="The mask that is written, below `work`; train.captions_mask reads it."
    )
    keep: Positive = Field(
        100, description="Keep a caption whose own video ranks at most this among all training videos."
    )
    teachers: tuple[Name, ...] = Field(
        (), description="Teachers in the score store that rank; by default train.teachers, else score.teachers."
    )
    combine: Literal["raw", "standardised"] = Field(
        "raw", description="Several teachers: mean of raw similarities, or of each caption's brought to one spread."
    )
    last: Literal["keep-best", "drop-video"] = Field(
        "keep-best", description="A video that would lose all captions keeps its best one, or is left out and named."
    )
