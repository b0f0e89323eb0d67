"""DRL trained here teaches a student, from the score store as inside the training step."""

from typing import Any

import pytest
import torch
from teachclip.configs.schema import Config
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.score.stage import score
from teachclip.stages.train.stage import train


def _losses(config: Config, *keys: str) -> torch.Tensor:
    lines = RunFolder(config.run_folder).metrics()
    return torch.tensor([[line[key] for key in keys] for line in lines if line["kind"] == "train"])


@pytest.mark.parametrize("trunk", ["full", "frozen"])
def test_a_drl_trained_here_teaches_from_the_store_as_in_the_step(world: Any, trunk: str) -> None:
    run = f"runs/drl-{trunk}"
    train(world.config(train={"run": run, "trunk": trunk, "network": {"kind": "drl"}}))
    sections: dict[str, Any] = {
        "score": {"store": f"drl-{trunk}.zarr", "coarse": "float32", "teachers": [{"name": "drl", "checkpoint": run}]}
    }
    student = {"teachers": ["drl"], "epochs": 1}
    score(world.config(**sections))
    cached = world.config(train={**student, "run": f"{run}-cached"}, **sections)
    online = world.config(train={**student, "run": f"{run}-online", "teaching": "online"}, **sections)
    for config in (cached, online):
        train(config)
    found, expected = (_losses(config, "loss", "coarse", "fine") for config in (cached, online))
    assert expected.isfinite().all()
    assert (expected > 0).all()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
