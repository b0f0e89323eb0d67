"""What is read, captions and videos, and how frames are made of it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from .section import Fraction, Positive, Section
from .sets import SetName


class DataConfig(Section):
    """Captions and videos: your own, or one of the published data sets."""

    set: SetName = Field(
        "own", description="Your own caption file, WebDataset shards, or a published data set (docs/data.md)."
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


class PrepareConfig(Section):
    """Stage zero: videos -> frame cache."""

    frames: Path = Field(Path("frames"), description="Folder of the frame cache, below `work`.")
    image_size: Positive = Field(224, description="Frames are resized and cropped to this many pixels.")
    max_frames: Positive = Field(12, description="Frames kept per video (published: 12; 64 for long videos).")
    sample_fps: Annotated[int, Field(ge=0)] = Field(
        1, description="Frames decoded per second before choosing; 0 takes every frame."
    )
    last_second: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Last second of a video that is looked at (DiDeMo: 31); by default its last."
    )
    choice: Literal["uniform", "head", "tail"] = Field(
        "uniform", description="Which of the decoded frames are kept when there are more than max_frames."
    )
    storage: Literal["raw", "jpeg"] = Field(
        "raw", description="Raw uint8 frames or JPEG; part of the cache's identity."
    )
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = Field(95, description="JPEG quality, when storage is jpeg.")
    decoder: Literal["auto", "decord", "pyav"] = Field(
        "auto",
        description="What decodes: decord, but PyAV where decord gives other frames or finds fault (auto; the pixels "
        "are PyAV's either way), one of them alone (docs/data.md).",
    )
    shard_videos: Positive = Field(64, description="Videos per HDF5 shard, the unit that is complete or absent.")
    workers: Annotated[int, Field(ge=0)] = Field(0, description="Decoding processes; 0 means one per core.")
    timeout: Annotated[float, Field(gt=0)] = Field(
        60.0, description="Seconds a video may take before it counts as hung (auto: then as many again, by PyAV alone)."
    )
