"""One HDF5 shard of the frame cache: some 64 videos, complete or absent.

The file begins with a seal, in HDF5's user block: the cache's identity, where the frames lie, and a hash of everything
but the frames (which have a digest per video). It is checked before HDF5 sees the file, for that library may loop
or crash on damaged metadata.

Datasets (all contiguous, no strings of variable length, so that a reader can check them before it touches them):
`frames` uint8 [N, 3, S, S], or the bytes of N JPEG files [B] with their `lengths` int64 [N]; `times` float64 [N];
`offsets` int64 [V + 1]: video v has frames offsets[v] to offsets[v + 1]; `ids`, `statuses`, `reasons` UTF-8 [V];
`digests` uint8 [V, 16]; `durations` float64 [V] (NaN: unknown); `sizes`, `mtimes` int64 [V]: the video file's;
`decoders` UTF-8 [V], `readers` int64 [V]: who read each video; shards of version 1 have neither (PyAV did);
`contents` uint8 [V, 16]: hash of the video file, zeros where unknown; shards written before there was one have none.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from ...errors import CacheError
from ...remedies import Prepare, Remedy
from ..storage.identity import DIGEST_BYTES, JSON, canonical, digest
from ..storage.publish import publishing
from .record import DECODERS, STATUSES, FileStamp, ReadBy, VideoRecord, VideoStatus

FORMAT, VERSION = "teachclip frames", 1  # of a cache
SHARD_VERSIONS = (1, 2)  # of its shards; the last is written
SEAL_BYTES = 512
MAX_TABLES = 2**28
MAX_VIDEOS = 65536
MAX_TEXT = 8192  # bytes of an id or a reason
REPAIR = Remedy("make this shard again", Prepare())


def write_frame_shard(
    path: Path, identity: str, records: Sequence[VideoRecord], frame_shape: tuple[int, ...] | None
) -> None:
    """Publish `records` as one shard.

    Args:
        path: the shard.
        identity: digest of the cache's identity.
        records: its videos.
        frame_shape: (3, S, S) for raw frames, None for JPEG.

    Raises:
        CacheError: it cannot be written (disk full, no permission).
    """
    try:
        with publishing(path) as temporary:
            with h5py.File(temporary, "w", locking=False, userblock_size=SEAL_BYTES) as file:
                _write_tables(file, records)
                _write_frames(file, records, frame_shape)
                frames = file["frames"]
                start = frames.id.get_offset() if frames.size else SEAL_BYTES
                span = start, start + frames.nbytes
            seal(temporary, identity, span)
    except (OSError, RuntimeError) as error:
        raise CacheError(f"the shard cannot be written: {error}", where=str(path)) from error


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


def _tables_digest(file: BinaryIO, size: int, frames: tuple[int, int]) -> str:
    """Hash of all bytes behind the seal but the frames."""
    if not (SEAL_BYTES <= frames[0] <= frames[1] <= size) or size - (frames[1] - frames[0]) > MAX_TABLES:
        raise ValueError("its frames cannot lie where it says")
    parts = []
    for start, stop in ((SEAL_BYTES, frames[0]), (frames[1], size)):
        file.seek(start)
        parts.append(file.read(stop - start))
    return digest(*parts).hex()


def _check_seal(file: BinaryIO, size: int, identity: str) -> str:
    """The hash of the tables, which are those that were written."""
    file.seek(0)
    document = json.loads(file.read(SEAL_BYTES).rstrip(b"\0"))
    if document["version"] not in SHARD_VERSIONS:
        raise ValueError(f"its version is {document['version']!r}, not one of {SHARD_VERSIONS}")
    for name, wanted in (("format", FORMAT), ("identity", identity), ("bytes", size)):
        if document[name] != wanted:
            raise ValueError(f"its {name} is {document[name]!r}, not {wanted!r}")
    start, stop = document["frames"]
    found = _tables_digest(file, size, (int(start), int(stop)))
    if found != document["tables"]:
        raise ValueError("its tables are not those that were written")
    return found


def _write_tables(file: h5py.File, records: Sequence[VideoRecord]) -> None:
    statuses = [record.status for record in records]
    durations = [np.nan if status.duration is None else status.duration for status in statuses]
    tables: dict[str, NDArray[Any]] = {
        "ids": _bytes([status.video for status in statuses]),
        "statuses": _bytes([status.status for status in statuses]),
        "reasons": _bytes([status.reason for status in statuses]),
        "durations": np.array(durations, "<f8"),
        "sizes": np.array([record.stamp.size for record in records], "<i8"),
        "mtimes": np.array([record.stamp.mtime_ns for record in records], "<i8"),
        "contents": np.stack([np.frombuffer(record.stamp.content, np.uint8) for record in records]),
        "offsets": np.cumsum([0, *(len(record.times) for record in records)], dtype="<i8"),
        "digests": np.stack([np.frombuffer(record.digest, np.uint8) for record in records]),
        "decoders": _bytes([record.read_by.decoder for record in records]),
        "readers": np.array([record.read_by.reader for record in records], "<i8"),
    }
    for name, table in tables.items():
        file.create_dataset(name, data=table)


def _write_frames(file: h5py.File, records: Sequence[VideoRecord], frame_shape: tuple[int, ...] | None) -> None:
    lengths = np.concatenate([record.lengths for record in records])
    file.create_dataset("times", data=np.concatenate([record.times for record in records]).astype("<f8"))
    if frame_shape is None:
        file.create_dataset("lengths", data=lengths.astype("<i8"))
        frames = file.create_dataset("frames", (int(lengths.sum()),), "u1")
    else:
        frames = file.create_dataset("frames", (len(lengths), *frame_shape), "u1")
    start = 0
    for record in records:
        if len(record.images):
            frames[start : start + len(record.images)] = record.images
            start += len(record.images)


def _bytes(texts: Sequence[str]) -> NDArray[np.bytes_]:
    encoded = [text.encode(errors="backslashreplace")[:MAX_TEXT].decode(errors="ignore").encode() for text in texts]
    return np.array(encoded, dtype=f"S{max(1, *map(len, encoded))}")


def stored_digests(path: Path, identity: str) -> dict[str, bytes | None]:
    """The videos of a shard and the hashes of their frames, None for those without any; no other table is read.

    Raises:
        CacheError: as `FrameShard.open`.
    """
    with _sealed(path, identity) as (file, stat, _):
        digests = _table(file, "digests", "u1", (None, DIGEST_BYTES), stat.st_size)
        ids, names = (_texts(file, name, len(digests), stat.st_size) for name in ("ids", "statuses"))
        return {
            id: digest.tobytes() if name == "ok" else None for id, name, digest in zip(ids, names, digests, strict=True)
        }


@contextmanager
def _sealed(path: Path, identity: str) -> Iterator[tuple[h5py.File, os.stat_result, str]]:
    """A shard whose seal is whole, and its tables' hash; what is wrong with it or with what is read of it is told."""
    try:
        with path.open("rb") as handle:
            stat = os.fstat(handle.fileno())
            tables = _check_seal(handle, stat.st_size, identity)
            with h5py.File(path, "r", locking=False) as file:
                yield file, stat, tables
    except FileNotFoundError:
        raise CacheError("a shard of the frame cache is missing", where=str(path), hint=REPAIR) from None
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, RecursionError) as error:
        reason = f"a damaged shard of the frame cache: {error}"
        raise CacheError(reason, where=str(path), hint=REPAIR) from None


