"""Where a stage computes is said, and a GPU that torch cannot use is not passed over in silence."""

from pathlib import Path
from typing import Any

import pytest
import torch
from teachclip.stages.runtime import device as device_module
from teachclip.stages.runtime.device import choose_device, precision_of, tell_device
from teachclip.stages.runtime.launch import Launch

CPU = torch.device("cpu")
DRIVER = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024
GCC version:  gcc version 11.4.0
"""


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine where torch, built for CUDA 13.2, sees no GPU; the driver's file, which is not there yet."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(device_module, "DRIVER", tmp_path / "version")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path / "version"


def test_a_cpu_and_its_threads_are_said(cpu: Path, heard: Any) -> None:
    assert not cpu.exists()
    threads = torch.get_num_threads()
    tell_device(CPU, heard)
    assert (heard.infos, heard.warnings) == ([f"on the CPU, {threads} thread{'s' * (threads != 1)}"], [])


def test_a_driver_that_is_too_old_is_told_with_both_versions(cpu: Path, heard: Any) -> None:
    cpu.write_text(DRIVER)
    tell_device(CPU, heard)
    [warning] = heard.warnings
    assert "535.183.01" in warning
    assert "CUDA 13.2" in warning


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_gpus_that_the_user_hides_are_not_missed(
    cpu: Path, heard: Any, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    cpu.write_text(DRIVER)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    tell_device(CPU, heard)
    assert heard.warnings == []


def test_a_torch_without_cuda_misses_none(cpu: Path, heard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu.write_text(DRIVER)
    monkeypatch.setattr(torch.version, "cuda", None)
    tell_device(CPU, heard)
    assert heard.warnings == []


def test_a_gpu_is_said_by_its_name(heard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA H200 ({device})")
    tell_device(torch.device("cuda", 1), heard)
    assert (heard.infos, heard.warnings) == (["on cuda:1, NVIDIA H200 (cuda:1)"], [])


@pytest.mark.parametrize(
    ("task", "gpus", "expected"), [(None, 4, 3), (None, 1, 3), ("3", 4, 3), ("3", 1, 0), ("0", 1, 3)]
)
def test_each_of_several_processes_has_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, task: str | None, gpus: int, expected: int
) -> None:
    """The fourth process of a machine, and the fourth task of SLURM's, which may be shown its own GPU alone."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(device_module, "launch", lambda: Launch(3, 4, 3))
    monkeypatch.delenv("SLURM_LOCALID", raising=False)
    if task is not None:
        monkeypatch.setenv("SLURM_LOCALID", task)
    assert choose_device("auto") == torch.device("cuda", expected)
    assert choose_device("cpu") == torch.device("cpu")


def test_how_float32_is_computed_is_told() -> None:
    assert precision_of(CPU) == "float32, ieee"
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        assert precision_of(CPU) == "float32, bf16"
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
