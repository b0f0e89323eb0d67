"""Section `evaluate`: how a model is measured."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from .section import Name, Positive, Section


class EvaluateConfig(Section):
    """Ranks and metrics of a model on a split."""

    run: Path = Field(
        Path("runs/student"),
        description="Run folder or checkpoint that is evaluated; @64 behind it cuts vectors to 64 numbers.",
    )
    split: Literal["train", "val", "test"] = Field("test", description="Split that is evaluated.")
    ties: Literal["fair", "published", "teachtext"] = Field(
        "fair",
        description="fair: expected rank among equals; published: every tied position counts; teachtext: as TeachText "
        "counts, a video's best caption ranked among all captions.",
    )
    captions: Literal["each", "mean"] = Field(
        "each",
        description="Every caption is a query, or a video's captions are one, whose scores are their mean (TeachText).",
    )
    rerank: Literal["none", "dual-softmax", "query-bank"] = Field(
        "none",
        description="Change scores at test time: dual-softmax looks at the other test queries, query-bank at training "
        "captions; marked in every output, and not comparable with plain numbers (docs/guide/evaluation.md).",
    )
    rerank_temperature: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Its temperature on raw scores (cosines); by default 1 / logit scale, and 0.05 for query-bank.",
    )
    bank_captions: Positive = Field(
        5000, description="Training captions in the query bank, drawn with a fixed seed; all when there are fewer."
    )
    text: Name | None = Field(
        None, description="Text encoder of features.texts, for a network on experts whose checkpoint names none."
    )
    block: Positive = Field(512, description="Texts and videos compared at a time.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model runs.")
