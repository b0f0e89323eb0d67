"""Errors a user can act on: what is wrong, where, and what to do next."""

import re
from collections.abc import Sequence

from .remedies import Hint

_NO_CHARACTER = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """`text` as it can be written anywhere: a byte of a file's name that is not UTF-8 is spelt `\\xe9`.

    Python holds such a byte as half a character; other halves are spelt `\\ud83d`.
    """
    return text if text.isascii() else _NO_CHARACTER.sub(_spelt, text)


def visible(text: str) -> str:
    """`text` as one line that a terminal shows and does not obey: control characters, which a file's name may hold, are
    spelt `\\x1b`, `\\n`, and the rest is `printable`."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), printable(text))


def _spelt(half: re.Match[str]) -> str:
    number = ord(half[0])
    return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else f"\\u{number:04x}"


class TeachclipError(Exception):
    """A problem the user can solve.

    Args:
        what: one sentence that names the problem and the offending value.
        where: the file, line, video or shard it concerns.
        hint: what to do next: a plain sentence, or a remedy, which names the action that helps.
        details: further lines, one finding each (rows of a caption file, fields that differ).
    """

    exit_code = 1

    def __init__(
        self, what: str, *, where: str | None = None, hint: Hint | None = None, details: Sequence[str] = ()
    ) -> None:
        super().__init__(printable(what))
        self.what = printable(what)
        self.where = None if where is None else printable(where)
        self.hint = hint
        self.details = tuple(map(printable, details))

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what, *self.details]
        if self.hint:
            lines.append(str(self.hint))
        return "\n".join(lines)


class ConfigError(TeachclipError):
    """A configuration that cannot be used: unknown key, wrong value, impossible combination."""

    exit_code = 2


class DataError(TeachclipError):
    """Captions or videos that cannot be used."""


class CacheError(TeachclipError):
    """A frame or score cache that is incomplete, damaged or not a cache of ours."""


class CacheMismatchError(CacheError):
    """A cache made from something else than what it is asked to serve; names the fields that differ."""


class UnreachableError(TeachclipError):
    """A server that refuses, fails or does not answer; says nothing about what it keeps."""


class CheckpointError(TeachclipError):
    """A checkpoint that cannot be loaded: damaged, of another network, or of other shapes."""


class TrainingError(TeachclipError):
    """Training that cannot go on: a loss that is not finite, nothing to train on."""


class StoppedEarly(BaseException):
    """A run stopped where it was asked to, and is saved.

    No error, so nothing that handles errors takes it for one (as asyncio.CancelledError, of the same base): it ends
    all that goes on around the run, a sweep too. Raised only where a request to stop was handed in.

    Args:
        step: of `steps`, after which it stopped; signal: that asked this process, None when it was another of the run.
    """

    def __init__(self, step: int, steps: int, signal: int | None) -> None:
        super().__init__(f"stopped at step {step} of {steps}, which is saved")
        self.step, self.steps, self.signal = step, steps, signal


class PluginError(TeachclipError):
    """Code of the user's own (a teacher, a loss) that fails, or is not what is asked for."""
