"""What users import: the list of public names, which is frozen here; each is loaded when it is asked for, and typed."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import teachclip

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {  # a name that goes, or comes to mean something else, is a change that CHANGELOG.md tells of
    "__version__",
    *("load_config", "Config"),
    *("prepare", "features", "score", "train", "evaluate", "evaluate_sets", "index", "search"),
    *("Searcher", "IndexSearcher", "Filters"),
    *("load", "Encoder", "EncodedVideos", "Reranker"),
    *("Reporter", "StopRequest", "WorkerPart"),
    *("FrameCache", "FeatureCache", "ScoreStore", "ScoreCache", "ScoreReader", "Labels", "LabelProcess", "read_ahead"),
    "text_digest",
    *("Teacher", "load_teacher", "load_network", "Student"),
    *("retrieval_metrics", "confidence", "difference", "read_query_ranks"),
    *("TeachclipError", "ConfigError", "DataError", "CacheError", "CacheMismatchError", "UnreachableError"),
    *("CheckpointError", "TrainingError", "StoppedEarly", "PluginError"),
}
FOR_TESTS = {"check_teacher"}  # of teachclip.testing
LOADED = sorted(PUBLIC - {"__version__"})
HEAVY = {"torch", "numpy", "zarr", "h5py", "tensorstore", "faiss", "av", "pydantic", "yaml", "typer", "rich"}


def python(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def typed() -> Iterator[tuple[str, str]]:
    """Names and the modules they come from, as type checkers read them."""
    (block,) = (node for node in ast.parse((ROOT / "__init__.py").read_text("utf-8")).body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        assert node.level == 1
        assert node.module
        yield from ((alias.name, node.module) for alias in node.names if alias.asname is None)


def test_the_list_is_frozen() -> None:
    assert set(teachclip.__all__) == set(dir(teachclip)) == PUBLIC
    assert len(teachclip.__all__) == len(PUBLIC)
    taken: dict[str, object] = {}
    exec("from teachclip import *", taken)
    assert set(taken) - {"__builtins__"} == PUBLIC


def test_what_is_for_tests_is_frozen_too_and_apart() -> None:
    assert set(import_module("teachclip.testing").__all__) == FOR_TESTS
    assert "teachclip.testing" not in python("import sys\nfrom teachclip import Config\nprint(*sys.modules)").split()


def test_type_checkers_and_python_find_the_same_things() -> None:
    modules = dict(typed())
    assert sorted(modules) == LOADED
    for name, module in modules.items():
        assert getattr(teachclip, name) is getattr(import_module(f"teachclip.{module}"), name), name


def test_every_error_is_public() -> None:
    kinds: list[type[BaseException]] = [teachclip.TeachclipError, teachclip.StoppedEarly]
    for kind in kinds:
        kinds += kind.__subclasses__()
    ours = {kind.__name__ for kind in kinds if kind.__module__ == "teachclip.errors"}
    assert ours == {name for name in PUBLIC if name.endswith("Error") or name == "StoppedEarly"}


def test_importing_teachclip_loads_nothing_else() -> None:
    seen = "import sys, teachclip\ndir(teachclip), teachclip.__version__\nprint(*sys.modules)"
    names = python(seen).split()
    assert {name.split(".")[0] for name in names} & HEAVY == set()
    assert [name for name in names if name.startswith("teachclip")] == ["teachclip"]


def test_a_name_loads_no_more_than_it_needs() -> None:
    seen = "import sys\nfrom teachclip import StopRequest, TeachclipError, WorkerPart\nprint(*sys.modules)"
    assert {name.split(".")[0] for name in python(seen).split()} & HEAVY == set()


def test_any_other_name_is_missing() -> None:
    with pytest.raises(AttributeError, match="'teachclip' has no attribute 'no_such_name'"):
        teachclip.no_such_name  # noqa: B018
    assert not hasattr(teachclip, "Trainer")


def test_rooms_stay_modules() -> None:
    """The stage `score` and the folder of its code are told apart by where they are."""
    stage = import_module("teachclip.stages.score.stage")
    assert teachclip.score is stage.score
    assert teachclip.stages.score.stage is stage
