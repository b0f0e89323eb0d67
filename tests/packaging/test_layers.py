"""Rules of the house that no tool checks: who may import whom, and nothing that runs code from data."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import teachclip

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("pipeline", "stages", "cache", "configs")
ALLOWED = {
    "pipeline": {"pipeline", "stages", "cache", "configs", "errors", "plurals", "remedies", "teachclip"},
    "stages": {"stages", "cache", "configs", "errors", "plurals", "remedies", "teachclip"},
    "cache": {"cache", "errors", "plurals", "remedies", "teachclip"},
    "configs": {"configs", "errors", "plurals", "remedies", "teachclip"},
}
# A room imports rooms of lower floors only, never one of its own floor.
FLOORS = {
    "pipeline": [{"wording"}, {"report", "serve", "steps"}, {"demo"}, {"sweep"}, {"cli"}],
    "stages": [
        {"runtime"},
        {"data", "models"},
        {"prepare", "labels", "retrieval"},
        {"score", "train", "evaluate", "search"},
        {"analysis", "demo"},
    ],
    "cache": [
        {"storage"},
        {"experts", "features", "frames", "read_ahead", "training_state", "vectors"},
        {"library", "scores"},
    ],
    "cache.scores": [
        {"format"},
        {"tile"},
        {"shard", "lookup", "makers"},
        {"reading", "zarr_view"},
        {"store"},
        {"joined", "upkeep", "exchange"},
    ],
    "configs": [{"published_sets", "changed_defaults"}, {"schema"}, {"loading"}, {"sweeps"}],
}
TEACHING = ("stages.models.teachers", "stages.models.frozen")  # what a training process must not load by itself
LIGHT = {  # must be imported without anything heavy
    *("configs", "pipeline.cli", "stages.runtime.launch", "stages.runtime.stopping", "stages.runtime.reporting"),
    "stages.score.worker_part",
}
HEAVY = {
    *("torch", "torchvision", "open_clip", "numpy", "zarr", "h5py", "tensorstore", "decord", "av", "faiss"),
    "jinja2",
    "matplotlib",
}
# What takes the half second that importing zarr does: only functions import it.
NEEDS_ZARR = {"cache.scores.format.zarr_io", "cache.scores.format.checked_store"}
STORES = {
    "tensorstore": ("cache.scores.format", "cache.storage"),
    "zarr": ("cache.scores.format", "cache.storage", "stages.data.experts.feature_files"),
}
FACES = {"configs.schema", "configs.loading"}  # packages whose __init__ hands names on
PICKLES = {"dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN = {"eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its name inside it: `stages.data.dataset`; a package by its folder's."""
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


def within(name: str, folder: str) -> bool:
    """Whether a module is this one, or lies in this folder."""
    return name == folder or name.startswith(f"{folder}.")


def climbs(name: str, found: set[str]) -> Iterator[str]:
    """Imports from a room's own floor or a higher one."""
    for level, floors in FLOORS.items():
        floor_of = {room: floor for floor, rooms in enumerate(floors) for room in rooms}
        if not within(name, level) or name == level or (room := name[len(level) + 1 :].split(".")[0]) not in floor_of:
            continue
        others = {item[len(level) + 1 :].split(".")[0] for item in found if item.startswith(f"{level}.")}
        for other in sorted((others & set(floor_of)) - {room}):
            if floor_of[other] >= floor_of[room]:
                yield f"{name} imports {level}.{other}"


def breaches(name: str, tree: ast.Module) -> Iterator[str]:
    """Every rule that a module breaks."""
    found = set(imported(name, tree))
    own = {item.split(".")[0] for item in found} & {*LAYERS, "errors", "plurals", "remedies", "teachclip"}
    for layer in own - ALLOWED[name.split(".")[0]]:
        yield f"{name} imports {layer}"
    yield from (f"{name} imports the public name {item}" for item in found & set(teachclip.__all__) - {"__version__"})
    yield from climbs(name, found)
    if within(name, "stages.models"):
        yield from (
            f"{name} imports {item}"
            for item in sorted(found)
            if within(item, "cache") and item.split(".")[:3] != ["cache", "storage", "publish"]
        )
    at_once = set(imported(name, at_module_level(tree)))
    packages = {item.split(".")[0] for item in at_once}
    if any(within(name, light) for light in LIGHT):
        yield from (f"{name} imports {heavy} when it is imported" for heavy in packages & HEAVY)
    for package, folders in STORES.items():
        if package in {item.split(".")[0] for item in found} and not any(within(name, one) for one in folders):
            yield f"{name} imports {package}"
    yield from (f"{name} imports {pickle}" for pickle in {item.split(".")[0] for item in found} & PICKLES)
    yield from (f"{name}:{node.lineno} {what}" for node, what in unsafe_calls(tree))


