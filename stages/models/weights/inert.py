"""Torch files that hold an object of their author's own beside the tensors: it is read as nothing, and nothing runs.

TeachText's code saves its configuration, an object, with every checkpoint. Torch's weights-only unpickler makes no
object of a class that it does not know; here it gets, under each such name that the file's pickle mentions, a class
that takes everything and keeps nothing. No name is imported, and modules that torch blocks stay refused.
"""

import io
import pickletools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

CONFIG_OBJECT = "parse_config.ConfigParser"  # what TeachText's code saves
_MARK = b"cparse_config\nConfigParser\n"  # how a pickle asks for it
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
    """Names of classes and functions that a torch file's pickle asks for, where TeachText's configuration is among
    them; nothing is made of it."""
    try:
        return {name for pickled in _pickles(path) if _MARK in pickled for name in _globals_of(pickled)}
    except (ValueError, KeyError, OSError, zipfile.BadZipFile, EOFError, IndexError):
        return set()  # what is damaged is said where it is read


def _pickles(path: Path) -> Iterator[bytes]:
    """The bytes that hold a file's pickles: in torch's old form its beginning."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            yield file.read(_LARGEST_PICKLE)
        return
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("/data.pkl") and archive.getinfo(name).file_size <= _LARGEST_PICKLE:
                yield archive.read(name)


def _globals_of(pickled: bytes) -> Iterator[str]:
    stream = io.BytesIO(pickled)
    for _ in range(_PICKLES):
        if pickled[stream.tell() : stream.tell() + 1] != b"\x80":  # every pickle of torch's begins so
            return
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "GLOBAL":
                yield str(argument).replace(" ", ".")
