"""Errors name what helps; the command line alone has commands for it, and these are commands that it takes."""

import ast
import pickle
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import pytest
import typer
from teachclip import remedies
from teachclip.configs.loading.messages import section_at
from teachclip.errors import CacheError
from teachclip.pipeline.cli.main import app
from teachclip.pipeline.cli.shell.remedies import Given, command
from teachclip.remedies import Again, Change, Option, Remedy, Score, Setting

ROOT = Path(__file__).resolve().parents[3]
OURS: Any = typer.main.get_command(app)
USAGE = typer.BadParameter.__mro__[1]  # what typer raises for any words that it does not take
VERBS = "|".join(sorted(OURS.commands))
COMMAND = re.compile(rf"\bteachclip (?:(?:{VERBS})\b|\{{\}})|--[a-z]|\brm (-r )?[/{{A-Z]|\btorchrun -|\bgunzip -")
# What is no remedy: the place of a mistake as it was given, and commands inside the YAML that a template is.
QUOTED = {"configs/loading/load.py": "--set {}", "configs/loading/template.py": "#   teachclip {}   {}\n"}
ACTIONS: tuple[type, ...] = get_args(remedies.Action.__value__)
EXAMPLES: dict[str, object] = {
    "settings": {"train.seed": 3, "train.compile": False},
    "sentence": "a dog",
    "file": "own videos.yaml",
    "page": "guide/data",
    "folder": "my demo",
    "store": "work/scores.zarr",
    "other": "work/my scores.zarr",
    "teacher": "xclip",
    "path": "my folder/run",
    "count": 2,
    "option": Option.PARTIAL,
}
OPTIONS = {
    Option.MIXED: "score CONFIG --ray local",
    Option.PARTIAL: "cache export STORE TEACHER OUT",
    Option.ANY_AGE: "cache rm STORE TEACHER",
    Option.REPLACE: "checkpoint convert FILE OUT",
    Option.PUBLISHED_NAMES: "checkpoint convert FILE OUT",
    Option.ARRAY_TASK: "score CONFIG",
    Option.TRACEBACK: "train CONFIG",
}
GIVEN = Given(Path("own_videos.yaml"), ("work=my folder",))


def sources(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"))


def texts(tree: ast.Module) -> Iterator[str]:
    """Every string that a program can show; of f-strings {} where a value stands. Docstrings are left out."""
    shown = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)  # type: ignore[misc]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (shown | inside):
            yield node.value


def commands_in(name: str, tree: ast.Module) -> list[str]:
    return [text for text in texts(tree) if COMMAND.search(text) and QUOTED.get(name) != text]


def example(kind: type) -> Any:
    made = {name: EXAMPLES[name] for name in getattr(kind, "__match_args__", ())}
    return kind(**made)


def parse(line: str) -> None:
    """Let the real command line take a command, without running it."""
    words = shlex.split(line.split(" > ")[0])
    if words[0] == "torchrun":
        words = words[words.index("-m") + 1 :]
    assert words.pop(0) == "teachclip"
    found = OURS
    while hasattr(found, "commands"):
        found = found.commands[words.pop(0)]
    found.make_context(found.name, words)


@pytest.mark.parametrize("folder", ["cache", "stages", "configs"])
def test_no_command_line_stands_below_the_command_line(folder: str) -> None:
    assert [(name, text) for name, tree in sources(folder) for text in commands_in(name, tree)] == []


@pytest.mark.parametrize(
    "text",
    [
        'x = "make it: teachclip prepare"',
        'x = f"teachclip cache rm {store}"',
        'x = f"`teachclip {verb}` finds nothing"',
        'raise E("y", hint="choose another: --set prepare.frames=x")',
        'raise E("y", hint=f"again: rm -r {path}")',
        'def f(hint="--force"): ...',
    ],
)
def test_a_command_line_would_be_seen(text: str) -> None:
    assert commands_in("cache/x.py", ast.parse(text))


def test_prose_and_docstrings_may_speak_of_the_package() -> None:
    assert not commands_in("cache/x.py", ast.parse('"""See teachclip train."""\nFORMAT = "teachclip frames"'))


def test_the_table_has_a_line_for_every_action() -> None:
    named = {
        name
        for name, kind in vars(remedies).items()
        if isinstance(kind, type) and kind.__module__ == remedies.__name__ and not name.startswith("_")
    }
    assert {kind.__name__ for kind in ACTIONS} == named - {"Remedy", "Option"}
    assert isinstance(remedies.Action.__value__, UnionType)
    assert all(command(example(kind), GIVEN) for kind in ACTIONS)


