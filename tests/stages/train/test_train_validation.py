"""What chooses the network is said wherever the run's numbers are."""

import csv
import json
from typing import Any

import pytest
from teachclip.configs.schema import Config
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.train.stage import train


class _Hears(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def without_val(world: Any) -> Any:
    """The world's configuration, its validation videos taken for training; `data` has more settings."""

    def config(run: str, **data: Any) -> Config:
        with (world.root / "captions.csv").open(newline="") as file:
            rows = [{**row, "split": row["split"].replace("val", "train")} for row in csv.DictReader(file)]
        captions = world.root / "without_val.csv"
        with captions.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["video", "caption", "split"])
            writer.writeheader()
            writer.writerows(rows)
        settings = {"run": f"runs/{run}", "epochs": 1, "max_steps": 1}
        return world.config(
            data={"captions": captions, **data}, train=settings, evaluate={"run": f"runs/{run}", "device": "cpu"}
        )

    return config


def test_a_network_that_the_test_split_chose_is_marked(without_val: Any) -> None:
    config, heard = without_val("on_test", validation="test"), _Hears()
    result = train(config, heard)
    assert result.videos == 18
    assert result.best["chosen_by"] == "sumr (text to video) on the test split, as published (data.validation: test)"
    assert any("the test split chooses the network" in warning for warning in heard.warnings)
    stored = json.loads((config.run_folder / "result.json").read_text())
    assert stored["best"]["chosen_by"] == result.best["chosen_by"]
    measured = evaluate(config)
    assert measured.chosen_by == result.best["chosen_by"]
    assert any("the test split" in mark for mark in measured.marks)


def test_by_default_a_part_of_the_training_videos_validates(without_val: Any) -> None:
    config, heard = without_val("held_out"), _Hears()
    result = train(config, heard)
    assert result.videos == 16
    assert result.best["chosen_by"] == "sumr (text to video) on the validation split"
    assert not any("chooses" in warning for warning in heard.warnings)
    assert evaluate(config).marks == ()
