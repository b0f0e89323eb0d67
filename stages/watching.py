"""Watching a run: the log of its losses, and stopping it where they make no sense."""

import math
from collections.abc import Sequence

from ..errors import TrainingError
from .batches import Order
from .runs import RunFolder
from .step import Done


class Watch:
    """Collects steps until their losses are read from the device, writes them to the log, and judges them.

    Args:
        videos: ids of the training videos.
    """

    def __init__(self, folder: RunFolder, order: Order, videos: Sequence[str]) -> None:
        self.folder, self.order, self.videos = folder, order, videos
        self.unread: list[Done] = []

    def add(self, done: Done) -> None:
        self.unread.append(done)

    def read(self, seconds: float, waited: float) -> dict[str, float]:
        """Write the losses of the last steps to the log; the newest are shown beside the progress.

        Args:
            seconds: that the run has taken so far; waited: those for data.

        Raises:
            TrainingError: a loss is not finite.
        """
        shown: dict[str, float] = {}
        for done in self.unread:
            losses = {key: float(value) for key, value in done.parts._asdict().items()}
            self._refuse_not_finite(done, losses)
            shown = {"loss": losses.pop("total")}
            line = {"kind": "train", "step": done.step + 1, "epoch": self.order.epoch(done.step), **shown, **losses}
            line |= {"grad_norm": float(done.norm), "lr": done.lrs}
            self.folder.log(line | {"seconds": seconds, "data_wait": waited})
        self.unread.clear()
        return shown

    def _refuse_not_finite(self, done: Done, losses: dict[str, float]) -> None:
        if all(math.isfinite(value) for value in losses.values()):
            return
        raise TrainingError(
            f"the loss is not finite at step {done.step + 1}: {losses}",
            where=str(self.folder.folder),
            details=["videos of the batch: " + ", ".join(self.videos[k] for k in done.videos[:20])],
            hint="look at these videos' frames, or lower train.optim.lr; the last checkpoint before is kept",
        )
