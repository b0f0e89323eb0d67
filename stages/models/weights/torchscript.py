"""Tensors of a TorchScript archive, such as OpenAI's own CLIP files, read without running anything in it.

`torch.jit.load` is no reader but a loader of programs: a module's `__setstate__` runs while it loads, and TorchScript
can write files. So the archive's pickle, storages and nothing else are handed to torch's weights-only unpickler, with
an inert class in place of every module; which attributes are parameters and buffers is read from the source's text.
"""

import io
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from .names import StateDict

_SMALL = 64 * 2**20  # bytes of pickle or source; OpenAI's have well below one MB
_CLASS = re.compile(
    r"^class (\w+)\(Module\):\n  __parameters__ = \[(.*)\](?:\n  __buffers__ = \[(.*)\])?$", re.MULTILINE
)
_MARKS = "torch.jit._pickle."  # functions of torch's that give back what they get, around typed lists
_QUOTED = re.compile(r'"([^"]*)"')


class _Inert:
    """What a TorchScript module is read as: its attributes."""

    attributes: dict[str, Any]
    script_class = ""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise UnpicklingError("a module in it has a state of its own making, which only code could read")
        self.attributes = state


def is_torchscript(path: Path) -> bool:
    """Whether this is a zip archive as `torch.jit.save` writes it.

    Raises:
        zipfile.BadZipFile: it ends like a zip archive, and is damaged.
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> StateDict:
    """Parameters and buffers by their names, on the CPU.

    Raises:
        ValueError, KeyError, RuntimeError, OSError, zipfile.BadZipFile, pickle.UnpicklingError: a damaged archive, or
            one that holds more than modules, tensors and plain values.
    """
    with zipfile.ZipFile(path) as archive:
        top = next(name for name in archive.namelist() if name.endswith("/constants.pkl")).removesuffix("constants.pkl")
        pickled = _small(archive, f"{top}data.pkl")
        registered = _registered(archive, f"{top}code/")
        repacked = _repacked(archive, top, pickled)
    with torch.serialization.safe_globals(list(_stand_ins(pickled))):
        root = torch.load(repacked, map_location="cpu", weights_only=True)
    if not isinstance(root, _Inert):
        raise ValueError("it holds no module")
    return dict(_tensors(root, "", registered, 0))


def _small(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry that is read into memory; archives compress these, so that their size is checked first."""
    if archive.getinfo(name).file_size > _SMALL:
        raise ValueError(f"{name} is too large")
    return archive.read(name)


def _registered(archive: zipfile.ZipFile, folder: str) -> dict[str, set[str]]:
    """Names of parameters and buffers of each class."""
    found: dict[str, set[str]] = {}
    for name in archive.namelist():
        if name.startswith(folder) and name.endswith(".py"):
            module = name.removeprefix(folder).removesuffix(".py").replace("/", ".")
            for script_class, parameters, buffers in _CLASS.findall(_small(archive, name).decode()):
                found[f"{module}.{script_class}"] = set(_QUOTED.findall(f"{parameters} {buffers}"))
    return found


def _repacked(archive: zipfile.ZipFile, top: str, pickled: bytes) -> io.BytesIO:
    """The same pickle and storages as `torch.save` would have packed them."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as plain:
        plain.writestr("archive/version", "3\n")
        plain.writestr("archive/data.pkl", pickled)
        for entry in archive.infolist():
            if entry.filename.startswith(f"{top}data/"):
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{entry.filename} is compressed, as torch never does")
                plain.writestr(f"archive/{entry.filename.removeprefix(top)}", archive.read(entry))
    made.seek(0)
    return made


def _stand_ins(pickled: bytes) -> Iterator[tuple[Callable[..., Any], str]]:
    """An inert class or function for each TorchScript name in the pickle; any other name is torch's to refuse."""
    named = {str(value).replace(" ", ".") for code, value, _ in pickletools.genops(pickled) if code.name == "GLOBAL"}
    for name in sorted(named):
        if name.startswith("__torch__."):
            yield type("ScriptModule", (_Inert,), {"script_class": name}), name
        elif name.startswith(_MARKS):
            yield _as_it_is, name


def _as_it_is(value: object, *_: object) -> object:
    return value


def _tensors(module: _Inert, prefix: str, registered: dict[str, set[str]], depth: int) -> Iterator[tuple[str, Tensor]]:
    if depth > 100:
        raise ValueError("its modules lie in each other")
    for name, value in module.attributes.items():
        if isinstance(value, _Inert):
            yield from _tensors(value, f"{prefix}{name}.", registered, depth + 1)
        elif isinstance(value, Tensor) and name in registered[module.script_class]:
            yield f"{prefix}{name}", value
