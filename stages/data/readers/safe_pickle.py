"""Pickled captions, read without running code: dicts, lists, tuples and strings, and no other opcode.

Unpickling calls whatever a file names. Here a small machine carries out the opcodes that build containers and text;
GLOBAL, REDUCE, BUILD and everything else has no place in it and is refused by name. Pickled arrays are read by a
machine that knows a few more of them (`stages.data.experts.pickled_arrays`).
"""

import ast
import io
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from ....errors import DataError
from .text_files import bytes_of

MAX_BYTES = 1 << 28
MAX_OPCODES = 20_000_000  # MSVD's captions take some two million; a byte that makes a list takes 64 in memory
_MARK = object()


def unpickled(path: Path) -> Any:
    """What the pickle in `path`, of any protocol and of Python 2 or 3, holds; no code of it runs.

    Raises:
        DataError: it cannot be read, is damaged, or holds anything but dicts, lists, tuples and strings.
    """
    data = bytes_of(path, most=MAX_BYTES)
    return PickleMachine(io.BytesIO(data), len(data), path).result()


class PickleMachine:
    """The stack and the memo of the pickle protocol, and the place in the file.

    Args:
        file: the pickle, at its start; size: its bytes; path: for messages.
    """

    what, hint = "captions", "captions are dicts, lists, tuples and strings"

    def __init__(self, file: BinaryIO, size: int, path: Path) -> None:
        self.file, self.size, self.path, self.at = file, size, path, 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.steps = {CODES[name]: step for name, step in self._table().items()}

    def result(self) -> Any:
        """What the pickle holds.

        Raises:
            DataError: it is damaged, or has another opcode than this machine carries out.
        """
        try:
            return self._run()
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, SyntaxError) as error:
            why = "it ends too early" if isinstance(error, IndexError) else error
            raise DataError(
                f"not a pickle that can be read: {why}",
                where=str(self.path),
                hint="it may have been cut off; get it again",
            ) from None

    def _run(self) -> Any:
        """To STOP."""
        for _ in range(MAX_OPCODES):
            code = self._bytes(1)[0]
            if code == _STOP:
                break
            if (step := self.steps.get(code)) is None:
                self._refuse(code)
            step()
        else:
            raise ValueError(f"more than {MAX_OPCODES:,} opcodes")
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            raise ValueError(f"{len(self.stack)} values at its end")
        return self.stack[0]

    def _table(self) -> dict[str, Callable[[], None]]:
        """What is done for each opcode, by its name."""
        push, number = self.stack.append, self._number
        return {
            "PROTO": lambda: self._skip(1),
            "FRAME": lambda: self._skip(8),
            "MARK": lambda: push(_MARK),
            "EMPTY_DICT": lambda: push({}),
            "EMPTY_LIST": lambda: push([]),
            "EMPTY_TUPLE": lambda: push(()),
            "DICT": lambda: push(self._pairs(self._above_mark())),
            "LIST": lambda: push(self._above_mark()),
            "TUPLE": lambda: push(tuple(self._above_mark())),
            "TUPLE1": lambda: push(tuple(self._taken(1))),
            "TUPLE2": lambda: push(tuple(self._taken(2))),
            "TUPLE3": lambda: push(tuple(self._taken(3))),
            "APPEND": lambda: self._extend(self._taken(1)),
            "APPENDS": lambda: self._extend(self._above_mark()),
            "SETITEM": lambda: self._update(self._taken(2)),
            "SETITEMS": lambda: self._update(self._above_mark()),
            "UNICODE": lambda: push(self._line().decode("raw-unicode-escape")),
            "SHORT_BINUNICODE": lambda: push(self._text(1)),
            "BINUNICODE": lambda: push(self._text(4)),
            "BINUNICODE8": lambda: push(self._text(8)),
            "STRING": lambda: push(from_python_2(literal(self._line()))),
            "SHORT_BINSTRING": lambda: push(from_python_2(self._bytes(number(1)))),
            "BINSTRING": lambda: push(from_python_2(self._bytes(number(4)))),
            "PUT": lambda: self._keep(int(self._line())),
            "BINPUT": lambda: self._keep(number(1)),
            "LONG_BINPUT": lambda: self._keep(number(4)),
            "MEMOIZE": lambda: self._keep(len(self.memo)),
            "GET": lambda: push(self.memo[int(self._line())]),
            "BINGET": lambda: push(self.memo[number(1)]),
            "LONG_BINGET": lambda: push(self.memo[number(4)]),
        }

    def _refuse(self, code: int) -> NoReturn:
        """Refuse an opcode that has just been read."""
        at, name = self.at - 1, _NAMES.get(code)
        if name is None:
            raise ValueError(f"byte {at} is no opcode")
        called = b" ".join((self._line(), self._line())).decode("latin-1") if name in ("GLOBAL", "INST") else ""
        self._refuse_opcode(name, called, at)

    def _refuse_opcode(self, name: str, called: str, at: int) -> NoReturn:
        named = f"{name} ({called})" if called else name
        raise DataError(
            f"holds more than {self.what}: opcode {named} at byte {at}; nothing of it was run",
            where=str(self.path),
            hint=f"{self.hint}; do not unpickle this file elsewhere either",
        )

    def _skip(self, count: int) -> None:
        self._bytes(count)

    def _number(self, count: int) -> int:
        return int.from_bytes(self._bytes(count), "little")

    def _bytes(self, count: int) -> bytes:
        if count > self.size - self.at:
            raise ValueError("it ends too early" if count == 1 else "it ends inside a string")
        self.at += count
        return self.file.read(count)

    def _text(self, size: int) -> str:
        return self._bytes(self._number(size)).decode("utf-8", "surrogatepass")

    def _line(self) -> bytes:
        line = self.file.readline(MAX_BYTES)
        self.at += len(line)
        if not line.endswith(b"\n"):
            raise ValueError("it ends inside a line")
        return line[:-1]

    def _keep(self, number: int) -> None:
        if self.stack[-1] is _MARK:
            raise ValueError("a value is missing")
        self.memo[number] = self.stack[-1]

    def _taken(self, count: int) -> list[Any]:
        """The uppermost values, off the stack."""
        top = self.stack[-count:]
        if len(top) < count or any(item is _MARK for item in top):
            raise ValueError("a value is missing")
        del self.stack[-count:]
        return top

    def _above_mark(self) -> list[Any]:
        """The values above the uppermost mark, off the stack with it."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("a container ends that never began")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("an item is put into something that is no list")
        self.stack[-1].extend(items)

    def _update(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], dict):
            raise ValueError("an item is put into something that is no dict")
        self.stack[-1].update(self._pairs(items))

    def _pairs(self, items: list[Any]) -> dict[str, Any]:
        if len(items) % 2 or not all(isinstance(key, str) for key in items[::2]):
            raise ValueError("a dict whose keys are not strings")
        return dict(zip(items[::2], items[1::2], strict=True))


_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
CODES = {name: code for code, name in _NAMES.items()}
_STOP = CODES["STOP"]
_QUOTED = re.compile(rb"""'(?:[^'\\]|\\(?:[\\'nrt]|x[0-9a-f]{2}))*'|"(?:[^"\\]|\\(?:[\\"nrt]|x[0-9a-f]{2}))*\"""")


def literal(line: bytes) -> bytes:
    """The byte string that a line of Python 2 writes: 'caf\\xc3\\xa9', quotes included."""
    if not _QUOTED.fullmatch(line):
        raise ValueError("a string that is not quoted as Python 2 does")
    value: bytes = ast.literal_eval(f"b{line.decode('ascii')}") if b"\\" in line else line[1:-1]
    return value


def from_python_2(data: bytes) -> str:
    """A byte string of Python 2: usually UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
