"""Killed with SIGKILL at any moment, the run ends with the bits of one that never stopped."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from teachclip.configs.loading import dump_config
from teachclip.configs.schema import Config
from teachclip.stages.runtime.run_folder import TIMES, RunFolder
from teachclip.stages.train.stage import train

from ...conftest import TRUNK

PROCESS = Path(__file__).with_name("training_process.py")
# A checkpoint takes long enough to be killed in.
WIDE = {**TRUNK, "sizes": {**TRUNK["sizes"], "text_width": 64}}
# 18 steps, a checkpoint after each
SETTINGS = {"teachers": ["xclip"], "epochs": 6, "checkpoint_seconds": 1e-6, "tensorboard": False}


def log(config: Config) -> list[dict[str, Any]]:
    """metrics.jsonl without times."""
    lines = RunFolder(config.run_folder).metrics()
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def assert_the_same_run(first: Config, second: Config) -> None:
    """The same weights, bit for bit, the same log, the same choice."""
    one, other = (load_file(config.run_folder / "best.safetensors") for config in (first, second))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert log(first) == log(second)
    results = [json.loads((config.run_folder / "result.json").read_text()) for config in (first, second)]
    assert results[0]["best"] == results[1]["best"]
    assert sorted(path.name for path in first.run_folder.iterdir()) == sorted(
        path.name for path in second.run_folder.iterdir()
    )


def kill(config: Config, kills: int, seed: int) -> int:
    """Train with so many kills; how many processes were still at work when they were killed."""
    path = config.work / f"{config.run_folder.name}.yaml"
    path.write_text(dump_config(config))
    command = [sys.executable, str(PROCESS), str(path), str(kills), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.fixture(scope="module")
def whole(world: Any) -> Config:
    """A run that is never stopped."""
    config: Config = world.config(train={**SETTINGS, "run": "runs/never-killed", "network": {"trunk": WIDE}})
    train(config)
    return config


@pytest.fixture
def killed(world: Any) -> Callable[..., Config]:
    def make(name: str) -> Config:
        made: Config = world.config(train={**SETTINGS, "run": f"runs/{name}", "network": {"trunk": WIDE}})
        return made

    return make


def test_a_killed_run_ends_as_one_that_never_stopped(whole: Config, killed: Callable[..., Config]) -> None:
    config = killed("killed")
    assert kill(config, kills=4, seed=1) >= 2
    assert_the_same_run(whole, config)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_kills(
    whole: Config, killed: Callable[..., Config], record_testsuite_property: Callable[..., None]
) -> None:
    count = seed = 0
    while count < 100:
        seed += 1
        config = killed(f"often-killed-{seed}")
        count += kill(config, kills=10, seed=100 + seed)
        assert_the_same_run(whole, config)
    record_testsuite_property("kills of training", f"{count} kills in {seed} runs")
