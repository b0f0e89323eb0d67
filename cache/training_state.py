"""Nested state (an optimiser's, a run's) as one safetensors file: tensors beside JSON, no code."""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import CheckpointError
from ..remedies import DeleteFile, Remedy
from .storage.publish import publishing

_TENSOR = "__tensor__"
_ALIGNED = 64  # bytes


@dataclass(frozen=True)
class HostState:
    """Nested state whose tensors are on the host.

    Attributes:
        tree: dicts, lists, numbers and strings, with the names of tensors in their places; tensors: by these names.
        copied: when the copies from the GPU are there; None where they are already.
    """

    tree: Any
    tensors: dict[str, torch.Tensor]
    copied: torch.cuda.Event | None = None

    def wait(self) -> None:
        """Until the copies from the GPU are there."""
        if self.copied is not None:
            self.copied.synchronize()

    def part(self, key: str) -> dict[str, torch.Tensor]:
        """The tensors of the dict `state[key]`, by their keys."""
        start = f"/{key}/"
        return {name.removeprefix(start): value for name, value in self.tensors.items() if name.startswith(start)}

    @property
    def not_finite(self) -> str | None:
        """The name of a tensor that holds NaN or infinity; None when there is none."""
        for name, value in self.tensors.items():
            if value.is_floating_point() and value.numel() and not torch.stack(value.aminmax()).isfinite().all():
                return name
        return None


class HostCopy:
    """Room on the host for a copy of nested state, used again for the next one: no page is asked for twice.

    It is one piece of memory, and page-locked where tensors are on the GPU: their copies are queued behind the work
    that is queued already, and nobody waits for them before `HostState.wait`.
    """

    def __init__(self) -> None:
        self._layout: list[tuple[str, torch.Size, torch.dtype]] = []
        self._room: dict[str, torch.Tensor] = {}

    def take(self, state: dict[str, Any]) -> HostState:
        """A copy of `state`, which may be changed from now on; the copy taken before is overwritten."""
        tensors: dict[str, torch.Tensor] = {}
        tree = _split(state, "", tensors)
        layout = [(name, value.shape, value.dtype) for name, value in tensors.items()]
        if layout != self._layout:
            self._layout, self._room = layout, _room_for(tensors)
        for name, value in tensors.items():
            self._room[name].copy_(value, non_blocking=True)
        copied = None
        if any(value.is_cuda for value in tensors.values()):
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        return HostState(tree, dict(self._room), copied)


def _room_for(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of these shapes in one piece of memory."""
    starts, size = {}, 0
    for name, value in tensors.items():
        starts[name] = size
        size += -(-value.nbytes // _ALIGNED) * _ALIGNED
    whole = torch.empty(size, dtype=torch.uint8, pin_memory=any(value.is_cuda for value in tensors.values()))
    return {
        name: whole[starts[name] : starts[name] + value.nbytes].view(value.dtype).view(value.shape)
        for name, value in tensors.items()
    }


def _split(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach()
        return {_TENSOR: path}
    if isinstance(value, dict):
        return {"keys": list(value), "values": [_split(v, f"{path}/{k}", tensors) for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return [_split(item, f"{path}/{k}", tensors) for k, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{path}: {type(value).__name__} cannot be saved as state")


def _join(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_join(item, tensors) for item in value]
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        return {key: _join(item, tensors) for key, item in zip(value["keys"], value["values"], strict=True)}
    return value


def _checksum(tensors: dict[str, torch.Tensor]) -> int:
    """CRC-32 over all tensors, by name."""
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy(), value)
    return value


def save_state(path: Path, state: dict[str, Any] | HostState) -> None:
    """Publish `state` (dicts, lists, tensors, numbers, strings) as one file, complete or not at all."""
    host = state if isinstance(state, HostState) else HostCopy().take(state)
    host.wait()
    metadata = {"state": json.dumps(host.tree), "crc32": str(_checksum(host.tensors))}
    with publishing(path) as temporary:
        save_file(host.tensors, temporary, metadata=metadata)


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` saved, on the CPU.

    Raises:
        CheckpointError: the file is damaged or not a state file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tree = json.loads(metadata["state"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if "crc32" in metadata and int(metadata["crc32"]) != _checksum(tensors):
            raise ValueError("its checksum is another")
        state = _join(tree, tensors)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            "this training state is damaged",
            where=str(path),
            hint=Remedy("remove it to start this run again", DeleteFile(str(path))),
        ) from error
    assert isinstance(state, dict)
    return state
