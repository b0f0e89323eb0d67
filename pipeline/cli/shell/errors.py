"""Exceptions in words: what happened, what to do next, and the exit code. Nothing here shows a traceback by itself."""

import errno
import os
import re
import shlex
import sys
import tempfile
import traceback
from dataclasses import dataclass
from datetime import datetime

from .... import __version__
from ....errors import StoppedEarly, TeachclipError
from ....remedies import Change, Hint, Remedy, ShowConfig
from .remedies import Given

STOPPED, TERMINATED, UNEXPECTED, READER_GONE = 130, 143, 70, 141

_NOTHING = Given()
_ELSEWHERE = Change({"work": "/other/folder"})
_ROOM = Remedy("Free some space, or name another disk", _ELSEWHERE)
_RIGHTS = Remedy("Make it readable and writable for you, or name another folder", _ELSEWHERE)
_SYSTEM: dict[int, tuple[str, Hint]] = {
    errno.ENOSPC: ("no space left on the disk", _ROOM),
    errno.EDQUOT: ("your disk quota is used up", _ROOM),
    errno.EACCES: ("permission denied", _RIGHTS),
    errno.EPERM: ("not permitted", _RIGHTS),
    errno.EROFS: ("this disk is read-only", Remedy("Name a folder that can be written to", _ELSEWHERE)),
    errno.ENOENT: ("no such file or folder", Remedy("Check the path in your configuration", ShowConfig())),
    errno.ENOTDIR: ("a file stands where a folder should be", "Move it away, or name another folder."),
    errno.EEXIST: ("a file stands where a folder should be", "Move it away, or name another folder."),
    errno.EISDIR: ("a folder stands where a file should be", "Move it away, or name another file."),
    errno.EMFILE: ("too many open files", "Raise the limit first: ulimit -n 4096"),
    errno.EIO: ("the disk reports an error", "Check the disk; what is written already is verified when it is read."),
}
_CODE_IN_TEXT = re.compile(r"(?:errno = |OS error |os error |Errno )(\d+)")  # HDF5, TensorStore and safetensors
_STREAM = "--set train.frames=stream"
_FROM_THE_GPU = (
    "Keep no frames on the GPU: {} (and PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True before it wastes less)."
)
_SMALLER = {
    "prepare": "--set prepare.workers=1",
    "score": "--set score.video_batch=8 --set score.text_batch=32",
    "train": "--set train.chunk=16",
    "evaluate": "--set evaluate.block=128",
}


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends like Ctrl-C, with its own exit code."""


@dataclass(frozen=True)
class Failure:
    """How a verb ended without a result.

    Attributes:
        kind: what the first line starts with ("error"), or "".
        lines: the first says what and where, the others are details.
        hint: what to do next.
    """

    kind: str
    lines: tuple[str, ...]
    hint: str | None
    exit_code: int

    def facts(self) -> dict[str, object]:
        """For `--json`."""
        what, *details = self.lines
        return {"what": what, "details": details, "hint": self.hint, "exit_code": self.exit_code}


def explain(error: BaseException, verb: str, command: str, given: Given = _NOTHING) -> Failure:
    """What to tell about `error`.

    Args:
        verb: what was run.
        command: the command line, to be given again.
        given: its CONFIG and --set, for the commands that help.
    """
    if isinstance(error, StoppedEarly):
        return Failure("", (str(error),), f"go on with: {command}", STOPPED)
    if isinstance(error, TeachclipError):
        what = f"{error.where}: {error.what}" if error.where else error.what
        hint = None if error.hint is None else given.tell(error.hint)
        return Failure("error", (what, *error.details), hint, error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        code = TERMINATED if isinstance(error, Terminated) else STOPPED
        return Failure("", ("stopped; everything finished is kept",), f"go on with: {command}", code)
    if _out_of_memory(error):
        on_gpu = type(error).__name__ == "OutOfMemoryError"
        again = Given(line=shlex.split(command)).again
        smaller = f"Take less at a time: {again(_SMALLER[verb])}" if verb in _SMALLER else None
        if on_gpu and verb == "train":
            smaller = f"{_FROM_THE_GPU.format(again(_STREAM))} {smaller}"
        return Failure("error", (f"not enough memory {'on the GPU' if on_gpu else 'on this machine'}",), smaller, 1)
    if known := _SYSTEM.get(_system_code(error)):
        what, remedy = known
        name = error.filename if isinstance(error, OSError) else None
        where = f"{os.fsdecode(name)}: " if isinstance(name, str | bytes) else ""
        if isinstance(remedy, Remedy) and not _lies_in_work(given):
            remedy = f"{remedy.advice}."
        return Failure("error", (f"{where}{what}",), given.tell(remedy), 1)
    return _unexpected(error, command)


def _lies_in_work(given: Given) -> bool:
    """Whether what a verb writes lies in the working folder of its configuration, as far as its command tells."""
    return given.config is not None and "--out" not in given.line


def _out_of_memory(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}  # torch's own class, without importing torch
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _system_code(error: BaseException) -> int:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    of_libraries = isinstance(error, OSError | ValueError | RuntimeError) or type(error).__name__ == "SafetensorError"
    if of_libraries and (found := _CODE_IN_TEXT.search(str(error))):
        return int(found.group(1))
    return 0


def _unexpected(error: BaseException, command: str) -> Failure:
    text = "".join(traceback.format_exception(error))
    first = f"unexpected {type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        handle, name = tempfile.mkstemp(prefix=f"teachclip-{stamp}-", suffix=".txt", text=True)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"teachclip {__version__}, Python {sys.version}\n{command}\n\n{text}")
    except OSError:
        return Failure("error", (first,), "This should not happen; --debug shows where it did.", UNEXPECTED)
    hint = f"This should not happen. Where it did is written in {name}; please report it with that file."
    return Failure("error", (first,), hint, UNEXPECTED)
