"""What many processes do in tests; in float64, so that only rounding tells them apart.

python many_training.py train 2 A.yaml B.yaml    two processes train one after the other; each writes beside each run
                                                 which rows of labels it has read, `rows-RANK.json`; `- 4 C.yaml` behind
                                                 it: four others train then. They are told what torchrun tells, and are
                                                 forked, since each that imports torch anew costs seconds
torchrun ... many_training.py end A.yaml         the second process is asked to stop at its third step; all go on
                                                 again; it is killed at its sixth
"""

import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from teachclip.cache.scores.reading.reader import ScoreReader
from teachclip.configs.loading import load_config
from teachclip.pipeline.cli.main import main as command_line
from teachclip.stages.runtime.processes import joined
from teachclip.stages.train.stage import train
from teachclip.stages.train.step.training_step import TrainingStep


def rank() -> int:
    return int(os.environ["RANK"])


def before_each_call(kind: type, name: str, action: Callable[..., None]) -> None:
    """Have `action` called with the arguments of a method before it."""
    method = getattr(kind, name)

    def both(self: Any, *arguments: Any) -> Any:
        action(*arguments)
        return method(self, *arguments)

    setattr(kind, name, both)


def train_all(configs: Sequence[str]) -> None:
    read: list[list[int]] = []
    before_each_call(ScoreReader, "start", lambda texts, videos: read.append(texts.tolist()))
    loaded = [load_config(Path(name)) for name in configs]
    with joined(loaded[0].train.device):
        for config in loaded:
            read.clear()
            train(config)
            (config.run_folder / f"rows-{rank()}.json").write_text(json.dumps(read))


def train_by(processes: int, configs: Sequence[str]) -> None:
    """Train with so many processes; when one fails, the others are killed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    living = {_trainer(given | {"RANK": rank, "LOCAL_RANK": rank}, configs) for rank in range(processes)}
    while living:
        ended, status = os.wait()
        living.remove(ended)
        if status:
            for each in living:
                os.kill(each, signal.SIGKILL)
            sys.exit(f"one of {processes} processes ended with status {status}")


def _trainer(environment: dict[str, str | int], configs: Sequence[str]) -> int:
    if child := os.fork():
        return child
    code = 1
    try:
        os.environ.update({name: str(value) for name, value in environment.items()})
        train_all(configs)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def end(config: str) -> None:
    ends = {2: signal.SIGTERM, 5: signal.SIGKILL}

    def act(batch: Any) -> None:
        if rank() == 1 and batch.step in ends:
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
    if task == "end":
        end(*arguments)
    else:
        for between, (processes, *configs) in groupby(arguments, "-".__eq__):
            if not between:
                train_by(int(processes), configs)
