"""The frame cache: decoded frames of every video in HDF5 shards, and why the others have none.

A folder holds `frames.json` (what the cache was made with; and its shards, once it is complete), `00000.h5` ... and,
of a shard whose videos' files have other times since, `00000.stamps.json`.
"""

import io
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import CacheError
from ...remedies import OTHER, Change, DeleteFile, DeleteFolder, Prepare, Remedy
from ..storage.identity import JSON, differences, identity_digest, refuse_difference
from ..storage.publish import TEMPORARY, publish
from ..storage.untrusted import listed
from .record import VideoRecord, VideoStatus
from .shard import FORMAT, VERSION, FrameShard, stored_digests, write_frame_shard
from .stamps import publish_times, stamps_of, stamps_path

__all__ = ["FrameBatch", "FrameCache", "FrameFolder", "VideoStatus", "frame_identity", "usable_digests"]

MANIFEST = "frames.json"
SHARD = re.compile(r"\d{5,12}\.h5")
FIELDS: dict[str, type] = {"sample_fps": int, "choice": str, "max_frames": int, "image_size": int, "storage": str}
MANIFEST_BYTES = 256 * 2**20
JPEG_THREADS = 8
RESIZE_MODE, INTERPOLATION = "shortest", "bicubic"  # of frames whose cache says nothing of it


def frame_identity(
    *,
    sample_fps: int,
    choice: str,
    max_frames: int,
    image_size: int,
    storage: str,
    jpeg_quality: int,
    last_second: int | None = None,
    resize_mode: str = RESIZE_MODE,
    interpolation: str = INTERPOLATION,
) -> dict[str, JSON]:
    """What decides the stored bytes, beside the videos: settings that may not change within a cache."""
    identity: dict[str, JSON] = {
        "sample_fps": sample_fps,
        "choice": choice,
        "max_frames": max_frames,
        "image_size": image_size,
        "storage": storage,
    }
    if last_second is not None:
        identity["last_second"] = last_second
    if resize_mode != RESIZE_MODE:
        identity["resize_mode"] = resize_mode
    if interpolation != INTERPOLATION:
        identity["interpolation"] = interpolation
    return identity | {"jpeg_quality": jpeg_quality} if storage == "jpeg" else identity


@dataclass(frozen=True)
class FrameBatch:
    """Frames of V videos in F slots, padded with zeros at the end.

    Attributes:
        frames: uint8 [V, F, 3, S, S].
        mask: bool [V, F], true where there is a frame.
        times: float64 [V, F], seconds from the video's first frame, NaN in padding.
    """

    frames: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    times: NDArray[np.float64]


