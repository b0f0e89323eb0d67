"""What a message says to do next is a command that can be given as it is printed, and that helps."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

type Teachclip = Callable[..., Result]


def hints(result: Result) -> list[list[list[str]]]:
    """The commands that each way out of a message prints, as words: ways, commands one after the other, words."""
    ways = result.stderr.splitlines()[-1].split("; or ")
    found = (way[at:] for way in ways if (at := way.find(": teachclip ") + 2) > 1)
    return [[shlex.split(one)[1:] for one in line.split(" && ")] for line in found]


def failing(result: Result, code: int = 1) -> str:
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.stderr


def helps(teachclip: Teachclip, failed: Result, *again: str) -> None:
    """Give the first way out of a message as it is printed, and then the command that had failed (or none)."""
    failing(failed)
    way = hints(failed)[0]
    for words in (*way, *([again] if again else [])):
        done = teachclip(*words)
        assert done.exit_code == 0, (words, done.output)


def test_a_teacher_without_scores_that_is_configured_is_scored(teachclip: Teachclip, project: Path) -> None:
    shutil.rmtree(project / "work/scores.zarr")
    train = ("train", "own.yaml", "--set", "train.teachers=[xclip]", "--set", "train.run=runs/taught")
    failed = teachclip(*train)
    assert hints(failed) == [[["score", "own.yaml"]]]  # which reads nothing of the section train
    helps(teachclip, failed, *train)


@pytest.mark.parametrize("teachers", ["[foo]", "[xclip,foo]"])
def test_a_teacher_that_was_never_named_is_told_by_its_name(teachclip: Teachclip, teachers: str) -> None:
    failed = teachclip("train", "own.yaml", "--set", f"train.teachers={teachers}", "--set", "train.run=runs/new")
    ways = hints(failed)
    assert ways[0] == [["train", "own.yaml", "--set", "train.run=runs/new", "--set", "train.teachers=[xclip]"]]
    assert ways[1] == [["score", "own.yaml", "--set", "score.teachers=[{name: foo, checkpoint: FILE}]"]]
    assert "score.teachers names xclip, not foo" in failed.stderr
    helps(teachclip, failed)


def test_an_unfinished_teacher_that_is_not_configured_is_told_what_scoring_needs(
    teachclip: Teachclip, project: Path
) -> None:
    shutil.copytree(project / "work/runs/xclip", project / "work/runs/colours")
    entry = "score.teachers=[{name: colours, checkpoint: runs/colours}]"
    assert teachclip("score", "own.yaml", "--set", entry).exit_code == 0
    done = sorted((project / "work/scores.zarr/colours/tiles").glob("*/done/*"))
    done[-1].unlink()
    train = ("train", "own.yaml", "--set", "train.teachers=[xclip,colours]", "--set", "train.run=runs/both")
    failed = teachclip(*train)
    assert hints(failed)[1] == [["score", "own.yaml", "--set", entry]]
    assert teachclip(*hints(failed)[1][0]).exit_code == 0
    assert teachclip(*train).exit_code == 0


def test_denoising_by_a_teacher_that_was_never_named(teachclip: Teachclip) -> None:
    helps(teachclip, teachclip("denoise", "own.yaml", "--set", "denoise.teachers=[foo]"))


@pytest.mark.parametrize("verb", ["search", "evaluate"])
def test_a_run_that_is_not_there_is_trained(teachclip: Teachclip, verb: str) -> None:
    asked = [verb, "own.yaml", *(["a red square"] if verb == "search" else []), "--set", f"{verb}.run=runs/new"]
    failed = teachclip(*asked)
    assert f"{verb}.run" not in failed.stderr  # training does not make what searching names
    helps(teachclip, failed, *asked)


def test_a_run_that_training_would_start_from_is_trained_first(teachclip: Teachclip) -> None:
    train = ("train", "own.yaml", "--set", "train.init=runs/new", "--set", "train.run=runs/second")
    helps(teachclip, teachclip(*train), *train)


def test_a_teachers_run_that_is_not_there_is_trained_as_one(teachclip: Teachclip, project: Path) -> None:
    entry = "score.teachers=[{name: second, checkpoint: runs/fresh}]"
    failed = teachclip("score", "own.yaml", "--set", entry, "--set", "score.store=new.zarr")
    assert "train.network.kind=xclip" in failed.stderr
    helps(teachclip, failed, "score", "own.yaml", "--set", entry, "--set", "score.store=new.zarr")


def test_a_student_of_another_resolution_searches_frames_of_its_own(teachclip: Teachclip) -> None:
    """The command that is printed answers the question; so does the same question with the setting that it names."""
    frames = ("--set", "prepare.max_frames=6", "--set", "prepare.frames=six", "--set", "train.network.frames=6")
    assert teachclip("prepare", "own.yaml", *frames).exit_code == 0
    assert teachclip("train", "own.yaml", *frames, "--set", "train.run=runs/six").exit_code == 0
    ask = ("search", "own.yaml", "a red square", "--set", "search.run=runs/six")
    failed = teachclip(*ask)
    assert [words[0] for words in hints(failed)[0]] == ["prepare", "search"]
    helps(teachclip, failed, *ask, "--set", "prepare.frames=frames-6x32")


def test_a_run_of_other_settings_is_called_a_run_and_another_one_is_a_whole_command(teachclip: Teachclip) -> None:
    assert teachclip("train", "own.yaml", "--set", "train.run=runs/mine").exit_code == 0
    failed = teachclip("train", "own.yaml", "--set", "train.run=runs/mine", "--set", "train.max_steps=3")
    assert "train.max_steps: the run has 2, now it is 3" in failing(failed)
    assert "the cache" not in failed.stderr
    helps(teachclip, failed)


def test_a_setting_is_added_before_what_is_no_option(teachclip: Teachclip) -> None:
    """Behind `--` everything is a sentence."""
    failed = teachclip("search", "own.yaml", "--set", "search.run=runs/xclip", "--", "-red")
    assert re.search(r"--set search\.run=runs/student -- -red$", failing(failed))