def at_module_level(tree: ast.Module) -> ast.Module:
    """The statements that run on import; functions, and what is there for type checkers alone, are left out."""
    left_out = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    kept = [
        node
        for node in tree.body
        if not isinstance(node, left_out)
        and not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
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


def loaded_with(start: str, trees: dict[str, ast.Module]) -> set[str]:
    """Every module of ours that is imported, at once or on the way, when those in the folder `start` are."""
    seen: set[str] = set()
    waiting = [name for name in trees if within(name, start)]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            items = set(imported(name, at_module_level(trees[name])))
            waiting += [item for item in items | {f"{item}.__init__" for item in items} if item in trees]
    return seen


def circles(trees: dict[str, ast.Module]) -> list[str]:
    """Modules that import each other at module level, each named once."""
    left = {
        name: {item for item in imported(name, at_module_level(tree)) if item in trees and item != name}
        for name, tree in trees.items()
    }
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


def test_no_module_breaks_a_rule() -> None:
    found = [breach for name, tree in modules().items() for breach in breaches(name, tree)]
    assert found == []


def test_modules_import_each_other_in_one_direction() -> None:
    assert circles(modules()) == []
    ring = {name: ast.parse(text) for name, text in (("stages.a", "from . import b"), ("stages.b", "from .a import x"))}
    assert circles(ring) == ["stages.a", "stages.b"]


def test_stage_two_leads_to_no_teacher() -> None:
    found = loaded_with("stages.train", modules())
    assert "stages.labels.cached" in found
    assert [name for name in sorted(found) if any(within(name, folder) for folder in TEACHING)] == []


def test_nobody_waits_for_zarr_who_does_not_ask_for_it() -> None:
    found = {name: set(imported(name, at_module_level(tree))) for name, tree in modules().items()}
    assert {name for name, items in found.items() if any(within(item, "zarr") for item in items)} == NEEDS_ZARR
    assert {name for name, items in found.items() if items & NEEDS_ZARR} == set()


def test_every_room_has_a_floor() -> None:
    for level, floors in FLOORS.items():
        folder = ROOT / level.replace(".", "/")
        rooms = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
        assert rooms - {"__init__"} == set().union(*floors), level


def test_packages_are_empty_but_for_the_faces() -> None:
    for name, tree in modules().items():
        package, _, last = name.rpartition(".")
        if last == "__init__" and package not in FACES:
            assert [type(node) for node in tree.body] == [ast.Expr], name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stages.train.stage", "from ...pipeline import cli"),
        ("stages.train.stage", "def f():\n    from ..score.stage import score"),
        ("stages.evaluate.stage", "from .. import train"),
        ("stages.labels.cached", "from ..retrieval.encode import encode_texts"),
        ("stages.data.dataset", "from ..models.student import Student"),
        ("stages.runtime.device", "from ..data.dataset import Dataset"),
        ("stages.models.clip.trunk", "from ....cache.frames.cache import FrameCache"),
        ("cache.frames.cache", "from ..scores.store import ScoreStore"),
        ("cache.scores.shard", "from .reading.reader import ScoreReader"),
        ("cache.scores.shard", "import tensorstore"),
        ("cache.scores.store", "from ...stages.runtime import reporting"),
        ("cache.scores.store", "import teachclip.stages.models"),
        ("cache.scores.store", "from teachclip import stages"),
        ("cache.scores.store", "from teachclip import train"),
        ("cache.scores.store", "def f():\n    from ... import CacheError"),
        ("configs.loading.load", "from ...cache.storage import publish"),
        ("configs.loading.load", "import numpy"),
        ("configs.schema.config", "from ..loading import load_config"),
        ("pipeline.cli.main", "from torch import nn"),
        ("pipeline.report.page.render", "from ...cli.main import app"),
        ("cache.training_state", "import joblib"),
        ("cache.training_state", "import pickle\npickle.load(file)"),
        ("cache.training_state", "import torch\ntorch.load ('x')"),
        ("cache.training_state", "import torch\ntorch.load ('x', weights_only=False)"),
        ("cache.training_state", "import numpy as np\nnp.load('x', allow_pickle=True)"),
        ("cache.training_state", "yaml.load('x')"),
    ],
)
def test_each_rule_can_be_broken(name: str, text: str) -> None:
    assert list(breaches(name, ast.parse(text)))


def test_the_checker_sees_the_modules() -> None:
    names = set(modules())
    assert {"stages.train.stage", "cache.storage.publish", "configs.schema.config", "pipeline.cli.main"} <= names
    assert not list(
        breaches("pipeline.cli.verbs.train", ast.parse("def f():\n    import torch\nfrom ....errors import DataError"))
    )
