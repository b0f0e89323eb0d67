"""Rules of the house that no tool checks: who may import whom, and nothing that runs code from data."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("pipeline", "stages", "cache", "configs")
ALLOWED = {
    "pipeline": {"pipeline", "stages", "cache", "configs", "errors", "teachclip"},
    "stages": {"stages", "cache", "configs", "errors", "teachclip"},
    "cache": {"cache", "errors", "teachclip"},
    "configs": {"configs", "errors", "teachclip"},
}
VERBS = {
    "prepare",
    "score",
    "denoise",
    "check_data",
    "report_card",
    "train",
    "evaluate",
    "index",
    "search",
    "pretrain",
    "convert",
    "inspection",
    "estimate",
    "rescore",
    "cost",
    "frame_weights",
}
LIGHT = {"configs", "pipeline.cli"}  # modules that must be imported without anything heavy
HEAVY = {
    "torch",
    "torchvision",
    "open_clip",
    "numpy",
    "zarr",
    "h5py",
    "tensorstore",
    "decord",
    "av",
    "faiss",
    "matplotlib",
}
PICKLES = {"dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN = {"eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its name inside it: `stages.data.captions`."""
    files = [file for layer in LAYERS for file in (ROOT / layer).rglob("*.py")]
    return {
        file.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): ast.parse(file.read_text("utf-8"))
        for file in files
    }


def imported(name: str, tree: ast.AST) -> Iterator[str]:
    """What a module imports: `stages.train` of its own package, `torch` of others."""
    package = name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])]) or "teachclip"
            names = [start, *(f"{start}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name.removeprefix("teachclip.") for name in names)


def breaches(name: str, tree: ast.Module) -> Iterator[str]:
    """Every rule that a module breaks."""
    found = set(imported(name, tree))
    own = {item.split(".")[0] for item in found} & {*LAYERS, "errors", "teachclip"}
    for layer in own - ALLOWED[name.split(".")[0]]:
        yield f"{name} imports {layer}"
    verb = name.removeprefix("stages.")
    for other in VERBS - {verb}:
        if verb in VERBS and any(item == f"stages.{other}" or item.startswith(f"stages.{other}.") for item in found):
            yield f"{name} imports the stage {other}"
    if name.startswith("stages.models.") and any(item.split(".")[0] == "cache" for item in found):
        yield f"{name} imports cache"
    if name == "stages.models.student" and "stages.models.xclip" in found:
        yield "the student imports a teacher"
    at_once = {item.split(".")[0] for item in imported(name, at_module_level(tree))}
    if any(name.startswith(f"{light}.") for light in LIGHT):
        yield from (f"{name} imports {heavy} when it is imported" for heavy in at_once & HEAVY)
    yield from (f"{name} imports {pickle}" for pickle in {item.split(".")[0] for item in found} & PICKLES)
    yield from (f"{name}:{node.lineno} {what}" for node, what in unsafe_calls(tree))


def at_module_level(tree: ast.Module) -> ast.Module:
    """The statements that run on import; functions are left out."""
    kept = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    return ast.Module(body=kept, type_ignores=[])


def unsafe_calls(tree: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        values = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if called.endswith("torch.load") and values.get("weights_only") != "True":
            yield node, f"calls {called} without weights_only=True"
        if values.get("allow_pickle") == "True":
            yield node, f"calls {called} with allow_pickle"
        if called in FORBIDDEN or called.startswith("pickle."):
            yield node, f"calls {called}"


def test_no_module_breaks_a_rule() -> None:
    found = [breach for name, tree in modules().items() for breach in breaches(name, tree)]
    assert found == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stages.train", "from ..pipeline import cli"),
        ("stages.train", "def f():\n    from .score import score"),
        ("stages.evaluate", "from . import train"),
        ("stages.models.clip", "from ...cache.frames import FrameCache"),
        ("stages.models.student", "from .xclip import XClip"),
        ("cache.scores", "from ..stages import reporting"),
        ("cache.scores", "import teachclip.stages.models"),
        ("cache.scores", "from teachclip import stages"),
        ("configs.loading", "from ..cache import files"),
        ("configs.loading", "import numpy"),
        ("pipeline.cli.main", "from torch import nn"),
        ("cache.state", "import joblib"),
        ("cache.state", "import pickle\npickle.load(file)"),
        ("cache.state", "import torch\ntorch.load ('x')"),
        ("cache.state", "import torch\ntorch.load ('x', weights_only=False)"),
        ("cache.state", "import numpy as np\nnp.load('x', allow_pickle=True)"),
        ("cache.state", "yaml.load('x')"),
    ],
)
def test_each_rule_can_be_broken(name: str, text: str) -> None:
    assert list(breaches(name, ast.parse(text)))


def test_the_checker_sees_the_modules() -> None:
    names = set(modules())
    assert {"stages.train", "cache.files", "configs.schema", "pipeline.cli.main", "stages.models.student"} <= names
    assert not list(
        breaches("pipeline.cli.train", ast.parse("def f():\n    import torch\nfrom ...errors import DataError"))
    )
