"""Watching a run: the log of its losses, what is shown of it, and stopping it where they make no sense."""

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ....configs.schema import TrainConfig
from ....plurals import counted
from ...runtime.processes import World
from ...runtime.reporting import Reporter
from ...runtime.run_folder import RunFolder
from ..dataloader.sampler import BatchSampler, VideoSampler
from ..losses.combined import LossParts
from ..step.training_step import Done
from .own_logger import OwnLogger

HISTORY = 100
"""Steps whose median loss the next ones are compared with, and those over which waiting for data is judged."""
IN_A_ROW = 20  # steps above the limit before a run counts as exploding: single batches stick out in healthy runs
SMALL = 0.1  # a smaller median counts as this: losses near zero jump by large factors without harm
WAITING = 0.05  # share of the time; more is told
JUDGED_SECONDS = 5.0  # less does not tell how a run will go


class Monitor:
    """Collects steps until their losses are read from the device, writes them to the log, and judges them.

    Of several processes each judges, and the main one writes.

    Args:
        videos: ids of the training videos.
        clock: seconds that only go up.
    """

    def __init__(
        self,
        folder: RunFolder,
        sampler: BatchSampler | VideoSampler,
        videos: Sequence[str],
        settings: TrainConfig,
        device: torch.device,
        reporter: Reporter,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.folder, self.sampler, self.videos, self.reporter = folder, sampler, videos, reporter
        self.frames, self.max_ratio = settings.network.frames, settings.max_loss_ratio
        self.device, self.clock = device, clock
        self.unread: list[Done] = []
        self._totals: deque[float] = deque(maxlen=HISTORY)
        self._above = 0
        self._stalls = _Stalls(reporter)
        self._settings, self._main = settings, World.current().main
        self._followers: list[Any] = []  # what is handed each line of the log, too
        self._since = (clock(), 0.0)

    @contextmanager
    def from_step(self, start: int) -> Iterator[None]:
        """Watch a run that goes on after `start` steps, until the body ends."""
        totals = [line["loss"] for line in self.folder.metrics() if line["kind"] == "train"] if self._main else []
        self._totals.extend(World.current().broadcast(totals[-HISTORY:]))
        self._since = (self.clock(), 0.0)
        with ExitStack() as open_things:
            if self._main and self._settings.tensorboard:
                from .tensorboard import Curves  # TensorBoard's package is imported where it is used

                self._followers.append(open_things.enter_context(Curves(self.folder.folder, start)))
            if self._main and (spec := self._settings.logger) is not None:
                logger = OwnLogger(spec, self.folder.folder, self._settings, start, self.reporter)
                self._followers.append(open_things.enter_context(logger))
            yield

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The body's time is none of the steps'."""
        before = self.clock()
        yield
        began, waited = self._since
        self._since = (began + self.clock() - before, waited)

    def add(self, done: Done) -> None:
        """A step, whose losses are read later."""
        self.unread.append(done)

    def read(self, seconds: float, waited: float) -> dict[str, float | str]:
        """Write the losses of the last steps to the log, and judge them; what is shown beside the progress.

        Args:
            seconds: that the run has taken so far; waited: those for data, of this process.

        Raises:
            TrainingError: a loss or gradient is not finite, or losses explode.
        """
        if not self.unread:
            return {}
        read = list(zip(self.unread, *_from_device(self.unread), strict=True))
        for done, losses, norm in read:
            self._judge(done, losses, norm)
        times = self._times(waited)
        self.log(
            {
                "kind": "train",
                "step": done.step + 1,
                "epoch": self.sampler.epoch(done.step),
                "loss": losses["total"],
                **{key: value for key, value in losses.items() if key not in ("total", "untaught")},
                **({"untaught": losses["untaught"]} if losses["untaught"] else {}),
                "grad_norm": norm,
                "lr": done.lrs,
                "seconds": seconds,
                **times,
            }
            for done, losses, norm in read
        )
        self.unread.clear()
        return _shown(read[-1][1], times)

    def log(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add lines to metrics.jsonl, and hand their numbers to TensorBoard's curves and to a logger of one's own."""
        if not self._main:
            return
        kept = list(lines)
        self.folder.log(kept)
        for line in kept:
            for follower in self._followers:
                follower.add(line)

    def _times(self, waited: float) -> dict[str, float]:
        """Of the steps since the last reading: share of the time waited for data, frames per second of all processes;
        memory in bytes."""
        now = self.clock()
        began, waited_before = self._since
        self._since = (now, waited)
        took, steps = max(now - began, 1e-9), len(self.unread)
        share = min((waited - waited_before) / took, 1.0)
        self._stalls.add(steps, took, waited - waited_before)
        images = self.frames * sum(len(done.videos) for done in self.unread)
        return {"data_wait": share, "images_per_second": images / took, "memory": float(_memory(self.device))}

    def _judge(self, done: Done, losses: Mapping[str, float], norm: float) -> None:
        step, total = done.step + 1, losses["total"]
        named = [f"videos of the batch: {', '.join(self.videos[k] for k in done.videos[:20])}"]
        if not all(math.isfinite(value) for value in losses.values()):
            raise self.folder.spoiled(f"the loss is not finite at step {step}: {losses}", named)
        if not math.isfinite(norm):
            raise self.folder.spoiled(f"the gradients are not finite at step {step}: their norm is {norm}", named)
        if self.max_ratio is None:
            return
        usual = max(median(self._totals), SMALL) if len(self._totals) == HISTORY else math.inf
        if total <= self.max_ratio * usual:
            self._above = 0
            self._totals.append(total)
            return
        self._above += 1
        if self._above == IN_A_ROW:
            what = f"the loss explodes: {total:.4g} at step {step}, for {IN_A_ROW} steps more than {self.max_ratio:g} "
            what += f"times {usual:.4g}, the median of {HISTORY} steps before (train.max_loss_ratio)"
            raise self.folder.spoiled(what, named)


def _from_device(steps: Sequence[Done]) -> tuple[list[dict[str, float]], list[float]]:
    """The losses by name and the gradients' norms of steps; waits for the device once."""
    rows = torch.stack([torch.stack([part.double() for part in (*done.parts, done.norm)]) for done in steps]).tolist()
    return [dict(zip(LossParts._fields, row, strict=False)) for row in rows], [row[-1] for row in rows]


class _Stalls:
    """Tells once when the loop waits for data."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.told = False
        self._windows: deque[tuple[int, float, float]] = deque()

    def add(self, steps: int, took: float, waited: float) -> None:
        """So many more steps, the seconds they took, and those of them that were waited for data."""
        if self.told:
            return
        self._windows.append((steps, took, waited))
        while sum(window[0] for window in self._windows) - self._windows[0][0] >= HISTORY:
            self._windows.popleft()
        count, seconds, lost = (sum(values) for values in zip(*self._windows, strict=True))
        if count < HISTORY or seconds < JUDGED_SECONDS or lost <= WAITING * seconds:
            return
        self.told = True
        self.reporter.warn(
            f"{lost / seconds:.0%} of the last {counted(count, 'step was', 'steps were')} "
            f"spent waiting for data, {1000 * lost / count:.0f} ms "
            "a step: read further ahead (train.prefetch), keep the frames in memory (train.frames: host or device), or "
            "move frames and scores to faster storage"
        )


def _shown(losses: Mapping[str, float], times: Mapping[str, float]) -> dict[str, float | str]:
    """Beside the progress: the loss, those of its parts that there are, and how fast it goes."""
    parts = {key: value for key, value in losses.items() if key != "total" and value}
    return {
        "loss": losses["total"],
        **parts,
        "images/s": f"{times['images_per_second']:,.0f}",
        "data wait": f"{times['data_wait']:.1%}",
        "memory": f"{times['memory'] / 1e9:.3g} GB",
    }


def _memory(device: torch.device) -> int:
    """Bytes: the most that tensors took on this GPU so far; on the CPU what the process takes now."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
