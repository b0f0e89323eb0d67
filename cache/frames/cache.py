"""The frame cache: decoded frames of every video in HDF5 shards, and why the others have none.

A folder, or an address, holds `frames.json` (what the cache was made with; and its shards, once it is complete),
`00000.h5` ... and, of a shard whose videos' files have other times since, `00000.stamps.json`.
"""

import io
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import CacheError
from ...remedies import OTHER, Change, DeleteFile, DeleteFolder, Prepare, Remedy
from ..storage.identity import JSON, differences, identity_digest, refuse_difference
from ..storage.locations import Location, Remote, at_once, refuse_read_only
from . import files
from .record import VideoRecord, VideoStatus
from .seal import FORMAT, VERSION
from .shard import FrameShard, frame_shard_bytes, stored_digests, write_frame_shard
from .stamps import publish_times, stamps_of, stamps_path

__all__ = ["FrameBatch", "FrameCache", "FrameFolder", "VideoStatus", "frame_identity", "usable_digests"]

MANIFEST = "frames.json"
FIELDS: dict[str, type] = {"sample_fps": int, "choice": str, "max_frames": int, "image_size": int, "storage": str}
MANIFEST_BYTES = 2**25
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


type _Place = tuple[FrameShard, int]


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
    def open(cls, folder: str | Location) -> "FrameCache":
        """Open the cache in `folder`, or at this address.

        Raises:
            CacheError: there is none, it is not complete, or a shard is damaged or foreign.
            UnreachableError: a server refuses, fails or is silent.
        """
        place = files.place_of(folder)
        identity, shards = _complete(place)
        return cls(identity, at_once(place, lambda path: _open_shard(path, identity), shards))

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
            UnreachableError: a server refuses, fails or is silent.
        """
        if frames_into is None:
            frames_into = np.empty((len(videos), *self.clip_shape), np.uint8)
        clips = FrameBatch(
            frames_into,
            np.zeros((len(videos), self.max_frames), np.bool_),
            np.full((len(videos), self.max_frames), np.nan),
        )
        places = [self._place(video) for video in videos]
        for k, (shard, position) in enumerate(places):
            frames = shard.frames_of(position)
            count = frames.stop - frames.start
            clips.mask[k, :count] = True
            clips.times[k, :count] = shard.times[frames]
            clips.frames[k, count:] = 0
        self._read_all(list(zip(places, clips.frames, strict=True)))
        return clips

    def _read_all(self, wanted: list[tuple[_Place, NDArray[np.uint8]]]) -> None:
        """Into [F, 3, S, S] the frames of each place; at an address, whose answers take time, several at once."""
        one = self._read_jpeg if self._shape is None else self._read_raw
        if wanted and isinstance(where := wanted[0][0][0].path, Remote):
            at_once(where, lambda each: one(*each), wanted)
        elif self._shape is None:
            with ThreadPoolExecutor(min(JPEG_THREADS, os.cpu_count() or 1)) as pool:
                list(pool.map(lambda each: one(*each), wanted))
        else:
            for place, target in wanted:
                one(place, target)

    def _read_raw(self, place: _Place, target: NDArray[np.uint8]) -> None:
        shard, position = place
        frames = shard.frames_of(position)
        shard.read_into(frames, memoryview(target[: frames.stop - frames.start].reshape(-1)))

    def _place(self, video: str) -> _Place:
        status = self.statuses.get(video)
        if status is None or status.status != "ok":
            why = "is not in the frame cache" if status is None else f"has no frames: {status.status}, {status.reason}"
            advice = "prepare the videos first" if status is None else "mend its file and prepare the videos again"
            raise CacheError(f"video {video!r} {why}", hint=Remedy(advice, Prepare()))
        return self._places[video]

    def _read_jpeg(self, place: _Place, target: NDArray[np.uint8]) -> None:
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


def usable_digests(folder: str | Location) -> tuple[dict[str, JSON], dict[str, bytes]]:
    """The identity of the cache in `folder`, and the hashes of its usable videos' frames (`FrameCache.digest`), in the
    order of `FrameCache.usable`: all that has to be known to see whether what was made from it is up to date.

    Raises:
        CacheError, UnreachableError: as `FrameCache.open`.
    """
    place = files.place_of(folder)
    identity, shards = _complete(place)
    known = identity_digest(identity)
    found: dict[str, bytes | None] = {}
    for digests in at_once(place, lambda path: stored_digests(path, known), shards):
        found |= digests
    return identity, {video: digest for video, digest in found.items() if digest is not None}


class FrameFolder:
    """The frame cache while prepare writes it: shards are added or replaced whole, then the cache is completed.

    At an address, what a server says may come late or get lost, and nothing is renamed: a new shard is created only
    where there is none.
    """

    def __init__(self, folder: Location, identity: dict[str, JSON]) -> None:
        self.folder, self.identity = folder, identity
        self.frame_shape = _frame_shape(identity)
        self.shards: dict[int, FrameShard] = {}
        self.damaged: list[str] = []
        self._own: set[int] = set()  # shards that were here, whole or damaged, and those written since
        self._load()

    @classmethod
    def look(cls, folder: str | Location, identity: dict[str, JSON]) -> "FrameFolder":
        """The cache in `folder` or at this address, new or begun earlier; writes nothing.

        Raises:
            CacheMismatchError: it was begun with other settings; names them.
            CacheError: the folder holds something else.
            UnreachableError: a server refuses, fails or is silent.
        """
        place = files.place_of(folder)
        refuse_read_only(place)
        manifest = _read_manifest(place)
        if manifest is None and files.holds_others(place):
            raise CacheError(
                "this is no frame cache, and not empty",
                where=str(place),
                hint=Remedy("choose another", Change({"prepare.frames": OTHER})),
            )
        if manifest is not None and files.shard_names(place):
            _refuse_other(place, identity, manifest)
        return cls(place, identity)

    @classmethod
    def claim(cls, folder: str | Location, identity: dict[str, JSON]) -> "FrameFolder":
        """Take `folder`, or this address, for a cache with this identity, new or begun earlier.

        Raises:
            CacheMismatchError: it was begun with other settings; names them.
            CacheError: the folder holds something else, or cannot be written.
            UnreachableError: a server refuses, fails or is silent.
        """
        found = cls.look(folder, identity)
        place = found.folder
        manifest = _read_manifest(place)
        if manifest is None and isinstance(place, Remote):
            (place / MANIFEST).create(_document(identity, None))
            manifest = _read_manifest(place)  # that of another prepare, where it was faster
            if manifest is not None:
                _refuse_other(place, identity, manifest)
        if manifest is None or differences(identity, manifest.identity):
            _publish_manifest(place, identity, None)
        files.remove_leftovers(place)
        return found

    def write(self, number: int, records: Sequence[VideoRecord]) -> None:
        """Publish shard `number`; at an address under another number, where another prepare took this one.

        Raises:
            CacheError: it cannot be written.
            UnreachableError: a server refuses, fails or is silent.
        """
        if isinstance(self.folder, Remote):
            number = self._put(self.folder, number, records)
        else:
            path = self.folder / _name(number)
            write_frame_shard(path, identity_digest(self.identity), records, self.frame_shape)
            with suppress(OSError):  # it says nothing of the new shard
                files.remove(stamps_path(path))
        self.shards[number] = _open_shard(self.folder / _name(number), self.identity)

    def _put(self, place: Remote, number: int, records: Sequence[VideoRecord]) -> int:
        """Put a shard at the address; its number there.

        One that was there before this prepare is written over. One that came since is another prepare's, and stays:
        if it holds these videos it serves, else this one gets a number that is free.
        """
        data = frame_shard_bytes(identity_digest(self.identity), records, self.frame_shape)
        path = place / _name(number)
        if number in self._own:
            path.write(data)
            files.remove(stamps_path(path))
        elif path.create(data):
            self._own.add(number)
        else:
            while not (self._holds(path, records) or path.create(data)):
                number = 1 + max(number, *map(_number, files.shard_names(place)))
                path = place / _name(number)
        return number

    def _holds(self, path: Remote, records: Sequence[VideoRecord]) -> bool:
        """Whether a shard at the address is whole and holds these videos."""
        try:
            found = _open_shard(path, self.identity)
        except CacheError:
            return False
        return [status.video for status in found.statuses] == [record.status.video for record in records]

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
                files.remove(path)
                files.remove(stamps_path(path))
        except OSError as error:
            raise CacheError(f"a shard cannot be removed: {error.strerror}", where=str(self.folder)) from None

    def complete(self) -> None:
        """Publish the list of shards: from now on readers see them. At an address, those too that others made since."""
        if isinstance(self.folder, Remote):
            self._load()
        shards = [shard.path.name for _, shard in sorted(self.shards.items())]
        manifest = _read_manifest(self.folder)
        if manifest is None or manifest.shards != shards:
            _publish_manifest(self.folder, self.identity, shards)

    def _load(self) -> None:
        """Open the shards that are not known yet."""
        new = [name for name in files.shard_names(self.folder) if _number(name) not in {*self._own, *self.shards}]
        for name, shard in zip(new, at_once(self.folder, self._opened, new), strict=True):
            self._own.add(_number(name))
            if isinstance(shard, CacheError):
                self.damaged.append(f"{name}: {shard.what}")
            else:
                self.shards[_number(name)] = shard

    def _opened(self, name: str) -> FrameShard | CacheError:
        try:
            shard = _open_shard(self.folder / name, self.identity)
            return replace(shard, stamps=stamps_of(shard))
        except CacheError as error:
            return error


@dataclass(frozen=True)
class _Manifest:
    identity: dict[str, JSON]
    shards: list[str] | None  # names, None while incomplete


def _complete(folder: Location) -> tuple[dict[str, JSON], list[Location]]:
    """Identity and shards of a complete cache."""
    manifest = _read_manifest(folder)
    if manifest is None:
        files.refuse_no_bucket(folder)
        raise CacheError("no frame cache here", where=str(folder), hint=Remedy("prepare the videos first", Prepare()))
    if manifest.shards is None:
        raise CacheError(
            "the frame cache is not complete",
            where=str(folder),
            hint=Remedy("go on preparing the videos", Prepare()),
        )
    return manifest.identity, [folder / name for name in manifest.shards]


def _read_manifest(folder: Location) -> _Manifest | None:
    path = folder / MANIFEST
    try:
        document = files.read_document(path, MANIFEST_BYTES)
        return None if document is None else _parsed(json.loads(document))
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
    if not all(files.SHARD.fullmatch(name) for name in document["shards"]):
        raise ValueError("a shard's name is not one")
    return _Manifest(identity, list(document["shards"]))


def _publish_manifest(folder: Location, identity: dict[str, JSON], shards: list[str] | None) -> None:
    try:
        files.put(folder / MANIFEST, _document(identity, shards))
    except OSError as error:
        raise CacheError(f"the frame cache cannot be written: {error.strerror}", where=str(folder)) from None


def _document(identity: dict[str, JSON], shards: list[str] | None) -> bytes:
    document = {"format": FORMAT, "version": VERSION, "identity": identity, "shards": shards}
    return json.dumps(document, indent=1).encode()


def _refuse_other(folder: Location, identity: dict[str, JSON], manifest: _Manifest) -> None:
    anew = Remedy("delete what is there", DeleteFolder(str(folder)))
    hint = Remedy("keep both", Change({"prepare.frames": OTHER}), otherwise=anew)
    refuse_difference(identity, manifest.identity, str(folder), hint)


def _name(number: int) -> str:
    return f"{number:05d}.h5"


def _number(name: str) -> int:
    return int(name.removesuffix(".h5"))


def _open_shard(path: Location, identity: dict[str, JSON]) -> FrameShard:
    return FrameShard.open(path, identity_digest(identity), _int(identity, "max_frames"), _frame_shape(identity))


def _frame_shape(identity: dict[str, JSON]) -> tuple[int, int, int] | None:
    size = _int(identity, "image_size")
    return None if identity["storage"] == "jpeg" else (3, size, size)


def _int(identity: dict[str, JSON], field: str) -> int:
    value = identity[field]
    assert isinstance(value, int)
    return value
