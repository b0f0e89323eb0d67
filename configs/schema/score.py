"""Section `score`: teachers, and how their scores are laid out and stored."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from .network import TrunkConfig, refuse_words
from .section import Location, Name, Positive, Section


class TeacherConfig(Section):
    """One frozen teacher: a checkpoint, an open_clip model as it is, or a class of your own."""

    name: Name = Field(description="Its name in the score store.")
    checkpoint: Path | None = Field(
        None, description="Checkpoint file (ours or a published one), or the run folder of a network trained here."
    )
    openclip: TrunkConfig | None = Field(
        None, description="An open_clip model without training: cosines of sentences with frames and their mean."
    )
    plugin: str | None = Field(
        None, description="A teacher of your own: module:Class, or the name of an entry point in teachclip.teachers."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments for the plugin.")
    prepared: Path | None = Field(
        None, description="Frame cache that this teacher sees, below `work`; by default prepare.frames."
    )
    text: Name | None = Field(
        None, description="Text encoder of features.texts, for a teacher on experts whose checkpoint names none."
    )
    frames: Positive | None = Field(
        None, description="Frame slots, for checkpoints that do not record them (default 12) and openclip."
    )
    words: Annotated[int, Field(ge=3)] | None = Field(
        None, description="Word slots, for checkpoints that do not record them (default 32) and openclip."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("checkpoint", "openclip", "plugin") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"a teacher is one of checkpoint, openclip and plugin; {self.name} has {found}")
        if self.plugin and (self.frames or self.words):
            raise ValueError(f"a plugin says its frames and words itself: give {self.name}'s in its options")
        if self.options and not self.plugin:
            raise ValueError(f"options are for a plugin, and {self.name} is none")
        if self.openclip:
            refuse_words(self.words, self.openclip)
        return self


class ScoreConfig(Section):
    """Stage one: frozen teachers -> score cache."""

    store: Location = Field(
        Path("scores.zarr"),
        description="The score store, below `work`; to train from, also an address: s3://bucket/scores.zarr.",
    )
    teachers: tuple[TeacherConfig, ...] = Field((), description="Teachers to score with.")
    splits: tuple[Literal["train", "val", "test"], ...] = Field(("train",), description="Splits that are scored.")
    coarse: Literal["uint16", "float16", "float32"] = Field(
        "uint16",
        description="16-bit codes with a scale and offset per row, float16 (coarser, no smaller), or float32 (for "
        "equivalence tests).",
    )
    shard_texts: Positive = Field(1024, description="Text rows per shard, the unit that is complete or absent.")
    layout: Literal["auto", "dense", "blocks"] = Field(
        "auto",
        description="dense: every text with every video; blocks: with the videos of one block, for very large sets; "
        "auto: dense within the budget.",
    )
    block_videos: Annotated[int, Field(gt=1)] = Field(
        4096, description="Videos of a block at most; batches are drawn within a block."
    )
    budget: Positive = Field(
        200_000_000_000, description="Bytes that one teacher's dense scores may take before `auto` makes blocks."
    )
    video_batch: Positive = Field(
        32, description="Videos encoded at a time; another number changes the last bits of scores."
    )
    text_batch: Positive = Field(
        128, description="Texts scored at a time; another number changes the last bits of scores."
    )
    chance_check: bool = Field(
        True, description="Stop after the first shard when the captions' own videos rank near chance."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the teacher runs.")
