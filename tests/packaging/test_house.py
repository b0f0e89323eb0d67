"""The house as a stranger finds it: few rooms at a level, no circle of rooms, and tests that lie as the source does."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
MANY = 12  # rooms at one level that a reader can take in
LAYERS = ("cache", "configs", "pipeline", "stages")
OWN = {"faults", "spawned"}  # folders of tests that are named by what they hold, not by what they test


@pytest.fixture(scope="module")
def house() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house", ROOT / "benchmarks/house.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_level_is_crowded_and_none_has_a_circle(house: ModuleType) -> None:
    levels = house.levels(ROOT)
    assert {"stages", "cache.scores", "pipeline.cli"} <= set(levels)
    assert {level: len(arrows) for level, arrows in levels.items() if len(arrows) > MANY} == {}
    assert {level: circle for level, arrows in levels.items() if (circle := house.floors(arrows)[1])} == {}


def test_rooms_floors_and_arrows_of_a_small_house(house: ModuleType, tmp_path: Path) -> None:
    """Two faces, a shared room below, an import inside a function, and one that a face hands on."""
    files = {
        "stages/__init__.py": "",
        "stages/train/__init__.py": "",
        "stages/train/stage.py": "from ..data import Dataset\nfrom .step import Step\nimport numpy",
        "stages/train/step.py": "def f():\n    from ...cache import files",
        "stages/data/__init__.py": "from .dataset import Dataset",
        "stages/data/dataset.py": "",
        "stages/alone.py": "from . import data\nfrom teachclip.stages.train.step import f",
        "cache/__init__.py": "",
        "cache/files.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    levels = house.levels(tmp_path)
    assert levels["stages"] == {"alone": {"data", "train"}, "data": set(), "train": {"data"}}
    assert levels["stages.train"] == {"stage": {"step"}, "step": set()}
    assert house.floors(levels["stages"]) == (3, set())
    (tmp_path / "stages/data/dataset.py").write_text("from ..alone import x")
    assert house.floors(house.levels(tmp_path)["stages"]) == (0, {"alone", "data", "train"})


def test_tests_lie_where_the_source_lies() -> None:
    folders = [path.relative_to(ROOT / "tests") for layer in LAYERS for path in (ROOT / "tests" / layer).rglob("*/")]
    mirrored = [folder for folder in folders if not OWN & set(folder.parts) and "__pycache__" not in folder.parts]
    assert Path("stages/train/losses") in mirrored
    assert [str(folder) for folder in mirrored if not (ROOT / folder).is_dir()] == []
