"""The files that are meant: folders walked through, files and patterns as they are named, lists of paths."""

import errno
import glob
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ....cache.storage.system_files import left_by_system
from ....errors import DataError
from ....plurals import counted
from ...data.readers.video_folder import ALSO_BESIDE, VIDEO_SUFFIXES
from ...runtime.reporting import Reporter

IN_FOLDERS = VIDEO_SUFFIXES - ALSO_BESIDE - {"null"}  # others are taken when they are named
_SYNC = b"\x47"  # how MPEG-TS begins; TypeScript has the same ending
_SHOWN = 3
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


@dataclass(frozen=True)
class File:
    """A file: its size and time when it was looked at; -1 where there is none."""

    path: str
    size: int = -1
    mtime_ns: int = -1


@dataclass
class Found:
    """What was meant.

    Attributes:
        files: by absolute path.
        roots: the folders that were walked through.
        linked: folders that are links, which were not entered.
        unread: folders that could not be read.
    """

    files: dict[str, File] = field(default_factory=dict)
    roots: list[Path] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def walked(self, path: str) -> bool:
        """Whether a file would have been found there, were it there."""
        below = (root for root in self.roots if _below(path, str(root)))
        return any(below) and not any(_below(path, folder) for folder in (*self.linked, *self.unread))

    def tell(self, reporter: Reporter) -> None:
        """Say which folders were not entered."""
        for folder in self.linked[:_SHOWN]:
            reporter.info(f"{folder} is a link to a folder, and not entered; name it, too, if it is meant")
        for folder in self.unread[:_SHOWN]:
            reporter.warn(f"{folder} cannot be read; what is known of videos in it stays")


def find_files(words: Sequence[str], stdin: BinaryIO | None = None) -> Found:
    """The files that `words` name: folders (what is a video by its ending, at any depth), files, patterns (`**` for any
    depth), `@LIST` and `-` (a file, or the standard input, with a path a line).

    Raises:
        DataError: a word names nothing; there is no video.
    """
    found = Found()
    for word in words:
        if (lines := lines_of(word, stdin)) is not None:
            _listed(lines, found)
        elif os.path.isdir(word):
            _walk(Path(os.path.abspath(word)), found)
        elif os.path.exists(word):
            _add(os.path.abspath(word), found)
        elif glob.has_magic(word):
            _matching(word, found)
        else:
            raise DataError("there is no such file or folder", where=word, hint="name a folder of videos, or videos")
    if not any(file.size >= 0 for file in found.files.values()):
        raise _nothing(words, found)
    return found


def lines_of(word: str, stdin: BinaryIO | None = None) -> list[bytes] | None:
    """The lines of `@LIST` or `-`; None where the word is neither. A file whose own name begins with @ is no list.

    Raises:
        DataError: the list cannot be read.
    """
    if word == "-":
        return (stdin or sys.stdin.buffer).read().splitlines()
    if not word.startswith("@") or os.path.exists(word):
        return None
    try:
        return Path(word[1:]).read_bytes().splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"this list cannot be read: {reason}", where=word[1:]) from error


def is_video_name(path: str) -> bool:
    """Whether it has a video's ending."""
    return _ending(path) in IN_FOLDERS


def total_size(files: Sequence[File]) -> int:
    """Bytes of files."""
    return sum(max(0, file.size) for file in files)


def _walk(root: Path, found: Found) -> None:
    found.roots.append(root)
    for folder, folders, names in os.walk(root, onerror=lambda error: found.unread.append(str(error.filename))):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        found.linked += (path for name in folders if os.path.islink(path := os.path.join(folder, name)))
        for name in sorted(names):
            if not _hidden(name) and _is_video(path := os.path.join(folder, name)):
                _add(path, found)


def _matching(pattern: str, found: Found) -> None:
    paths = sorted(glob.glob(pattern, recursive=True))
    if not paths:
        raise DataError("nothing there matches this pattern", where=pattern, hint="name a folder of videos, or videos")
    for path in paths:
        if not os.path.isdir(path):
            _add(os.path.abspath(path), found)


def _listed(lines: Iterable[bytes], found: Found) -> None:
    """Files of a list; those that are not there are told as missing, not refused."""
    for line in lines:
        if path := os.fsdecode(line.strip(b"\r\n")).strip():
            _add(os.path.abspath(path), found)


def _add(path: str, found: Found) -> None:
    try:
        there = os.stat(path)
    except OSError as error:
        if error.errno in _NOT_THERE:
            found.files[path] = File(path)
        elif (folder := os.path.dirname(path)) not in found.unread:
            found.unread.append(folder)
    else:
        found.files[path] = File(path, there.st_size, there.st_mtime_ns)


def _is_video(path: str) -> bool:
    return is_video_name(path) and (_ending(path) != "ts" or _begins_with(path, _SYNC))


def _ending(path: str) -> str:
    return os.path.splitext(path)[1][1:].lower()


def _begins_with(path: str, start: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return True  # which is told when it is read


def _hidden(name: str) -> bool:
    return name.startswith(".") or left_by_system(name)


def _below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def _nothing(words: Sequence[str], found: Found) -> DataError:
    where = ", ".join(words[:_SHOWN])
    if found.files:
        return DataError(f"none of {counted(len(found.files), 'named file')} is there", where=where)
    if found.unread:
        return DataError(
            "this folder cannot be read", where=found.unread[0], hint="give yourself the right to enter it"
        )
    if found.linked:
        links = ", ".join(found.linked[:_SHOWN])
        return DataError("there is no video", where=where, hint=f"links to folders are not entered; name them: {links}")
    endings = "mp4, mkv, webm, mov, avi and the like"
    return DataError("there is no video", where=where, hint=f"by their endings ({endings}) there is none, at any depth")
