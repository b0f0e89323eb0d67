"""The loop of one training run, from its start or where it was left, to its result."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ...cache.frames.cache import FrameCache
from ...cache.read_ahead import ReadAhead, read_ahead
from ...cache.scores.reading.label_threads import LabelThreads
from ...configs.schema import Config, TrainConfig
from ...errors import ConfigError, StoppedEarly
from ...plurals import counted
from ..data.usable_split import UsableSplit
from ..data.video_inputs import DeviceFrames, FrameInputs, MemoryInputs, TextInputs, VideoInputs
from ..data.views import ExpertView, View, view_inputs
from ..labels.cached import label_source
from ..labels.online import OnlineTeacher, online_teachers, teacher_inputs
from ..models.build import build_network
from ..models.checkpoints.files import load_network, trained_with
from ..models.common.network import RetrievalNetwork, VideoTextNetwork
from ..models.shortened import check_widths
from ..retrieval.encode import measure
from ..retrieval.fits import check_fits
from ..retrieval.metrics import Metrics
from ..retrieval.teachtext import geometric_mean
from ..runtime.device import choose_device, resolved, tell_device
from ..runtime.processes import World
from ..runtime.reporting import Progress, Reporter, Silent
from ..runtime.run_folder import RunFolder
from ..runtime.stopping import StopRequest
from .dataloader.batch import Batch, BatchLoader
from .dataloader.frozen_tokens import frozen_inputs
from .dataloader.resident_frames import frame_inputs
from .dataloader.sampler import BatchSampler, VideoSampler
from .dataloader.to_device import DeviceBatches, on_device
from .losses.combined import Losses
from .record.checkpoints import Checkpointer
from .record.environment import environment
from .record.monitor import Monitor
from .step.memory import count_step, encoded_at_once
from .step.optimizer import build_optimizer
from .step.speed import prepare_for_speed
from .step.training_step import TrainingStep
from .training_data import TrainingData

LOG_EVERY = 20  # steps between readings of the losses, each of which waits for the GPU
AGREE_EVERY = 4  # steps after which several processes ask each other whether to stop, which makes all wait for one


@dataclass(frozen=True)
class TrainResult:
    """What a finished run was trained on, and which network it chose.

    `other_pixels`: per teacher, videos whose frames are others than those it scored, as `train.accept` allowed.
    `blocks`: of videos, within which batches were drawn.
    `seed`: of weights, order and everything random. `left_over`: captions of an epoch that are left to others.
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
    seed: int = 0
    left_over: int = 0


def _build(config: Config, frames: View, device: torch.device, reporter: Reporter) -> RetrievalNetwork:
    settings = config.train
    torch.manual_seed(settings.seed)
    if (init := config.init_checkpoint) is None:
        network = build_network(settings.network, reporter)
    else:
        with trained_with({"train.init": "null"}):
            network = load_network(init)
        wanted = settings.network.model_copy(update={"trunk": network.config.trunk})
        if isinstance(network, VideoTextNetwork):
            wanted = wanted.model_copy(update={"words": network.trunk.word_slots(wanted.words)})
        if network.config != wanted:
            raise ConfigError(
                f"train.init holds another network: {network.config!r}, but train.network asks for {wanted!r}",
                where=str(init),
            )
    if isinstance(network, VideoTextNetwork):
        assert isinstance(frames, FrameCache)
        _fitted(network, frames, config)
    return network.to(device)


def _fitted(network: VideoTextNetwork, frames: FrameCache, config: Config) -> None:
    """Refuse frames that do not fit, and set the trunk as training wants it."""
    settings = config.train
    check_fits(network, frames, config.frames_folder)
    check_widths(network, settings.loss.matryoshka, "train.loss.matryoshka")
    if settings.trunk == "frozen":
        network.freeze_class_tokens()
    network.to(choose_device(settings.device))
    prepare_for_speed(
        network, recompute=settings.recompute, channels_last=settings.channels_last, compile=settings.compile
    )


