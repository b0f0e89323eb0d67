"""What the processes of torchrun do in tests of many processes; in float64, so that only rounding tells them apart.

torchrun ... many_training.py train A.yaml B.yaml    trains one after the other; each process writes beside each run
                                                     which rows of labels it has read, `rows-RANK.json`
torchrun ... many_training.py end A.yaml             the second process is asked to stop at its third step; all go on
                                                     again; it is killed at its sixth
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from teachclip.cache.scores.reading.reader import ScoreReader
from teachclip.configs.loading import load_config
from teachclip.pipeline.cli.main import main as command_line
from teachclip.stages.runtime.processes import joined
from teachclip.stages.train.stage import train
from teachclip.stages.train.step.training_step import TrainingStep

RANK = int(os.environ["RANK"])


def before_each_call(kind: type, name: str, action: Callable[..., None]) -> None:
    """Have `action` called with the arguments of a method before it."""
    method = getattr(kind, name)

    def both(self: Any, *arguments: Any) -> Any:
        action(*arguments)
        return method(self, *arguments)

    setattr(kind, name, both)


def train_all(configs: list[str]) -> None:
    read: list[list[int]] = []
    before_each_call(ScoreReader, "start", lambda texts, videos: read.append(texts.tolist()))
    loaded = [load_config(Path(name)) for name in configs]
    with joined(loaded[0].train.device):
        for config in loaded:
            read.clear()
            train(config)
            (config.run_folder / f"rows-{RANK}.json").write_text(json.dumps(read))


def end(config: str) -> None:
    ends = {2: signal.SIGTERM, 5: signal.SIGKILL}

    def act(batch: Any) -> None:
        if RANK == 1 and batch.step in ends:
            os.kill(os.getpid(), ends.pop(batch.step))

    before_each_call(TrainingStep, "__call__", act)
    for _ in range(2):
        sys.argv = ["teachclip", "train", config]
        try:
            command_line()
        except SystemExit as ended:
            if ended.code:
                raise


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    task, *arguments = sys.argv[1:]
    train_all(arguments) if task == "train" else end(*arguments)
