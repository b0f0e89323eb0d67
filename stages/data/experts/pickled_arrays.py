"""Pickled NumPy arrays, read without running code and without taking the file into memory.

What NumPy's pickles call is imitated and never imported: three constructors (`_reconstruct`, `_frombuffer`, `scalar`),
the dtypes they are given, and `_codecs.encode`, by which Python 3 writes bytes in protocols 0 to 2. Protocols 0 to 5,
of Python 2 and 3, NumPy 1 and 2. Every other name and opcode is refused. The values of an array stay in the file: what
is kept of it is its type, its shape and where it lies.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from ....errors import DataError
from ..readers.safe_pickle import PickleMachine, from_python_2, literal

LARGE = 256
"""Bytes of a string from which on it stays in the file."""
_MODULES = {
    "_reconstruct": ("numpy.core.multiarray", "numpy._core.multiarray"),
    "scalar": ("numpy.core.multiarray", "numpy._core.multiarray"),
    "_frombuffer": ("numpy.core.numeric", "numpy._core.numeric"),
    "dtype": ("numpy",),
    "ndarray": ("numpy",),
    "encode": ("_codecs",),
    "bytes": ("builtins", "__builtin__"),  # of what is empty
}
_DTYPE = re.compile(r"f[248]|[iu][1248]|b1")
_LONGEST = 16  # bytes of a whole number
type _Written = Literal["bytes", "utf-8", "unicode line", "string line"]


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A byte string in the file: where its writing lies, and how it is written."""

    at: int
    size: int
    written: _Written

    def bytes(self, path: Path) -> bytes:
        """Raises OSError or ValueError when they cannot be read."""
        with path.open("rb") as file:
            file.seek(self.at)
            data = file.read(self.size)
        if len(data) != self.size:
            raise OSError("it ends too early")
        return _decoded(data, self.written)


class PickledArray:
    """An array in a pickle: its values are read when they are asked for.

    Attributes:
        shape: of it; dtype: of its values, as they lie in the file.
    """

    __slots__ = ("_data", "_fortran", "_path", "dtype", "shape")

    def __init__(self, path: Path) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.dtype = np.dtype(np.float64)
        self._path, self._fortran = path, False
        self._data: bytes | _Stretch = b""

    def fill(self, shape: Any, dtype: Any, fortran: Any, data: Any) -> "PickledArray":
        """Say what it holds; ValueError when that cannot be."""
        if not isinstance(dtype, _DType):
            raise ValueError("an array without a type")
        if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError("an array whose shape is no tuple of sizes")
        if isinstance(data, _Text):
            data = data.stretch
        if not isinstance(data, bytes | _Stretch):
            raise ValueError("an array of Python objects, not of numbers")
        self.dtype, self.shape, self._fortran, self._data = dtype.numpy, shape, bool(fortran), data
        size = self.size * self.dtype.itemsize
        have = len(data) if isinstance(data, bytes) else data.size if data.written == "bytes" else None
        if have not in (None, size):
            raise ValueError(f"an array of {size:,} bytes for which there are {have:,}")
        return self

    @property
    def size(self) -> int:
        """Values in it."""
        return int(np.prod([int(size) for size in self.shape], dtype=object)) if self.shape else 1

    def read(self) -> NDArray[Any]:
        """Its values.

        Raises:
            DataError: the file cannot be read, or does not hold them.
        """
        try:
            data = self._data if isinstance(self._data, bytes) else self._data.bytes(self._path)
            flat = np.frombuffer(data, self.dtype)
            if flat.size != self.size:
                raise ValueError(f"an array of {self.size:,} numbers for which there are {flat.size:,}")
            return flat.reshape(self.shape, order="F" if self._fortran else "C")
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"an array in it cannot be read: {error}", where=str(self._path)) from None


def unpickled_arrays(path: Path) -> Any:
    """What the pickle in `path` holds; no code of it runs, and its arrays' values stay in it.

    Returns:
        Dicts, lists, tuples, strings, numbers and None, and a `PickledArray` for every array.

    Raises:
        DataError: it cannot be read, is damaged, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            return _ArrayMachine(file, os.fstat(file.fileno()).st_size, path).result()
    except FileNotFoundError:
        raise DataError("no such file", where=str(path)) from None
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}", where=str(path)) from None


@dataclass(slots=True)
class _DType:
    """NumPy's dtype: a code such as f4, and a byte order that follows it."""

    code: str
    order: str = "<"

    @property
    def numpy(self) -> np.dtype[Any]:
        return np.dtype(f"{self.order}{self.code}")


@dataclass(frozen=True, slots=True)
class _Named:
    """What a pickle calls by name."""

    name: str


@dataclass(frozen=True, slots=True)
class _Text:
    """Text that stays in the file; bytes are written as such in protocols 0 to 2."""

    stretch: _Stretch


class _Python2(bytes):
    """A byte string of Python 2: text, or values."""

    __slots__ = ()


