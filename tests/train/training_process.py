"""A training run that is killed again and again, and gone on with.

As a program: `training_process.py CONFIG KILLS SEED CHANGES` trains what CONFIG says; KILLS times it kills the process
that trains, at a random moment or (CHANGES > 0) at one of its first CHANGES changes to the run folder, which are mostly
those of checkpoints; then it lets the run end, and prints how often it killed. Processes are forked before torch has
computed anything.
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
from teachclip.cache import state
from teachclip.configs.loading import load_config
from teachclip.stages import train as stage
from teachclip.stages.models import checkpoints

sys.path.append(str(Path(__file__).parents[1] / "cache"))
import faulty_disk

SECONDS = 1.2  # in which a process is killed: it takes about as long from its start to its end


def save_file(tensors: dict[str, torch.Tensor], path: Path, metadata: Any = None) -> None:
    """As safetensors does, but through Python, so that `faulty_disk` sees it."""
    path.write_bytes(save(tensors, metadata))


def work(path: Path, at: int | None) -> None:
    """What one process does; never returns."""
    code = 1
    try:
        config = load_config(path)
        state.save_file = checkpoints.save_file = save_file  # type: ignore[attr-defined]
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


def main(path: Path, kills: int, seed: int, changes: int) -> int:
    torch.set_num_threads(1)
    rng = random.Random(seed)
    killed = 0
    for _ in range(kills):
        child = start(path, rng.randrange(1, changes) if changes else None)
        if not changes:
            time.sleep(rng.uniform(0.2, SECONDS))
            os.kill(child, signal.SIGKILL)
        killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    sys.stdout.write(f"{killed}\n")
    return int(os.waitpid(start(path), 0)[1] != 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
