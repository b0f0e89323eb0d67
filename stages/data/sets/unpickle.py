"""Pickled captions, read without running code: dicts, lists, tuples and strings, and no other opcode.

Unpickling calls whatever a file names. Here its opcodes are walked with `pickletools`, and a small machine carries out
those that build containers and text; GLOBAL, REDUCE, BUILD and everything else is refused by name.
"""

import io
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ....errors import DataError
from ..plain import bytes_of

MAX_BYTES = 1 << 28
MAX_OPCODES = 10_000_000  # MSVD's captions take some two million; a byte that makes a list takes 64 in memory
_MARK = object()
_TEXT = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_OLD_TEXT = {"STRING", "BINSTRING", "SHORT_BINSTRING"}  # str of Python 2
_KEEP = {"PUT", "BINPUT", "LONG_BINPUT"}
_FETCH = {"GET", "BINGET", "LONG_BINGET"}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NOTHING = {"PROTO", "FRAME"}
_STEPS = {"MARK", "STOP", "LIST", "TUPLE", "DICT", "APPEND", "APPENDS", "SETITEM", "SETITEMS"}


def unpickled(path: Path) -> Any:
    """What the pickle in `path`, of any protocol and of Python 2 or 3, holds; no code of it runs.

    Raises:
        DataError: it cannot be read, is damaged, or holds anything but dicts, lists, tuples and strings.
    """
    data = bytes_of(path, most=MAX_BYTES)
    machine = _Machine(path)
    try:
        for number, (opcode, argument, position) in enumerate(pickletools.genops(io.BytesIO(data))):
            if number == MAX_OPCODES:
                raise ValueError(f"more than {MAX_OPCODES:,} opcodes")
            machine.run(opcode.name, argument, position or 0)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError) as error:
        raise DataError(
            f"not a pickle that can be read: {error}", where=str(path), hint="it may have been cut off; get it again"
        ) from None
    return machine.result


class _Machine:
    """The stack and the memo of the pickle protocol."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.result: Any = None

    def run(self, name: str, argument: Any, position: int) -> None:
        if name in _NOTHING:
            return
        if name in _TEXT:
            self.stack.append(argument)
        elif name in _OLD_TEXT:
            self.stack.append(_from_python_2(argument))
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            count = _TUPLES[name]
            self.stack[-count:] = [tuple(self._top(count))]
        elif name in _KEEP:
            self.memo[int(argument)] = self._top(1)[0]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self._top(1)[0]
        elif name in _FETCH:
            self.stack.append(self.memo[int(argument)])
        elif name in _STEPS:
            getattr(self, f"_{name.lower()}")()
        else:
            named = f" ({argument})" if name in ("GLOBAL", "INST") else ""
            raise DataError(
                f"holds more than captions: opcode {name}{named} at byte {position}; nothing of it was run",
                where=str(self.path),
                hint="captions are dicts, lists, tuples and strings; do not unpickle this file elsewhere either",
            )

    def _mark(self) -> None:
        self.stack.append(_MARK)

    def _stop(self) -> None:
        if len(self.stack) != 1:
            raise ValueError(f"{len(self.stack)} values at its end")
        self.result = self._top(1)[0]

    def _list(self) -> None:
        self.stack.append(self._above_mark())

    def _tuple(self) -> None:
        self.stack.append(tuple(self._above_mark()))

    def _dict(self) -> None:
        self.stack.append(_pairs(self._above_mark()))

    def _append(self) -> None:
        item = self.stack.pop()
        self._container(list).append(item)

    def _appends(self) -> None:
        items = self._above_mark()
        self._container(list).extend(items)

    def _setitem(self) -> None:
        pair = self._top(2)
        del self.stack[-2:]
        self._container(dict).update(_pairs(pair))

    def _setitems(self) -> None:
        items = self._above_mark()
        self._container(dict).update(_pairs(items))

    def _above_mark(self) -> list[Any]:
        at = next(k for k in range(len(self.stack) - 1, -2, -1) if k < 0 or self.stack[k] is _MARK)
        if at < 0:
            raise ValueError("a container ends that never began")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def _container(self, kind: type) -> Any:
        if not isinstance(self._top(1)[0], kind):
            raise ValueError(f"an item is put into something that is no {kind.__name__}")
        return self.stack[-1]

    def _top(self, count: int) -> list[Any]:
        top = self.stack[-count:]
        if len(top) < count or any(item is _MARK for item in top):
            raise ValueError("a value is missing")
        return top


def _pairs(items: list[Any]) -> dict[str, Any]:
    if len(items) % 2 or not all(isinstance(key, str) for key in items[::2]):
        raise ValueError("a dict whose keys are not strings")
    return dict(zip(items[::2], items[1::2], strict=True))


def _from_python_2(text: str) -> str:
    """A byte string, which pickletools reads as Latin-1; usually it is UTF-8."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text