class FrameCache:
    """A complete frame cache, read-only and safe to use from several threads and processes.

    Attributes:
        identity: what it was made with: frame choice, image size, storage.
        resize_mode, interpolation: how frames came to that size.
        statuses: what became of each video, by id.
        usable: ids with status ok, in the order they were prepared (that of the data set, later additions behind).
    """

    def __init__(self, identity: dict[str, JSON], shards: Sequence[FrameShard]) -> None:
        self.identity = identity
        self.max_frames, self.image_size = _int(identity, "max_frames"), _int(identity, "image_size")
        self.resize_mode = str(identity.get("resize_mode", RESIZE_MODE))
        self.interpolation = str(identity.get("interpolation", INTERPOLATION))
        self._shape = _frame_shape(identity)
        self._places = {status.video: (shard, k) for shard in shards for k, status in enumerate(shard.statuses)}
        self.statuses = {video: shard.statuses[k] for video, (shard, k) in self._places.items()}
        self.usable = tuple(video for video, status in self.statuses.items() if status.status == "ok")

    @classmethod
    def open(cls, folder: Path) -> "FrameCache":
        """Open the cache in `folder`.

        Raises:
            CacheError: there is none, it is not complete, or a shard is damaged or foreign.
        """
        identity, shards = _complete(folder)
        return cls(identity, [_open_shard(path, identity) for path in shards])

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """Of a video's frames: F, 3, S, S."""
        return self.max_frames, 3, self.image_size, self.image_size

    def digest(self, video: str) -> bytes:
        """16 bytes: hash of the stored frames and times of a usable video."""
        shard, position = self._place(video)
        return shard.digests[position]

    def times(self, videos: Sequence[str]) -> NDArray[np.float64]:
        """Seconds [V, F] of the stored frames, NaN in padding, without reading any frame."""
        times = np.full((len(videos), self.max_frames), np.nan)
        for k, (shard, position) in enumerate(map(self._place, videos)):
            frames = shard.frames_of(position)
            times[k, : frames.stop - frames.start] = shard.times[frames]
        return times

    def read(self, videos: Sequence[str], frames_into: NDArray[np.uint8] | None = None) -> FrameBatch:
        """Frames, mask and times of V usable videos, in F = `max_frames` slots.

        Args:
            frames_into: uint8 [V, F, 3, S, S] that the frames are put into, whatever it holds; else new memory.

        Raises:
            CacheError: a video without frames, or a shard that cannot be read.
        """
        if frames_into is None:
            frames_into = np.empty((len(videos), *self.clip_shape), np.uint8)
        clips = FrameBatch(
            frames_into,
            np.zeros((len(videos), self.max_frames), np.bool_),
            np.full((len(videos), self.max_frames), np.nan),
        )
        places = [self._place(video) for video in videos]
        if self._shape is None:
            with ThreadPoolExecutor(min(JPEG_THREADS, os.cpu_count() or 1)) as pool:
                list(pool.map(self._read_jpeg, places, clips.frames))
        for k, (shard, position) in enumerate(places):
            frames = shard.frames_of(position)
            count = frames.stop - frames.start
            clips.mask[k, :count] = True
            clips.times[k, :count] = shard.times[frames]
            clips.frames[k, count:] = 0
            if self._shape is not None:
                shard.read_into(frames, memoryview(clips.frames[k, :count].reshape(-1)))
        return clips

    def _place(self, video: str) -> tuple[FrameShard, int]:
        status = self.statuses.get(video)
        if status is None or status.status != "ok":
            why = "is not in the frame cache" if status is None else f"has no frames: {status.status}, {status.reason}"
            advice = "prepare the videos first" if status is None else "mend its file and prepare the videos again"
            raise CacheError(f"video {video!r} {why}", hint=Remedy(advice, Prepare()))
        return self._places[video]

    def _read_jpeg(self, place: tuple[FrameShard, int], target: NDArray[np.uint8]) -> None:
        from PIL import Image

        shard, position = place
        record = shard.record(position, None)
        ends = np.cumsum(record.lengths)
        for k, (end, length) in enumerate(zip(ends, record.lengths, strict=True)):
            try:
                with Image.open(io.BytesIO(record.images[end - length : end]), formats=["JPEG"]) as image:
                    if image.size != (self.image_size, self.image_size) or image.mode != "RGB":
                        raise ValueError(f"a JPEG of {image.size}, {image.mode}")
                    target[k] = np.asarray(image).transpose(2, 0, 1)
            except (OSError, ValueError, SyntaxError) as error:
                video = shard.statuses[position].video
                reason = f"frame {k} of {video!r} is damaged: {error}"
                hint = Remedy("delete this shard and make it again", DeleteFile(str(shard.path)), then=Prepare())
                raise CacheError(reason, where=str(shard.path), hint=hint) from None


def usable_digests(folder: Path) -> tuple[dict[str, JSON], dict[str, bytes]]:
    """The identity of the cache in `folder`, and the hashes of its usable videos' frames (`FrameCache.digest`), in the
    order of `FrameCache.usable`: all that has to be known to see whether what was made from it is up to date.

    Raises:
        CacheError: as `FrameCache.open`.
    """
    identity, shards = _complete(folder)
    found: dict[str, bytes | None] = {}
    for path in shards:
        found |= stored_digests(path, identity_digest(identity))
    return identity, {video: digest for video, digest in found.items() if digest is not None}


