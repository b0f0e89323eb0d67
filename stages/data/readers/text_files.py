"""Text files as they come from others: read whole, in UTF-8, or refused with file and line."""

import json
import unicodedata
from pathlib import Path
from typing import Any

from ....errors import DataError
from ....remedies import Hint

MAX_BYTES = 1 << 30
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_UNSEEN = ("Zs", "Zl", "Zp", "Cc", "Cf")
# letters and marks without a shape of their own
_UNSEEN_TOO = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")


def text_of(path: Path, kind: str = "file", hint: Hint | None = None) -> str:
    """The text of `path`, without a byte order mark.

    Args:
        kind: what to call it in errors; hint: what to do when it is not there.

    Raises:
        DataError: it is not there, no file, too large, or not UTF-8.
    """
    return decoded(bytes_of(path, kind, hint), path)


def bytes_of(path: Path, kind: str = "file", hint: Hint | None = None, most: int = MAX_BYTES) -> bytes:
    """The bytes of `path`, at most `most`.

    Raises:
        DataError: it is not there, no file, or too large.
    """
    try:
        if path.is_file() and path.stat().st_size > most:
            raise DataError(f"the {kind} is larger than {most >> 20} MiB", where=str(path))
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"no such {kind}", where=str(path), hint=hint) from None
    except OSError as error:
        raise DataError(f"the {kind} cannot be read: {error.strerror}", where=str(path)) from None


def decoded(data: bytes, path: Path) -> str:
    """`data`, the contents of `path`, as text.

    Raises:
        DataError: not UTF-8; names the line.
    """
    if data[:2] in _UTF_16 or b"\0" in data[:2]:  # what begins with a letter has a zero byte there
        raise DataError("the file is UTF-16", where=str(path), hint="save it as UTF-8 (in Excel: CSV UTF-8)")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        wrong = f"byte 0x{data[error.start]:02x} is not UTF-8"
        hint = "save the file as UTF-8 (in Excel: CSV UTF-8)"
        raise DataError(wrong, where=f"{path}:{line}", hint=hint) from None


def json_of(path: Path) -> Any:
    """The JSON document in `path`.

    Raises:
        DataError: it cannot be read, or is not JSON; names the line.
    """
    text = text_of(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        cut = " (the file may have been cut off)" if error.pos >= len(text.rstrip()) else ""
        raise DataError(f"not JSON: {error.msg}, column {error.colno}{cut}", where=f"{path}:{error.lineno}") from None
    except RecursionError:
        raise DataError("not JSON that can be read: nested too deeply", where=str(path)) from None


def list_of(path: Path) -> list[tuple[int, str]]:
    """The lines of `path` that hold something, stripped, each with its number from 1.

    Raises:
        DataError: it cannot be read.
    """
    lines = enumerate(text_of(path).split("\n"), start=1)
    return [(number, line.strip()) for number, line in lines if not blank(line)]


def blank(text: str) -> bool:
    """Whether nothing of `text` can be seen: spaces, line breaks, marks of direction, control characters and the like.

    Unicode's general categories, and the few of its Default_Ignorable_Code_Point that are called letters or marks.
    """
    if "!" <= text[:1] <= "~":  # nearly every text
        return False
    return all(char.isspace() or unicodedata.category(char) in _UNSEEN or _ignorable(char) for char in text)


def _ignorable(char: str) -> bool:
    return char in _UNSEEN_TOO or "\ufe00" <= char <= "\ufe0f" or "\U000e0000" <= char <= "\U000e0fff"


def code_points(text: str) -> str:
    """The first characters of a text that cannot be seen, by their numbers: `U+200B U+FEFF`."""
    shown = [f"U+{ord(char):04X}" for char in text[:3]]
    return " ".join(shown) + " ..." * (len(text) > len(shown))


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    kinds = {bool: "a boolean", int: "a number", float: "a number", list: "a list", tuple: "a tuple", dict: "an object"}
    return "null" if value is None else kinds.get(type(value), "a string")
