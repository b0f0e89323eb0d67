"""Running verbs as a user does, in an empty folder with a configuration, or in a small project."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from teachclip.configs.loading import shipped
from teachclip.pipeline.cli.main import app
from typer.testing import CliRunner, Result

from ...conftest import TRUNK, World
from .stand_ins import Calls, stand_in_for_stages

type Invoke = Callable[..., Result]
type Teachclip = Callable[..., Result]

SETTINGS = f"""
work: work
data: {{captions: captions.csv}}
prepare: {{image_size: 32, max_frames: 4, workers: 1, shard_videos: 8}}
score: {{teachers: [{{name: xclip, checkpoint: runs/xclip}}], shard_texts: 16, chance_check: false}}
train:
  batch_size: 8
  max_steps: 2
  device: cpu
  tensorboard: false
  network: {{words: 10, frames: 4, temporal_layers: 1, trunk: {TRUNK!r}}}
""".replace("None", "null")


def shown(result: Result) -> list[str]:
    """The lines that a verb printed, which ended well."""
    assert result.exit_code == 0, result.stderr
    return result.stdout.splitlines()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: empty but for the shipped template."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_videos.yaml").write_text(shipped()["own_videos"].read_text())
    return tmp_path


@pytest.fixture
def invoke(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """`invoke("train", "own_videos.yaml")`; the result has exit_code, stdout and stderr."""
    monkeypatch.delenv("TEACHCLIP_DEBUG", raising=False)

    def run(*arguments: str, **environment: str) -> Result:
        monkeypatch.setattr("sys.argv", ["teachclip", *arguments])
        return CliRunner().invoke(app, arguments, env={"COLUMNS": "120", "TERMINAL_WIDTH": "120", **environment})

    return run


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """`stand_in_for_stages`."""
    return stand_in_for_stages(monkeypatch)


@pytest.fixture
def project(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy of the world as it was made, with `own.yaml`."""
    shutil.copytree(world.root, tmp_path / "project")
    for run in (tmp_path / "project/work/runs").iterdir():
        if run.name != "xclip":  # of another test
            shutil.rmtree(run)
    monkeypatch.chdir(tmp_path / "project")
    Path("own.yaml").write_text(SETTINGS)
    return Path.cwd()


@pytest.fixture
def teachclip(project: Path, monkeypatch: pytest.MonkeyPatch) -> Teachclip:
    """`teachclip("train", "own.yaml")` as on the command line."""

    def run(*words: str) -> Result:
        monkeypatch.setattr("sys.argv", ["teachclip", *words])
        return CliRunner().invoke(app, words)

    return run
