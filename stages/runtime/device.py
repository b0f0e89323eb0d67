"""Where a network runs and in what precision."""

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
import torch.utils.deterministic

from ...errors import ConfigError
from ...plurals import counted
from .launch import Launch, launch
from .reporting import Reporter

DRIVER = Path("/proc/driver/nvidia/version")
memory: Any = torch.utils.deterministic


def choose_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The GPU when there is one, unless told otherwise; of several processes on a machine, each has its own.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is `cuda`, but torch sees no GPU here", hint="use device: auto, or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    place = launch()
    return torch.device("cuda", own_gpu(place)) if name == "cuda" and place.ranks > 1 else torch.device(name)


def own_gpu(place: Launch) -> int:
    """The GPU of one of several processes on a machine: that of its number; of a task of SLURM's that is shown its own
    alone, the only one."""
    a_task = os.environ.get("SLURM_LOCALID") == str(place.local_rank)
    return 0 if a_task and torch.cuda.device_count() == 1 else place.local_rank


def device_name(device: torch.device) -> str:
    """A GPU's name; else the device's kind."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def tell_device(device: torch.device, reporter: Reporter) -> None:
    """Say where a stage computes; and where it is a CPU beside a GPU's driver that torch cannot use, say that."""
    if device.type == "cuda":
        reporter.info(f"on {device}, {device_name(device)}")
        return
    reporter.info(f"on the CPU, {counted(torch.get_num_threads(), 'thread')}")
    if torch.version.cuda and not torch.cuda.is_available() and (driver := driver_version()):
        reporter.warn(
            f"there is an NVIDIA driver, {driver}, that this torch, built for CUDA {torch.version.cuda}, cannot use: "
            "install a newer driver, or a build of torch for the CUDA that the driver has"
        )


def driver_version() -> str | None:
    """The version of the NVIDIA driver; None without one, and where the user hides its GPUs."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return None
    try:
        found = re.search(r"\d+\.\d+[.\d]*", DRIVER.read_text())
    except OSError:
        return None
    return found[0] if found else None


def autocast(device: torch.device, precision: Literal["auto", "float32", "bf16"]) -> AbstractContextManager[object]:
    """bf16 where asked for; see `resolved`."""
    return torch.autocast(device.type, torch.bfloat16) if resolved(precision, device) == "bf16" else nullcontext()


def resolved(precision: Literal["auto", "float32", "bf16"], device: torch.device) -> Literal["float32", "bf16"]:
    """What `auto` comes to: bf16 on a GPU, else float32."""
    if precision == "auto":
        return "bf16" if device.type == "cuda" else "float32"
    return precision


@contextmanager
def plain_float32(device: torch.device) -> Iterator[None]:
    """For teachers, cached class tokens, vectors and metrics: they must not depend on the precision of a training step
    around them, nor on TF32, whatever a plug-in or a container's environment asks for, nor on which algorithm was
    fastest."""
    # Settings of the process: threads of a CPU, which has none of these, would take them from each other.
    settings = _ieee() if device.type == "cuda" else nullcontext()
    with torch.autocast(device.type, enabled=False), settings:
        yield


def precision_of(device: torch.device) -> str:
    """How float32 is computed inside `plain_float32`: "float32, ieee", unless somebody has undone that."""
    with plain_float32(device):
        backend: Any = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
        products = backend.matmul.fp32_precision
    return f"float32, {'ieee' if products == 'none' else products}"


@contextmanager
def _ieee() -> Iterator[None]:
    """Products and convolutions on a GPU in float32 as IEEE has it.

    Never by `allow_tf32`: torch raises where a process has used both its old and its new settings.
    """
    cudnn: Any = torch.backends.cudnn
    products, convolutions = torch.backends.cuda.matmul, cudnn.conv
    before = products.fp32_precision, convolutions.fp32_precision, cudnn.benchmark, cudnn.deterministic
    products.fp32_precision = convolutions.fp32_precision = "ieee"
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        products.fp32_precision, convolutions.fp32_precision, cudnn.benchmark, cudnn.deterministic = before


@contextmanager
def deterministic(device: torch.device, asked: bool) -> Iterator[None]:
    """The same bits from the same inputs: always on the CPU, where it costs nothing, on a GPU when asked for.

    For a GPU the environment gets what cuBLAS needs, unless it is set; so the body must be the first that uses CUDA.
    """
    if device.type == "cuda" and not asked:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before, filled = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = filled
