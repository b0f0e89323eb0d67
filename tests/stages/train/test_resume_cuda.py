"""On a GPU: checkpoints are copied behind the step, and a deterministic run that is stopped gives the same bits."""

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from teachclip.cache.training_state import HostCopy
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.train.stage import train

pytestmark = pytest.mark.gpu


def test_a_copy_is_what_there_was_when_it_was_taken() -> None:
    """A long queue of work before and after it; nobody waits for the GPU in between."""
    value = torch.zeros(1 << 22, device="cuda")
    room = HostCopy()
    for turn in range(3):
        for _ in range(200):
            value.add_(1.0)
        copy = room.take({"value": value})
        for _ in range(200):
            value.add_(1.0)
        copy.wait()
        assert copy.part("value") == {}
        (kept,) = copy.tensors.values()
        assert kept.is_pinned()
        assert (kept == 400 * turn + 200).all()


def test_a_deterministic_run_that_was_stopped_gives_the_same_bits(world: Any, train_until: Any) -> None:
    settings = {"teachers": ["xclip"], "epochs": 4, "device": "cuda", "deterministic": True}
    whole = world.config(train={**settings, "run": "runs/cuda-whole"})
    stopped = world.config(train={**settings, "run": "runs/cuda-stopped"})
    train(whole)
    train_until(stopped, 7)
    train(stopped)
    first, second = (load_file(config.run_folder / "best.safetensors") for config in (whole, stopped))
    assert all(torch.equal(first[key], second[key]) for key in first)
    lines = RunFolder(stopped.run_folder).metrics()
    assert all(line["memory"] > 0 for line in lines if line["kind"] == "train")
