"""`make real`: what it says without the data, and on a stand-in in MSR-VTT's files."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from teachclip.configs.schema import NetworkConfig, TrunkConfig, TrunkSizes
from teachclip.stages.demo.write_h264 import write_h264
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import save_network

SCRIPT = Path(__file__).parents[2] / "benchmarks/real.py"
SIZES = {"image_size": 16, "patch_size": 8, "vision_width": 64, "vision_layers": 1, "text_width": 64, "text_layers": 1,
         "embed_dim": 32, "context_length": 32}  # fmt: skip


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """The script in this process; its exit code."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.chdir(tmp_path)
    script = importlib.import_module(SCRIPT.stem)

    def run(*arguments: str) -> int:
        try:
            return int(script.main(["--work", "real", *arguments]))
        except SystemExit as ended:  # of argparse
            return int(ended.code or 0)

    return run


def test_without_the_data_it_says_what_it_needs(
    real: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert real() == 2
    assert "--videos" in capsys.readouterr().err
    assert real("--videos", "videos", "--annotations", ".") == 2
    assert "--videos videos: no such folder" in capsys.readouterr().err
    (tmp_path / "videos").mkdir()
    assert real("--videos", "videos", "--annotations", "videos") == 1
    told = capsys.readouterr().err
    assert "MSRVTT_JSFUSION_test.csv" in told
    assert "Traceback" not in told


@pytest.fixture
def stand_in(tmp_path: Path) -> list[str]:
    """Eight clips in the form of MSR-VTT-1k's test set, and a small trunk's weights."""
    rng = np.random.default_rng(0)
    videos, annotations = tmp_path / "videos", tmp_path / "annotations"
    annotations.mkdir()
    rows = ["key,vid_key,video_id,sentence"]
    for k in range(8):
        write_h264(videos / f"video{k}.mp4", rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8), fps=1)
        rows.append(f"ret{k},msr{k},video{k},clip number {k}")
    (annotations / "MSRVTT_JSFUSION_test.csv").write_text("\n".join(rows) + "\n")
    trunk = TrunkConfig(sizes=TrunkSizes(**SIZES), weights=None)
    save_network(build_network(NetworkConfig(kind="openclip", trunk=trunk)), tmp_path / "trunk.safetensors")
    sizes = json.dumps({"sizes": SIZES, "weights": str(tmp_path / "trunk.safetensors")})
    small = ["--set", f"train.network.trunk={sizes}", "--set", "prepare.image_size=16", "--set", "prepare.workers=1"]
    return ["--videos", str(videos), "--annotations", str(annotations), *small]


def test_other_recalls_than_the_published_fail(tmp_path: Path, stand_in: list[str]) -> None:
    command = [sys.executable, str(SCRIPT), "--work", "real", *stand_in]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path)
    assert ended.returncode == 1, ended.stderr
    assert "FAIL: zero-shot ViT-B/32 within 2 points of the literature" in ended.stdout
    told = json.loads((tmp_path / "real/real.json").read_text())
    assert told["measured"]["queries"] == 8
    assert told["measured"]["r10"] == 100
    assert not told["pass"]
    assert "Table 3" not in ended.stdout, "it is not begun on numbers that are wrong"