@dataclass(frozen=True)
class FrameShard:
    """The tables of a shard, read and checked; its frames stay on disk.

    `start` is the byte at which frame data begins, `ends` [N + 1] the bytes at which frames end, from there; `tables`
    is the hash of all bytes but the frames'.
    """

    path: Path
    statuses: tuple[VideoStatus, ...]
    stamps: tuple[FileStamp, ...]
    digests: tuple[bytes, ...]
    read_by: tuple[ReadBy, ...]
    offsets: NDArray[np.int64]
    times: NDArray[np.float64]
    ends: NDArray[np.int64]
    start: int
    bytes: int
    tables: str
    _file: tuple[int, int, int]

    @classmethod
    def open(cls, path: Path, identity: str, max_frames: int, frame_shape: tuple[int, ...] | None) -> "FrameShard":
        """Read and check the tables.

        Raises:
            CacheError: absent, truncated, not a shard of this cache, or not laid out as one; names the file and what
                repairs it.
        """
        with _sealed(path, identity) as (file, stat, tables):
            return _read(cls, path, file, (stat, tables), max_frames, frame_shape)

    def frames_of(self, position: int) -> slice:
        """The frames of one video, among the shard's."""
        return slice(int(self.offsets[position]), int(self.offsets[position + 1]))

    def read_into(self, frames: slice, target: memoryview) -> None:
        """Read the stored bytes of `frames`, as many as `target` takes. Needs no lock and no open HDF5 file.

        Raises:
            CacheError: the shard was replaced since it was opened, or cannot be read.
        """
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _stamp(os.fstat(handle)) != self._file:
                    raise OSError("it was replaced while in use")
                at = self.start + int(self.ends[frames.start])
                while target:
                    count = os.preadv(handle, [target], at)
                    if count == 0:
                        raise OSError("it ends too early")
                    target, at = target[count:], at + count
            finally:
                os.close(handle)
        except OSError as error:
            raise CacheError(f"the shard cannot be read: {error}", where=str(self.path), hint="start again") from None

    def record(self, position: int, frame_shape: tuple[int, ...] | None) -> VideoRecord:
        """One video as it was written."""
        frames = self.frames_of(position)
        images = np.empty(int(self.ends[frames.stop] - self.ends[frames.start]), np.uint8)
        if len(images):
            self.read_into(frames, memoryview(images))
        if frame_shape is not None:
            images = images.reshape(-1, *frame_shape)
        lengths = np.diff(self.ends[frames.start : frames.stop + 1])
        status, stamp, digest = self.statuses[position], self.stamps[position], self.digests[position]
        return VideoRecord(status, images, lengths, self.times[frames], stamp, digest, self.read_by[position])


