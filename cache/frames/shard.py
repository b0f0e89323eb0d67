"""One HDF5 shard of the frame cache: some 64 videos, complete or absent.

The file begins with a seal (`seal.py`) over everything but the frames, which have a digest per video. At an address,
tables are fetched when a shard is opened, and frames when they are read.

Datasets (all contiguous, no strings of variable length, so that a reader can check them before it touches them):
`frames` uint8 [N, 3, S, S], or the bytes of N JPEG files [B] with their `lengths` int64 [N]; `times` float64 [N];
`offsets` int64 [V + 1]: video v has frames offsets[v] to offsets[v + 1]; `ids`, `statuses`, `reasons` UTF-8 [V];
`digests` uint8 [V, 16]; `durations` float64 [V] (NaN: unknown); `sizes`, `mtimes` int64 [V]: the video file's;
`decoders` UTF-8 [V], `readers` int64 [V]: who read each video; shards of version 1 have neither (PyAV did);
`contents` uint8 [V, 16]: hash of the video file, zeros where unknown; shards written before there was one have none.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ...errors import CacheError
from ...remedies import Prepare, Remedy
from ..storage.identity import DIGEST_BYTES
from ..storage.locations import Location, Remote
from ..storage.publish import publishing
from ..storage.untrusted import Stamp
from .record import DECODERS, STATUSES, FileStamp, ReadBy, VideoRecord, VideoStatus
from .seal import SEAL_BYTES, Sealed, local_stamp, seal, unsealed

MAX_VIDEOS = 65536
MAX_TEXT = 8192  # bytes of an id or a reason
_REPLACED = "it was replaced while in use"
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
            _write(temporary, identity, records, frame_shape)
    except (OSError, RuntimeError) as error:
        raise CacheError(f"the shard cannot be written: {error}", where=str(path)) from error


def frame_shard_bytes(identity: str, records: Sequence[VideoRecord], frame_shape: tuple[int, ...] | None) -> bytes:
    """The file that `write_frame_shard` writes, to be put at an address; it is made among the temporary files.

    Raises:
        CacheError: it cannot be written there.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="teachclip-") as folder:
            path = Path(folder, "shard.h5")
            _write(path, identity, records, frame_shape)
            return path.read_bytes()
    except (OSError, RuntimeError) as error:
        where, hint = tempfile.gettempdir(), "TMPDIR names a folder with room for temporary files"
        raise CacheError(f"the shard cannot be written: {error}", where=where, hint=hint) from error


def _write(path: Path, identity: str, records: Sequence[VideoRecord], frame_shape: tuple[int, ...] | None) -> None:
    with h5py.File(path, "w", locking=False, userblock_size=SEAL_BYTES) as file:
        _write_tables(file, records)
        _write_frames(file, records, frame_shape)
        frames = file["frames"]
        start = frames.id.get_offset() if frames.size else SEAL_BYTES
        span = start, start + frames.nbytes
    seal(path, identity, span)


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


def stored_digests(path: Location, identity: str) -> dict[str, bytes | None]:
    """The videos of a shard and the hashes of their frames, None for those without any; no other table is read.

    Raises:
        CacheError: as `FrameShard.open`.
    """
    with _opened(path, identity) as (file, seen):
        digests = _table(file, "digests", "u1", (None, DIGEST_BYTES), seen.size)
        ids, names = (_texts(file, name, len(digests), seen.size) for name in ("ids", "statuses"))
        return {
            id: digest.tobytes() if name == "ok" else None for id, name, digest in zip(ids, names, digests, strict=True)
        }


@contextmanager
def _opened(path: Location, identity: str) -> Iterator[tuple[h5py.File, Sealed]]:
    """A shard whose seal is whole; what is wrong with it or with what is read of it is told."""
    try:
        with unsealed(path, identity) as seen, h5py.File(seen.file, "r", locking=False) as file:
            yield file, seen
    except FileNotFoundError:
        raise CacheError("a shard of the frame cache is missing", where=str(path), hint=REPAIR) from None
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
        reason = f"a damaged shard of the frame cache: {error}"
        raise CacheError(reason, where=str(path), hint=REPAIR) from None


@dataclass(frozen=True)
class FrameShard:
    """The tables of a shard, read and checked; its frames stay where they lie.

    `start` is the byte at which frame data begins, `ends` [N + 1] the bytes at which frames end, from there; `tables`
    is the hash of all bytes but the frames'.
    """

    path: Location
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
    _file: Stamp

    @classmethod
    def open(cls, path: Location, identity: str, max_frames: int, frame_shape: tuple[int, ...] | None) -> "FrameShard":
        """Read and check the tables.

        Raises:
            CacheError: absent, truncated, not a shard of this cache, or not laid out as one; names the file and what
                repairs it.
        """
        with _opened(path, identity) as (file, seen):
            return _read(cls, path, file, seen, max_frames, frame_shape)

    def frames_of(self, position: int) -> slice:
        """The frames of one video, among the shard's."""
        return slice(int(self.offsets[position]), int(self.offsets[position + 1]))

    def read_into(self, frames: slice, target: memoryview) -> None:
        """Read the stored bytes of `frames`, as many as `target` takes. Needs no lock and no open HDF5 file.

        Raises:
            CacheError: the shard was replaced since it was opened, or cannot be read.
        """
        at = self.start + int(self.ends[frames.start])
        try:
            if isinstance(self.path, Remote):
                self._fetch_into(self.path, at, target)
                return
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if local_stamp(os.fstat(handle)) != self._file:
                    raise OSError(_REPLACED)
                while target:
                    count = os.preadv(handle, [target], at)
                    if count == 0:
                        raise OSError("it ends too early")
                    target, at = target[count:], at + count
            finally:
                os.close(handle)
        except OSError as error:
            raise CacheError(f"the shard cannot be read: {error}", where=str(self.path), hint="start again") from None

    def _fetch_into(self, path: Remote, at: int, target: memoryview) -> None:
        if not target:
            return
        part, stamp = path.stamped_part(at, at + len(target))
        if len(part) != len(target) or stamp != self._file:
            raise OSError(_REPLACED)
        target[:] = part

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


def _read(
    cls: type[FrameShard],
    path: Location,
    file: h5py.File,
    seen: Sealed,
    max_frames: int,
    frame_shape: tuple[int, ...] | None,
) -> FrameShard:
    size = seen.size
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
        tables=seen.tables,
        _file=seen.stamp,
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