@pytest.mark.parametrize("kind", ACTIONS)
def test_the_command_line_takes_every_command(kind: type) -> None:
    line = command(example(kind), GIVEN)
    if line.startswith("rm "):
        assert shlex.split(line)[-1] == EXAMPLES["path"]
    elif kind is Change:
        parse(f"teachclip train CONFIG {line}")
    elif kind is not Again:
        parse(line)


@pytest.mark.parametrize("option", Option)
def test_the_command_line_takes_every_option(option: Option) -> None:
    parse(f"teachclip {OPTIONS[option]} {command(Again(option), GIVEN)}")


@pytest.mark.parametrize(
    "line", ["teachclip prepair CONFIG", "teachclip train CONFIG --sett a=1", "teachclip cache rm"]
)
def test_other_commands_are_not_taken(line: str) -> None:
    with pytest.raises((USAGE, KeyError)):
        parse(line)


def test_every_action_helps_against_something() -> None:
    used = {
        node.func.id
        for _, tree in sources("cache", "stages", "configs", "pipeline")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert {kind.__name__ for kind in ACTIONS} <= used
    options = {
        node.attr
        for _, tree in sources("cache", "stages", "configs")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Option"
    }
    assert options == {option.name for option in Option}


def test_every_setting_that_helps_exists() -> None:
    keys = {
        key.value
        for _, tree in sources("cache", "stages", "configs", "pipeline")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in changing()
        for word in node.args
        if isinstance(word, ast.Dict)
        for key in word.keys
        if isinstance(key, ast.Constant)
    }
    assert len(keys) > 20
    assert [key for key in sorted(keys) if not exists(str(key))] == []
    assert not exists("train.bach_size")


def changing() -> set[str]:
    return {kind.__name__ for kind in ACTIONS if "settings" in getattr(kind, "__match_args__", ())}


def exists(key: str) -> bool:
    *above, last = key.split(".")
    section = section_at(tuple(above))
    return section is not None and last in section.model_fields


@pytest.mark.parametrize(
    ("remedy", "library", "shell"),
    [
        (Remedy("score what is new", Score()), "score what is new", "score what is new: teachclip score a.yaml"),
        (Remedy("check the disk"), "check the disk", "check the disk"),
        (
            Remedy("read them so", Change({"train.label_reader": "thread"})),
            "read them so: train.label_reader=thread",
            "read them so: --set train.label_reader=thread",
        ),
        (
            Remedy("delete it", remedies.DeleteFolder("my run"), otherwise=Remedy("go without", Again(Option.PARTIAL))),
            "delete it: my run; or go without",
            "delete it: rm -r 'my run'; or go without: --partial",
        ),
        *(
            (Remedy("delete it", delete(where)), f"delete it: {where}", f"delete it: {given}")
            for delete, where, given in (
                (remedies.DeleteFile, "frames.json", "rm frames.json"),
                (remedies.DeleteFile, "s3://b/f/frames.json", "aws s3 rm s3://b/f/frames.json"),
                (remedies.DeleteFolder, "s3://b/f", "aws s3 rm --recursive s3://b/f"),
                (remedies.DeleteFile, "gs://b/f/frames.json", "gcloud storage rm gs://b/f/frames.json"),
                (remedies.DeleteFolder, "gs://b/f", "gcloud storage rm -r gs://b/f"),
            )
        ),
        (
            Remedy("begin again", remedies.RemoveScores("s.zarr", "x"), then=Score({"score.chance_check": False})),
            "begin again: score.chance_check=false",
            "begin again: teachclip cache rm s.zarr x && teachclip score a.yaml --set score.chance_check=false",
        ),
    ],
)
def test_a_library_reads_advice_and_the_shell_a_command(remedy: Remedy, library: str, shell: str) -> None:
    assert str(CacheError("no", hint=remedy)) == f"no\n{library}"
    assert Given(Path("a.yaml")).tell(remedy) == shell


def test_a_remedy_crosses_to_another_process() -> None:
    settings: dict[str, Setting] = {"score.store": "OTHER.zarr"}
    error = CacheError(
        "no", where="there", hint=Remedy("score", Score(settings), otherwise=Remedy("go")), details=["a"]
    )
    back = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (back.what, back.where, back.hint, back.details) == (error.what, error.where, error.hint, error.details)
    assert hash(back.hint) == hash(error.hint)
