"""What a run keeps: the state that a killed run goes on from, and the network that was best."""

from typing import Any

from ..cache.files import publishing
from .models.checkpoints import save_network
from .models.network import VideoTextNetwork
from .optim import Optimiser
from .runs import RunFolder


class Keeper:
    """Saves and restores one run.

    Attributes:
        best: which network was chosen: step, epoch, chosen_by, value; empty before the first.
        seconds: that the run had taken when it was last saved by an earlier process.
    """

    def __init__(self, folder: RunFolder, network: VideoTextNetwork, optimiser: Optimiser) -> None:
        self.folder, self.network, self.optimiser = folder, network, optimiser
        self.best: dict[str, Any] = {}
        self.seconds = 0.0

    def choose(self, step: int, epoch: int, by: str, value: float) -> None:
        """Keep the network as the best so far."""
        with publishing(self.folder.best) as path:
            save_network(self.network, path)
        self.best = {"step": step, "epoch": epoch, "chosen_by": by, "value": value}

    def save(self, step: int, seconds: float) -> None:
        """Publish what a killed run goes on from."""
        self.folder.save(
            {
                "step": step,
                "seconds": seconds,
                "best": self.best,
                "weights": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
            }
        )

    def resume(self) -> int:
        """The step to go on from: 0 for a fresh run."""
        state = self.folder.resume()
        if state is None:
            return 0
        self.network.load_state_dict(state["weights"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.best, self.seconds = state["best"], state["seconds"]
        return int(state["step"])
