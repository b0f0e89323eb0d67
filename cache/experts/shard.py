"""One shard of a feature cache: the features of some 64 videos in a safetensors file, complete or absent.

A video has any number of parts (an expert's vector or sequence is one; every caption's words are one), a part any
number of rows, a row D numbers. Tensors: `rows` float32 or float16 [R, D]; `row_ends` int64 [P] and `part_ends` int64
[V]: part p has the rows up to row_ends[p], video v the parts up to part_ends[v]; `statuses` uint8 [V]; `digests` uint8
[P, 16]: of each part; `sources` uint8 [V, 16]: of what they were made from. The header's metadata has the
cache's identity, ids, reasons, and a checksum of everything but the rows.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...errors import CacheError
from ...remedies import MakeFeatures, Remedy
from ..storage.identity import DIGEST_BYTES, array_digest, digest
from ..storage.publish import publishing

Status = Literal["ok", "missing", "absent"]
STATUSES: tuple[Status, ...] = get_args(Status)
FORMAT, KEY = "teachclip-features 1", "teachclip"
MAX_HEADER = 2**26
MAX_TABLE = 2**28
REPAIR = Remedy("make this shard again", MakeFeatures())
NO_SOURCE = bytes(DIGEST_BYTES)
_TYPES = {"F32": "<f4", "F16": "<f2", "I64": "<i8", "U8": "u1"}
_TABLES = ("row_ends", "part_ends", "statuses", "digests", "sources")
type Rows = NDArray[Any]


@dataclass(frozen=True)
class FeatureRecord:
    """What is kept of one video.

    Attributes:
        video: its id.
        status: ok: there are features; missing: the file says that there are none; absent: it does not know the video.
        reason: why it is not ok, else empty.
        parts: float arrays [rows, D], none unless ok.
        source: 16 bytes that stand for what they were made from, where that is this video's own; else zeros.
    """

    video: str
    status: Status
    reason: str = ""
    parts: tuple[Rows, ...] = ()
    source: bytes = NO_SOURCE


def write_feature_shard(path: Path, identity: str, records: Sequence[FeatureRecord]) -> None:
    """Publish `records` as one shard.

    Args:
        identity: digest of the cache's identity.

    Raises:
        CacheError: it cannot be written (disk full, no permission).
    """
    parts = [part for record in records for part in record.parts]
    width = max((part.shape[1] for part in parts), default=0)
    dtype = np.result_type(np.float16, *(part.dtype for part in parts))
    tables: dict[str, Rows] = {
        "row_ends": np.cumsum([len(part) for part in parts], dtype="<i8"),
        "part_ends": np.cumsum([len(record.parts) for record in records], dtype="<i8"),
        "statuses": np.array([STATUSES.index(record.status) for record in records], np.uint8),
        "digests": _digests([part for record in records for part in _kept(record, width, dtype).parts]),
        "sources": np.stack([np.frombuffer(record.source, np.uint8) for record in records]),
    }
    shape = (sum(map(len, parts)), width)
    said: dict[str, Any] = {
        "format": FORMAT,
        "identity": identity,
        "ids": [record.video for record in records],
        "reasons": [record.reason for record in records],
    }
    said["checksum"] = _checksum(said, tables, shape)
    try:
        with publishing(path) as temporary, temporary.open("wb") as file:
            file.write(_header(said, tables, shape, dtype))
            for table in tables.values():
                file.write(table.tobytes())
            for record in records:
                for part in _kept(record, width, dtype).parts:
                    file.write(memoryview(part.reshape(-1)).cast("B"))
    except OSError as error:
        hint = Remedy("what is finished is kept; make room, then go on", MakeFeatures())
        what = f"the features cannot be written: {error.strerror or error}"
        raise CacheError(what, where=str(path), hint=hint) from error


def _kept(record: FeatureRecord, width: int, dtype: np.dtype[Any]) -> FeatureRecord:
    """A record as its shard has it: all rows of one type and width, also where there are none."""
    parts = (np.ascontiguousarray(part, dtype.newbyteorder("<")) for part in record.parts)
    return replace(record, parts=tuple(part if len(part) else part.reshape(0, width) for part in parts))


def _digests(parts: Sequence[Rows]) -> Rows:
    return np.frombuffer(b"".join(map(array_digest, parts)), np.uint8).reshape(len(parts), DIGEST_BYTES)


def _header(said: dict[str, Any], tables: dict[str, Rows], shape: tuple[int, int], dtype: np.dtype[Any]) -> bytes:
    """What a safetensors file begins with. It is written here so that no shard is in memory more than once."""
    entries: dict[str, Any] = {"__metadata__": {KEY: json.dumps(said)}}
    at = 0
    for name, (kind, sizes) in [
        *((name, (table.dtype, table.shape)) for name, table in tables.items()),
        ("rows", (dtype, shape)),
    ]:
        end = at + math.prod(sizes) * kind.itemsize
        code = next(code for code, each in _TYPES.items() if np.dtype(each) == kind)
        entries[name] = {"dtype": code, "shape": list(sizes), "data_offsets": [at, end]}
        at = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    header = header.ljust(-(-len(header) // 8) * 8)
    return len(header).to_bytes(8, "little") + header


def _checksum(said: dict[str, Any], tables: dict[str, Rows], shape: tuple[int, ...]) -> str:
    first = json.dumps([*(said[key] for key in ("format", "identity", "ids", "reasons")), list(shape)])
    return digest(first.encode(), *(array_digest(tables[name]) for name in _TABLES)).hex()


@dataclass(frozen=True)
class FeatureShard:
    """The tables of a shard, read and checked; its rows stay on disk."""

    path: Path
    videos: tuple[str, ...]
    statuses: tuple[Status, ...]
    reasons: tuple[str, ...]
    sources: tuple[bytes, ...]
    width: int
    dtype: np.dtype[Any]
    start: int
    _digests: NDArray[np.uint8]
    _row_starts: NDArray[np.int64]
    _part_starts: NDArray[np.int64]
    _file: tuple[int, int, int]

    @classmethod
    def open(cls, path: Path, identity: str) -> "FeatureShard":
        """Read and check the tables.

        Raises:
            CacheError: absent, damaged, or of another cache; names the file and what repairs it.
        """
        try:
            with path.open("rb") as file:
                return _read(cls, path, file, identity)
        except FileNotFoundError:
            raise CacheError("a shard of the features is missing", where=str(path), hint=REPAIR) from None
        except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise CacheError(f"a damaged shard of features: {error}", where=str(path), hint=REPAIR) from None

    @property
    def rows(self) -> int:
        """R, of all its videos."""
        return int(self._row_starts[-1])

    def digest(self, position: int) -> bytes:
        """16 bytes that stand for the features of one video."""
        first, last = self._part_starts[position : position + 2]
        return digest(self._digests[first:last].tobytes())

    def parts(self, position: int) -> int:
        """How many parts one video has."""
        return int(self._part_starts[position + 1] - self._part_starts[position])

    def read(self, position: int) -> list[Rows]:
        """The parts [rows, D] of one video.

        Raises:
            CacheError: as `read_part`.
        """
        return [self.read_part(position, part) for part in range(self.parts(position))]

    def read_part(self, position: int, part: int) -> Rows:
        """One part [rows, D] of one video.

        Raises:
            CacheError: the shard was replaced since it was opened, cannot be read, or holds other bytes than were
                written.
        """
        at = int(self._part_starts[position]) + part
        start, stop = int(self._row_starts[at]), int(self._row_starts[at + 1])
        rows = np.empty((stop - start, self.width), self.dtype)
        try:
            self._read_into(memoryview(rows.reshape(-1)).cast("B"), start * self.width * self.dtype.itemsize)
        except OSError as error:
            raise CacheError(f"the features cannot be read: {error}", where=str(self.path), hint=REPAIR) from None
        if array_digest(rows) != self._digests[at].tobytes():
            what = f"the features of {self.videos[position]!r} are not those that were written"
            raise CacheError(what, where=str(self.path), hint=REPAIR)
        return rows

    def _read_into(self, target: memoryview, at: int) -> None:
        handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _stamp(os.fstat(handle)) != self._file:
                raise OSError("the shard was replaced while in use")
            at += self.start
            while target:
                if not (count := os.preadv(handle, [target], at)):
                    raise OSError("it ends too early")
                target, at = target[count:], at + count
        finally:
            os.close(handle)


def _stamp(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _read(cls: type[FeatureShard], path: Path, file: BinaryIO, identity: str) -> FeatureShard:
    stat = os.fstat(file.fileno())
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= min(MAX_HEADER, stat.st_size):
        raise ValueError("it does not begin as one")
    header = json.loads(file.read(length))
    said = json.loads(header.pop("__metadata__")[KEY])
    if said["format"] != FORMAT or said["identity"] != identity:
        raise ValueError("it is of another cache")
    if max(entry["data_offsets"][1] for entry in header.values()) + 8 + length != stat.st_size:
        raise ValueError(f"it has {stat.st_size:,} bytes, and not those that it says")
    tables = {name: _table(file, header[name], 8 + length) for name in _TABLES}
    rows = header["rows"]
    if _checksum(said, tables, tuple(rows["shape"])) != said["checksum"]:
        raise ValueError("its tables are not those that were written")
    start, end = rows["data_offsets"]
    dtype = np.dtype(_TYPES[rows["dtype"]])
    count, width = rows["shape"]
    if end - start != count * width * dtype.itemsize:
        raise ValueError("its rows cannot be where it says")
    statuses = tuple(STATUSES[k] for k in tables["statuses"].tolist())
    return cls(
        path=path,
        videos=tuple(said["ids"]),
        statuses=statuses,
        reasons=tuple(said["reasons"]),
        sources=tuple(row.tobytes() for row in tables["sources"]),
        width=width,
        dtype=dtype,
        start=8 + length + start,
        _digests=tables["digests"],
        _row_starts=np.concatenate([[0], tables["row_ends"]]),
        _part_starts=np.concatenate([[0], tables["part_ends"]]),
        _file=_stamp(stat),
    )


def _table(file: BinaryIO, entry: dict[str, Any], data: int) -> Rows:
    start, end = entry["data_offsets"]
    if not 0 <= start <= end <= start + MAX_TABLE:
        raise ValueError("a table is absurdly long")
    file.seek(data + start)
    return np.frombuffer(file.read(end - start), _TYPES[entry["dtype"]]).reshape(entry["shape"])
