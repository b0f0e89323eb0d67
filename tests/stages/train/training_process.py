"""A training run that is killed again and again, and gone on with.

As a program: `training_process.py CONFIG KILLS SEED` trains what CONFIG says; KILLS times it kills the process that
trains, in turns at a random moment and at one of its first changes to the run folder, which are mostly those of
checkpoints; then it lets the run end, and prints how often it killed. Processes are forked before torch has computed
anything.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from teachclip.cache import training_state
from teachclip.configs.loading import load_config
from teachclip.stages.models.checkpoints import files as checkpoints
from teachclip.stages.train import stage

sys.path.append(str(Path(__file__).parents[2] / "cache" / "faults"))
import faulty_disk

SECONDS = 1.2  # in which a process is killed, or
CHANGES = 120  # to the disk; it makes and takes about as many from its start to its end


def save_file(tensors: dict[str, torch.Tensor], path: Path, metadata: Any = None) -> None:
    """As safetensors does, but through Python, so that `faulty_disk` sees it."""
    path.write_bytes(save(tensors, metadata))


def work(path: Path, at: int | None) -> None:
    """What one process does; never returns."""
    code = 1
    try:
        config = load_config(path)
        training_state.save_file = checkpoints.save_file = save_file  # type: ignore[attr-defined]
        with faulty_disk.watched(faulty_disk.KillAt(at), sync=False, within=config.run_folder):
            stage.train(config)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def start(path: Path, at: int | None = None) -> int:
    child = os.fork()
    if child == 0:
        work(path, at)
    return child


def main(path: Path, kills: int, seed: int) -> int:
    torch.set_num_threads(1)
    rng = random.Random(seed)
    killed = 0
    for turn in range(kills):
        at = rng.randrange(1, CHANGES) if turn % 2 else None
        child = start(path, at)
        if at is None:
            time.sleep(rng.uniform(0.2, SECONDS))
            os.kill(child, signal.SIGKILL)
        killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    sys.stdout.write(f"{killed}\n")
    return int(os.waitpid(start(path), 0)[1] != 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
