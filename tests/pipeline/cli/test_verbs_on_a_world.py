"""What verbs say of a small world: of sentences with dashes, batches, runs that are finished or may only be read."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from teachclip.configs.loading import dump_config
from teachclip.remedies import DeleteFolder
from teachclip.stages.evaluate import one_model
from teachclip.stages.prepare import stage as prepare_stage
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.train.stage import train
from typer.testing import Result

type Invoke = Callable[..., Result]


@pytest.fixture
def mine(world: Any, folder: Path) -> Path:
    """The folder of a configuration of the world, with a student of two epochs."""
    config = world.config(train={"run": "runs/small-words"})
    train(config)
    (folder / "mine.yaml").write_text(dump_config(config))
    return Path(config.run_folder)


@pytest.mark.parametrize("sentence", ["-query", "-q", "- a dog", "-set"])
def test_a_sentence_may_begin_with_a_dash(mine: Path, invoke: Invoke, sentence: str) -> None:
    asked = ("--set", f"search.run={mine}", "--json")
    for words in (
        ["search", "mine.yaml", "first", sentence, "last", *asked],
        ["search", *asked, "mine.yaml", "--", sentence],
    ):
        result = invoke(*words)
        assert result.exit_code == 0, result.stderr
        expected = [sentence] if "--" in words else ["first", sentence, "last"]
        assert [each["query"] for each in json.loads(result.stdout)["queries"]] == expected


def test_two_dashes_are_an_option_or_come_behind_two_dashes(mine: Path, invoke: Invoke) -> None:
    result = invoke("search", "mine.yaml", "--a dog runs")
    assert result.exit_code == 2
    assert "no such option: --a dog runs" in result.stderr
    (command,) = re.findall(r"teachclip search mine.yaml -- '--a dog runs'", result.stderr)
    assert command
    assert "did you mean --json?" in invoke("search", "mine.yaml", "a dog", "--jsn").stderr
    result = invoke("search", "mine.yaml", "--json", "--set", f"search.run={mine}", "--", "--a dog runs", "--json")
    assert [each["query"] for each in json.loads(result.stdout)["queries"]] == ["--a dog runs", "--json"]


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        ((), "each step is of 8 pairs; 4 of 28 captions of an epoch are left to others"),
        (("train.chunk=3",), "each step is of 8 pairs, encoded 3 at a time; 4 of 28"),
        (("train.chunk=8",), "each step is of 8 pairs; 4 of 28"),
        (("train.batch_size=500",), "each step is of 28 pairs (all there are; train.batch_size is 500)\n"),
    ],
)
def test_training_says_how_many_pairs_a_step_has(
    mine: Path, invoke: Invoke, sets: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    options = [part for each in ("train.max_steps=1", f"train.run={tmp_path}/run", *sets) for part in ("--set", each)]
    result = invoke("train", "mine.yaml", *options)
    assert result.exit_code == 0, result.stderr
    assert told in result.stderr


def test_more_epochs_after_a_finished_run_start_another_one_from_it(mine: Path, world: Any, invoke: Invoke) -> None:
    result = invoke("train", "mine.yaml", "--set", "train.epochs=4")
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert "this run is finished" in last
    assert "--set train.run=runs/OTHER --set train.init=runs/small-words" in last
    commands = re.findall(r"--set (\S+?);?(?= |$)", last.partition("; or")[0])
    assert commands[0] == "train.epochs=4"
    sets = [part for each in commands for part in ("--set", each.replace("OTHER", "further"))]
    assert invoke("train", "mine.yaml", *sets).exit_code == 0  # the command as it stands
    assert RunFolder(mine.parent / "further").result is not None

    for fewer in ("train.epochs=1", "train.max_steps=1", "train.seed=3"):
        told = invoke("train", "mine.yaml", "--set", fewer).stderr
        assert "train.init" not in told
        assert f"name another run: teachclip train mine.yaml --set {fewer} --set train.run=runs/OTHER" in told
    shutil.rmtree(mine.parent / "further")


def test_a_run_that_is_not_finished_is_no_network_to_go_on_from(mine: Path, world: Any) -> None:
    config = world.config(train={"run": "runs/small-words", "epochs": 4})
    folder = RunFolder(mine)
    (mine / "result.json").unlink()
    hint = folder._otherwise({"train.epochs": 4}, {"train.epochs": 2}, config)
    assert hint.advice == "name another run"
    assert hint.otherwise is not None
    assert hint.otherwise.action == DeleteFolder(str(mine))
    shutil.rmtree(mine)


@pytest.mark.parametrize("lost", ["metrics", "ranks"])
def test_a_run_that_may_only_be_read_is_measured_and_shown(
    mine: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    read_only = OSError(30, "Read-only file system", str(mine / "evaluation-test.json"))

    def refuse(*_: object) -> None:
        raise read_only

    whole = invoke("evaluate", "mine.yaml", "--run", str(mine))
    assert whole.exit_code == 0
    assert "R@1" in whole.stdout
    monkeypatch.setattr(one_model, "publish" if lost == "metrics" else "save_query_ranks", refuse)
    result = invoke("evaluate", "mine.yaml", "--run", str(mine))
    assert (result.exit_code, result.stdout) == (1, whole.stdout)
    assert f"{mine}: these metrics are not kept there: Read-only file system" in result.stderr
    assert f"evaluate.run={mine}/best.safetensors" in result.stderr
    asked = ("evaluate", "mine.yaml", "--run", str(mine), "--run", str(mine / "best.safetensors"), "--quiet")
    several = invoke(*asked)
    assert several.exit_code == 1
    assert several.stdout.count("text to video") == 2
    assert "Read-only file system" in several.stderr
    document = json.loads(invoke(*asked[:4], "--json").stdout)
    assert (document["not_kept"], document["ranks"]) == ("Read-only file system", None)
    assert document["t2v"] == json.loads((mine / "evaluation-test.json").read_text())["t2v"]


def test_a_video_that_runs_out_of_time_names_the_option(
    world: Any, folder: Path, invoke: Invoke, spawned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = world.config()
    (folder / "clips").mkdir()
    shutil.copy(world.root / "clips/00.mp4", folder / "clips/hang.mp4")
    data = config.data.model_copy(update={"captions": folder / "captions.csv", "videos": folder / "clips"})
    (folder / "captions.csv").write_text("video,caption\nhang.mp4,x\n")
    changed = config.model_copy(update={"data": data, "work": folder / "work"})
    (folder / "mine.yaml").write_text(dump_config(changed))
    misbehave, real = spawned("misbehave"), prepare_stage.decode_videos
    with monkeypatch.context() as patch:
        patch.setattr(
            prepare_stage, "decode_videos", lambda jobs, settings, ahead: real(jobs, settings, ahead, misbehave)
        )
        result = invoke("prepare", "mine.yaml", "--set", "prepare.timeout=0.5", "--set", "prepare.decoder=pyav")
    assert result.exit_code == 1
    assert "hang.mp4: timeout, not decoded within 0.5 seconds (prepare.timeout)" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("give them longer: teachclip prepare mine.yaml")
    assert result.stderr.splitlines()[-1].endswith("--set prepare.timeout=2")
    assert invoke("prepare", "mine.yaml").exit_code == 0
