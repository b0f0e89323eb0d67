"""Runs that are asked to stop: preempted ones end well, saved, with the command to go on."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from teachclip.cache import training_state
from teachclip.cache.training_state import load_state
from teachclip.configs.loading import dump_config
from teachclip.configs.schema import Config
from teachclip.errors import StoppedEarly, TrainingError
from teachclip.pipeline.cli.main import app
from teachclip.pipeline.cli.shell.running import running
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.runtime.stopping import SAME, StopRequest
from teachclip.stages.train.stage import train
from typer import Exit
from typer.testing import CliRunner

SETTINGS = {"checkpoint_seconds": 0.001, "tensorboard": False}


def written(config: Config) -> Path:
    path = config.work / f"{config.run_folder.name}.yaml"
    path.write_text(dump_config(config))
    return path


def wait_for_steps(config: Config) -> None:
    """Until the run has made some steps."""
    until = time.monotonic() + 150
    while len(RunFolder(config.run_folder).metrics()) < 4 and time.monotonic() < until:
        time.sleep(0.01)


def test_a_preempted_process_is_saved_and_goes_on_to_the_same_network(world: Any) -> None:
    config = world.config(train={**SETTINGS, "run": "runs/preempted", "epochs": 16})
    path = written(config)
    command = [sys.executable, "-m", "teachclip", "train", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for_steps(config)
        process.terminate()
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    folder = RunFolder(config.run_folder)
    step = load_state(folder.states[0])["step"]
    assert out == f"stopped at step {step} of 48, which is saved; go on with: teachclip train {path}\n"
    assert folder.metrics()[-1]["step"] == step
    whole = world.config(train={**SETTINGS, "run": "runs/not-preempted", "epochs": 16})
    assert train(config).best == train(whole).best
    first, second = (load_file(each.run_folder / "best.safetensors") for each in (config, whole))
    assert all(torch.equal(first[key], second[key]) for key in first)


@contextmanager
def sent(config: Config, number: int) -> Iterator[None]:
    """This process gets a signal when the run has made some steps."""

    def send() -> None:
        wait_for_steps(config)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 0), (signal.SIGINT, 130)], ids=["USR1", "INT"])
def test_other_signals_save_as_well(world: Any, monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    config = world.config(train={**SETTINGS, "run": f"runs/signal-{number}", "epochs": 400})
    arguments = ["train", str(written(config)), "--json", "--quiet"]
    monkeypatch.setattr("sys.argv", ["teachclip", *arguments])
    with sent(config, number):
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code
    step = load_state(RunFolder(config.run_folder).states[0])["step"]
    document = json.loads(result.stdout)
    if code == 0:
        assert document == {"stopped": step, "steps": 1200, "go_on": f"teachclip {' '.join(arguments)}"}
    else:
        assert document["error"]["what"] == f"stopped at step {step} of 1200, which is saved"
        assert document["error"]["hint"] == f"go on with: teachclip {' '.join(arguments)}"


def test_a_stop_that_cannot_be_saved_is_an_error(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = world.config(train={**SETTINGS, "run": "runs/not-saved", "epochs": 400})
    stop = StopRequest()
    stop.signal = signal.SIGTERM

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(training_state, "save_file", full)
        with pytest.raises(TrainingError, match="No space left"):
            train(config, stop=stop)
    with pytest.raises(StoppedEarly, match="stopped at step 1 of 1200"):
        train(config, stop=stop)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_second_request_is_not_heeded_but_for_one_that_a_launcher_passed_on() -> None:
    clock = Clock()
    stop = StopRequest(clock)
    assert not stop.ask(signal.SIGTERM), "nobody looks yet: the process is to end at once"
    with stop.heeded():
        assert stop.ask(signal.SIGTERM)
        clock.now = 0.9 * SAME
        assert stop.ask(signal.SIGTERM)
        clock.now = 1.1 * SAME
        assert not stop.ask(signal.SIGTERM)
    assert stop.signal == signal.SIGTERM


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_the_verb_at_once(capsys: pytest.CaptureFixture[str], number: int, code: int) -> None:
    clock = Clock()
    stop = StopRequest(clock)
    reached: list[str] = []

    def work() -> None:
        with running("train", False, False, False, stop=stop), stop.heeded():
            os.kill(os.getpid(), number)
            reached.append("after the first")
            clock.now = 5.0
            os.kill(os.getpid(), number)
            time.sleep(1)
            reached.append("after the second")

    with pytest.raises(Exit) as caught:
        work()
    assert caught.value.exit_code == code
    assert reached == ["after the first"]
    assert "stopped; everything finished is kept" in capsys.readouterr().err


@pytest.mark.parametrize("asked_by", [signal.SIGTERM, None], ids=["this process", "another process of the run"])
def test_of_many_processes_one_tells_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked_by: int | None
) -> None:
    monkeypatch.setattr("sys.argv", ["teachclip", "train", "a.yaml"])
    said = []
    for rank in (0, 1):
        for name, value in {"RANK": rank, "WORLD_SIZE": 4, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 4}.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("MASTER_ADDR", "localhost")
        monkeypatch.setenv("MASTER_PORT", "1")
        with running("train", False, False, False):
            raise StoppedEarly(7, 9, asked_by)
        said.append(capsys.readouterr().out)
    go_on = "torchrun --nproc-per-node=4 -m teachclip train a.yaml"
    assert said == [f"stopped at step 7 of 9, which is saved; go on with: {go_on}\n", ""]
