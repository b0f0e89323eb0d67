"""A logger of the user's own: it gets the numbers of the log, and its failures are its own."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from teachclip.errors import ConfigError, PluginError
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.train.stage import train

EXAMPLES = Path(__file__).parents[4] / "examples"


class Wandb(ModuleType):
    """Stands in for the package, which sends everything to a server."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = 0

    def init(self, **settings: Any) -> Any:
        self.runs.append(settings)
        return SimpleNamespace(log=lambda numbers, step: self.logged.append((step, numbers)), finish=self.finish)

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    made = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", made)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "wandb_logger", raising=False)
    return made


def config(world: Any, run: str, **settings: Any) -> Any:
    return world.config(train={"run": f"runs/{run}", "max_steps": 3, "tensorboard": False, **settings})


def test_the_example_gets_what_the_log_has(world: Any, wandb: Wandb) -> None:
    settings = config(world, "watched", logger="wandb_logger:Logger")
    train(settings)
    lines = RunFolder(settings.run_folder).metrics()
    assert [step for step, _ in wandb.logged] == [line["step"] for line in lines]
    for (_, logged), line in zip(wandb.logged, lines, strict=True):
        if line["kind"] == "train":
            assert logged["loss"] == line["loss"]
            assert logged["lr/afa"] == line["lr"]["afa"]
        else:
            assert logged["t2v/r1"] == line["t2v"]["r1"]
    assert (wandb.finished, len(wandb.runs)) == (1, 1)
    assert wandb.runs[0]["id"] == "watched"
    assert wandb.runs[0]["config"]["max_steps"] == 3


def test_a_run_that_goes_on_is_the_same_run_there(world: Any, wandb: Wandb, train_until: Any) -> None:
    settings = config(world, "watched-on", logger="wandb_logger:Logger", max_steps=6)
    train_until(settings, 3)
    train(settings)
    assert [run["id"] for run in wandb.runs] == ["watched-on"] * 2
    assert sorted({step for step, _ in wandb.logged}) == [1, 2, 3, 4, 5, 6]


def module(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    (folder / "my_logger.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "my_logger", raising=False)


def test_one_that_fails_is_told_once_and_the_run_ends_well(
    world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, heard: Any
) -> None:
    module(
        monkeypatch,
        tmp_path,
        "class Logger:\n"
        "    def __init__(self, folder, settings, start): pass\n"
        "    def log(self, step, numbers): raise ConnectionError('no network')\n"
        "    def close(self): raise AssertionError('closed')\n",
    )
    settings = config(world, "failing", logger="my_logger:Logger")
    train(settings, heard)
    said = [line for line in heard.warnings if "my_logger" in line]
    assert len(said) == 1
    assert "no network" in said[0]
    assert "goes on without it" in said[0]
    assert len(RunFolder(settings.run_folder).metrics()) == 4


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("class Other: pass", ConfigError, "cannot be loaded"),
        ("class Logger:\n    def __init__(self, *_): raise OSError('not logged in')", PluginError, "failed"),
        ("class Logger:\n    def __init__(self, *_): pass", PluginError, "no method log"),
    ],
)
def test_one_that_cannot_be_made_ends_the_run_before_its_first_step(
    world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, error: type[Exception], message: str
) -> None:
    module(monkeypatch, tmp_path, code)
    settings = config(world, "not-made", logger="my_logger:Logger")
    with pytest.raises(error, match=message):
        train(settings)
    assert RunFolder(settings.run_folder).metrics() == []