def _stamp(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _read(
    cls: type[FrameShard],
    path: Path,
    file: h5py.File,
    seen: tuple[os.stat_result, str],
    max_frames: int,
    frame_shape: tuple[int, ...] | None,
) -> FrameShard:
    stat, tables = seen
    size = stat.st_size
    offsets = _table(file, "offsets", "<i8", (None,), size)
    videos = len(offsets) - 1
    frames = int(offsets[-1]) if videos >= 0 else -1
    counts = np.diff(offsets)
    if not 0 < videos <= MAX_VIDEOS or offsets[0] != 0 or counts.min() < 0 or counts.max() > max_frames:
        raise ValueError("its offsets cannot be right")
    if frame_shape is None:
        lengths = _table(file, "lengths", "<i8", (frames,), size)
        data_shape: tuple[int | None, ...] = (None,)
    else:
        lengths = np.full(frames, int(np.prod(frame_shape)), np.int64)
        data_shape = (frames, *frame_shape)
    data = _checked(file, "frames", "u1", data_shape, size)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    if lengths.min(initial=0) < 0 or ends[-1] != data.size:
        raise ValueError("its frame lengths cannot be right")
    return cls(
        path=path,
        statuses=_statuses(file, videos, counts, size),
        stamps=_stamps(file, videos, size),
        digests=tuple(row.tobytes() for row in _table(file, "digests", "u1", (videos, DIGEST_BYTES), size)),
        read_by=_read_by(file, videos, size),
        offsets=offsets,
        times=_table(file, "times", "<f8", (frames,), size),
        ends=ends,
        start=data.id.get_offset() if data.size else 0,
        bytes=size,
        tables=tables,
        _file=_stamp(stat),
    )


def _statuses(file: h5py.File, videos: int, counts: NDArray[np.int64], size: int) -> tuple[VideoStatus, ...]:
    ids, names, reasons = (_texts(file, name, videos, size) for name in ("ids", "statuses", "reasons"))
    durations = _table(file, "durations", "<f8", (videos,), size)
    statuses = {name: name for name in STATUSES}
    return tuple(
        VideoStatus(ids[k], statuses[names[k]], reasons[k], int(counts[k]), _known(durations[k]))  # type: ignore[index]
        for k in range(videos)
    )


def _known(duration: float) -> float | None:
    return None if np.isnan(duration) else float(duration)


def _stamps(file: h5py.File, videos: int, size: int) -> tuple[FileStamp, ...]:
    sizes, mtimes = (_table(file, name, "<i8", (videos,), size) for name in ("sizes", "mtimes"))
    if "contents" in file:
        contents = _table(file, "contents", "u1", (videos, DIGEST_BYTES), size)
    else:
        contents = np.zeros((videos, DIGEST_BYTES), np.uint8)
    return tuple(FileStamp(int(a), int(b), c.tobytes()) for a, b, c in zip(sizes, mtimes, contents, strict=True))


def _read_by(file: h5py.File, videos: int, size: int) -> tuple[ReadBy, ...]:
    if "decoders" not in file:
        return (ReadBy(),) * videos
    decoders = {name: name for name in DECODERS}
    names, readers = _texts(file, "decoders", videos, size), _table(file, "readers", "<i8", (videos,), size)
    return tuple(ReadBy(decoders[name], int(reader)) for name, reader in zip(names, readers, strict=True))  # type: ignore[index]


def _texts(file: h5py.File, name: str, videos: int, size: int) -> list[str]:
    dataset = _member(file, name)
    if dataset.dtype.kind != "S" or dataset.dtype.itemsize > MAX_TEXT:
        raise ValueError(f"{name} is no table of text")
    return [text.decode() for text in _table(file, name, dataset.dtype.str, (videos,), size)]


def _table(file: h5py.File, name: str, dtype: str, shape: tuple[int | None, ...], size: int) -> NDArray[Any]:
    dataset = _checked(file, name, dtype, shape, size)
    if dataset.shape[0] > MAX_VIDEOS * 4096:
        raise ValueError(f"{name} is absurdly long")
    table: NDArray[Any] = dataset[()]
    return table


def _checked(file: h5py.File, name: str, dtype: str, shape: tuple[int | None, ...], size: int) -> h5py.Dataset:
    """The dataset `name`, when its bytes lie inside this file and are of the right type and shape."""
    dataset = _member(file, name)
    if dataset.dtype != np.dtype(dtype):
        raise ValueError(f"{name} has type {dataset.dtype}")
    fits = len(dataset.shape) == len(shape) and all(
        wanted in (None, got) for wanted, got in zip(shape, dataset.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} has shape {dataset.shape}")
    plist = dataset.id.get_create_plist()
    if plist.get_layout() != h5py.h5d.CONTIGUOUS or plist.get_external_count() or plist.get_nfilters():
        raise ValueError(f"{name} is not stored in one piece in this file")
    if dataset.id.get_storage_size() != dataset.nbytes or (
        dataset.size and dataset.id.get_offset() + dataset.nbytes > size
    ):
        raise ValueError(f"{name} is not in the file to its end")
    return dataset


def _member(file: h5py.File, name: str) -> h5py.Dataset:
    link = file.get(name, getlink=True)
    if type(link) is not h5py.HardLink:
        raise ValueError(f"{name} is missing or lies in another file")
    member = file[name]
    if not isinstance(member, h5py.Dataset):
        raise ValueError(f"{name} is no dataset")
    return member
