"""Everything that can be configured, one frozen model per stage.

Free of torch and of every other heavy import, so that `teachclip --help` and a typing mistake are answered at once.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from .losses import LossConfig
from .section import Fraction, Location, Name, Positive, Section, Seed, Weight
from .videos import DataConfig, PrepareConfig

# Where a relative path in a YAML file starts. The first kind: at the file's folder. The second, checkpoints that are
# read: at the file's folder when there is such a file or folder, else at `work`. Every other path lies below `work`.
FILE_PATHS = ("work", "data.captions", "data.annotations", "data.videos")
CHECKPOINT_PATHS = (
    "train.init",
    "train.network.trunk.weights",
    "score.teachers.*.checkpoint",
    "score.teachers.*.openclip.weights",
    "evaluate.run",
    "search.run",
)


class TrunkSizes(Section):
    """Sizes of a CLIP trunk built from scratch (heads are width // 64 unless given)."""

    image_size: Positive = 224
    patch_size: Positive = 32
    vision_width: Positive = 768
    vision_layers: Positive = 12
    vision_heads: Positive | None = None
    vision_mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    text_width: Positive = 512
    text_layers: Positive = 12
    text_heads: Positive | None = None
    embed_dim: Positive = 512
    context_length: Positive = 77
    vocab_size: Positive = 49408
    quick_gelu: bool = True


class TrunkConfig(Section):
    """The CLIP trunk: an open_clip model by name, or sizes of one's own."""

    model: str = Field("ViT-B-32-quickgelu", description="open_clip model name; ignored when `sizes` is given.")
    sizes: TrunkSizes | None = Field(None, description="Build a trunk of these sizes instead of a named model.")
    weights: str | None = Field(
        "openai", description="open_clip pretrained tag, a weights file, or null for random weights."
    )


class Ts2NetConfig(Section):
    """What is special to TS2-Net: token shift and token selection (specs: TS2-Net 1, 2)."""

    shift_layers: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (10, 11), description="Visual blocks with token shift, from 0 (authors: 10, 11; TeachCLIP runs it with none)."
    )
    selected: Positive = Field(3, description="Patches selected per frame.")
    samples: Positive = Field(500, description="Samples of the perturbed top-k.")
    sigma: Weight = Field(0.05, description="Standard deviation of its noise; 0 is the hard top-k.")


class XPoolConfig(Section):
    """What is special to X-Pool (specs: X-Pool 3, 4)."""

    heads: Positive = Field(1, description="Heads of the pooling attention (released: 1).")
    dropout: Fraction = Field(0.3, description="Dropout of the pooling, in training (released: 0.3, or 0.4).")


class DrlConfig(Section):
    """What is special to DRL (specs: DRL 1, 4, 5)."""

    interaction: Literal["wti", "ti", "dp"] = Field(
        "wti", description="Weighted token-wise interaction (published), unweighted, or the dot product of two vectors."
    )
    layers: Literal[1, 2, 3] = Field(2, description="Linear layers of the weight networks (published: 2).")
    frame_scores: Literal["temporal", "trunk", "best-word"] = Field(
        "temporal",
        description="Frame-text scores: the sentence with frames after the temporal transformer, with CLIP's frames, "
        "or each frame's best word; no released code says which.",
    )
    cdcr: Literal[0, 1, 2, 3] = Field(3, description="Channel decorrelation in training: 0 for none (published: 3).")
    cdcr_alpha1: Weight = Field(0.11, description="Its weight on the diagonal (README 0.11, script 0.14).")
    cdcr_alpha2: Weight = Field(0.0, description="Its weight off the diagonal (published: 0).")
    cdcr_weight: Weight = Field(0.001, description="Its weight beside InfoNCE (published: 0.001).")

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if self.cdcr == 3 and self.interaction != "wti":
            raise ValueError(
                f"cdcr: 3 takes the weights of words and frames, which interaction {self.interaction} does not have; "
                "set cdcr to 0, 1 or 2, or interaction to wti"
            )
        return self


