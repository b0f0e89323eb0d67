"""Running verbs as a user does, in an empty folder with a configuration."""

from collections.abc import Callable
from pathlib import Path

import pytest
from teachclip.configs.loading import shipped
from teachclip.pipeline.cli.main import app
from typer.testing import CliRunner, Result

type Invoke = Callable[..., Result]


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
