"""Training with losses of the user's own, and with several teachers combined."""

import json
from pathlib import Path
from typing import Any

import pytest
from teachclip.errors import CacheMismatchError, ConfigError, PluginError
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