class _ArrayMachine(PickleMachine):
    """Knows numbers, bytes, and the few names that NumPy's pickles call."""

    what, hint = "arrays", "features are dicts, lists and tuples of NumPy arrays and numbers"

    def _table(self) -> dict[str, Callable[[], None]]:
        push, number = self.stack.append, self._number
        return super()._table() | {
            "NONE": lambda: push(None),
            "NEWTRUE": lambda: push(True),
            "NEWFALSE": lambda: push(False),
            "INT": lambda: push(_whole(self._line())),
            "LONG": lambda: push(_whole(self._line().removesuffix(b"L"))),
            "BININT": lambda: push(int.from_bytes(self._bytes(4), "little", signed=True)),
            "BININT1": lambda: push(number(1)),
            "BININT2": lambda: push(number(2)),
            "LONG1": lambda: push(int.from_bytes(self._bytes(_short(number(1))), "little", signed=True)),
            "LONG4": lambda: push(int.from_bytes(self._bytes(_short(number(4))), "little", signed=True)),
            "FLOAT": lambda: push(float(self._line())),
            "BINFLOAT": lambda: push(float(np.frombuffer(self._bytes(8), ">f8")[0])),
            "SHORT_BINBYTES": lambda: push(self._kept(number(1))),
            "BINBYTES": lambda: push(self._kept(number(4))),
            "BINBYTES8": lambda: push(self._kept(number(8))),
            "BYTEARRAY8": lambda: push(self._kept(number(8))),
            "BINUNICODE": lambda: push(self._kept_text(number(4))),
            "BINUNICODE8": lambda: push(self._kept_text(number(8))),
            "UNICODE": lambda: push(self._kept_line("unicode line")),
            "STRING": lambda: push(self._kept_line("string line")),
            "SHORT_BINSTRING": lambda: push(_Python2(self._bytes(number(1)))),
            "BINSTRING": lambda: push(self._kept(number(4), _Python2)),
            "GLOBAL": self._global,
            "STACK_GLOBAL": self._stack_global,
            "REDUCE": self._reduce,
            "BUILD": self._build,
        }

    def _kept(self, size: int, short: type[bytes] = bytes) -> bytes | _Stretch:
        if size < LARGE:
            return short(self._bytes(size))
        if size > self.size - self.at:
            raise ValueError("it ends inside an array")
        stretch = _Stretch(self.at, size, "bytes")
        self.at += size
        self.file.seek(self.at)
        return stretch

    def _kept_text(self, size: int) -> str | _Text:
        found = self._kept(size)
        if isinstance(found, bytes):
            return found.decode("utf-8", "surrogatepass")
        return _Text(_Stretch(found.at, found.size, "utf-8"))

    def _kept_line(self, written: _Written) -> Any:
        at, line = self.at, self._line()
        if len(line) >= LARGE:
            stretch = _Stretch(at, len(line), written)
            return _Text(stretch) if written == "unicode line" else stretch
        return line.decode("raw-unicode-escape") if written == "unicode line" else _Python2(literal(line))

    def _pairs(self, items: list[Any]) -> dict[str, Any]:
        items[::2] = [from_python_2(key) if isinstance(key, _Python2) else key for key in items[::2]]
        return super()._pairs(items)

    def _global(self) -> None:
        at = self.at - 1
        module, name = self._line().decode("latin-1"), self._line().decode("latin-1")
        self._call(module, name, "GLOBAL", at)

    def _stack_global(self) -> None:
        at = self.at - 1
        module, name = self._taken(2)
        self._call(module, name, "STACK_GLOBAL", at)

    def _call(self, module: Any, name: Any, opcode: str, at: int) -> None:
        if not isinstance(name, str) or module not in _MODULES.get(name, ()):
            self._refuse_opcode(opcode, f"{module} {name}", at)
        self.stack.append(_Named(name))

    def _reduce(self) -> None:
        at = self.at - 1
        called, arguments = self._taken(2)
        if not isinstance(called, _Named) or not isinstance(arguments, tuple):
            self._refuse_opcode("REDUCE", "", at)
        match called.name, arguments:
            case "_reconstruct", (_Named("ndarray"), _, _):
                made: Any = PickledArray(self.path)
            case "_frombuffer", (data, _DType() as dtype, shape, order):
                made = PickledArray(self.path).fill(shape, dtype, _text(order) == "F", data)
            case "scalar", (_DType() as dtype, data):
                made = _number(dtype, data)
            case "dtype", (code, *_):
                made = _DType(self._code(code))
            case "encode", (text, encoding) if _text(encoding) in ("latin1", "latin-1"):
                made = text if isinstance(text, _Text) else text.encode("latin-1")
            case "bytes", ():
                made = b""
            case name, _:
                self._refuse_opcode("REDUCE", f"{name} of something else than arrays", at)
        self.stack.append(made)

    def _code(self, code: Any) -> str:
        if not _DTYPE.fullmatch(text := _text(code)):
            raise DataError(
                f"holds arrays of type {text}, not of numbers; nothing of it was run",
                where=str(self.path),
                hint="save one array of numbers for each video, or for each caption",
            )
        return text

    def _build(self) -> None:
        at = self.at - 1
        state = self._taken(1)[0]
        match self.stack[-1], state:
            case PickledArray() as array, (_, shape, dtype, fortran, data):
                array.fill(shape, dtype, fortran, data)
            case _DType() as dtype, (_, order, *_) if _text(order) in ("<", ">", "|", "="):
                dtype.order = _text(order)
            case _:
                self._refuse_state(at)

    def _refuse_state(self, at: int) -> NoReturn:
        self._refuse_opcode("BUILD", "of something else than an array", at)


def _decoded(data: bytes, written: _Written) -> bytes:
    match written:
        case "bytes":
            return data
        case "utf-8":
            return data.decode("utf-8").encode("latin-1")
        case "unicode line":
            return data.decode("raw-unicode-escape").encode("latin-1")
        case "string line":
            return literal(data)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _whole(line: bytes) -> int | bool:
    if len(line) > 2 * _LONGEST:
        raise ValueError("a number that is absurdly long")
    return line == b"01" if line in (b"00", b"01") else int(line)


def _short(size: int) -> int:
    if size > _LONGEST:
        raise ValueError("a number that is absurdly long")
    return size


def _number(dtype: _DType, data: Any) -> float:
    if not isinstance(data, bytes) or len(data) != dtype.numpy.itemsize:
        raise ValueError("a number of another size than its type")
    return float(np.frombuffer(data, dtype.numpy)[0])
