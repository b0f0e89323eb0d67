"""What a run keeps: the states that a killed run goes on from, and the network that was best.

A checkpoint is copied on the training thread, between two steps, and written, synced and put into place by a thread
behind it. The loop waits for the disk only where the checkpoint before is not written yet.
"""

from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safetensors import SafetensorError
from torch import nn

from ....cache.storage.publish import publishing
from ....cache.training_state import HostCopy, HostState, load_state, save_state
from ....errors import CheckpointError, TrainingError
from ....remedies import Remedy, Train
from ...models.checkpoints.files import save_network
from ...models.common.network import RetrievalNetwork
from ...runtime.background import BackgroundWriter
from ...runtime.processes import World
from ...runtime.reporting import Reporter
from ...runtime.run_folder import RunFolder
from ..step.optimizer import ScheduledOptimizer

PATIENCE = 60.0
"""Seconds for a checkpoint that is under way where training failed: it may wait for a GPU that computes no more."""


class Checkpointer:
    """Saves and restores one run; used as a context manager, at whose end everything is written.

    Of several processes the main one writes, and all restore what it found.

    Args:
        keep: so many states are kept, the newest.
        losses: what is minimised, whose parameters belong to a state where there are any.

    Attributes:
        best: which network was chosen: step, epoch, chosen_by, value; empty before the first.
        seconds: that the run had taken when it was last saved by an earlier process.
    """

    def __init__(
        self,
        folder: RunFolder,
        network: RetrievalNetwork,
        optimiser: ScheduledOptimizer,
        keep: int,
        reporter: Reporter,
        losses: nn.Module | None = None,
    ) -> None:
        self.folder, self.network, self.optimiser = folder, network, optimiser
        self.losses = losses if losses is not None and losses.state_dict() else None
        self.keep, self.reporter = keep, reporter
        self.world = World.current()
        self.best: dict[str, Any] = {}
        self.seconds = 0.0
        self._kept: list[Path] = []  # states that can be read, newest first
        self._copy = HostCopy()
        self._writer = BackgroundWriter("checkpoint")

    def choose(self, step: int, epoch: int, by: str, value: float) -> None:
        """Keep the network as the best so far; `save` at the same step writes it."""
        self.best = {"step": step, "epoch": epoch, "chosen_by": by, "value": value}

    def save(self, step: int, seconds: float) -> None:
        """Copy what a killed run goes on from, and have it published in the background.

        Raises:
            TrainingError: the checkpoint before could not be written.
        """
        if not self.world.main:
            return
        self.finish()  # it is copied into the same memory
        best = dict(self.best)
        copy = self._copy.take(
            {
                "step": step,
                "seconds": seconds,
                "best": best,
                "weights": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                **({} if self.losses is None else {"losses": self.losses.state_dict()}),
            }
        )
        self._writer.start(partial(self._publish, step, copy, best))

    def check(self) -> None:
        """Raise the error of a checkpoint that could not be written; waits for none."""
        self._writer.check()

    def finish(self) -> None:
        """Wait until everything is written.

        Raises:
            TrainingError: it could not be, or not all numbers in it are finite.
        """
        self._writer.finish()

    def resume(self) -> int:
        """The step to go on from: 0 for a fresh run; the log is cut back to it.

        Raises:
            CheckpointError: there are training states, and all are damaged.
        """
        path, state = self._newest() if self.world.main else (None, None)
        told = self.world.broadcast(None if path is None else str(path))
        if told is not None:
            state = state or load_state(Path(told))
            self.network.load_state_dict(state["weights"])
            self.optimiser.load_state_dict(state["optimiser"])
            if self.losses is not None:
                self.losses.load_state_dict(state["losses"])
            self.best, self.seconds = state["best"], state["seconds"]
        step = 0 if state is None else int(state["step"])
        if self.world.main:
            self.folder.cut_log(step)
            self.folder.settle(self.best)
        return step

    def _newest(self) -> tuple[Path | None, dict[str, Any] | None]:
        """The newest training state that can be read."""
        damaged: list[str] = []
        states = self.folder.states
        for place, path in enumerate(states):
            try:
                state = load_state(path)
            except CheckpointError as error:
                damaged.append(f"{path.name}: {error.__cause__}")
                continue
            if damaged:
                self.reporter.warn(f"damaged, the run goes on from {path.name} before: {'; '.join(damaged)}")
            self._kept = states[place:]
            return path, state
        if damaged:
            raise CheckpointError(
                "every training state of this run is damaged",
                where=str(self.folder.folder),
                details=damaged,
                hint=self.folder.anew,
            )
        return None, None

    def _publish(self, step: int, copy: HostState, best: dict[str, Any]) -> None:
        """In the background. What chooses a network and the network appear together: see `RunFolder.settle`."""
        copy.wait()
        if (name := copy.not_finite) is not None:
            raise self.folder.spoiled(f"after step {step} not all numbers are finite in {name}", [])
        path = self.folder.state(step)
        try:
            if best.get("step") == step:
                with publishing(self.folder.candidate(step)) as temporary:
                    save_network(self.network, temporary, weights=copy.part("weights"))
            self.folder.sync_log()
            save_state(path, copy)
            self.folder.settle(best)
            self._kept = [path, *(other for other in self._kept if other != path)][: self.keep]
            self.folder.keep_states(self._kept)
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"this checkpoint cannot be written: {error}",
                where=str(path),
                details=[self.folder.usable],
                hint=Remedy("free some space or make the folder writable; then go on", Train()),
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        elif isinstance(error, Exception):  # who is told to end at once does not wait
            self._writer.wait(PATIENCE)
