"""What a run keeps, and what it goes on from: states written beside the steps, damage, full disks, locks."""

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from teachclip.cache import training_state
from teachclip.cache.training_state import load_state, save_state
from teachclip.errors import CacheMismatchError, CheckpointError, TrainingError
from teachclip.remedies import DeleteFolder
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.train.record import checkpoints
from teachclip.stages.train.record.checkpoints import Checkpointer
from teachclip.stages.train.stage import train


class Warnings(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, message: str) -> None:
        self.said.append(message)


class Adam(torch.optim.Adam):
    """Stands for an `Optimiser`."""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    with made.locked():
        made.log([])
    return made


@pytest.fixture
def keeper(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Checkpointer]:
    """A keeper of a tiny network in `folder`; its weights are all `value`."""

    def save_network(network: Any, path: Path, weights: dict[str, torch.Tensor]) -> None:
        path.write_text(str(weights["weight"][0, 0].item()))

    monkeypatch.setattr(checkpoints, "save_network", save_network)

    def make(value: float = 0.0, keep: int = 2) -> Checkpointer:
        network: Any = torch.nn.Linear(3, 3)
        torch.nn.init.constant_(network.weight, value)
        optimiser: Any = Adam(network.parameters())
        return Checkpointer(folder, network, optimiser, keep, Warnings())

    return make


def fill(keeper: Checkpointer, value: float) -> None:
    with torch.no_grad():
        keeper.network.weight.fill_(value)  # type: ignore[operator,union-attr]


def value_of(keeper: Checkpointer) -> float:
    return float(keeper.network.weight.detach()[0, 0])  # type: ignore[operator,union-attr]


def run_steps(keeper: Checkpointer, *steps: int) -> None:
    """After step k the weights are k."""
    for step in steps:
        fill(keeper, step)
        keeper.save(step, 10.0 * step)
    keeper.finish()


def names(folder: RunFolder) -> list[str]:
    return sorted(path.name for path in folder.states)


def test_the_last_states_are_kept_and_the_newest_is_gone_on_from(keeper: Any, folder: RunFolder) -> None:
    run_steps(keeper(), 1, 2, 3, 10)
    assert names(folder) == ["last-00000003.state", "last-00000010.state"]
    again = keeper(-1.0)
    assert again.resume() == 10
    assert (value_of(again), again.seconds, again.reporter.said) == (10.0, 100.0, [])


def test_a_fresh_run_begins_at_the_first_step(keeper: Any) -> None:
    assert keeper().resume() == 0


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Nothing is written before this event."""
    go, save_file = threading.Event(), training_state.save_file

    def wait(*arguments: Any, **named: Any) -> None:
        assert go.wait(120)
        save_file(*arguments, **named)

    monkeypatch.setattr(training_state, "save_file", wait)
    return go


def test_a_training_that_failed_does_not_wait_for_ever(
    keeper: Any, slow_disk: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a copy from a GPU that computes no more."""
    monkeypatch.setattr(checkpoints, "PATIENCE", 0.1)
    writing = keeper()
    writing.save(1, 0.0)
    with pytest.raises(ValueError, match="the training failed"), writing:
        raise ValueError("the training failed")
    slow_disk.set()
    writing.finish()


def test_steps_go_on_while_a_checkpoint_is_written_and_do_not_change_it(
    keeper: Any, folder: RunFolder, slow_disk: threading.Event
) -> None:
    made = keeper()
    fill(made, 1)
    made.save(1, 0.0)
    fill(made, 2)  # the next step
    made.check()
    assert folder.states == []
    slow_disk.set()
    made.finish()
    assert load_state(folder.state(1))["weights"]["weight"][0, 0] == 1


def test_the_next_checkpoint_waits_for_the_one_before(
    keeper: Any, folder: RunFolder, slow_disk: threading.Event
) -> None:
    made = keeper()
    made.save(1, 0.0)
    second = threading.Thread(target=made.save, args=(2, 0.0))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    slow_disk.set()
    second.join(120)
    made.finish()
    assert names(folder) == ["last-00000001.state", "last-00000002.state"]


