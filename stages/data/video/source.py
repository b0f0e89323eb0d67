"""Where the bytes of a video are: in a file of its own, or inside a tar shard."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ....cache.frames.record import FileStamp

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


@dataclass(frozen=True)
class TarPart:
    """`size` bytes of a file from `start` on: a video in a tar, which is read where it lies."""

    path: Path
    start: int
    size: int


VideoSource = Path | TarPart


def file_of(source: VideoSource) -> Path:
    """The file that holds it."""
    return source.path if isinstance(source, TarPart) else source


def stamp_of(source: VideoSource) -> FileStamp:
    """Size of the video, and when its file was changed.

    Raises:
        OSError: there is no such file.
    """
    found = file_of(source).stat()
    return FileStamp(source.size if isinstance(source, TarPart) else found.st_size, found.st_mtime_ns)


def stamp_or_none(source: VideoSource) -> FileStamp:
    """As `stamp_of`; that of no file where there is none."""
    try:
        return stamp_of(source)
    except OSError:
        return FileStamp()


def open_bytes(source: VideoSource) -> BinaryIO:
    """The video's bytes and no others, to be read and sought.

    Raises:
        OSError: there is no such file.
    """
    if isinstance(source, TarPart):
        return io.BufferedReader(_Window(source))
    return source.open("rb")


class _Window(io.RawIOBase):
    def __init__(self, part: TarPart) -> None:
        self.part, self.at = part, 0
        self.file = part.path.open("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.part.size}[whence]
        self.at = max(0, base + offset)
        return self.at

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        self.file.seek(self.part.start + self.at)
        count = self.file.readinto(view[: max(0, min(len(view), self.part.size - self.at))])
        self.at += count
        return count

    def close(self) -> None:
        self.file.close()
        super().close()
