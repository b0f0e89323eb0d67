"""Section `train`: optimiser, epochs, what is kept."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from .losses import LossConfig
from .network import NetworkConfig
from .section import Fraction, Name, Positive, Section, Seed, Weight


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
        None, description="Mask of captions that are left out, below `work`, as the stage denoise writes it."
    )
    accept: tuple[Literal["pixels"], ...] = Field(
        (),
        description="`pixels`: scores of the same data set prepared elsewhere may teach; only the pixels may differ.",
    )
    teaching: Literal["cached", "online"] = Field(
        "cached", description="Scores from the store, or from the teachers inside the training step (published way)."
    )
    online_precision: Literal["float32", "bf16"] = Field(
        "float32", description="Of the encoders of teachers inside the step; scores are float32, as is what is cached."
    )
    unlabelled: Annotated[int, Field(ge=0)] = Field(
        0, description="Videos without captions that the coarse loss sees beside the pairs of a step; 0: none."
    )
    loss: LossConfig = Field(default_factory=LossConfig, description="Losses and weights.", validate_default=True)
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
        "on the GPU, if they fit beside a step, or JPEG decoded in host memory, if that takes a quarter of what is "
        "free; else batch by batch.",
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

    @field_validator("loss")
    @classmethod
    def _whole_of_what_nobody_teaches(cls, loss: LossConfig, info: ValidationInfo) -> LossConfig:
        """A teacher is trained by InfoNCE itself, beside which DRL's own loss is weighed: at 1, unless it is named."""
        network = info.data.get("network")
        alone = network is not None and network.kind != "student" and "infonce" not in loss.model_fields_set
        return loss.model_copy(update={"infonce": 1.0}) if alone else loss