@pytest.mark.parametrize("damage", ["flipped bit", "cut", "empty"])
def test_a_damaged_newest_state_is_named_and_the_one_before_is_gone_on_from(
    keeper: Any, folder: RunFolder, damage: str
) -> None:
    run_steps(keeper(), 5, 6)
    folder.log([{"step": 5}, {"step": 6}])
    path = folder.state(6)
    raw = bytearray(path.read_bytes())
    raw[-9] ^= 4
    path.write_bytes({"flipped bit": bytes(raw), "cut": bytes(raw[:-9]), "empty": b""}[damage])
    again = keeper()
    assert again.resume() == 5
    assert value_of(again) == 5
    assert folder.metrics() == [{"step": 5}]
    assert "damaged, the run goes on from last-00000005.state before: last-00000006.state" in again.reporter.said[0]
    again.save(7, 0.0)
    again.finish()
    assert names(folder) == ["last-00000005.state", "last-00000007.state"], "the damaged one counts for nothing"


def test_when_all_states_are_damaged_the_run_does_not_begin_anew_by_itself(keeper: Any, folder: RunFolder) -> None:
    run_steps(keeper(), 5, 6)
    for path in folder.states:
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="every training state") as caught:
        keeper().resume()
    assert len(caught.value.details) == 2
    assert caught.value.hint.action == DeleteFolder(str(folder.folder))


