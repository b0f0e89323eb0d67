"""A run that one process left goes on with two, and gives the student of one; in float64, to rounding."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from teachclip.configs.loading import dump_config
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.train.stage import train

PROGRAM = Path(__file__).with_name("many_training.py")
ALIKE = 1e-9  # float64's rounding, of sums in another order, after some steps of AdamW


@pytest.fixture
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def test_a_run_goes_on_with_another_number_of_processes(world: Any, train_until: Any, float64: None) -> None:
    settings = {"teachers": ["xclip"], "batch_size": 7, "epochs": 3, "tensorboard": False}
    whole, left = (
        world.config(train={**settings, "run": f"runs/{name}"}, score={"store": "exact.zarr"})
        for name in ("of-one", "of-one-and-two")
    )
    train(whole)
    train_until(left, 7)
    assert [path.name for path in RunFolder(left.run_folder).states] == ["last-00000004.state"]
    path = left.work / "of-one-and-two.yaml"
    path.write_text(dump_config(left))
    command = [sys.executable, str(PROGRAM), "train", "2", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, timeout=240, env=environment, capture_output=True)
    first, second = (load_file(config.run_folder / "best.safetensors") for config in (whole, left))
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=ALIKE, atol=ALIKE, msg=key)
    lines = [[line for line in RunFolder(c.run_folder).metrics() if line["kind"] == "train"] for c in (whole, left)]
    assert [line["step"] for line in lines[1]] == list(range(1, 13))
    assert [line["loss"] for line in lines[1]] == pytest.approx([line["loss"] for line in lines[0]], rel=ALIKE)
