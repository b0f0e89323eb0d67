"""Weights files: read without running code, and loaded entirely or not at all."""

import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ....errors import CheckpointError, printable
from ....remedies import Hint, Remedy, Train
from .inert import inert_objects
from .torchscript import is_torchscript, read_torchscript
from .wrapping import unwrapped

NAMED = 10  # tensors named in a message; the others are counted

Format = Literal["safetensors", "torch", "torchscript"]


@dataclass(frozen=True)
class Weights:
    """Tensors by name, as a file holds them.

    Attributes:
        metadata: of a safetensors file.
        format: how the file is written; OpenAI's own files are TorchScript archives.
        wrapped: what was around the tensors, in words.
        path: of the file, beside which others may lie.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    format: Format
    wrapped: tuple[str, ...] = ()
    path: Path | None = None

    @property
    def torchscript(self) -> bool:
        """Whether this is a TorchScript archive."""
        return self.format == "torchscript"


def read_weights(path: Path) -> Weights:
    """The tensors of a safetensors file, a torch state dict or a TorchScript archive, on the CPU.

    What training leaves around them is taken off (wrapping.py): dicts that hold the network's, and prefixes of names.
    Nothing in the file is run.

    Raises:
        CheckpointError: no such file, a damaged one, a part of one, or one that holds anything but tensors.
    """
    if not path.is_file():
        raise absent(path)
    if (part := _PART.search(path.stem)) and int(part["all"]) > 1:  # it could pass for a network of fewer layers
        raise CheckpointError(
            f"by its name this is part {int(part['one'])} of {int(part['all'])} of a checkpoint",
            where=str(path),
            hint="save all parts as one file, and name that",
        )
    try:
        if _is_safetensors(path):
            refuse_not_utf_8(path)
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return _plain(tensors, file.metadata() or {}, "safetensors", path)
        if is_torchscript(path):
            return _plain(read_torchscript(path), {}, "torchscript", path)
        return _plain(_read_torch(path), {}, "torch", path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "this checkpoint is damaged, or holds more than tensors and is not loaded, since that could run code",
            where=str(path),
            details=[f"it holds {name}" for name in _REFUSED.findall(str(error))[:1]],
            hint="save its state_dict alone, with torch.save or safetensors",
        ) from error
    except PermissionError:
        raise
    except _BROKEN as error:
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            "this checkpoint is damaged or cut short",
            where=str(path),
            details=[reason[0][:200]] if reason else [],
        ) from error


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself, without reading its tensors; nothing for a file that cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return {}  # said where it is loaded


def refuse_not_utf_8(path: Path) -> None:
    """Refuse a path that safetensors writes to and then cannot open.

    Raises:
        CheckpointError: it is not UTF-8.
    """
    if printable(str(path)) != str(path):
        raise CheckpointError(
            "this path is not UTF-8, and the library of safetensors opens no other",
            where=str(path),
            hint="rename it, or the folder that it is in",
        )


def load_into(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    where: str,
    *,
    assign: bool = False,
    named: Callable[[str], str] = str,
) -> None:
    """Load exactly these tensors; floating ones take the module's precision (with `assign`: float32, the module may
    have been built on the meta device).

    Args:
        named: what a tensor is called in messages, when the file has other names.

    Raises:
        CheckpointError: naming tensors that are missing, not known, of another shape, not floating or not finite.
    """
    state = module.state_dict()
    wanted = {name: tuple(value.shape) for name, value in state.items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    misshaped = [
        f"{named(name)}: {found[name]} instead of {shape}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    details = [
        *listed("missing", [named(name) for name in wanted if name not in found]),
        *listed("not known here", [named(name) for name in found if name not in wanted]),
        *listed("of another shape", misshaped),
    ]
    if details:
        raise CheckpointError("these weights are of another network", where=where, details=details)
    counters = {name for name, value in state.items() if not value.is_floating_point()}  # of batch norms
    others = [
        f"{named(name)}: {value.dtype}"
        for name, value in tensors.items()
        if value.is_floating_point() == (name in counters) or value.is_complex()
    ]
    if others:
        raise CheckpointError("weights are no floating numbers", where=where, details=listed("of another type", others))
    broken = [named(name) for name, value in tensors.items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError("weights are not finite", where=where, details=listed("not finite", broken))
    if assign:
        types = {name: state[name].dtype if name in counters else torch.float32 for name in tensors}
        tensors = {name: value.to(types[name], copy=True).contiguous() for name, value in tensors.items()}
    module.load_state_dict(tensors, assign=assign)


def listed(what: str, names: Iterable[str]) -> list[str]:
    """Message lines that name the first of `names` and count the others."""
    names = list(names)
    if not names:
        return []
    lines = [f"{len(names)} {what}:", *(f"  {name}" for name in names[:NAMED])]
    return lines if len(names) <= NAMED else [*lines, f"  and {len(names) - NAMED} more"]


# What damaged files raise in safetensors, zipfile, torch's readers and ours.
_BROKEN = (
    SafetensorError, RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError,
    zipfile.BadZipFile, zlib.error, RecursionError,
)  # fmt: skip
_REFUSED = re.compile(r"Unsupported global: GLOBAL ([\w.]+)")  # torch's words for a class that it does not make
_PART = re.compile(r"-(?P<one>[0-9]{5})-of-(?P<all>[0-9]{5})$")  # as Hugging Face's libraries name them
_NAMED = 5  # of what lies beside a file that is not there
_LARGEST_PACKED = 64 * 2**20


def absent(path: Path) -> CheckpointError:
    """The error of a checkpoint that is not there."""
    return CheckpointError("there is no such checkpoint", where=str(path), hint=_beside(path))


def _beside(path: Path) -> Hint:
    """What may be meant by a path that is not there."""
    try:
        names = sorted(each.name for each in path.parent.iterdir() if each.is_dir() or each.suffix)
    except OSError:
        first = f"{path.parent} is no folder, either; train it first"
        return Remedy(first, Train({"train.run": str(path.absolute())}))
    near = get_close_matches(path.name, names, n=3)
    if near:
        return f"did you mean {' or '.join(str(path.parent / name) for name in near)}?"
    if path.suffix:
        there = f"; {path.parent} has {', '.join(names[:_NAMED])}" if names else ""
        return f"name a file or a run folder that is there{there}"
    return Remedy("train it first", Train({"train.run": str(path.absolute())}))


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    return path.suffix == ".safetensors" or head[8:9] == b"{"


def _read_torch(path: Path) -> object:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            packed = [entry for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
        if any(entry.file_size > _LARGEST_PACKED for entry in packed):
            raise ValueError("it is compressed, as torch never does")
    with warnings.catch_warnings(), inert_objects(path):
        warnings.filterwarnings("ignore", message="Detected pickle protocol|Validating sparse tensor")
        return torch.load(path, map_location="cpu", weights_only=True)


def _plain(value: object, metadata: dict[str, str], kind: Format, path: Path) -> Weights:
    tensors, wrapped = unwrapped(value, str(path))
    if hollow := [name for name, tensor in tensors.items() if _is_hollow(tensor)]:
        raise CheckpointError(
            "tensors are not stored in full", where=str(path), details=listed("sparse, or larger than stored", hollow)
        )
    return Weights(tensors, metadata, kind, wrapped, path)


def _is_hollow(tensor: Tensor) -> bool:
    """A few stored numbers can be declared as a tensor of any size, which would fill the memory when it is copied."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        return True
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
