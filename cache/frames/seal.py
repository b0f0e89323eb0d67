"""The seal of a shard, in HDF5's user block: the cache's identity, where the frames lie, and a hash of all the rest.

It is checked before HDF5 sees the file, for that library may loop or crash on damaged metadata.
"""

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..storage.identity import JSON, canonical, digest
from ..storage.locations import Location, Remote
from ..storage.untrusted import Stamp

FORMAT, VERSION = "teachclip frames", 1  # of a cache
SHARD_VERSIONS = (1, 2)  # of its shards; the last is written
SEAL_BYTES = 512
MAX_TABLES = 2**28
_FIRST = 2**16  # fetched at once of a shard at an address; 64 videos of 12 frames have 18 kB before their frames


class Sealed(NamedTuple):
    """What a whole seal says: the file, its bytes, what another in its place would differ in, its tables' hash."""

    file: Path | BinaryIO
    size: int
    stamp: Stamp
    tables: str


def seal(path: Path, identity: str, frames: tuple[int, int], version: int = SHARD_VERSIONS[-1]) -> None:
    """Write the seal of a shard whose frame data lies in the bytes `frames`."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        document: dict[str, JSON] = {
            "format": FORMAT,
            "version": version,
            "identity": identity,
            "bytes": size,
            "frames": list(frames),
            "tables": _tables_digest(file, size, frames),
        }
        file.seek(0)
        file.write((canonical(document) + b"\n").ljust(SEAL_BYTES, b"\0"))


@contextmanager
def unsealed(path: Location, identity: str) -> Iterator[Sealed]:
    """A shard whose seal is whole; at an address it is a file of its tables, whose frames read as zeros.

    Raises:
        FileNotFoundError: there is none.
        OSError, KeyError, ValueError, TypeError: it is not whole.
    """
    if isinstance(path, Remote):
        with _Tables(path) as file:
            yield Sealed(file, file.size, file.stamp, _check_seal(file, file.size, identity))  # type: ignore[arg-type]
        return
    with path.open("rb") as handle:
        stat = os.fstat(handle.fileno())
        yield Sealed(path, stat.st_size, local_stamp(stat), _check_seal(handle, stat.st_size, identity))


def local_stamp(stat: os.stat_result) -> tuple[int, int, int]:
    """What another file in the same place would differ in."""
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


class _Tables(io.RawIOBase):
    """A shard at an address but for its frames, fetched before HDF5 reads it: that holds a lock meanwhile."""

    def __init__(self, path: Remote) -> None:
        head, self.stamp = path.stamped_part(0, _FIRST)
        if not head:
            head, self.stamp = path.stamped_part(0, SEAL_BYTES)
        if not head:
            raise ValueError("it ends too early")
        document = _document(head)
        self.size, (start, stop) = int(document["bytes"]), _span(document)
        _refuse_span(self.size, (start, stop))
        behind = [(at, end) for at, end in ((len(head), start), (min(stop, self.size - 1), self.size)) if at < end]
        self._parts = [(0, head[:start]), *((at, self._more(path, at, end)) for at, end in behind)]
        if path.holds(self.size) is not False:
            raise ValueError(f"it has more than {self.size} bytes")
        self._at = 0

    def _more(self, path: Remote, start: int, stop: int) -> bytes:
        part, stamp = path.stamped_part(start, stop)
        if not part or stamp != self.stamp:
            raise ValueError("it ends too early, or was replaced while it was read")
        return part

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def readinto(self, target: Any) -> int:
        room = memoryview(target).cast("B")
        count = max(0, min(len(room), self.size - self._at))
        room[:count] = bytes(count)
        for start, part in self._parts:
            first, last = max(self._at, start), min(self._at + count, start + len(part))
            if first < last:
                room[first - self._at : last - self._at] = part[first - start : last - start]
        self._at += count
        return count


def _document(head: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(head[:SEAL_BYTES].rstrip(b"\0"))
    return document


def _span(document: dict[str, Any]) -> tuple[int, int]:
    start, stop = document["frames"]
    return int(start), int(stop)


def _refuse_span(size: int, frames: tuple[int, int]) -> None:
    if not (SEAL_BYTES <= frames[0] <= frames[1] <= size) or size - (frames[1] - frames[0]) > MAX_TABLES:
        raise ValueError("its frames cannot lie where it says")


def _tables_digest(file: BinaryIO, size: int, frames: tuple[int, int]) -> str:
    """Hash of all bytes behind the seal but the frames."""
    _refuse_span(size, frames)
    parts = []
    for start, stop in ((SEAL_BYTES, frames[0]), (frames[1], size)):
        file.seek(start)
        parts.append(file.read(stop - start))
    return digest(*parts).hex()


def _check_seal(file: BinaryIO, size: int, identity: str) -> str:
    """The hash of the tables, which are those that were written."""
    file.seek(0)
    document = _document(file.read(SEAL_BYTES))
    if document["version"] not in SHARD_VERSIONS:
        raise ValueError(f"its version is {document['version']!r}, not one of {SHARD_VERSIONS}")
    for name, wanted in (("format", FORMAT), ("identity", identity), ("bytes", size)):
        if document[name] != wanted:
            raise ValueError(f"its {name} is {document[name]!r}, not {wanted!r}")
    found = _tables_digest(file, size, _span(document))
    if found != document["tables"]:
        raise ValueError("its tables are not those that were written")
    return found
