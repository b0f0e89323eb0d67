"""Every example of every help text is a command that works; only the stages behind it are stand-ins."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from teachclip.configs.schema import Config
from teachclip.pipeline.cli.main import app
from typer.testing import CliRunner

from .conftest import Invoke
from .stand_ins import Calls


def help_texts(command: Any, words: tuple[str, ...] = ()) -> Iterator[str]:
    yield CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "120"}).stdout
    for name, child in getattr(command, "commands", {}).items():
        yield from help_texts(child, (*words, name))


def examples() -> list[str]:
    texts = "\n".join(help_texts(typer.main.get_command(app)))
    return sorted({line.strip() for line in re.findall(r"(?m)^ {4}teachclip .*$", texts)})


def test_there_are_examples_of_every_verb() -> None:
    verbs = {line.split()[1] for line in examples()}
    assert verbs == {
        "demo", "prepare", "features", "score", "denoise", "train", "evaluate", "index", "search", "cost", "weights",
        "cache", "data", "config", "checkpoint", "reproduce", "sweep", "report", "serve", "docs",
        "encode", "export", "export-model", "push",
    }  # fmt: skip


# Those of `cache` run on real stores, in test_cache_verbs.py; those of sweeps in test_sweep_verbs.py, of reports on
# runs in test_run_report.py, of `serve` in test_serve_verb.py, of `features` on real features in test_features_verb.py.
ELSEWHERE = tuple(f"teachclip {verb} " for verb in ("cache", "sweep", "reproduce", "report", "serve", "features"))


@pytest.mark.parametrize("command", [line for line in examples() if not line.startswith(ELSEWHERE)])
def test_example(command: str, invoke: Invoke, stages: Calls, folder: Path) -> None:
    words = shlex.split(command.split(" > ")[0])[1:]
    for other in ("msvd.yaml", "vatex.yaml"):
        (folder / other).write_text(f"work: {other}")
    (folder / "index").mkdir()
    (folder / "index/index.sqlite").touch()
    (folder / "sentences.txt").write_text("a cat")
    result = invoke(*words)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout
    if "--json" in words:
        json.loads(result.stdout)
    assert any(name.endswith("_on_cluster") for name, _ in stages) == ("--ray" in words)
    if words[0] == "index" and not words[1].endswith(".yaml"):
        (_, (videos, out, model)) = stages[-1]
        assert videos == [word for word in words[1:] if word in ("clips/", "holidays/*.mkv", "@files.txt")]
        assert out == Path("index")
        assert model == (words[words.index("--model") + 1] if "--model" in words else None)
    elif words[:2] == ["search", "index/"]:
        assert stages[-1][0] == "stages.search.index_search.search_index"
        asked = [] if "--like" in words else words[2:3]
        assert stages[-1][1][:2] == (Path("index"), ["a cat"] if asked == ["@sentences.txt"] else asked)
    elif words[0] not in ("config", "cost", "demo", "checkpoint", "docs", "encode", "export", "export-model", "push"):
        assert stages
        config = stages[-1][1][0]
        assert isinstance(config, Config)
        assert config.work == folder / "work"
        for number, word in enumerate(words):
            if word == "--set" and not words[number + 1].endswith("]"):
                key, _, value = words[number + 1].partition("=")
                assert str(look_up(config, key)) == value.replace("3e-4", "0.0003")


def look_up(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config
