"""Every family of open_clip's models, exported: the export itself compares the vectors."""

from pathlib import Path

import pytest
import torch
from teachclip.configs.schema import NetworkConfig, TrunkConfig
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import save_network
from teachclip.stages.models.exported.export import export_model


@pytest.fixture
def run(family: str, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    trunk = TrunkConfig(model=f"tiny {family}", weights=None)
    network = build_network(NetworkConfig(trunk=trunk, frames=3, words=8, temporal_layers=1))
    save_network(network, tmp_path / "run/best.safetensors")
    return tmp_path / "run"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_a_family_is_exported(run: Path, tmp_path: Path, form: str) -> None:
    if form == "onnx":
        for name in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(name, reason=f"{name} is not installed: the extra onnx")
    done = export_model(str(run), tmp_path / "out", form)  # type: ignore[arg-type]
    assert max(done.differ.values()) < 1e-4
