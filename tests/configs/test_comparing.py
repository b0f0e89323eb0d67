"""What separates two configurations, and why."""

import json
from pathlib import Path

import pytest
from teachclip.configs.loading import Difference, Side, differences, named, shipped
from teachclip.errors import ConfigError
from teachclip.pipeline.cli.main import app
from typer.testing import CliRunner, Result


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def diff(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["config", "diff", *arguments])


def test_only_what_differs_with_the_comment_beside_each_value(tmp_path: Path) -> None:
    first = write(
        tmp_path,
        "a.yaml",
        "train:\n  seed: 1   # the first\n  epochs: 3  # alike\n  run: 'a # b'   # it's odd\n  batch_size: 7\n",
    )
    second = write(tmp_path, "b.yaml", "train: {epochs: 3, seed: 2, run: c#d}  # all of it\n")
    assert differences(first, second) == [
        Difference("train.run", Side("a # b", True, "it's odd"), Side("c#d", True, "all of it")),
        Difference("train.batch_size", Side(7, True, None), Side(120, True, None)),
        Difference("train.seed", Side(1, True, "the first"), Side(2, True, "all of it")),
    ]
    assert differences(first, first) == []


def test_what_is_extended_is_compared_and_its_reasons_are_told(tmp_path: Path) -> None:
    mine = write(tmp_path, "a.yaml", "extends: recipes/official\ntrain:\n  loss:\n    fine: 3  # more of it\n")
    found = differences(shipped()["recipes/official"], mine)
    assert [(difference.key, difference.second) for difference in found] == [
        ("train.loss.fine", Side(3.0, True, "more of it"))
    ]
    to_default = {difference.key: difference for difference in differences(mine, shipped()["recipes/default"])}
    assert to_default["train.loss.mask_same_video"].first.reason == "captions of the same video count as wrong answers"


def test_set_changes_the_second(tmp_path: Path) -> None:
    file = write(tmp_path, "a.yaml", "train:\n  seed: 1  # why\n")
    assert differences(file, file, ["train.seed=2"]) == [
        Difference("train.seed", Side(1, True, "why"), Side(2, True, None))
    ]


def test_paths_are_compared_as_written(tmp_path: Path) -> None:
    text = "work: here\ndata:\n  captions: c.csv\n"
    assert differences(write(tmp_path, "x/a.yaml", text), write(tmp_path, "y/a.yaml", text)) == []
    assert differences(write(tmp_path, "x/a.yaml", "work: here"), write(tmp_path, "z.yaml", "work: there"))


def test_entries_that_only_one_side_has(tmp_path: Path) -> None:
    first = write(tmp_path, "a.yaml", "score:\n  teachers:\n    - {name: a, checkpoint: x}\n")
    second = write(
        tmp_path, "b.yaml", "score:\n  teachers:\n    - {name: a, checkpoint: y}\n    - name: b\n      plugin: m:C\n"
    )
    found = {difference.key: difference for difference in differences(first, second)}
    assert found["score.teachers.0.checkpoint"].second.value == "y"
    assert "score.teachers.0.name" not in found
    assert found["score.teachers.1.plugin"] == Difference(
        "score.teachers.1.plugin", Side(None, False, None), Side("m:C", True, None)
    )


def test_mistakes_are_told_as_ever(tmp_path: Path) -> None:
    good, bad = write(tmp_path, "a.yaml", ""), write(tmp_path, "b.yaml", "train:\n  sed: 3\n")
    with pytest.raises(ConfigError, match="did you mean train"):
        differences(good, bad)
    with pytest.raises(ConfigError, match="did you mean recipes/paper"):
        named("recipes/papre")
    with pytest.raises(ConfigError, match="no such file"):
        differences(good, named(str(tmp_path / "c.yaml")))


def test_a_file_wins_over_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert named("recipes/paper") == shipped()["recipes/paper"]
    assert named("paper.yaml") == Path("paper.yaml")
    assert named(str(write(tmp_path, "recipes/paper", ""))) == tmp_path / "recipes/paper"
    assert named("recipes/paper") == Path("recipes/paper")


def test_shown_for_people_and_for_programs(tmp_path: Path) -> None:
    first = str(write(tmp_path, "a.yaml", "train:\n  optim:\n    clip_norm: null  # none\n"))
    result = diff(first, "recipes/default")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "train.optim.clip_norm",
        f"  {first + ':':<{max(len(first), 15) + 1}} null  # none",
        f"  {'recipes/default:':<{max(len(first), 15) + 1}} 1.0   # the code's",
    ]
    told = json.loads(diff(first, "recipes/default", "--json").stdout)
    assert told == {
        "a": first,
        "b": "recipes/default",
        "differences": [
            {
                "key": "train.optim.clip_norm",
                "a": {"value": None, "given": True, "reason": "none"},
                "b": {"value": 1.0, "given": True, "reason": "the code's"},
            }
        ],
    }
    same = diff(first, first)
    assert (same.exit_code, same.stdout) == (0, "no setting differs\n")
    assert json.loads(diff(first, first, "--json").stdout)["differences"] == []
    wrong = diff(first, "recipes/defualt")
    assert wrong.exit_code == 2
    assert "did you mean recipes/default?" in wrong.stderr