class NetworkConfig(Section):
    """The network that is trained: the student, or a teacher by itself."""

    kind: Literal["student", "xclip", "ts2net", "xpool", "drl", "openclip"] = Field(
        "student", description="The light student, or a teacher; openclip is CLIP with the mean of its frames."
    )
    pooling: Literal["afa", "mean"] = Field(
        "afa", description="How the student makes one vector of its frames (afa: TeachCLIP; mean: CLIP4Clip)."
    )
    trunk: TrunkConfig = Field(default_factory=TrunkConfig, description="The CLIP trunk.")
    words: Annotated[int, Field(ge=3)] = Field(32, description="Word slots per caption, SOT and EOT included.")
    frames: Positive = Field(12, description="Frame slots per video.")
    temporal_layers: Annotated[int, Field(ge=0)] = Field(
        4,
        description="Layers of the temporal transformer; X-Pool and openclip have none, whatever is set here.",
        validate_default=True,
    )
    mask_padding: bool = Field(
        True,
        description="Leave padded frames out of the AFA weights, X-Pool's attention and the fine loss "
        "(published code: no).",
    )
    pool_temperature: Annotated[float, Field(gt=0)] = Field(
        0.1, description="Temperature of the AFA weights that pool; the supervised ones are at 1 (code: 0.1, paper: 1)."
    )
    normalise_frames: bool = Field(True, description="L2-normalise frames before pooling (code: yes, paper: no).")
    ts2net: Ts2NetConfig = Field(default_factory=Ts2NetConfig, description="TS2-Net's own settings.")
    xpool: XPoolConfig = Field(default_factory=XPoolConfig, description="X-Pool's own settings.")
    drl: DrlConfig = Field(default_factory=DrlConfig, description="DRL's own settings.")

    @field_validator("temporal_layers")
    @classmethod
    def _without_temporal_transformer(cls, layers: int, info: ValidationInfo) -> int:
        """Recipes set the layers for every kind; here they become what the network has, so that networks compare."""
        return 0 if info.data.get("kind") in ("xpool", "openclip") else layers


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


class OptimConfig(Section):
    """Optimiser, parameter groups and schedule."""

    optimiser: Literal["adamw", "adam", "bert-adam"] = Field(
        "adamw", description="AdamW, Adam, or CLIP4Clip's BertAdam (no bias correction)."
    )
    lr: Annotated[float, Field(gt=0)] = Field(1e-4, description="Learning rate of the temporal transformer.")
    trunk_lr: Annotated[float, Field(ge=0)] = Field(1e-7, description="Learning rate of the CLIP trunk.")
    afa_lr: Annotated[float, Field(gt=0)] = Field(1e-3, description="Learning rate of AFA (code: 1e-3, paper: 1e-4).")
    weight_decay: Weight = Field(0.2, description="Decoupled weight decay.")
    warmup: Fraction = Field(0.1, description="Share of the steps with linear warm-up, before the cosine.")
    clip_norm: Annotated[float, Field(gt=0)] | None = Field(
        1.0, description="The norm of all gradients is clipped to this (code: 1; paper: none)."
    )
    tensor_clip_norm: Annotated[float, Field(gt=0)] | None = Field(
        None, description="After that, the norm of each tensor's gradient is clipped to this (BertAdam: 1)."
    )
    freeze: Literal["published", "none"] = Field(
        "published", description="`published` freezes patch conv, embeddings, ln_pre; `none` trains everything."
    )


