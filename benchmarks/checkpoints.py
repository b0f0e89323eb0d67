"""What a checkpoint adds to a step: written inside it, and copied there and written beside the steps that follow.

A network and its optimiser of about 60 MB train on a CPU or a GPU; every tenth step is followed by a checkpoint.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from teachclip.cache.training_state import save_state
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.train.record.checkpoints import Checkpointer

EVERY = 10


class Training:
    """Steps of a stack of linear layers with AdamW: weights and two moments are 60 MB."""

    def __init__(self, width: int, layers: int, rows: int, device: str) -> None:
        torch.manual_seed(0)
        self.network: Any = torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(layers))).to(device)
        self.optimiser: Any = torch.optim.AdamW(self.network.parameters(), fused=True)
        self.batch = torch.randn(rows, width, device=device)
        self.device = device

    def step(self) -> None:
        self.optimiser.zero_grad()
        self.network(self.batch).square().mean().backward()
        self.optimiser.step()
        if self.device == "cuda":
            torch.cuda.synchronize()

    def state(self, step: int) -> dict[str, Any]:
        return {"step": step, "weights": self.network.state_dict(), "optimiser": self.optimiser.state_dict()}


def timed(training: Training, steps: int, save: Callable[[int], None]) -> tuple[float, float, float]:
    """Seconds, as medians: a step far from checkpoints, what a checkpoint takes of the loop, the step after it."""
    plain, saving, after = [], [], []
    for step in range(1, steps + 1):
        began = time.perf_counter()
        training.step()
        took = time.perf_counter() - began
        (after if step % EVERY == 1 else plain).append(took)
        if step % EVERY == 0:
            began = time.perf_counter()
            save(step)
            saving.append(time.perf_counter() - began)
    return median(plain), median(saving), median(after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=800)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--folder", type=Path, help="where to write; by default the folder of temporary files")
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    training = Training(given.width, given.layers, given.rows, device)
    for _ in range(3):
        training.step()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = RunFolder(Path(name))
        folder.log([])
        keeper = Checkpointer(folder, training.network, training.optimiser, 2, Silent())
        ways: dict[str, Callable[[int], None]] = {
            "none": lambda step: None,
            "written in the step": lambda step: save_state(folder.state(0), training.state(step)),
            "written beside": lambda step: keeper.save(step, 0.0),
        }
        ways["written beside"](0)
        keeper.finish()
        print(f"{device}, a state of {folder.state(0).stat().st_size / 1e6:.0f} MB, a checkpoint every {EVERY} steps")
        print(f"{'':20} {'step, ms':>10} {'checkpoint, ms':>15} {'step after it, ms':>18}")
        for way, save in ways.items():
            plain, saving, after = timed(training, given.steps, save)
            keeper.finish()
            print(f"{way:20} {1e3 * plain:10.1f} {1e3 * saving:15.1f} {1e3 * after:18.1f}")


if __name__ == "__main__":
    main()
