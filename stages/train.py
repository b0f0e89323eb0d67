"""Stage two: train a student from cached teacher scores, without teachers, or a teacher by itself.

TeachCLIP section 3; the recipes are in configs/recipes.
"""

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..cache.files import publishing
from ..cache.frames import FrameCache
from ..cache.stream import read_ahead
from ..configs.schema import Config, TrainConfig
from ..errors import ConfigError, TrainingError
from .batches import Batch, BatchReader, Order
from .data.tokens import tokenize
from .device import autocast, choose_device
from .inputs import FrameInputs, VideoInputs, check_fits, frozen_inputs
from .labels import OnlineTeacher, online_teachers, teacher_inputs
from .losses import Losses, LossParts
from .material import Material, open_material
from .models.build import build_network
from .models.checkpoints import load_network, save_network
from .models.network import VideoTextNetwork
from .optim import build_optimiser
from .own_losses import loss_identity
from .reporting import Reporter, Silent
from .retrieval import measure
from .runs import RunFolder

LOG_EVERY = 20  # steps between readings of the losses, each of which waits for the GPU


@dataclass(frozen=True)
class TrainResult:
    """What a finished run was trained on, and which network it chose.

    `other_pixels`: per teacher, videos whose frames are others than those it scored, as `train.accept` allowed.
    `blocks`: of videos, within which batches were drawn.
    """

    run: str
    checkpoint: str
    steps: int
    texts: int
    videos: int
    left_out_videos: int
    teachers: tuple[str, ...]
    best: dict[str, Any]
    seconds: float
    data_wait: float
    already_done: bool
    masked_texts: int = 0
    other_pixels: dict[str, int] = field(default_factory=dict)
    blocks: int = 1


def train(config: Config, reporter: Reporter | None = None) -> TrainResult:
    """Train what `config.train` describes; a killed run goes on, a finished one is only reported.

    Raises:
        DataError: nothing to train on.
        CacheError: frames or scores are missing or incomplete.
        CacheMismatchError: the run folder, the frames or the scores were made from something else.
        TrainingError: the loss is not finite.
    """
    reporter = reporter or Silent()
    material = open_material(config, reporter)
    folder = RunFolder(config.run_folder)
    folder.claim(config, material.identity() | loss_identity(config.train.loss))
    if (done := folder.result) is not None:
        return TrainResult(**{**done, "teachers": tuple(done["teachers"]), "already_done": True})
    if material.train.left_out:
        reporter.warn(f"{material.train.left_out} training videos have no usable frames and are left out")
    result = _Run(config, material, folder, reporter).go()
    folder.finish(asdict(result))
    return result


def _build(config: Config, frames: FrameCache, device: torch.device) -> VideoTextNetwork:
    settings = config.train
    torch.manual_seed(settings.seed)
    if (init := config.init_checkpoint) is None:
        network = build_network(settings.network)
    else:
        network = load_network(init)
        wanted = settings.network.model_copy(update={"trunk": network.config.trunk})
        if network.config != wanted:
            raise ConfigError(
                f"train.init holds another network: {network.config!r}, but train.network asks for {wanted!r}",
                where=str(init),
            )
    check_fits(network, frames, config.frames_folder)
    if settings.trunk == "frozen":
        network.freeze_class_tokens()
    return network.to(device)


class _Step(NamedTuple):
    """What is kept of a step until its losses are read."""

    step: int
    videos: np.ndarray
    parts: LossParts
    norm: Tensor
    lrs: dict[str, float]


