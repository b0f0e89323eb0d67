"""What is asked of a Ray cluster on the command line, and what is answered where it makes no sense."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from teachclip.pipeline.cli.shell.cluster import on_ray

type Invoke = Callable[..., Result]


def test_options_reach_ray_as_what_they_are() -> None:
    how = on_ray("local", ["num_gpus=0.5", "resources={fast: 1}", "name=mine"], True, {})
    assert how is not None
    assert (how.address, how.mixed) == ("local", True)
    assert how.options == {"num_gpus": 0.5, "resources": {"fast": 1}, "name": "mine"}
    assert on_ray(None, None, False, {"--shard": "0/2"}) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ray-option", "num_cpus=1"], "--ray-option is for --ray, which is not given"),
        (["--mixed"], "--mixed is for --ray, which is not given"),
        (["--ray", "local", "--shard", "0/2"], "--shard and --ray each share out the work"),
        (["--ray", "local", "--devices", "2"], "--devices and --ray each share out the work"),
        (["--ray", "local", "--ray-option", "num_cpus"], "this is no KEY=VALUE"),
        (["--ray", "local", "--ray-option", "resources={a"], "its value cannot be read"),
        (
            ["--ray", "local", "--ray-option", "num_cpus=all"],
            "Ray does not take these options of a worker: num_cpus is",
        ),
    ],
)
def test_what_makes_no_sense_is_said_in_a_line(invoke: Invoke, folder: Path, words: list[str], said: str) -> None:
    (folder / "own.yaml").write_text("score: {teachers: [{name: x, checkpoint: x.pt}]}\n")
    result = invoke("score", "own.yaml", *words)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prepare", "own.yaml", "--mixed"], "--mixed is for --ray, which is not given"),
        (["prepare", "own.yaml", "--ray", "local", "--estimate"], "--estimate says what this machine would take"),
        (["index", "clips", "--ray-option", "num_cpus=1"], "--ray-option is for --ray, which is not given"),
        (["index", "clips", "--ray", "local", "--estimate"], "--estimate says what this machine would take"),
        (["index", "own.yaml", "--ray", "local"], "--ray is for videos: of a configuration, frames that are there"),
    ],
)
def test_where_a_cluster_is_of_no_use_is_said_in_a_line(
    invoke: Invoke, folder: Path, words: list[str], said: str
) -> None:
    (folder / "own.yaml").write_text("work: work\n")
    result = invoke(*words)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (folder / "work").exists()
    assert not (folder / "index").exists()


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
@pytest.mark.parametrize("words", [["score", "own.yaml"], ["prepare", "own.yaml"], ["index", "clips", "--model", "x"]])
def test_without_ray_the_extra_is_named(invoke: Invoke, folder: Path, words: list[str]) -> None:
    (folder / "own.yaml").write_text("score: {teachers: [{name: x, checkpoint: x.pt}]}\n")
    result = invoke(*words, "--ray", "local")
    assert result.exit_code == 2
    assert "pip install 'teachclip[ray]'" in " ".join(result.stderr.split())
