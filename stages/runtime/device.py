"""Where a network runs and in what precision."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
import torch.utils.deterministic

from ...errors import ConfigError
from .launch import launch

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
    return torch.device("cuda", place.local_rank) if name == "cuda" and place.ranks > 1 else torch.device(name)


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
    """For teachers, cached class tokens and metrics: they must not depend on the precision of a training step around
    them, nor on TF32, which cuDNN's convolutions (the patch embedding) use unless told otherwise, nor on which
    algorithm was fastest."""
    cudnn = torch.backends.cudnn
    flags: AbstractContextManager[object] = nullcontext()
    if device.type == "cuda":  # they belong to the process: threads of a CPU would take them from each other
        flags = cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.autocast(device.type, enabled=False), flags:
        yield


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
