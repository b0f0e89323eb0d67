"""The default way to store scores is the smallest that leaves the coarse loss alone: measured, not claimed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from teachclip.configs.schema import ScoreConfig

PROGRAM = Path(__file__).resolve().parents[3] / "benchmarks" / "score_precision.py"


def measure(folder: Path, shared: Path, *arguments: str) -> dict:
    out = folder / "precision.json"
    command = [sys.executable, str(PROGRAM), "--draws", "2", "--out", str(out), *arguments]
    environment = {**os.environ, "TEACHCLIP_SHARED": str(shared)}
    subprocess.run(command, check=True, capture_output=True, timeout=120, env=environment)
    return json.loads(out.read_text())


def test_the_default_is_the_smallest_below_1e_4_on_real_scores(shared: Path, tmp_path: Path) -> None:
    found = measure(tmp_path, shared)
    assert found["scores"] == "Cap4Video_msrvtt_video_matrix.npy"
    assert found["smallest"] == found["default"] == ScoreConfig().coarse
    worst = {dtype: max(effect["loss"] for effect in kinds.values()) for dtype, kinds in found["worst"].items()}
    assert worst["float32"] == 0
    assert worst["uint16"] < 1e-4 < worst["float16"]
    assert found["bytes_per_pair"]["uint16"] == pytest.approx(2, rel=0.003)


def test_without_real_scores_it_says_so(tmp_path: Path) -> None:
    found = measure(tmp_path, tmp_path, "--batch", "60", "--scale", "100")
    assert found["scores"] == "random scores, since there are no real ones here"
    assert found["smallest"] == "uint16"