class TrainConfig(Section):
    """Stage two: score cache -> student; also trains teachers and baselines."""

    run: Path = Field(Path("runs/student"), description="Run folder, below `work`.")
    network: NetworkConfig = Field(default_factory=NetworkConfig, description="What is trained.")
    init: Path | None = Field(None, description="Checkpoint to start from (for example a pre-trained trunk).")
    trunk: Literal["full", "frozen"] = Field(
        "full", description="`frozen` caches the visual trunk's class tokens once and trains everything behind them."
    )
    teachers: tuple[Name, ...] = Field((), description="Teachers in the score store that teach; none trains alone.")
    captions_mask: Path | None = Field(
        None, description="Mask of captions that are left out, below `work`, as `teachclip denoise` writes it."
    )
    accept: tuple[Literal["pixels"], ...] = Field(
        (),
        description="`pixels`: scores of the same data set prepared elsewhere may teach; only the pixels may differ.",
    )
    teaching: Literal["cached", "online"] = Field(
        "cached", description="Scores from the store, or from the teachers inside the training step (published way)."
    )
    loss: LossConfig = Field(default_factory=LossConfig, description="Losses and weights.")
    optim: OptimConfig = Field(default_factory=OptimConfig, description="Optimiser and schedule.")
    batch_size: Annotated[int, Field(gt=1)] = Field(120, description="Pairs per step (code: 120, paper: 240).")
    epochs: Positive = Field(10, description="Passes over the captions.")
    max_steps: Positive | None = Field(None, description="Stop after this many steps; the schedule ends there.")
    seed: Seed = Field(42, description="Seed of weights, order and everything random.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where training runs.")
    precision: Literal["auto", "float32", "bf16"] = Field("auto", description="auto: bf16 on a GPU, else float32.")
    compile: bool = Field(
        False, description="torch.compile for the transformer blocks; takes minutes at first, changes the last bits."
    )
    channels_last: bool = Field(
        False, description="Channels innermost in the patch convolution; changes the last bits."
    )
    recompute: bool = Field(
        False,
        description="Keep only the inputs of blocks, compute the rest again (gradient checkpointing): less memory.",
    )
    chunk: Positive | None = Field(
        None,
        description="Pairs that each process encodes at a time, in two passes: the batch's losses in a chunk's memory.",
    )
    prefetch: Positive = Field(4, description="Batches read ahead in the background.")
    label_reader: Literal["auto", "thread", "process"] = Field(
        "auto",
        description="Who reads labels: a thread of training's, or a process of its own, which leaves its interpreter "
        "alone; auto: a process on a GPU.",
    )
    frames: Literal["auto", "stream", "host", "device"] = Field(
        "auto",
        description="Frames are read batch by batch, or kept in host memory (one copy a machine) or on the GPU; auto: "
        "on the GPU, or JPEG decoded in host memory, if that takes a quarter of what is free; else batch by batch.",
    )
    checkpoint_seconds: Annotated[float, Field(gt=0)] = Field(
        60.0, description="A checkpoint to go on from is written at least this often, and after every epoch."
    )
    keep: Positive = Field(2, description="Checkpoints to go on from that are kept, the newest; beside them the best.")
    deterministic: bool = Field(
        False, description="The same bits from every run on the same GPU, at some cost; on the CPU it is always so."
    )
    max_loss_ratio: Annotated[float, Field(gt=1)] | None = Field(
        5.0, description="Stop when the loss is above so many times the median of 100 steps, for 20 steps; null: never."
    )
    tensorboard: bool = Field(True, description="Curves for TensorBoard in the run folder, beside metrics.jsonl.")
    validate_every: Positive = Field(1, description="Epochs between validations.")
    select_by: Literal["sumr", "r1", "mean-rank"] = Field("sumr", description="Validation metric that picks the best.")


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


class EvaluateConfig(Section):
    """Ranks and metrics of a model on a split."""

    run: Path = Field(Path("runs/student"), description="Run folder or checkpoint that is evaluated.")
    split: Literal["train", "val", "test"] = Field("test", description="Split that is evaluated.")
    ties: Literal["fair", "published"] = Field(
        "fair", description="fair: expected rank among equals; published: every tied position counts."
    )
    rerank: Literal["none", "dual-softmax", "query-bank"] = Field(
        "none",
        description="Change scores at test time: dual-softmax looks at the other test queries, query-bank at training "
        "captions; marked in every output, and not comparable with plain numbers (docs/evaluation.md).",
    )
    rerank_temperature: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Its temperature on raw scores (cosines); by default 1 / logit scale, and 0.05 for query-bank.",
    )
    bank_captions: Positive = Field(
        5000, description="Training captions in the query bank, drawn with a fixed seed; all when there are fewer."
    )
    block: Positive = Field(512, description="Texts and videos compared at a time.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model runs.")


