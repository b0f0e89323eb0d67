"""What a library holds: models, videos, windows, as its tables give them."""

import sqlite3
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..frames.record import Status
from ..storage.identity import DIGEST_BYTES

UNKNOWN = bytes(DIGEST_BYTES)


@dataclass(frozen=True)
class Model:
    """What made vectors: a network, and the windows that it saw.

    Attributes:
        name: how it was named when it was used last: a path, or `openclip:MODEL/TAG`.
        digest: hash of its weights and settings.
        width: numbers per vector; frames: most frames per window.
        seconds: length of a window; step: from one to the next; whole: up to this length a video is one window.
    """

    name: str
    digest: str
    width: int
    frames: int
    seconds: float = 30.0
    step: float = 15.0
    whole: float = 45.0


@dataclass(frozen=True)
class Video:
    """A file that was looked at.

    Attributes:
        id: stays the same as long as it is in the library, when the file is moved, too.
        path: absolute.
        size, mtime_ns: of the file when it was read; -1 when there was none.
        content: 16 bytes: BLAKE2b of the file; zeros when that is not known.
        duration: seconds, None when unknown.
        status: as in the frame cache; only those that are ok have windows.
        reason: why it is not ok, or what is remarkable although it is.
        reader: version of the code that read it.
    """

    id: int
    path: str
    size: int
    mtime_ns: int
    content: bytes
    duration: float | None
    status: Status
    reason: str
    reader: int


@dataclass(frozen=True)
class Window:
    """A stretch of a video and its frames; what a search finds.

    Attributes:
        row: its number, which is never given again; video: the video's id.
        path: of the video's file.
        start, stop: seconds from the video's first frame.
        times: seconds of its F frames.
        weights: what each frame counted for in the vector [F], None where the model pools them alike.
    """

    row: int
    video: int
    path: str
    start: float
    stop: float
    times: tuple[float, ...]
    weights: tuple[float, ...] | None


@dataclass(frozen=True)
class Hit:
    """A window that was found, and its cosine."""

    score: float
    window: Window


@dataclass(frozen=True)
class NewWindow:
    """A window to be kept: as `Window`, with its unit vector [D], and those of its frames [F, D] in the same space."""

    start: float
    stop: float
    times: NDArray[np.floating]
    weights: NDArray[np.floating] | None
    vector: NDArray[np.floating]
    frames: NDArray[np.floating] | None = None


class Known(NamedTuple):
    """A video, and how many windows a model has of it."""

    video: Video
    windows: int


VIDEO = "v.id, v.path, v.size, v.mtime_ns, v.blake2b, v.duration, v.status, v.reason, v.reader"


def video_of(row: tuple[object, ...]) -> Video:
    """The video of a row of the columns `VIDEO`."""
    id, path, size, mtime_ns, content, *others = row
    return Video(id, path, size, mtime_ns, content or UNKNOWN, *others)  # type: ignore[arg-type]


def known_videos(connection: sqlite3.Connection, model: int) -> dict[str, Known]:
    """Every video by its path, inside a snapshot, and how many windows this model has of it."""
    counted = "SELECT video, count(*) FROM windows WHERE model = ? GROUP BY video"
    windows = dict(connection.execute(counted, (model,)))
    videos = [video_of(row) for row in connection.execute(f"SELECT {VIDEO} FROM videos v")]
    return {video.path: Known(video, windows.get(video.id, 0)) for video in videos}


def floats(blob: bytes) -> tuple[float, ...]:
    """float32 little-endian."""
    return tuple(np.frombuffer(blob, "<f4").tolist())
