"""Section `data`: captions and videos that are read."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..published_sets import SetName
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