def test_a_full_disk_is_told_with_what_is_left(keeper: Any, folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    made = keeper()
    run_steps(made, 1)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(training_state, "save_file", full)
    made.save(2, 0.0)
    with pytest.raises(TrainingError, match="No space left") as caught:
        made.save(3, 0.0)
    assert caught.value.details == ("checkpoints to go on from: last-00000001.state",)
    assert caught.value.where == str(folder.state(2))
    assert sorted(path.name for path in folder.folder.iterdir()) == ["last-00000001.state", "metrics.jsonl", "run.lock"]


def test_the_error_of_a_checkpoint_is_noticed_before_the_next_one(keeper: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = keeper()

    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(training_state, "save_file", read_only)
    made.save(1, 0.0)
    made._writer.wait()
    with pytest.raises(TrainingError, match="Read-only"):
        made.check()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_never_published(keeper: Any, folder: RunFolder, value: float) -> None:
    made = keeper()
    run_steps(made, 4)
    fill(made, value)
    made.choose(5, 1, "sumr", 1.0)
    made.save(5, 0.0)
    with pytest.raises(TrainingError, match=r"after step 5 not all numbers are finite in /weights/weight") as caught:
        made.finish()
    assert caught.value.details[-1] == "checkpoints to go on from: last-00000004.state"
    assert names(folder) == ["last-00000004.state"]
    assert not folder.best.exists()


def test_the_chosen_network_is_the_one_of_its_step(keeper: Any, folder: RunFolder) -> None:
    made = keeper()
    fill(made, 3)
    made.choose(3, 0, "sumr", 1.0)
    made.save(3, 0.0)
    run_steps(made, 4)
    assert folder.best.read_text() == "3.0"


@pytest.mark.parametrize("published", [False, True], ids=["before the state", "after the state"])
def test_a_kill_while_the_network_is_chosen_leaves_the_choice_of_the_state(
    keeper: Any, folder: RunFolder, published: bool
) -> None:
    made = keeper()
    fill(made, 3)
    made.choose(3, 0, "sumr", 1.0)
    made.save(3, 0.0)
    made.finish()
    folder.candidate(6).write_text("6.0")
    if published:
        save_state(folder.state(6), {**load_state(folder.state(3)), "step": 6, "best": {"step": 6, "value": 2.0}})
    again = keeper()
    assert again.resume() == (6 if published else 3)
    assert folder.best.read_text() == ("6.0" if published else "3.0")
    assert again.best["step"] == (6 if published else 3)
    assert not folder.candidate(6).exists()


def test_a_network_is_not_the_chosen_one_before_its_state_is_written(
    keeper: Any, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = keeper()
    fill(made, 3)
    made.choose(3, 0, "sumr", 1.0)
    made.save(3, 0.0)
    made.finish()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(training_state, "save_file", full)
    fill(made, 6)
    made.choose(6, 1, "sumr", 2.0)
    made.save(6, 0.0)
    with pytest.raises(TrainingError, match="No space left"):
        made.finish()
    assert folder.best.read_text() == "3.0"
    again = keeper()
    assert again.resume() == 3
    assert (again.best["step"], folder.best.read_text()) == (3, "3.0")
    assert not list(folder.folder.glob("best-*"))


def test_two_trainings_in_one_folder_are_kept_apart(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        left = folder.folder / ".tmp-0-last"
        left.write_text("of the one that trains")
        with pytest.raises(TrainingError, match=rf"process {os.getpid()} on \S+ is training this run"), folder.locked():
            pass
        assert left.exists()
    with folder.locked():
        assert not left.exists()


def test_a_file_system_without_locks_is_no_reason_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr("fcntl.flock", none)
    with RunFolder(tmp_path / "run").locked():
        pass


# The whole stage


def test_a_run_of_the_release_before_goes_on(world: Any, train_until: Any) -> None:
    """Its only state was called last.state, had no checksum, and its run.json lacks the options that came since."""
    whole = world.config(train={"run": "runs/new", "epochs": 4})
    old = world.config(train={"run": "runs/old", "epochs": 4})
    train(whole)
    train_until(old, 6)
    folder = RunFolder(old.run_folder)
    folder.states[0].rename(folder.folder / "last.state")
    for path in folder.states[:-1]:
        path.unlink()
    run = json.loads((folder.folder / "run.json").read_text())
    (folder.folder / "run.json").write_text(json.dumps({key: run[key] for key in run if key != "train.select_by"}))
    assert train(old).best == train(whole).best
    first, second = (load_file(config.run_folder / "best.safetensors") for config in (whole, old))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert folder.states == []


def test_options_that_came_since_must_be_at_their_defaults(world: Any, train_until: Any) -> None:
    config = world.config(train={"run": "runs/old-differs", "epochs": 4})
    train_until(config, 4)
    path = config.run_folder / "run.json"
    run = json.loads(path.read_text())
    path.write_text(json.dumps({key: run[key] for key in run if key != "train.select_by"}))
    with pytest.raises(CacheMismatchError, match=r"train\.select_by"):
        train(world.config(train={"run": "runs/old-differs", "epochs": 4, "select_by": "r1"}))


def test_what_a_kill_after_the_end_left_is_removed(world: Any) -> None:
    config = world.config(train={"run": "runs/ended", "max_steps": 1})
    train(config)
    RunFolder(config.run_folder).state(1).write_bytes(b"")
    assert train(config).already_done
    assert RunFolder(config.run_folder).states == []


def test_a_run_tells_where_and_with_what_it_was_made(world: Any, train_until: Any) -> None:
    config = world.config(train={"run": "runs/environment", "epochs": 4, "batch_size": 9, "seed": 5})
    train_until(config, 4)
    result = train(config)
    entries = json.loads((config.run_folder / "environment.json").read_text())
    assert [entry["from_step"] for entry in entries] == [0, 3]
    assert entries[0]["torch"] == torch.__version__
    assert os.uname().nodename not in json.dumps(entries)
    assert (result.seed, result.left_over) == (5, 28 - 27)


def test_a_checkpoint_may_be_read_by_whom_other_files_may(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    save_state(tmp_path / "state", {"a": torch.ones(2)})
    assert (tmp_path / "state").stat().st_mode == (tmp_path / "other").stat().st_mode
