"""Weights files: read without running code, and loaded entirely or not at all."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ...errors import CheckpointError

NAMED = 10  # tensors named in a message; the others are counted


@dataclass(frozen=True)
class Weights:
    """Tensors by name, as a file holds them; `torchscript` marks OpenAI's own archives."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    torchscript: bool = False


def read_weights(path: Path) -> Weights:
    """The tensors of a safetensors file, a torch state dict or a TorchScript archive, on the CPU.

    A dict under `state_dict` is unpacked, and the prefix `module.` of data-parallel training taken off.

    Raises:
        CheckpointError: no such file, a damaged one, or one that holds anything but tensors.
    """
    if not path.is_file():
        raise CheckpointError("there is no such checkpoint", where=str(path))
    if _is_safetensors(path):
        return _read_safetensors(path)
    if _is_torchscript(path):
        return Weights(_plain(_read_torchscript(path), path), {}, torchscript=True)
    return Weights(_plain(_read_torch(path), path), {})


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], where: str, *, assign: bool = False) -> None:
    """Load exactly these tensors; floating ones take the module's precision (with `assign`: float32, the module may
    have been built on the meta device).

    Raises:
        CheckpointError: naming tensors that are missing, not known, of another shape or not finite.
    """
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    misshaped = [
        f"{name}: {found[name]} instead of {shape}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    details = [
        *listed("missing", [name for name in wanted if name not in found]),
        *listed("not known here", [name for name in found if name not in wanted]),
        *listed("of another shape", misshaped),
    ]
    if details:
        raise CheckpointError("these weights are of another network", where=where, details=details)
    if assign:
        tensors = {name: value.to(torch.float32, copy=True).contiguous() for name, value in tensors.items()}
    broken = [name for name, value in tensors.items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError("weights are not finite", where=where, details=listed("not finite", broken))
    module.load_state_dict(tensors, assign=assign)


def listed(what: str, names: Sequence[str]) -> list[str]:
    """Message lines that name the first of `names` and count the others."""
    if not names:
        return []
    lines = [f"{len(names)} {what}:", *(f"  {name}" for name in names[:NAMED])]
    return lines if len(names) <= NAMED else [*lines, f"  and {len(names) - NAMED} more"]


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    return path.suffix == ".safetensors" or head[8:9] == b"{"


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read_safetensors(path: Path) -> Weights:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Weights(_plain(tensors, path), file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _read_torch(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "this checkpoint is damaged, or holds more than tensors and is not loaded, since that could run code",
            where=str(path),
            hint="save its state_dict alone, with torch.save or safetensors",
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error


def _read_torchscript(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.load")
            return torch.jit.load(path, map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
    except (RuntimeError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = str(error).strip().splitlines()
    return CheckpointError(
        "this checkpoint is damaged or cut short", where=str(path), details=[reason[0][:200]] if reason else []
    )


def _plain(value: object, path: Path) -> dict[str, Tensor]:
    if isinstance(value, Mapping) and isinstance(value.get("state_dict"), Mapping):
        value = value["state_dict"]
    if not isinstance(value, Mapping) or not all(isinstance(tensor, Tensor) for tensor in value.values()):
        raise CheckpointError("this file holds no state_dict: names with tensors", where=str(path))
    prefix = "module." if value and all(str(name).startswith("module.") for name in value) else ""
    return {str(name).removeprefix(prefix): tensor for name, tensor in value.items()}
