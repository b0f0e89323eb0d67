"""Files behind rows: found by number alone, links resolved again, refused outside of the folders that were indexed."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from starlette.exceptions import HTTPException

from ...cache.library.library import Library
from ...cache.library.rows import Window

PLAYABLE = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm", ".ogv": "video/ogg"}
RANGE_BYTES = 4 << 20  # at most, of one answer; browsers ask for the rest
PIECE = 256 << 10
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_LAST_ROW = 2**63 - 1


@dataclass(frozen=True)
class Media:
    """An open file of a window's video."""

    file: BinaryIO
    window: Window
    size: int
    mtime_ns: int

    @property
    def path(self) -> str:
        """Under which other processes of this user open this very file, whatever lies at its place by now."""
        return path_of(self.file)

    @property
    def tag(self) -> str:
        """Changes with the file."""
        return f'"{self.size:x}-{self.mtime_ns:x}"'


def path_of(file: BinaryIO) -> str:
    """As `Media.path`; also of files that have no name."""
    return f"/proc/{os.getpid()}/fd/{file.fileno()}"


def window_of(library: Library, row: int) -> Window:
    """A window by its number.

    Raises:
        HTTPException: there is none.
    """
    window = library.window(row) if 0 < row <= _LAST_ROW else None
    if window is None:
        raise HTTPException(404, "there is no such window in the index")
    return window


@contextmanager
def opened(library: Library, row: int) -> Iterator[Media]:
    """The file of a window's video.

    Raises:
        HTTPException: there is no such window; the file is gone, is no file, may not be read, or lies elsewhere.
    """
    media = open_media(library, row)
    with media.file:
        yield media


def open_media(library: Library, row: int) -> Media:
    """As `opened`, to be closed by the caller."""
    window = window_of(library, row)
    real = os.path.realpath(window.path)
    roots = [os.path.realpath(root) for root in library.roots()]
    if real != window.path and not _within(real, roots):  # no link, or one that stays inside
        raise HTTPException(403, "this file lies outside of the folders that were indexed")
    try:
        number = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise HTTPException(404, "the file of this video is not there any more") from None
        raise HTTPException(403, "the file of this video cannot be read") from None
    file = os.fdopen(number, "rb", buffering=0)
    try:
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode) or os.readlink(f"/proc/self/fd/{number}") != real:  # moved in between
            raise HTTPException(403, "this is no file of a video")
    except BaseException:
        file.close()
        raise
    return Media(file, window, found.st_size, found.st_mtime_ns)


def type_of(path: str) -> str | None:
    """What a browser is told that a file is; None for what none can play."""
    return PLAYABLE.get(os.path.splitext(path)[1].lower())


def part_of(wanted: str, size: int) -> tuple[int, int]:
    """First byte, and the one behind the last, of a Range header; at most `RANGE_BYTES` apart.

    Raises:
        HTTPException: it is no single range of bytes, or lies behind the end.
    """
    found = _RANGE.fullmatch(wanted.strip())
    first, last = (found[1], found[2]) if found else ("", "")
    if not first and not last:
        start, stop = size, size
    elif not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
    if start >= stop:
        raise HTTPException(416, "there is no such part of this file", {"content-range": f"bytes */{size}"})
    return start, min(stop, start + RANGE_BYTES)


def read_part(file: BinaryIO, start: int, stop: int) -> bytes:
    """Bytes of a file; fewer where it has become shorter."""
    file.seek(start)
    parts: list[bytes] = []
    left = stop - start
    while left and (part := file.read(min(left, PIECE))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """All of a file, which is closed behind it."""
    with file:
        while part := file.read(PIECE):
            yield part


def _within(path: str, roots: list[str]) -> bool:
    return any(path.startswith(root.rstrip("/") + "/") for root in roots)
