"""Training with losses of the user's own, and with several teachers combined."""

import json
from pathlib import Path
from typing import Any

import pytest
from teachclip.cache.training_state import load_state
from teachclip.errors import CacheMismatchError, ConfigError, PluginError
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.train.stage import train

LOSSES = """
from pathlib import Path
from torch.nn.functional import kl_div, mse_loss

with Path(__file__).with_suffix(".loads").open("a") as file:
    file.write("loaded\\n")

def coarse(student_logits, teacher_logits):
    return kl_div(student_logits.log_softmax(1), teacher_logits.softmax(1), reduction="batchmean")

def fine(raw_weights, teacher_frame_logits, mask):
    assert raw_weights.shape == teacher_frame_logits.shape == mask.shape
    return mse_loss(raw_weights[mask], teacher_frame_logits[mask])

def fails(student_logits, teacher_logits):
    raise ValueError("not today")
"""


@pytest.fixture
def losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"losses_{tmp_path.parent.name}_{tmp_path.name}".replace("-", "_")
    file = file.with_suffix(".py")
    file.write_text(LOSSES)
    return file


def settings(run: Path, **loss: Any) -> dict[str, Any]:
    return {"run": run, "teachers": ["xclip"], "max_steps": 3, "loss": loss}


def test_a_student_is_taught_by_losses_of_ones_own(world: Any, losses: Path, tmp_path: Path) -> None:
    own = {"coarse_kind": f"{losses.stem}:coarse", "fine_kind": f"{losses.stem}:fine"}
    config = world.config(train=settings(tmp_path / "run", **own))
    assert train(config).steps == 3
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    assert all(line["coarse"] > 0 and line["fine"] > 0 for line in steps)
    assert losses.with_suffix(".loads").read_text() == "loaded\n"
    losses.write_text(LOSSES + "\n# edited\n")
    with pytest.raises(CacheMismatchError, match=r"code of coarse_kind"):
        train(config)


def test_losses_that_do_not_work_end_the_run_with_their_name(world: Any, losses: Path, tmp_path: Path) -> None:
    fails = world.config(train=settings(tmp_path / "fails", coarse_kind=f"{losses.stem}:fails"))
    with pytest.raises(PluginError, match=r"train.loss.coarse_kind: \w+:fails failed\nValueError: not today"):
        train(fails)
    missing = world.config(train=settings(tmp_path / "missing", coarse_kind=f"{losses.stem}:nothing"))
    with pytest.raises(ConfigError, match=r"train.loss.coarse_kind: \w+:nothing cannot be loaded"):
        train(missing)
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    "loss",
    [
        {"teachers": "weighted", "teacher_weights": {"xclip": 0.5}},
        {"teachers": "mean-similarity", "one_scale": "standardised"},
        {"teachers": "mean-similarity", "coarse_on": "cosines", "coarse_kind": "huber", "contrastive": "max-margin"},
    ],
)
def test_every_way_of_combining_teachers_trains(world: Any, tmp_path: Path, loss: dict[str, Any]) -> None:
    result = train(world.config(train=settings(tmp_path / "run", **loss)))
    assert (result.steps, result.teachers) == (3, ("xclip",))


TEMPERED = """
import torch

class Tempered(torch.nn.Module):
    def __init__(self, start=1.0):
        super().__init__()
        self.log_temperature = torch.nn.Parameter(torch.tensor(start).log() + 0.01 * torch.randn(()))

    def forward(self, student_logits, teacher_logits):
        target = (teacher_logits / self.log_temperature.exp()).softmax(1)
        return -(target * student_logits.log_softmax(1)).sum(1).mean()
"""


def test_parameters_of_a_loss_train_and_come_back_when_the_run_goes_on(
    world: Any, losses: Path, tmp_path: Path, train_until: Any
) -> None:
    losses.write_text(TEMPERED)
    own = {"coarse_kind": f"{losses.stem}:Tempered", "coarse_options": {"start": 2.0}}
    given = {"teachers": ["xclip"], "loss": own, "epochs": 3, "keep": 9, "checkpoint_seconds": 0.001}
    whole, broken = (world.config(train={**given, "run": tmp_path / name}) for name in ("whole", "broken"))
    train(whole)
    train_until(broken, 5)

    def temperatures(run: Path) -> list[float]:
        states = [load_state(path) for path in RunFolder(run).states]
        return [float(value) for state in states for value in state["losses"].values()]

    assert len({round(value, 9) for value in temperatures(tmp_path / "broken")}) > 1, "it trains"
    train(broken)
    first, second = (
        [line["coarse"] for line in RunFolder(tmp_path / name).metrics() if line["kind"] == "train"]
        for name in ("whole", "broken")
    )
    assert first == second
    rates = [line["lr"] for line in RunFolder(tmp_path / "whole").metrics() if line["kind"] == "train"]
    assert all(each["loss"] == each["rest"] for each in rates)
    other = {**own, "coarse_options": {"start": 3.0}}
    with pytest.raises(CacheMismatchError, match="coarse_options"):
        train(world.config(train={**given, "loss": other, "run": tmp_path / "whole"}))
