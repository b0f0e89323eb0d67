"""What a user can type: verbs, options, help; and what that must not import."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from teachclip import __version__
from teachclip.pipeline.cli.main import app
from typer.testing import Result

type Invoke = Callable[..., Result]

COMMON = {"--json", "--quiet", "--debug", "--help"}
CONFIGURED = {"CONFIG", "--set", *COMMON}
ON_RAY = {"--ray", "--ray-option", "--mixed"}
SURFACE = {
    "": {"--version", "--install-completion", "--show-completion", "--help"},
    "docs": {"[PAGE]", *COMMON},
    "demo": {"FOLDER", *COMMON},
    "prepare": {"--estimate", "--prune", *ON_RAY, *CONFIGURED},
    "features": {"--estimate", "--info", "--verify", *CONFIGURED},
    "score": {"--shard", "--devices", *ON_RAY, *CONFIGURED},
    "denoise": CONFIGURED,
    "train": {"--accept", *CONFIGURED},
    "evaluate": {"--on", "--run", *CONFIGURED},
    "index": {
        *("VIDEOS...", "--model", "--out", "--estimate", "--workers", "--tag", "--untag", "--set", *ON_RAY),
        *COMMON,
    },
    "search": {
        *("INDEX|CONFIG", "[QUERY]...", "--top", "--under", "--tag", "--windows", "--like", "--model", "--rerank"),
        *("--set", *COMMON),
    },
    "cost": {"[CONFIG]", "--checkpoint", "--measure", "--videos", "--repeats", "--out", "--set", *COMMON},
    "weights": {"RUN...", "--teacher", "--split", "--query", "--count", *CONFIGURED},
    "encode": {"--help"},
    "encode texts": {"SENTENCE...", "--model", "--out", *COMMON},
    "encode videos": {"VIDEOS...", "--model", "--out", "--workers", *COMMON},
    "export": {"INDEX", "--to", "--table", "--model", "--width", *COMMON},
    "export-model": {"MODEL", "--to", "--out", "--weights", "--force", *COMMON},
    "push": {"RUN", "OWNER/NAME", "--folder", "--license", "--license-of", "--only-write", "--private", *COMMON},
    "serve": {"INDEX", "--host", "--port", "--name", "--token-file", "--model", *COMMON},
    "report": {"RUN...", "--out", "--split", "--title", *COMMON},
    "reproduce": {
        *("TABLE", "[CONFIG]...", "--on", "--seeds", "--test", "--partial", "--dry-run", "--out", "--set"),
        *COMMON,
    },
    "sweep": {"SWEEP", "--seeds", "--test", "--partial", "--dry-run", "--out", "--set", *COMMON},
    "cache": {"--help"},
    "cache ls": {"STORE", *COMMON},
    "cache info": {"STORE", "[TEACHER]", *COMMON},
    "cache estimate": {"--like", *CONFIGURED},
    "cache verify": {"STORE", "[TEACHER]", "--full", "--rescore", "--config", "--seed", "--set", *COMMON},
    "cache extend": {"CONFIG", "--set", *COMMON},
    "cache repair": {"--teacher", *CONFIGURED},
    "cache diff": {"STORE_A[:TEACHER]", "STORE_B[:TEACHER]", *COMMON},
    "cache report": {"STORE", "--captions", "--out", "--set", *COMMON},
    "cache export": {"STORE", "TEACHER", "OUT", "--partial", *COMMON},
    "cache import": {"OUT", "STORE", *COMMON},
    "cache merge": {"STORE", "FROM...", "--teacher", *COMMON},
    "cache rm": {"STORE", "TEACHER", "--yes", "--age", *COMMON},
    "cache gc": {"STORE", "--dry-run", "--age", *COMMON},
    "data": {"--help"},
    "data check": {"--decode", "--allow-missing", *CONFIGURED},
    "config": {"--help"},
    "config show": CONFIGURED,
    "config template": {"--for", "--help"},
    "config diff": {"A", "B", "--set", *COMMON},
    "checkpoint": {"--help"},
    "checkpoint inspect": {"FILE", *COMMON},
    "checkpoint convert": {
        "FILE",
        "OUT",
        "--frames",
        "--words",
        "--pooling",
        "--as",
        "--clip",
        "--names",
        "--force",
        *COMMON,
    },
}
HEAVY = {
    "torch",
    "jinja2",
    "torchvision",
    "open_clip",
    "zarr",
    "h5py",
    "tensorstore",
    "decord",
    "faiss",
    "matplotlib",
    "av",
    "numpy",
}


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command below `command`, with the words that call it."""
    yield name, command
    for below, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{name} {below}".strip())


def parameters(command: Any) -> set[str]:
    named = {option for parameter in command.params for option in parameter.opts if option.startswith("-")}
    arguments = {p.metavar for p in command.params if p.param_type_name == "argument"}
    return named | arguments | {"--help"}


def test_the_options_are_what_they_were() -> None:
    """A change here changes what people's scripts call: say so in the CHANGELOG."""
    assert {name: parameters(command) for name, command in commands(typer.main.get_command(app))} == SURFACE


@pytest.mark.parametrize("name", sorted(SURFACE))
def test_every_verb_has_help_and_examples(invoke: Invoke, name: str) -> None:
    result = invoke(*name.split(), "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: teachclip{f' {name}' if name else ''} ")
    if name not in ("cache", "data", "config", "checkpoint", "encode"):
        assert "\n  Examples:\n    teachclip " in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 120


def test_version(invoke: Invoke) -> None:
    assert invoke("--version").stdout == f"teachclip {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["cache"], ["data"], ["config"], ["checkpoint"], ["encode"]])
def test_no_verb_is_answered_with_help(invoke: Invoke, arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Usage: teachclip" in result.output


@pytest.mark.parametrize(
    "arguments", [["trian"], ["train"], ["train", "own_videos.yaml", "--sett", "a=1"], ["search", "a.yaml"]]
)
def test_a_wrong_call_is_short_and_exits_with_2(invoke: Invoke, arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Usage: teachclip" in result.stderr
    assert "Error: " in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["train", "--help"], 0),
        (["checkpoint", "convert", "a.bin", "b.safetensors", "--as", "teachclip"], 2),
        (["train", "own_videos.yaml", "--set", "train.bach_size=3"], 2),
        (["search", "own_videos.yaml", "a dog", "--set", "search.top=0"], 2),
        (["prepare", "nothing.yaml", "--estimate"], 2),
        (["config", "show", "own_videos.yaml"], 0),
        (["config", "diff", "recipes/paper", "own_videos.yaml"], 0),
    ],
)
def test_help_and_mistakes_import_nothing_heavy(folder: Path, arguments: list[str], code: int) -> None:
    program = (
        "import sys\n"
        "from teachclip.pipeline.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n"
        f"    sys.stderr.write('heavy: ' + ' '.join(sorted({HEAVY!r} & set(sys.modules))) + f' exit: {{end.code}}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=200
    )
    assert done.stderr.endswith(f"heavy:  exit: {code}")


def test_names_that_the_terminal_cannot_show_are_escaped(folder: Path) -> None:
    command = [sys.executable, "-c", "from teachclip.pipeline.cli.main import main; main()", "config", "show"]
    done = subprocess.run(
        [*command, "own_videos.yaml", "--set", "train.run=läufe"],
        cwd=folder, capture_output=True, text=True, check=True, timeout=200, env={"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert "run: l\\xe4ufe" in done.stdout
