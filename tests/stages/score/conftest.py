"""The world of scoring_process.py, made once, and scored in this process with its teacher."""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from teachclip.cache.scores.store import ScoreCache
from teachclip.stages.score.stage import score

PROGRAM = Path(__file__).with_name("scoring_process.py")
NUMBER_TEACHER = Path(__file__).with_name("number_teacher.py")


def tree(folder: Path) -> dict[str, str]:
    """Hash of every file by its path; temporary ones, which a kill may leave, do not count."""
    return {
        str(path.relative_to(folder)): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".tmp-") for part in path.parts)
    }


@pytest.fixture(scope="session")
def process() -> ModuleType:
    """The module scoring_process.py; `__file__` is its program."""
    spec = importlib.util.spec_from_file_location("scoring_process", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scoring_process"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def scored_by_processes(process: ModuleType) -> Iterator[Callable[..., tuple[int, int]]]:
    """Scores a world in processes: `scored_by_processes(root, kills, seed, workers, changes=0, store=None)`.

    The result is how many were really killed, and how many shards were scored more than once; it fails when those fail
    that nobody kills. See scoring_process.py.
    """
    command = [sys.executable, str(process.__file__)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:

        def run(
            root: Path, kills: int, seed: int, workers: int, changes: int = 0, store: str | None = None
        ) -> tuple[int, int]:
            assert server.stdin is not None
            assert server.stdout is not None
            environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
            asked = [str(root), kills, seed, workers, changes, store, environment]
            server.stdin.write(f"{json.dumps(asked)}\n")
            server.stdin.flush()
            counts = json.loads(server.stdout.readline())
            assert counts is not None, Path(f"{root}.errors").read_text()
            killed, redone = counts
            return killed, redone

        yield run


@pytest.fixture
def fake_teacher(process: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    """The stage loads fake teachers; counts start at zero."""
    monkeypatch.setattr(process.one_teacher, "load_teacher", process.load_fake)
    process.FakeTeacher.loads = process.FakeTeacher.videos_encoded = process.FakeTeacher.pairs_scored = 0
    yield process.FakeTeacher
    process.FakeTeacher.score_version = 1


@pytest.fixture(scope="session")
def finished(process: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world whose store is finished; do not write into it."""
    root = process.make_world(tmp_path_factory.mktemp("finished") / "world")
    before, process.one_teacher.load_teacher = process.one_teacher.load_teacher, process.load_fake
    try:
        process.stage.score(process.config_of(root))
    finally:
        process.one_teacher.load_teacher = before
    return root


@pytest.fixture
def new_world(process: ModuleType, finished: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a world of one's own: fresh, or (`scored=True`) a copy of the finished one."""

    def make(scored: bool = False, **options: object) -> Path:
        root = tmp_path / "world"
        if scored:
            shutil.copytree(finished, root)
            return root
        return process.make_world(root, **options)

    return make


@pytest.fixture
def score_two_tiles(process: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Scores a configuration until two tiles are made, and is stopped then."""
    create = ScoreCache.create_tile

    def run(config: Any) -> None:
        made: list[str] = []

        def stopping(*args: Any) -> Any:
            if len(made) == 2:
                raise KeyboardInterrupt
            made.append(args[1])
            return create(*args)

        with monkeypatch.context() as patch:
            patch.setattr(ScoreCache, "create_tile", stopping)
            with pytest.raises(KeyboardInterrupt):
                process.stage.score(config)

    return run


@pytest.fixture
def numbered(new_world: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a world of five shards, and number_teacher.py, which other processes can import, too."""
    root = new_world()
    shutil.copy(NUMBER_TEACHER, root)
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def config_of(process: Any, numbered: Path) -> Callable[..., Any]:
    """`config_of(store, device, **options)`: its configuration, and options of the teacher."""

    def make(store: str = "scores.zarr", device: str = "cpu", **options: Any) -> Any:
        teacher = {"name": "fake", "plugin": "number_teacher:Numbers", "options": options}
        return process.config_of(numbered, teachers=[teacher], store=store, device=device)

    return make


@pytest.fixture
def expected(config_of: Callable[..., Any], numbered: Path) -> dict[str, str]:
    """The store that one process makes."""
    config = config_of("expected.zarr")
    score(config)
    (numbered / "processes").unlink()
    return tree(config.score_store)


def done(store: Path) -> int:
    """How many of the shards are complete."""
    return len(list(store.glob("fake/tiles/dense/done/*.json")))


def loaded_by(folder: Path) -> list[int]:
    """The processes that have loaded the teacher."""
    file = folder / "processes"
    return [int(line) for line in file.read_text().split()] if file.exists() else []
