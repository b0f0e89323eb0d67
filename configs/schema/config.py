"""The whole configuration: all its sections, and the paths that follow from them."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from ...errors import printable
from .data import DataConfig
from .demo import ShapesConfig
from .denoise import DenoiseConfig
from .evaluate import EvaluateConfig
from .prepare import FeaturesConfig, PrepareConfig
from .score import ScoreConfig, TeacherConfig
from .search import SearchConfig
from .section import Section
from .train import TrainConfig

# Where a relative path in a YAML file starts. The first kind: at the file's folder. The second, checkpoints that are
# read: at the file's folder when there is such a file or folder, else at `work`. Every other path lies below `work`.
FILE_PATHS = (
    *("work", "data.captions", "data.annotations", "data.videos", "data.unlabelled"),
    *("features.experts.*.file", "features.texts.*.file", "features.texts.*.captions"),
)
READ_PATHS = FILE_PATHS[1:5]  # these may be not UTF-8
CHECKPOINT_PATHS = (
    "features.texts.*.huggingface",
    "train.init",
    "train.network.trunk.weights",
    "score.teachers.*.checkpoint",
    "score.teachers.*.openclip.weights",
    "score.teachers.*.transformers.model",
    "score.teachers.*.cross_encoder.model",
    "evaluate.run",
    "search.run",
)


SHARED = "hf:"
"""Before the name of a model that is shared on a hub, in place of a path: `hf:OWNER/NAME[@REVISION]`."""


def cut_name(name: str) -> tuple[str, int | None]:
    """Of `NAME@64`, a model whose vectors are cut to 64 numbers: its name and the width; None where none is named."""
    model, _, width = name.rpartition("@")
    return (model, int(width)) if model and width.isdecimal() else (name, None)


class Config(Section):
    """One file configures every stage; each stage reads its own section."""

    work: Path = Field(Path("work"), description="Folder where everything made is kept.")
    data: DataConfig = Field(default_factory=DataConfig, description="Your captions and videos.")
    prepare: PrepareConfig = Field(default_factory=PrepareConfig, description="Videos -> frame cache.")
    features: FeaturesConfig = Field(
        default_factory=FeaturesConfig, description="Experts and text encoders -> feature caches."
    )
    score: ScoreConfig = Field(default_factory=ScoreConfig, description="Frozen teachers -> score cache.")
    denoise: DenoiseConfig = Field(
        default_factory=DenoiseConfig, description="Score cache -> mask of captions to leave out."
    )
    train: TrainConfig = Field(default_factory=TrainConfig, description="Score cache -> student.")
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig, description="Model -> ranks and metrics.")
    search: SearchConfig = Field(default_factory=SearchConfig, description="Model -> vectors, answers to sentences.")
    shapes: ShapesConfig = Field(default_factory=ShapesConfig, description="The demo's rendered data set.")

    @property
    def frames_folder(self) -> Path | str:
        """The frame cache: a folder, or an address."""
        return self._place(self.prepare.frames)

    def expert_folder(self, name: str) -> Path:
        """The feature cache of an expert."""
        return self.work / self.features.folder / "videos" / name

    def words_folder(self, name: str) -> Path:
        """The feature cache of a text encoder."""
        return self.work / self.features.folder / "captions" / name

    @property
    def score_store(self) -> Path | str:
        """The score store: a folder, or an address."""
        return self._place(self.score.store)

    @property
    def class_tokens_folder(self) -> Path:
        """Class tokens of a frozen trunk, cached by training."""
        return self.work / "features"

    @property
    def denoise_mask(self) -> Path:
        """The mask that `denoise` writes."""
        return self.work / self.denoise.mask

    @property
    def captions_mask(self) -> Path | None:
        """The mask that training reads."""
        return None if self.train.captions_mask is None else self.work / self.train.captions_mask

    @property
    def run_folder(self) -> Path:
        """What training writes."""
        return self.work / self.train.run

    @property
    def init_checkpoint(self) -> Path | None:
        """What training starts from."""
        return None if self.train.init is None else self._model(self.train.init)

    @property
    def evaluate_run(self) -> Path:
        """The run folder or checkpoint that is evaluated."""
        return self._model(self.evaluate.run)

    @property
    def search_run(self) -> Path:
        """The run folder or checkpoint that embeds."""
        return self._model(self.search.run)

    @property
    def index_folder(self) -> Path:
        """The vectors that are searched."""
        return self.work / self.search.index

    def _model(self, path: Path) -> Path:
        """A model below `work`, or a shared one by its name."""
        return path if str(path).startswith(SHARED) else self.work / path

    def teacher_checkpoint(self, teacher: TeacherConfig) -> Path | None:
        """The checkpoint file or run folder of `teacher`, when it has one."""
        return None if teacher.checkpoint is None else self._model(teacher.checkpoint)

    def teacher_frames(self, teacher: TeacherConfig) -> Path | str:
        """The frame cache that `teacher` sees: a folder, or an address."""
        return self._place(teacher.prepared or self.prepare.frames)

    def _place(self, place: Path | str) -> Path | str:
        """A folder below `work`, or an address."""
        return place if isinstance(place, str) else self.work / place

    @model_validator(mode="after")
    def _fits(self) -> Self:
        # Each message starts with the key it is about: that is how the loader finds the line.
        if printable(str(self.work)) != str(self.work):
            raise ValueError(f"work: {printable(str(self.work))} is not UTF-8: what opens it takes no other names")
        names = [teacher.name for teacher in self.score.teachers]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"score.teachers: each needs a name of its own, {', '.join(sorted(repeated))} is repeated")
        for key, named in (("train.teachers", self.train.teachers), ("denoise.teachers", self.denoise.teachers)):
            if twice := sorted({name for name in named if named.count(name) > 1}):
                raise ValueError(f"{key}: {', '.join(twice)} is named twice")
        if self.train.teaching == "online" and (unknown := sorted(set(self.train.teachers) - set(names))):
            raise ValueError(f"train.teachers: teaching online needs {', '.join(unknown)} among score.teachers")
        if self.train.optim.optimiser == "adam" and self.train.optim.weight_decay > 0:
            raise ValueError(
                "train.optim.weight_decay: Adam has no decoupled decay; set it to 0 or train.optim.optimiser to adamw"
            )
        if mistake := self.train.loss.mistake(self.train.teachers):
            raise ValueError(mistake)
        if self.train.unlabelled and (mistake := self._unlabelled_mistake):
            raise ValueError(f"train.unlabelled: {mistake}")
        network = self.train.network
        if network.on_experts and (mistake := self._experts_mistake):
            raise ValueError(mistake)
        if network.kind != "student" and not network.on_experts and self.train.teachers:
            raise ValueError(
                f"train.teachers: a teacher is trained by itself; leave `teachers` empty for kind {network.kind}"
            )
        if network.kind == "ts2net" and self.train.trunk == "frozen":
            raise ValueError("train.trunk: TS2-Net reads every patch of the trunk, not class tokens alone; use `full`")
        if network.pooling == "mean" and self.train.teachers and self.train.loss.fine > 0:
            raise ValueError(
                "train.loss.fine: mean pooling has no frame weights to teach; "
                "set train.loss.fine to 0 or train.network.pooling to afa"
            )
        return self

    @property
    def _experts_mistake(self) -> str | None:
        """What does not fit a network on expert features; begins with the key it is about."""
        train, kind = self.train, self.train.network.kind
        of_trunks = {
            "trunk": train.trunk == "frozen",
            "compile": train.compile,
            "channels_last": train.channels_last,
            "recompute": train.recompute,
        }
        for key, asked in of_trunks.items():
            if asked:
                return f"train.{key}: {kind} has no trunk; leave it as it is by default"
        if train.loss.matryoshka:
            return f"train.loss.matryoshka: {kind} has no single vector to cut; set it to []"
        if train.chunk is not None:
            return f"train.chunk: {kind} normalises over the batch, which cannot be cut into chunks; set it to null"
        if not train.teachers:
            return None
        if train.loss.fine > 0:
            return f"train.loss.fine: {kind} has no frame weights to teach; set train.loss.fine to 0"
        if train.loss.coarse_kind == "huber" and train.loss.coarse_on == "logits":
            return (
                f"train.loss.coarse_on: Huber compares numbers, and logits of teachers are some 100 times the "
                f"scores of {kind}; set train.loss.coarse_on to cosines or standardised"
            )
        return None

    @property
    def _unlabelled_mistake(self) -> str | None:
        """Why no step can have videos without captions."""
        if self.data.unlabelled is None and self.data.uncaptioned == "report":
            return "there are no videos without captions; name their folder as data.unlabelled, or set data.uncaptioned"
        if self.train.loss.coarse == 0:
            return "videos without captions are in the coarse loss alone, and train.loss.coarse is 0"
        if not self.train.teachers and self.train.loss.coarse_target == "teacher":
            return "nobody says how captions fit videos that have none; name train.teachers, or set it to 0"
        return None