class _Run:
    """The steps of one run."""

    def __init__(self, config: Config, material: Material, folder: RunFolder, reporter: Reporter) -> None:
        self.config, self.settings, self.material = config, config.train, material
        self.folder, self.reporter = folder, reporter
        self.device = choose_device(self.settings.device)
        self.network = _build(config, material.frames, self.device)
        self.train_inputs, self.val_inputs = self._inputs()
        texts = len(material.train.texts)
        self.order = Order(texts, min(self.settings.batch_size, texts), self.settings.seed, material.groups)
        self.steps = _total_steps(self.settings, self.order)
        self.optimiser = build_optimiser(self.network, self.settings.optim, self.steps)
        self.online = self._online_teachers()
        self.losses = Losses(self.settings.loss, self.settings.teachers)
        self.val_ids = tokenize(material.val.captions, self.settings.network.words)[0]
        self.read = self._batch_reader()
        self.unread: list[_Step] = []
        self.best: dict[str, Any] = {}
        self.earlier_seconds = 0.0
        self.began = time.perf_counter()

    def go(self) -> TrainResult:
        """Train from where the run was left to its end."""
        start = self._resume()
        if (blocks := self._blocks) > 1:
            left = f"{self.order.left_over:,} of {self.order.texts:,} captions of an epoch are left to others"
            self.reporter.info(f"each batch is of one of {blocks} blocks of videos; {left}")
        self.network.train()
        self.began = saved = time.perf_counter()
        items = self.order.steps(start, self.steps)
        title = f"train {self.folder.folder.name}"
        with (
            read_ahead(self.read, items, self.settings.prefetch) as batches,
            self.reporter.progress(title, self.steps, "step", done=start) as progress,
        ):
            for batch in batches:
                self._step(batch)
                done = batch.step + 1
                ends_epoch = done % self.order.steps_per_epoch == 0 or done == self.steps
                due = time.perf_counter() - saved > self.settings.checkpoint_seconds
                if ends_epoch or due or len(self.unread) == LOG_EVERY:
                    progress.advance(len(self.unread), **self._read_losses(batches.waited))
                if ends_epoch:
                    self._validate(done)
                if ends_epoch or due:
                    self._save(done)
                    saved = time.perf_counter()
            waited = batches.waited
        return self._result(waited)

    def _step(self, batch: Batch) -> None:
        """One optimiser step; its losses stay on the device until `_read_losses`."""
        batch = batch.to(self.device)
        # Noise (dropout, token selection) that a resumed run draws again.
        torch.manual_seed(int(np.random.SeedSequence([self.settings.seed, batch.step]).generate_state(1)[0]))
        with autocast(self.device, self.settings.precision):
            texts = self.network.encode_texts(batch.ids)
            videos = self.network.encode_videos(batch.frames, batch.mask)
        with torch.autocast(self.device.type, enabled=False):
            scale = self.network.logit_scale.exp()
            scales = [cached.scale for cached in self.material.cached] + [online.scale for online in self.online]
            logits = scale * self.network.score(texts, videos)
            teacher_logits, teacher_frames = self._soft_labels(batch)
            same = torch.from_numpy(batch.videos[:, None] == batch.videos[None, :]).to(self.device)
            parts = self.losses(
                logits,
                videos.get("raw_weights"),
                teacher_logits,
                teacher_frames,
                batch.mask if self.settings.network.mask_padding else None,
                same.fill_diagonal_(False) if self.settings.loss.mask_same_video else None,
                student_scale=scale,
                teacher_scales=scales,
            )
            if (auxiliary := self.network.auxiliary_loss(texts, videos)) is not None:
                parts = parts.with_auxiliary(auxiliary)
        self.optimiser.zero_grad()
        parts.total.backward()  # type: ignore[no-untyped-call]
        norm = self.optimiser.step()
        parts = LossParts(*(value.detach() for value in parts))
        self.unread.append(_Step(batch.step, batch.videos, parts, norm, dict(self.optimiser.lrs)))

    def _soft_labels(self, batch: Batch) -> tuple[list[Tensor], list[Tensor | None]]:
        """Per teacher: video-text logits [b, b]; and frame-text logits [b, F], None where the fine loss does not want
        them or the teacher has none."""
        coarse: list[Tensor] = []
        fine: list[Tensor | None] = []
        for cached, labels in zip(self.material.cached, batch.labels, strict=True):
            coarse.append(torch.from_numpy(labels.coarse).to(self.device) * cached.scale)
            fine.append(None if labels.frame_logits is None else torch.from_numpy(labels.frame_logits).to(self.device))
        captions = [self.material.train.texts[k].caption for k in batch.texts]
        for online in self.online:
            scores, frame_logits = online.labels(captions, batch.videos, batch.uint8_frames, self.device)
            coarse.append(scores * online.scale)
            fine.append(frame_logits)
        return coarse, fine

    def _read_losses(self, waited: float) -> dict[str, float]:
        """Write the losses of the last steps to the log; the newest are shown beside the progress."""
        shown: dict[str, float] = {}
        for step in self.unread:
            losses = {key: float(value) for key, value in step.parts._asdict().items()}
            self._refuse_not_finite(step, losses)
            shown = {"loss": losses.pop("total")}
            line = {"kind": "train", "step": step.step + 1, "epoch": self.order.epoch(step.step), **shown, **losses}
            line |= {"grad_norm": float(step.norm), "lr": step.lrs}
            self.folder.log(line | {"seconds": self._seconds(), "data_wait": waited})
        self.unread.clear()
        return shown

    def _refuse_not_finite(self, step: _Step, losses: dict[str, float]) -> None:
        if all(math.isfinite(value) for value in losses.values()):
            return
        videos = [self.material.train.videos[k] for k in step.videos]
        raise TrainingError(
            f"the loss is not finite at step {step.step + 1}: {losses}",
            where=str(self.folder.folder),
            details=["videos of the batch: " + ", ".join(videos[:20])],
            hint="look at these videos' frames, or lower train.optim.lr; the last checkpoint before is kept",
        )

    def _validate(self, done: int) -> None:
        """Measure on the validation split, and keep the network when it is the best so far."""
        epoch = self.order.epoch(done - 1)
        if done != self.steps and (epoch + 1) % self.settings.validate_every:
            return
        if not self.material.val.texts:
            if done == self.steps:
                self._choose(done, epoch, "last step: there is no validation split", 0.0)
            return
        metrics = measure(
            self.network, self.val_ids, self.material.val.text_video, self.val_inputs, Silent(), ties="fair"
        )
        by = self.settings.select_by
        value = -metrics["t2v"].mnr if by == "mean-rank" else getattr(metrics["t2v"], by)
        better = not self.best or value > self.best["value"]
        if better:
            self._choose(done, epoch, f"{by} (text to video) on the validation split", value)
        self.folder.log(
            {"kind": "val", "step": done, "epoch": epoch, "selected": better}
            | {way: asdict(result) for way, result in metrics.items()}
        )

    def _choose(self, done: int, epoch: int, by: str, value: float) -> None:
        with publishing(self.folder.best) as path:
            save_network(self.network, path)
        self.best = {"step": done, "epoch": epoch, "chosen_by": by, "value": value}

    def _save(self, done: int) -> None:
        self.folder.save(
            {
                "step": done,
                "seconds": self._seconds(),
                "best": self.best,
                "weights": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
            }
        )

    def _resume(self) -> int:
        """The step to go on from: 0 for a fresh run."""
        state = self.folder.resume()
        if state is None:
            return 0
        self.network.load_state_dict(state["weights"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.best, self.earlier_seconds = state["best"], state["seconds"]
        self.reporter.info(f"goes on at step {state['step']} of {self.steps}")
        return int(state["step"])

    def _seconds(self) -> float:
        return self.earlier_seconds + time.perf_counter() - self.began

    def _inputs(self) -> tuple[VideoInputs, VideoInputs]:
        """What the network sees of the training and of the validation videos."""
        frames, train_videos, val_videos = self.material.frames, self.material.train.videos, self.material.val.videos
        if self.settings.trunk == "full":
            return FrameInputs(frames, train_videos), FrameInputs(frames, val_videos)
        tokens = frozen_inputs(
            self.network, frames, train_videos + val_videos, self.config.features_folder, self.reporter
        )
        edge = len(train_videos)
        return tokens.part(0, edge), tokens.part(edge, edge + len(val_videos))

    def _online_teachers(self) -> tuple[OnlineTeacher, ...]:
        if self.settings.teaching == "cached":
            return ()
        material = self.material
        return online_teachers(self.config, material.train, material.frames, material.seen, self.device, self.reporter)

    def _batch_reader(self) -> BatchReader:
        split = self.material.train
        return BatchReader(
            ids=tokenize(split.captions, self.settings.network.words)[0],
            text_video=split.text_video,
            inputs=self.train_inputs,
            cached=self.material.cached,
            teacher_frames=teacher_inputs(self.online, self.material.seen, split.videos),
            pin=self.device.type == "cuda",
        )

    @property
    def _blocks(self) -> int:
        groups = self.material.groups
        return 1 if groups is None else int(groups.max()) + 1

    def _result(self, waited: float) -> TrainResult:
        split = self.material.train
        return TrainResult(
            run=str(self.folder.folder),
            checkpoint=str(self.folder.best),
            steps=self.steps,
            texts=len(split.texts),
            videos=len(split.videos),
            left_out_videos=split.left_out,
            teachers=self.settings.teachers,
            best=self.best,
            seconds=self._seconds(),
            data_wait=waited,
            already_done=False,
            masked_texts=self.material.masked.texts if self.material.masked else 0,
            other_pixels={
                teacher.name: count
                for teacher in self.material.cached
                if (count := int(np.count_nonzero(teacher.other_pixels)))
            },
            blocks=self._blocks,
        )


def _total_steps(settings: TrainConfig, order: Order) -> int:
    steps = settings.epochs * order.steps_per_epoch
    return min(steps, settings.max_steps) if settings.max_steps else steps
