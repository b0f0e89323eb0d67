"""Sections `prepare`, how frames are made, and `features`, how those of experts and text encoders are."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from .section import Location, Name, Positive, Section

Interpolation = Literal["bicubic", "bilinear"]
ResizeMode = Literal["shortest", "squash", "longest"]


class PrepareConfig(Section):
    """Stage zero: videos -> frame cache."""

    frames: Location = Field(
        Path("frames"), description="The frame cache, a folder below `work` or an address: s3://bucket/frames."
    )
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


class ExpertConfig(Section):
    """One expert: what a frozen network makes of every video, from a file, an open_clip model or a function."""

    name: Name = Field(description="Its name; experts stand in the order of their names everywhere.")
    file: Path | None = Field(
        None, description="Its features as they come: a pickle, HDF5, npz, Zarr, npy with ids, a W2VV++ folder."
    )
    model: str | None = Field(
        None,
        description="Frame features by the trunk of openclip:MODEL/WEIGHTS, or of a run folder or checkpoint below "
        "`work`, made of the frame cache.",
    )
    plugin: str | None = Field(
        None, description="A function of your own, module:function, or an entry point in teachclip.experts."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments for the plugin.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("file", "model", "plugin") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"an expert is one of file, model and plugin; {self.name} has {found}")
        if self.options and not self.plugin:
            raise ValueError(f"options are for a plugin, and {self.name} is none")
        return self


class TextEncoderConfig(Section):
    """One text encoder: the words of every caption, from a file or a Hugging Face model."""

    name: Name = Field(description="Its name.")
    file: Path | None = Field(
        None, description="Word vectors as they come: a pickle, HDF5, npz or Zarr; captions in the data set's order."
    )
    captions: Path | None = Field(
        None,
        description="The captions that the file's words are of, in their order (published: raw-captions.pkl); with it "
        "captions are matched by their text.",
    )
    huggingface: str | None = Field(
        None, description="A text model of Hugging Face's hub, or the folder of one; needs the extra hf."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("file", "huggingface") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"a text encoder is one of file and huggingface; {self.name} has {found}")
        if self.captions and not self.file:
            raise ValueError(f"captions are those of a file of words, and {self.name} has none")
        return self


class FeaturesConfig(Section):
    """Features that others' networks make of videos (experts) and of captions (words) -> feature caches."""

    folder: Path = Field(Path("experts"), description="Folder of the feature caches, below `work`.")
    experts: tuple[ExpertConfig, ...] = Field((), description="Experts of the videos.")
    texts: tuple[TextEncoderConfig, ...] = Field((), description="Text encoders of the captions.")
    captions: Literal["single", "fused"] = Field(
        "single", description="Every caption by itself, or all of a video's as one (published for DiDeMo, ActivityNet)."
    )
    batch: Positive = Field(16, description="Videos or captions that a network gets at a time.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where networks run.")

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        for key, entries in (("experts", self.experts), ("texts", self.texts)):
            names = [entry.name for entry in entries]
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"features.{key}: each needs a name of its own, {', '.join(repeated)} is repeated")
        return self
