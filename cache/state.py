"""Nested state (an optimiser's, a run's) as one safetensors file: tensors beside JSON, no code."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import CheckpointError
from .files import publishing

_TENSOR = "__tensor__"


def _split(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().contiguous().cpu().clone()
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


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Publish `state` (dicts, lists, tensors, numbers, strings) as one file, complete or not at all."""
    tensors: dict[str, torch.Tensor] = {}
    tree = _split(state, "", tensors)
    with publishing(path) as temporary:
        save_file(tensors, temporary, metadata={"state": json.dumps(tree)})


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` saved, on the CPU.

    Raises:
        CheckpointError: the file is damaged or not a state file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tree = json.loads((file.metadata() or {})["state"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        state = _join(tree, tensors)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            "this training state is damaged", where=str(path), hint=f"remove it to start this run again: rm {path}"
        ) from error
    assert isinstance(state, dict)
    return state
