"""Watching a run: what is logged and shown, what is warned of, and what stops it."""

import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.configs.schema import TrainConfig
from teachclip.errors import TrainingError
from teachclip.remedies import Train
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.runtime.run_folder import TIMES, RunFolder
from teachclip.stages.train.dataloader.sampler import BatchSampler
from teachclip.stages.train.losses.combined import LossParts
from teachclip.stages.train.record.monitor import Monitor
from teachclip.stages.train.record.tensorboard import Curves
from teachclip.stages.train.stage import train
from teachclip.stages.train.step.training_step import Done
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

VIDEOS = [f"v{k}.mp4" for k in range(50)]


class Warnings(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, message: str) -> None:
        self.said.append(message)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def step(number: int, total: float = 1.0, norm: float = 1.0, coarse: float = 0.25, rows: int = 10) -> Done:
    parts = LossParts(*(torch.tensor(value) for value in (total, 0.5, coarse, 0.0, 0.0, 0.0)))
    return Done(number, np.arange(number, number + rows) % 50, parts, torch.tensor(norm), {"trunk": 1e-7})


@pytest.fixture
def watch(tmp_path: Path) -> Callable[..., Monitor]:
    """A watch over a run in `tmp_path`, with a clock of its own."""

    def make(**settings: Any) -> Monitor:
        config = TrainConfig(**{"tensorboard": False, **settings})
        order, device = BatchSampler(50, 10, 1), torch.device("cpu")
        return Monitor(RunFolder(tmp_path), order, VIDEOS, config, device, Warnings(), Clock())

    return make


def go(watch: Monitor, totals: list[float], start: int = 0) -> None:
    for number, total in enumerate(totals, start):
        watch.add(step(number, total))
        watch.read(0.0, 0.0)


def test_what_is_shown_and_logged(watch: Any, tmp_path: Path) -> None:
    watched = watch()
    with watched.from_step(0):
        for number in range(5):
            watched.add(step(number))
        watched.clock.now = 2.0
        shown = watched.read(12.5, 0.5)
    memory = shown.pop("memory")
    assert shown == {"loss": 1.0, "infonce": 0.5, "coarse": 0.25, "images/s": "300", "data wait": "25.0%"}
    assert memory.endswith(" GB")
    lines = RunFolder(tmp_path).metrics()
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert {"loss", "infonce", "coarse", "fine", "grad_norm", "lr", "epoch"} | TIMES < lines[0].keys()
    assert lines[-1]["images_per_second"] == 5 * 10 * 12 / 2.0
    assert lines[-1]["data_wait"] == 0.25
    assert 1e7 < lines[-1]["memory"] < 1e11
    assert [line["epoch"] for line in lines] == [0] * 5


def test_the_time_of_a_validation_is_not_that_of_steps(watch: Any) -> None:
    watched = watch()
    with watched.from_step(0):
        watched.add(step(0))
        watched.clock.now = 1.0
        with watched.paused():
            watched.clock.now = 101.0
        watched.clock.now = 102.0
        assert watched.read(0.0, 0.0)["images/s"] == f"{10 * 12 / 2:.0f}"


@pytest.mark.parametrize(
    ("settings", "values", "words"),
    [
        ({}, {"total": float("nan")}, "the loss is not finite at step 8"),
        ({}, {"coarse": float("inf")}, "the loss is not finite at step 8"),
        ({}, {"norm": float("inf")}, "the gradients are not finite at step 8"),
        ({"max_loss_ratio": None}, {"norm": float("nan")}, "the gradients are not finite at step 8"),
    ],
)
def test_what_is_not_finite_stops_the_run_naming_the_videos(
    watch: Any, tmp_path: Path, settings: dict[str, Any], values: dict[str, float], words: str
) -> None:
    watched = watch(**settings)
    (tmp_path / "last-00000005.state").write_bytes(b"")
    with watched.from_step(0):
        watched.add(step(6))
        watched.add(step(7, **values))
        with pytest.raises(TrainingError, match=words) as caught:
            watched.read(0.0, 0.0)
    assert caught.value.details[0] == f"videos of the batch: {', '.join(VIDEOS[7:17])}"
    assert caught.value.details[1] == "checkpoints to go on from: last-00000005.state"
    assert caught.value.hint.action == Train()


def test_an_exploding_loss_stops_the_run_naming_the_videos(watch: Any) -> None:
    watched = watch()
    with watched.from_step(0):
        go(watched, [1.0] * 100 + [6.0] * 19)
        with pytest.raises(TrainingError, match=r"the loss explodes: 6 at step 120, for 20 steps") as caught:
            go(watched, [6.0], start=119)
    assert "v19.mp4" in caught.value.details[0]
    assert "train.max_loss_ratio" in caught.value.what


