"""Section `prepare`: how frames are made."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from .section import Positive, Section

Interpolation = Literal["bicubic", "bilinear"]
ResizeMode = Literal["shortest", "squash", "longest"]


class PrepareConfig(Section):
    """Stage zero: videos -> frame cache."""

    frames: Path = Field(Path("frames"), description="Folder of the frame cache, below `work`.")
    image_size: Positive = Field(224, description="Frames are resized and cropped to this many pixels.")
    resize_mode: ResizeMode = Field(
        "shortest",
        description="The shortest side is resized and the centre cropped, both are (squash), or the longest is and "
        "black put around (longest): as the trunk's weights were trained.",
    )
    interpolation: Interpolation = Field("bicubic", description="How frames are resized, likewise.")
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
        "are PyAV's either way), one of them alone (docs/guide/data.md).",
    )
    shard_videos: Positive = Field(64, description="Videos per HDF5 shard, the unit that is complete or absent.")
    workers: Annotated[int, Field(ge=0)] = Field(0, description="Decoding processes; 0 means one per core.")
    timeout: Annotated[float, Field(gt=0)] = Field(
        60.0, description="Seconds a video may take before it counts as hung (auto: then as many again, by PyAV alone)."
    )
