"""A run that was begun before a default changed goes on with what it recorded, unless somebody names another value."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from teachclip.configs.loading import load_config
from teachclip.configs.schema import Config
from teachclip.errors import CacheMismatchError
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.train.stage import train

NAME, BEFORE = "train.loss.infonce", {"infonce": 1.0}
STAYS = "train.loss.infonce stays 1.0, with which this run was begun; the default is 0.2 now"


class Heard(Silent):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, message: str) -> None:
        self.said.append(message)

    @property
    def stays(self) -> list[str]:
        return [line for line in self.said if " stays " in line]


def as_an_earlier_release(config: Config) -> None:
    """Its environment.json says nothing of defaults."""
    path = config.run_folder / "environment.json"
    entries = [{key: entry[key] for key in entry if key != "defaults"} for entry in json.loads(path.read_text())]
    path.write_text(json.dumps(entries))


@pytest.fixture
def begun(world: Any, train_until: Any, request: pytest.FixtureRequest) -> Any:
    """`begun(...)`: the settings of a run that an earlier release began, whose file names no weight of InfoNCE."""

    def begin(**settings: Any) -> dict[str, Any]:
        run = f"runs/{request.node.name}"
        made = {"run": run, "teachers": ["xclip"], "epochs": 4, **settings}
        old = world.config(train={**made, "loss": {"coarse": 1.0, **BEFORE}})
        train_until(old, 4)
        as_an_earlier_release(old)
        return {**made, "loss": {"coarse": 1.0}}

    return begin


def test_it_goes_on_with_the_value_that_it_recorded(world: Any, begun: Any) -> None:
    whole = world.config(train={"run": "runs/whole-of-before", "teachers": ["xclip"], "epochs": 4, "loss": BEFORE})
    settings, heard = begun(), Heard()
    train(whole)
    config = world.config(train=settings)
    recorded = (config.run_folder / "run.json").read_bytes()
    result = train(config, heard)
    assert heard.stays == [STAYS]
    assert any("InfoNCE weighs 1 and coarse teaching 1" in line for line in heard.said)
    first, second = (load_file(each.run_folder / "best.safetensors") for each in (whole, config))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert (config.run_folder / "run.json").read_bytes() == recorded
    again = Heard()
    done = train(config, again)
    assert (done.already_done, done.best, again.stays) == (True, result.best, [STAYS])
    measured = evaluate(world.config(train=settings, evaluate={"run": settings["run"], "split": "val"}))
    assert measured.t2v["sumr"] == result.best["value"]


@pytest.mark.parametrize("value", [0.2, 0.5])
def test_who_names_another_value_is_refused(world: Any, begun: Any, value: float) -> None:
    settings = begun()
    with pytest.raises(CacheMismatchError, match=r"\(train\.loss\.infonce\)"):
        train(world.config(train={**settings, "loss": {"infonce": value}}))
    heard = Heard()
    train(world.config(train={**settings, "loss": BEFORE}), heard)
    assert heard.stays == []


def test_other_settings_are_refused_as_ever_and_a_longer_run_is_told_how_to_go_on(world: Any, begun: Any) -> None:
    settings = begun()
    with pytest.raises(CacheMismatchError, match=r"\(train\.seed\)"):
        train(world.config(train={**settings, "seed": 1}))
    train(world.config(train=settings))
    with pytest.raises(CacheMismatchError, match=r"\(train\.epochs\)") as caught:
        train(world.config(train={**settings, "epochs": 5}))
    assert "go on from its network in another run" in str(caught.value)
    further = world.config(train={**settings, "run": f"{settings['run']}-further", "init": settings["run"]})
    heard = Heard()
    train(further, heard)
    assert (heard.stays, RunFolder(further.run_folder).result is None) == ([], False)


def test_a_value_that_was_no_default_is_refused(world: Any, train_until: Any) -> None:
    settings = {"run": "runs/half", "epochs": 4}
    old = world.config(train={**settings, "loss": {"infonce": 0.5}})
    train_until(old, 4)
    as_an_earlier_release(old)
    with pytest.raises(CacheMismatchError, match=r"\(train\.loss\.infonce\)"):
        train(world.config(train=settings))


def test_a_run_begun_since_is_refused_when_its_value_is_named_no_more(world: Any, train_until: Any) -> None:
    settings = {"run": "runs/since", "epochs": 4}
    train_until(world.config(train={**settings, "loss": BEFORE}), 4)
    with pytest.raises(CacheMismatchError, match=r"\(train\.loss\.infonce\)"):
        train(world.config(train=settings))


def test_one_that_failed_before_its_first_checkpoint_begins_with_todays_default(world: Any) -> None:
    settings = {"run": "runs/never-begun", "max_steps": 1}
    config = world.config(train=settings)
    RunFolder(config.run_folder).folder.mkdir(parents=True)
    RunFolder(config.run_folder).claim(world.config(train={**settings, "loss": BEFORE}), {})
    heard = Heard()
    train(config, heard)
    recorded = json.loads((config.run_folder / "run.json").read_text())
    assert (recorded[NAME], heard.stays) == (0.2, [])


@pytest.mark.parametrize("extends", ["extends: recipes/default\n", ""])
def test_files_with_and_without_the_recipe_are_alike(world: Any, begun: Any, tmp_path: Path, extends: str) -> None:
    settings = begun()
    work = world.config(train=settings).work
    folder = RunFolder(work / settings["run"])
    path = tmp_path / "mine.yaml"
    path.write_text(f"{extends}work: {work}\ntrain: {{run: '{settings['run']}'}}\n")
    assert folder.former_defaults(load_config(path)) == {NAME: 1.0}
    assert folder.former_defaults(load_config(path, ["train.loss.infonce=0.2"])) == {}
    assert folder.former_defaults(load_config(path, ["train.loss.infonce=1"])) == {}
