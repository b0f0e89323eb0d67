"""Section `data`: captions and videos that are read."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ..published_sets import PUBLISHED, SetName
from .section import Fraction, Section


class DataConfig(Section):
    """Captions and videos: your own, or one of the published data sets."""

    set: SetName = Field(
        "own", description="Your own caption file, WebDataset shards, or a published data set (docs/guide/data.md)."
    )
    captions: Path = Field(Path("captions.csv"), description="own: CSV or JSONL file: video, caption, optional split.")
    annotations: Path = Field(
        Path("annotations"), description="Published data sets: folder of their split and caption files, as they come."
    )
    videos: Path | None = Field(
        None,
        description="Folder of the videos (own: that their paths start from; webdataset: of the tar shards); by "
        "default that of the captions, or `annotations`.",
    )
    splits: Annotated[tuple[Literal["train", "val", "test"], ...], Field(min_length=1)] = Field(
        ("train", "val", "test"), description="Splits that are read; [test] needs no files of the others."
    )
    validation: Literal["held-out", "test"] = Field(
        "held-out",
        description="What chooses the best network where the data set has no validation videos: a part of the "
        "training videos, or the test videos (published for MSR-VTT-1k and ActivityNet; marked in every output).",
    )
    val_fraction: Fraction = Field(
        0.1, description="Share of the training videos held out for validation when there are no validation videos."
    )
    duplicates: Literal["refuse", "keep-first"] = Field(
        "refuse", description="own: what to do with the same caption given twice for one video."
    )
    unlabelled: Path | None = Field(
        None, description="Folder of further training videos without captions, for train.unlabelled."
    )
    uncaptioned: Literal["report", "train"] = Field(
        "report",
        description="own, webdataset: a training video without any caption is told as a problem, or one more for "
        "train.unlabelled.",
    )

    @property
    def has_unlabelled(self) -> bool:
        """Whether training videos without captions are asked for."""
        return "train" in self.splits and (self.unlabelled is not None or self.uncaptioned == "train")

    @model_validator(mode="after")
    def _unlabelled_are_no_others(self) -> Self:
        # Each message starts with the key it is about: that is how the loader finds the line.
        if self.uncaptioned == "train" and self.set in PUBLISHED:
            raise ValueError(
                f"data.uncaptioned: a video without a caption in {self.set} is one whose annotations are not whole; "
                "name a folder of other videos as data.unlabelled"
            )
        if self.has_unlabelled and (missing := self._needed_splits.difference(self.splits)):
            raise ValueError(
                f"data.splits: without {' and '.join(sorted(missing))}, videos of that split could not be told from "
                "videos without captions, and would be trained on"
            )
        return self

    @property
    def _needed_splits(self) -> frozenset[str]:
        """The splits that have to be read, so that none of their videos passes for one without captions."""
        if self.set == "teachclip-files":  # as a rule without validation files
            return frozenset(("train", "test"))
        return frozenset(PUBLISHED[self.set].splits if self.set in PUBLISHED else ("train", "val", "test"))

    @property
    def origin(self) -> Path:
        """The caption file, or the folder of annotations or shards."""
        if self.set == "webdataset":
            return self.video_folder
        return self.captions if self.set == "own" else self.annotations

    @property
    def video_folder(self) -> Path:
        """The folder below which videos or shards are."""
        return self.videos or (self.captions.parent if self.set == "own" else self.annotations)
