"""Section `score`: teachers, and how their scores are laid out and stored."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from .network import TrunkConfig, refuse_words
from .section import Location, Name, Positive, Section


class TransformersConfig(Section):
    """A dual encoder of the transformers library (CLIP, SigLIP, ALIGN ...) as it is; extra `hf`."""

    model: str = Field(description="A folder that save_pretrained wrote, or a model's name on the hub.")
    revision: str | None = Field(None, description="The hub's branch, tag or commit; by default its newest.")


class CrossEncoderConfig(Section):
    """A re-ranker, which reads a sentence and a video together, and so scores few pairs; extra `hf`."""

    model: str = Field(
        description="A CrossEncoder of sentence-transformers, by folder or name on the hub; or your own class with "
        "`predict`, as module:Class."
    )
    revision: str | None = Field(None, description="The hub's branch, tag or commit; by default its newest.")
    by: Name = Field(description="The teacher, scored already, whose best videos of a sentence are scored.")
    top: Annotated[int, Field(ge=2)] = Field(50, description="How many of them; the own video always comes beside.")
    video: Literal["captions", "frames"] = Field(
        "captions", description="What a video is to it: its other captions, joined, or its frames as pictures."
    )
    scale: Annotated[float, Field(gt=0)] = Field(1.0, description="Factor between its scores and logits.")
    options: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments for a class of your own.")

    @property
    def own(self) -> bool:
        """Whether `model` names a class of the user's own."""
        return ":" in self.model

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.options and not self.own:
            raise ValueError("options are for a class of your own, module:Class, which `model` is not")
        return self


SOURCES = ("checkpoint", "openclip", "transformers", "cross_encoder", "plugin")


class TeacherConfig(Section):
    """One frozen teacher: a checkpoint, a model of open_clip or transformers as it is, a re-ranker, or your own."""

    name: Name = Field(description="Its name in the score store.")
    checkpoint: Path | None = Field(
        None, description="Checkpoint file (ours or a published one), or the run folder of a network trained here."
    )
    openclip: TrunkConfig | None = Field(
        None, description="An open_clip model without training: cosines of sentences with frames and their mean."
    )
    transformers: TransformersConfig | None = Field(
        None, description="A dual encoder of transformers without training: cosines, as with openclip."
    )
    cross_encoder: CrossEncoderConfig | None = Field(
        None, description="A re-ranker: scores of the videos that another teacher finds best, no others."
    )
    plugin: str | None = Field(
        None, description="A teacher of your own: module:Class, or the name of an entry point in teachclip.teachers."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments for the plugin.")
    prepared: Location | None = Field(
        None,
        description="Frame cache that this teacher sees, below `work` or at an address; by default prepare.frames.",
    )
    text: Name | None = Field(
        None, description="Text encoder of features.texts, for a teacher on experts whose checkpoint names none."
    )
    frames: Positive | None = Field(
        None,
        description="Frame slots (12), for checkpoints that do not record them, openclip and transformers.",
    )
    words: Annotated[int, Field(ge=3)] | None = Field(
        None, description="Word slots, for checkpoints that do not record them (default 32) and openclip."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"a teacher is one of {', '.join(SOURCES)}; {self.name} has {found}")
        if self.plugin and (self.frames or self.words):
            raise ValueError(f"a plugin says its frames and words itself: give {self.name}'s in its options")
        if self.options and not self.plugin:
            raise ValueError(f"options are for a plugin, and {self.name} is none")
        if self.transformers and self.words:
            raise ValueError(f"a model of transformers has words of its own: leave out {self.name}'s")
        if self.cross_encoder and (self.frames or self.words):
            raise ValueError(f"a re-ranker takes what there is: leave out {self.name}'s frames and words")
        if self.cross_encoder and self.cross_encoder.by == self.name:
            raise ValueError(f"{self.name} cannot choose its own candidates: `by` is another teacher")
        if self.openclip:
            refuse_words(self.words, self.openclip)
        return self


class ScoreConfig(Section):
    """Stage one: frozen teachers -> score cache."""

    store: Location = Field(
        Path("scores.zarr"),
        description="The score store, below `work`, or an address: s3://bucket/scores.zarr.",
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