class SearchConfig(Section):
    """Vectors of videos and answers to sentences."""

    run: Path = Field(Path("runs/student"), description="Run folder or checkpoint that embeds.")
    index: Path = Field(Path("index"), description="Folder of the vectors, below `work`.")
    top: Positive = Field(5, description="Answers per query.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model runs.")


class ShapesConfig(Section):
    """The demo's data set: clips of coloured shapes that move one after the other, and pictures of such shapes."""

    train_clips: Positive = Field(1000, description="Clips to train on, five captions each.")
    val_clips: Positive = Field(400, description="Clips to validate on.")
    test_clips: Positive = Field(400, description="Clips to test on.")
    size: Annotated[int, Field(ge=64, multiple_of=2)] = Field(64, description="Width and height of clips, in pixels.")
    seed: Seed = Field(7, description="Seed of everything drawn.")
    pictures: Positive = Field(20_000, description="Captioned single pictures that the trunk is pre-trained on.")
    picture_steps: Positive = Field(1600, description="Steps of the pre-training.")
    picture_batch: Annotated[int, Field(gt=1)] = Field(128, description="Pictures per step of the pre-training.")
    picture_lr: Annotated[float, Field(gt=0)] = Field(2e-3, description="Learning rate of the pre-training.")


class Config(Section):
    """One file configures every stage; each stage reads its own section."""

    work: Path = Field(Path("work"), description="Folder where everything made is kept.")
    data: DataConfig = Field(default_factory=DataConfig, description="Your captions and videos.")
    prepare: PrepareConfig = Field(default_factory=PrepareConfig, description="Videos -> frame cache.")
    score: ScoreConfig = Field(default_factory=ScoreConfig, description="Frozen teachers -> score cache.")
    denoise: DenoiseConfig = Field(
        default_factory=DenoiseConfig, description="Score cache -> mask of captions to leave out."
    )
    train: TrainConfig = Field(default_factory=TrainConfig, description="Score cache -> student.")
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig, description="Model -> ranks and metrics.")
    search: SearchConfig = Field(default_factory=SearchConfig, description="Model -> vectors, answers to sentences.")
    shapes: ShapesConfig = Field(default_factory=ShapesConfig, description="The demo's rendered data set.")

    @property
    def frames_folder(self) -> Path:
        """The frame cache."""
        return self.work / self.prepare.frames

    @property
    def score_store(self) -> Path | str:
        """The score store: a folder, or an address."""
        store = self.score.store
        return store if isinstance(store, str) else self.work / store

    @property
    def features_folder(self) -> Path:
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
        return None if self.train.init is None else self.work / self.train.init

    @property
    def evaluate_run(self) -> Path:
        """The run folder or checkpoint that is evaluated."""
        return self.work / self.evaluate.run

    @property
    def search_run(self) -> Path:
        """The run folder or checkpoint that embeds."""
        return self.work / self.search.run

    @property
    def index_folder(self) -> Path:
        """The vectors that are searched."""
        return self.work / self.search.index

    def teacher_checkpoint(self, teacher: TeacherConfig) -> Path | None:
        """The checkpoint file or run folder of `teacher`, when it has one."""
        return None if teacher.checkpoint is None else self.work / teacher.checkpoint

    def teacher_frames(self, teacher: TeacherConfig) -> Path:
        """The frame cache that `teacher` sees."""
        return self.work / (teacher.prepared or self.prepare.frames)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        # Each message starts with the key it is about: that is how the loader finds the line.
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
        network = self.train.network
        if network.kind != "student" and self.train.teachers:
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