@pytest.mark.parametrize(
    ("settings", "totals"),
    [
        ({}, [1.0] * 100 + ([6.0] * 19 + [1.0]) * 3),  # single bad batches
        ({}, [1.0] * 100 + [4.9] * 100),
        ({}, [1.0] * 40 + [100.0] * 59),  # nothing to compare with yet
        ({}, [0.001] * 100 + [0.4] * 100),  # near zero
        ({}, [-1.0] * 100 + [0.4] * 100),  # a loss of the user's own
        ({"max_loss_ratio": None}, [1.0] * 100 + [1e6] * 100),
        ({"max_loss_ratio": 10}, [1.0] * 100 + [9.0] * 100),
    ],
)
def test_healthy_runs_are_not_stopped(watch: Any, settings: dict[str, Any], totals: list[float]) -> None:
    watched = watch(**settings)
    with watched.from_step(0):
        go(watched, totals)


def test_a_run_that_goes_on_remembers_its_losses(watch: Any) -> None:
    first = watch()
    with first.from_step(0):
        go(first, [1.0] * 100)
    second = watch()
    with second.from_step(100), pytest.raises(TrainingError, match="explodes"):
        go(second, [6.0] * 20, start=100)


def test_waiting_for_data_is_warned_of_once(watch: Any) -> None:
    watched = watch()
    waited = 0.0
    with watched.from_step(0):
        for number in range(400):
            watched.add(step(number))
            watched.clock.now += 0.1
            waited += 0.012 if number >= 120 else 0.0
            if number % 20 == 19:
                watched.read(0.0, waited)
            if number == 160:
                assert not watched.reporter.said, "4 of 100 ms in the last hundred steps"
    assert len(watched.reporter.said) == 1
    assert watched.reporter.said[0].startswith("7% of the last 100 steps were spent waiting for data, 7 ms a step")
    assert "train.prefetch" in watched.reporter.said[0]


def test_a_short_wait_is_not_warned_of(watch: Any) -> None:
    watched = watch()
    with watched.from_step(0):
        for number in range(400):
            watched.add(step(number))
            watched.clock.now += 0.01  # a hundred steps take a second: too short to judge
            watched.read(0.0, 0.005 * number)
    assert watched.reporter.said == []


# TensorBoard


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_the_numbers_of_the_log_once(world: Any, train_until: Any) -> None:
    config = world.config(train={"run": "runs/curves", "epochs": 4})
    train_until(config, 8)
    time.sleep(1 - time.time() % 1 + 0.01)  # event files are named by the second: until the next begins
    train(config)
    assert len(list(config.run_folder.glob("events.out.tfevents.*"))) == 2
    shown, lines = curves(config.run_folder), RunFolder(config.run_folder).metrics()
    for kind, tag, keys in (("train", "loss", ["loss"]), ("train", "lr/afa", ["lr", "afa"]), ("val", "t2v/r1", [])):
        expected = []
        for line in lines:
            if line["kind"] == kind:
                value: Any = line["t2v"]["r1"] if not keys else line[keys[0]]
                expected.append((line["step"], value[keys[1]] if len(keys) == 2 else value))
        assert [number for number, _ in shown[tag]] == [number for number, _ in expected], "no point twice"
        assert [value for _, value in shown[tag]] == pytest.approx([value for _, value in expected])


def test_curves_are_there_at_once_and_name_no_machine(tmp_path: Path) -> None:
    with Curves(tmp_path, 0) as made:
        made.add({"step": 1, "loss": 2.0, "kind": "train"})
        assert curves(tmp_path) == {"loss": [(1, 2.0)]}
    assert [platform.node() in path.name for path in tmp_path.iterdir()] == [False]


def test_curves_on_a_full_disk_fail_where_they_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Curves(tmp_path, 0) as made, open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), made._file.fileno())
        with pytest.raises(OSError, match="No space left"):
            made.add({"step": 1, "loss": 2.0})
    assert capsys.readouterr() == ("", "")


def test_without_curves_tensorboard_is_not_imported(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "teachclip.stages.train.record.tensorboard", None)  # an import fails
    config = world.config(train={"run": "runs/no-curves", "max_steps": 1, "tensorboard": False})
    train(config)
    assert not list(config.run_folder.glob("events*"))
    with pytest.raises(ImportError):
        train(world.config(train={"run": "runs/with-curves", "max_steps": 1}))


def test_nobody_is_told_to_go_on_from_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    assert "go on" not in str(RunFolder(tmp_path).spoiled("the loss is no number", []).hint)
    (tmp_path / "last-00000001.state").touch()
    assert "go on from the newest" in str(RunFolder(tmp_path).spoiled("the loss is no number", []).hint)