def _losses(settings: TrainConfig, device: torch.device) -> Losses:
    """The losses; parameters of one of the user's own are drawn by the run's seed, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Losses(settings.loss, settings.teachers).to(device)


class TrainRun:
    """The steps of one run."""

    def __init__(self, config: Config, data: TrainingData, folder: RunFolder, reporter: Reporter) -> None:
        self.config, self.settings, self.data = config, config.train, data
        self.folder, self.reporter, self.world = folder, reporter, World.current()
        self.device = choose_device(self.settings.device)
        self.network = _build(config, data.frames, self.device, reporter)
        self.train_inputs, self.val_inputs = self._inputs()
        split = data.train
        self.sampler = _sampler(self.settings, split, data.groups)
        self.steps = _total_steps(self.settings, self.sampler)
        losses, steps_per_epoch = _losses(self.settings, self.device), self.sampler.steps_per_epoch
        optimiser = build_optimizer(self.network, self.settings.optim, self.steps, steps_per_epoch, losses)
        self.online = self._online_teachers()
        self.step = TrainingStep(self.network, optimiser, self.settings, self.online, losses=losses)
        self.checkpointer = Checkpointer(folder, self.network, optimiser, self.settings.keep, reporter, losses)
        self.monitor = Monitor(folder, self.sampler, data.videos, self.settings, self.device, reporter)
        self.val_ids = self._texts(data.val)
        self.read = self._batch_loader()
        self.began = time.perf_counter()

    def go(self, stop: StopRequest | None = None) -> TrainResult:
        """Train from where the run was left to its end.

        Raises:
            StoppedEarly: `stop` asked for it; the run is saved.
        """
        stop = stop or StopRequest()
        tell_device(self.device, self.reporter)
        start = self._resume()
        self.network.train()
        self.began = self.saved = time.perf_counter()
        title = f"train {self.folder.folder.name}"
        with (
            stop.heeded(),
            self.checkpointer,
            self.monitor.from_step(start),
            self.batches(start, self.steps) as batches,
            self.reporter.progress(title, self.steps, "step", done=start) as progress,
        ):
            moved = on_device(batches, self.device)
            for batch in moved:
                self.monitor.add(self.step(batch))
                self._after(batch.step + 1, moved, progress, stop)
        if self.world.main and (untaught := sum("untaught" in line for line in self.folder.metrics())):
            self.reporter.info(
                f"{untaught:,} of {counted(self.steps, 'step')} had no pairs of a sparse teacher's to learn from"
            )
        return self._result(moved.waited)

    @contextmanager
    def batches(self, start: int, stop: int) -> Iterator[ReadAhead[Any, Batch]]:
        """The batches of steps start <= step < stop, read ahead; `on_device` takes them on to where they are used."""
        items, depth = self.sampler.steps(start, stop), self.settings.prefetch
        with (
            label_source(self.settings.label_reader, self.data.cached, self.device) as labels,
            read_ahead(replace(self.read, labels=labels), items, depth) as batches,
        ):
            yield batches

    def _resume(self) -> int:
        """The step to go on from, once it is said what the run does."""
        if start := self.checkpointer.resume():
            self.reporter.info(f"goes on at step {start} of {self.steps}")
        self.reporter.info(f"{self._step_is}; {self._left_over}" if self._left_over else self._step_is)
        if self.world.main:
            self.folder.record(environment(self.device, start))
        return start

    @property
    def _step_is(self) -> str:
        """How many pairs a step has, and who encodes how many of them at a time; in words."""
        size, ranks, chunk = self.sampler.batch_size, self.world.ranks, self.settings.chunk
        share = math.ceil(size / ranks)
        of_blocks = f", all of one of {counted(self._blocks, 'block')} of videos" if self._blocks > 1 else ""
        wanted = self.settings.batch_size
        fewer = f" (all there are; train.batch_size is {wanted})" if size < wanted else ""
        shared = f", {share} in each of {counted(ranks, 'process', 'processes')}" if ranks > 1 else ""
        chunked = f", encoded {chunk} at a time" if chunk is not None and chunk < share else ""
        return f"each step is of {counted(size, 'pair')}{of_blocks}{shared}{chunked}{fewer}"

    @property
    def _left_over(self) -> str:
        left, texts = self.sampler.left_over, self.sampler.texts
        captions = counted(texts, "caption")
        return f"{left:,} of {captions} of an epoch {'is' if left == 1 else 'are'} left to others" if left else ""

    def _after(self, done: int, batches: DeviceBatches, progress: Progress, stop: StopRequest) -> None:
        """What follows when `done` steps are done: log, validation, checkpoint."""
        ends_epoch = done % self.sampler.steps_per_epoch == 0 or done == self.steps
        if ends_epoch:
            self._read(batches, progress)
            with self.monitor.paused():
                self._validate(done)
        asked = ends_epoch or self.world.ranks == 1 or done % AGREE_EVERY == 0
        stopping = asked and done < self.steps and self.world.agree(stop.signal is not None)
        due = ends_epoch or stopping or time.perf_counter() - self.saved > self.settings.checkpoint_seconds
        if due or len(self.monitor.unread) >= LOG_EVERY:
            self._read(batches, progress)
        if due:
            self.checkpointer.save(done, self._seconds())
            self.saved = time.perf_counter()
        if stopping:
            self.checkpointer.finish()
            raise StoppedEarly(done, self.steps, stop.signal)

    def _read(self, batches: DeviceBatches, progress: Progress) -> None:
        steps = len(self.monitor.unread)
        progress.advance(steps, **self.monitor.read(self._seconds(), batches.waited))
        self.checkpointer.check()

    def _validate(self, done: int) -> None:
        """Measure on the validation split, and keep the network when it is the best so far."""
        epoch = self.sampler.epoch(done - 1)
        if done != self.steps and (epoch + 1) % self.settings.validate_every:
            return
        if not self.data.val.texts:
            if done == self.steps:
                self.checkpointer.choose(done, epoch, "last step: there is no validation split", 0.0)
            return
        metrics = measure(self.network, self.val_ids, self.data.val.text_video, self.val_inputs, Silent(), ties="fair")
        by = self.settings.select_by
        value = _chosen_by(by, metrics["t2v"])
        best = self.checkpointer.best
        later = bool(best) and by == "geometric-mean" and value == best["value"]
        better = self.world.broadcast(not best or value > best["value"] or later)
        if better:
            self.checkpointer.choose(done, epoch, f"{by} (text to video) on {self.data.validated_on}", value)
        measured = {way: asdict(result) for way, result in metrics.items()}
        self.monitor.log([{"kind": "val", "step": done, "epoch": epoch, "selected": better, **measured}])

    def _seconds(self) -> float:
        return self.checkpointer.seconds + time.perf_counter() - self.began

    def _inputs(self) -> tuple[VideoInputs | DeviceFrames, VideoInputs]:
        """What the network sees of the training and of the validation videos."""
        frames, train_videos, val_videos = self.data.frames, self.data.train.videos, self.data.val.videos
        if isinstance(frames, ExpertView):
            return view_inputs(frames, self.data.videos), view_inputs(frames, val_videos)
        if self.settings.trunk == "full":
            where, every = self.settings.frames, self.data.videos
            train = frame_inputs(where, frames, every, self.device, self.world, self.reporter, self._step_bytes)
            return train, FrameInputs(frames, val_videos)
        tokens, edge = self._tokens(train_videos + val_videos), len(train_videos)
        own, val = tokens.part(0, edge), tokens.part(edge, edge + len(val_videos))
        return (own.beside(self._tokens(more)) if (more := self.data.unlabelled.videos) else own), val

    def _step_bytes(self) -> int:
        """What a step takes in this process, counted."""
        encoded = encoded_at_once(self.settings, self.world.ranks)
        return count_step(encoded, resolved(self.settings.precision, self.device)).total

    def _texts(self, split: UsableSplit) -> TextInputs:
        """Token ids [T, W] of a split's captions, or their words [T, W, D], read when they are asked for."""
        if self.data.words is not None:
            return self.data.words.inputs(split.texts)
        assert isinstance(self.network, VideoTextNetwork)
        return self.network.tokenize(split.captions)

    def _tokens(self, videos: Sequence[str]) -> MemoryInputs:
        assert isinstance(self.network, VideoTextNetwork)
        assert isinstance(self.data.frames, FrameCache)
        return frozen_inputs(self.network, self.data.frames, videos, self.config.class_tokens_folder, self.reporter)

    def _online_teachers(self) -> tuple[OnlineTeacher, ...]:
        if self.settings.teaching == "cached":
            return ()
        data = self.data
        assert isinstance(data.frames, FrameCache)
        return online_teachers(self.config, data.train, data.frames, data.seen, self.device, self.reporter)

    def _batch_loader(self) -> BatchLoader:
        split, pin = self.data.train, self.device.type == "cuda"
        return BatchLoader(
            ids=self._texts(split),
            text_video=split.text_video,
            inputs=self.train_inputs,
            labels=LabelThreads([teacher.reader for teacher in self.data.cached]),
            teacher_frames=teacher_inputs(self.online, self.data.seen, self.data.videos, pin),
            students=self.config.frames_folder if self.settings.trunk == "full" else None,
            teacher_ids={teacher.name: teacher.ids_of for teacher in self.online},
            pin=pin,
            rank=self.world.rank,
            ranks=self.world.ranks,
            unlabelled=self.data.draws,
        )

    @property
    def _blocks(self) -> int:
        groups = self.data.groups
        return 1 if groups is None else int(groups.max()) + 1

    def _result(self, waited: float) -> TrainResult:
        split = self.data.train
        return TrainResult(
            run=str(self.folder.folder),
            checkpoint=str(self.folder.best),
            steps=self.steps,
            texts=len(split.texts),
            videos=len(split.videos),
            left_out_videos=split.left_out,
            teachers=self.settings.teachers,
            best=self.checkpointer.best,
            seconds=self._seconds(),
            data_wait=waited,
            already_done=False,
            masked_texts=self.data.masked.texts if self.data.masked else 0,
            other_pixels={
                teacher.name: count
                for teacher in self.data.cached
                if (count := int(np.count_nonzero(teacher.other_pixels)))
            },
            blocks=self._blocks,
            seed=self.settings.seed,
            left_over=self.sampler.left_over,
        )


def _chosen_by(by: str, metrics: Metrics) -> float:
    """The number, more of which is better, that `train.select_by` chooses a network by."""
    if by == "geometric-mean":
        return geometric_mean(metrics)
    value: float = -metrics.mnr if by == "mean-rank" else getattr(metrics, by)
    return value


def _sampler(settings: TrainConfig, split: UsableSplit, groups: np.ndarray | None) -> BatchSampler | VideoSampler:
    if settings.epoch_of == "videos":
        return VideoSampler(split.text_video, min(settings.batch_size, len(split.videos)), settings.seed, groups)
    texts = len(split.texts)
    return BatchSampler(texts, min(settings.batch_size, texts), settings.seed, groups)


def _total_steps(settings: TrainConfig, order: BatchSampler | VideoSampler) -> int:
    steps = settings.epochs * order.steps_per_epoch
    return min(steps, settings.max_steps) if settings.max_steps else steps