class FrameFolder:
    """The frame cache while prepare writes it: shards are added or replaced whole, then the cache is completed."""

    def __init__(self, folder: Path, identity: dict[str, JSON]) -> None:
        self.folder, self.identity = folder, identity
        self.frame_shape = _frame_shape(identity)
        self.shards: dict[int, FrameShard] = {}
        self.damaged: list[str] = []
        for path in sorted(folder.glob("*.h5")):
            if SHARD.fullmatch(path.name):
                self._load(path)

    @classmethod
    def look(cls, folder: Path, identity: dict[str, JSON]) -> "FrameFolder":
        """The cache in `folder`, new or begun earlier; writes nothing.

        Raises:
            CacheMismatchError: it was begun with other settings; names them.
            CacheError: the folder holds something else.
        """
        manifest = _read_manifest(folder)
        if manifest is None and folder.exists() and (not folder.is_dir() or _foreign(folder)):
            raise CacheError(
                "this is no frame cache, and not empty",
                where=str(folder),
                hint=Remedy("choose another", Change({"prepare.frames": OTHER})),
            )
        if manifest is not None and any(SHARD.fullmatch(path.name) for path in folder.iterdir()):
            anew = Remedy("delete what is there", DeleteFolder(str(folder)))
            hint = Remedy("keep both", Change({"prepare.frames": OTHER}), otherwise=anew)
            refuse_difference(identity, manifest.identity, str(folder), hint)
        return cls(folder, identity)

    @classmethod
    def claim(cls, folder: Path, identity: dict[str, JSON]) -> "FrameFolder":
        """Take `folder` for a cache with this identity, new or begun earlier.

        Raises:
            CacheMismatchError: it was begun with other settings; names them.
            CacheError: the folder holds something else, or cannot be written.
        """
        found = cls.look(folder, identity)
        manifest = _read_manifest(folder)
        if manifest is None or differences(identity, manifest.identity):
            _publish_manifest(folder, identity, None)
        _remove_leftovers(folder)
        return found

    def write(self, number: int, records: Sequence[VideoRecord]) -> None:
        """Publish shard `number`.

        Raises:
            CacheError: it cannot be written.
        """
        path = self.folder / f"{number:05d}.h5"
        write_frame_shard(path, identity_digest(self.identity), records, self.frame_shape)
        self.shards[number] = _open_shard(path, self.identity)
        with suppress(OSError):  # it says nothing of the new shard
            stamps_path(path).unlink()

    def renew(self, number: int, mtimes: Mapping[int, int]) -> None:
        """Note other modification times of video files whose bytes are the same, by position in shard `number`.

        The shard itself stays: whoever reads its frames goes on.

        Raises:
            CacheError: it cannot be written.
        """
        if not mtimes:
            return
        shard = self.shards[number]
        stamps = tuple(replace(old, mtime_ns=mtimes.get(k, old.mtime_ns)) for k, old in enumerate(shard.stamps))
        try:
            publish_times(shard.path, shard.tables, [stamp.mtime_ns for stamp in stamps])
        except OSError as error:
            raise CacheError(f"the frame cache cannot be written: {error.strerror}", where=str(self.folder)) from None
        self.shards[number] = replace(shard, stamps=stamps)

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove whole shards; readers are told before the files go.

        Raises:
            CacheError: they cannot be removed.
        """
        paths = [self.shards.pop(number).path for number in numbers]
        manifest = _read_manifest(self.folder)
        if paths and manifest is not None and manifest.shards is not None:
            gone = {path.name for path in paths}
            _publish_manifest(self.folder, self.identity, [name for name in manifest.shards if name not in gone])
        try:
            for path in paths:
                path.unlink(missing_ok=True)
                stamps_path(path).unlink(missing_ok=True)
        except OSError as error:
            raise CacheError(f"a shard cannot be removed: {error.strerror}", where=str(self.folder)) from None

    def complete(self) -> None:
        """Publish the list of shards: from now on readers see them."""
        shards = [shard.path.name for _, shard in sorted(self.shards.items())]
        manifest = _read_manifest(self.folder)
        if manifest is None or manifest.shards != shards:
            _publish_manifest(self.folder, self.identity, shards)

    def _load(self, path: Path) -> None:
        try:
            shard = _open_shard(path, self.identity)
            self.shards[int(path.stem)] = replace(shard, stamps=stamps_of(shard))
        except CacheError as error:
            self.damaged.append(f"{path.name}: {error.what}")


@dataclass(frozen=True)
class _Manifest:
    identity: dict[str, JSON]
    shards: list[str] | None  # names, None while incomplete


def _complete(folder: Path) -> tuple[dict[str, JSON], list[Path]]:
    """Identity and shards of a complete cache."""
    manifest = _read_manifest(folder)
    if manifest is None:
        raise CacheError("no frame cache here", where=str(folder), hint=Remedy("prepare the videos first", Prepare()))
    if manifest.shards is None:
        raise CacheError(
            "the frame cache is not complete",
            where=str(folder),
            hint=Remedy("go on preparing the videos", Prepare()),
        )
    return manifest.identity, [folder / name for name in manifest.shards]


def _read_manifest(folder: Path) -> _Manifest | None:
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MANIFEST_BYTES:
            raise ValueError("it is absurdly long")
        document = json.loads(path.read_bytes())
        return _parsed(document)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        hint = Remedy("delete this folder and make it again", DeleteFolder(str(folder)), then=Prepare())
        raise CacheError(f"this does not describe a frame cache: {error}", where=str(path), hint=hint) from None


def _parsed(document: Any) -> _Manifest:
    if document["format"] != FORMAT or document["version"] != VERSION:
        raise ValueError(f"format {document['format']!r}, version {document['version']!r}")
    identity = document["identity"]
    for field, kind in FIELDS.items():
        if type(identity[field]) is not kind:
            raise ValueError(f"{field} is {identity[field]!r}")
    if not (0 < identity["max_frames"] <= 65536 and 0 < identity["image_size"] <= 8192):
        raise ValueError("its sizes are absurd")
    if document["shards"] is None:
        return _Manifest(identity, None)
    if not all(SHARD.fullmatch(name) for name in document["shards"]):
        raise ValueError("a shard's name is not one")
    return _Manifest(identity, list(document["shards"]))


def _publish_manifest(folder: Path, identity: dict[str, JSON], shards: list[str] | None) -> None:
    document = {"format": FORMAT, "version": VERSION, "identity": identity, "shards": shards}
    try:
        publish(folder / MANIFEST, json.dumps(document, indent=1).encode())
    except OSError as error:
        raise CacheError(f"the frame cache cannot be written: {error.strerror}", where=str(folder)) from None


def _open_shard(path: Path, identity: dict[str, JSON]) -> FrameShard:
    return FrameShard.open(path, identity_digest(identity), _int(identity, "max_frames"), _frame_shape(identity))


def _foreign(folder: Path) -> list[Path]:
    return [folder / name for name in listed(folder) if not name.startswith(TEMPORARY)]


def _remove_leftovers(folder: Path) -> None:
    """Temporary files of killed runs; a living run's are younger than an hour."""
    for path in folder.glob(f"{TEMPORARY}*"):
        try:
            if time.time() - path.stat().st_mtime > 3600:
                path.unlink()
        except OSError:
            continue


def _frame_shape(identity: dict[str, JSON]) -> tuple[int, int, int] | None:
    size = _int(identity, "image_size")
    return None if identity["storage"] == "jpeg" else (3, size, size)


def _int(identity: dict[str, JSON], field: str) -> int:
    value = identity[field]
    assert isinstance(value, int)
    return value
