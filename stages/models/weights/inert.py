"""Torch files that hold an object of their author's own beside the tensors: it is read as nothing, and nothing runs.

TeachText's code saves its configuration, an object, with every checkpoint. Torch's weights-only unpickler makes no
object of a class that it does not know; here it gets, under each such name that the file's pickle mentions, a class
that takes everything and keeps nothing. No name is imported, and modules that torch blocks stay refused.
"""

import pickletools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch

CONFIG_OBJECT = "parse_config.ConfigParser"  # what TeachText's code saves
_LARGEST_PICKLE = 64 * 2**20
_PICKLES = 4  # of a file in torch's old form: magic number, protocol, system, and the object


class Inert:
    """Whatever it is made of, it holds nothing."""

    def __new__(cls, *_: object) -> "Inert":
        return object.__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


@contextmanager
def inert_objects(path: Path) -> Iterator[None]:
    """While this lasts, `torch.load(path, weights_only=True)` reads TeachText's configuration as nothing.

    Other files are read as always.
    """
    names = globals_in(path)
    if CONFIG_OBJECT not in names:
        yield
        return
    with torch.serialization.safe_globals([(Inert, name) for name in sorted(names)]):
        yield


def globals_in(path: Path) -> set[str]:
    """Names of classes and functions that a torch file's pickle asks for; nothing is made of it."""
    try:
        return set(_asked_for(path))
    except (ValueError, KeyError, OSError, zipfile.BadZipFile, EOFError, IndexError):
        return set()  # what is damaged is said where it is read


def _asked_for(path: Path) -> Iterator[str]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("/data.pkl") and archive.getinfo(name).file_size <= _LARGEST_PICKLE:
                    yield from _globals_of(archive.read(name))
        return
    with path.open("rb") as file:
        for _ in range(_PICKLES):
            yield from _globals_of(file)


def _globals_of(pickled: bytes | BinaryIO) -> Iterator[str]:
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
