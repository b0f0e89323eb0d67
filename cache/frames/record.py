"""What prepare keeps of one video: its frames and times, or the reason why there are none."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..storage.identity import DIGEST_BYTES, array_digest

Status = Literal["ok", "short", "missing", "corrupt", "timeout", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)
Decoder = Literal["pyav", "decord"]
DECODERS: tuple[Decoder, ...] = get_args(Decoder)


@dataclass(frozen=True)
class VideoStatus:
    """What became of one video.

    Attributes:
        video: its id.
        status: ok: usable; short: the file ends well before its container says; missing: no file that can be opened;
            corrupt: no video, or damaged where frames were wanted; timeout: not decoded within the limit; failed:
            the machine could not (out of memory, a read error, a process that was killed), which says nothing of it.
        reason: why it is not ok, or what is remarkable although it is; else empty.
        frames: frames stored, 0 unless ok.
        duration: seconds of video in the file, None when unknown.
    """

    video: str
    status: Status
    reason: str = ""
    frames: int = 0
    duration: float | None = None


@dataclass(frozen=True)
class FileStamp:
    """The video file when it was read: its size and modification time, -1 when there was none, and what it held.

    Attributes:
        size: bytes.
        mtime_ns: nanoseconds.
        content: 16 bytes: BLAKE2b of the file; zeros when that is not known.
    """

    size: int = -1
    mtime_ns: int = -1
    content: bytes = bytes(DIGEST_BYTES)


@dataclass(frozen=True)
class ReadBy:
    """What read a video, frames or no frames: nothing that its digest or the cache's identity depend on.

    Attributes:
        decoder: whose frames, or whose verdict, these are.
        reader: version of the code that asked for them; 0 in shards that do not say it.
    """

    decoder: Decoder = "pyav"
    reader: int = 0


@dataclass(frozen=True)
class VideoRecord:
    """A video as a shard holds it.

    Attributes:
        status: what became of it.
        images: uint8, raw [F, 3, S, S] or the bytes of F JPEG files, one after the other.
        lengths: bytes of each frame in `images` [F].
        times: seconds from the video's first frame [F].
        stamp: the file it was read from.
        digest: 16 bytes: hash of images, lengths and times; zeros when there are none.
        read_by: decoder and version of the reader.
    """

    status: VideoStatus
    images: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    times: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0, np.float64))
    stamp: FileStamp = FileStamp()
    digest: bytes = bytes(DIGEST_BYTES)
    read_by: ReadBy = ReadBy()

    @classmethod
    def of(
        cls,
        status: VideoStatus,
        images: Sequence[NDArray[np.uint8]],
        times: Sequence[float],
        stamp: FileStamp,
        read_by: ReadBy = ReadBy(),
    ) -> "VideoRecord":
        """The record of a video whose frames are `images`: each uint8 [3, S, S], or the bytes of one JPEG file."""
        jpeg = bool(images) and images[0].ndim == 1
        joined = np.concatenate(images) if jpeg else np.stack(images)
        lengths = np.array([image.nbytes for image in images], np.int64)
        when = np.array(times, np.float64)
        return cls(status, joined, lengths, when, stamp, array_digest(joined, lengths, when), read_by)
