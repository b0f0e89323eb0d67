"""The notebook in examples/: its cells run, one after the other in one namespace, as Jupyter runs them."""

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import teachclip

ROOT = Path(__file__).resolve().parents[3]
NOTEBOOK = ROOT / "examples" / "search_your_clips.ipynb"


def cells() -> list[str]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    return ["".join(cell["source"]) for cell in code]


def test_the_notebook_runs(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place.root / "own" / "clips", tmp_path / "folder" / "clips")
    shutil.copytree(place.root / "work" / "runs" / "a", tmp_path / "folder" / "runs" / "taught")
    (tmp_path / "folder" / "clips" / "broken.mp4").write_bytes(b"no video")
    monkeypatch.chdir(tmp_path / "folder")
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells():
        exec(compile(cell, str(NOTEBOOK), "exec"), names)
    told = capsys.readouterr().out
    assert "clips/broken.mp4 corrupt" in told
    assert names["videos"].vectors.shape == (5, 64)
    order = [line.split("  ")[-1] for line in told.split("two teams")[0].splitlines() if line.startswith("  ")]
    best = np.argsort(-names["cosines"][0])[:3]
    assert order == [names["videos"].paths[k] for k in best]


def test_the_notebook_imports_public_names_alone() -> None:
    for node in ast.walk(ast.parse("\n".join(cells()))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("teachclip"):
            assert node.module == "teachclip"
            assert {alias.name for alias in node.names} <= set(teachclip.__all__)
