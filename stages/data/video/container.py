"""What a video file holds, as its packets say without being decoded: pictures, times, pauses, and what is odd."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from ....cache.frames.record import Decoder, Status
from .by_decord import Picture, doubt
from .clock import Clock
from .source import TarPart, VideoSource, open_bytes
from .turning import turn_of

# Formats that hold video or sound in one file. Everything else is refused, above all those that name other files
# (playlists, concatenations) and text and images that FFmpeg would render as video.
FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,m4v,h264,hevc,obu,ivf,mxf,nut,rm,dv,wtv,mjpeg,yuv4mpegpipe,"
    "mp3,wav,aac,flac,amr,ac3,eac3"
)
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
TURNED = ("mov", "matroska")  # say how their pictures are to be turned, and may be decoded by decord
FEW = 32  # packets by which a first picture should have come out
LOSES_NOTHING = ("mov", "gif")  # an index names every packet of an MP4; a GIF says how long it holds each picture
SHORT = 0.95  # of the duration that the container claims


class Unusable(Exception):
    """Why a video has no frames to keep, and which decoder says so."""

    def __init__(self, status: Status, reason: str, duration: float | None = None, decoder: Decoder = "pyav") -> None:
        super().__init__(reason)
        self.status, self.reason, self.duration, self.decoder = status, reason, duration, decoder


@dataclass(frozen=True)
class Contents:
    """What a video file holds: `pictures`, at `fps`, the last of which ends at second `end` of `claimed`.

    `pauses` are the times, of the container, of pictures that follow a pause in a steady stream: before them some may
    have been lost. `times` are those at which pictures are shown, seconds from the first one, where each has its own;
    `doubt` says why decord may give other frames; `offsets` what is added to the times of each part of a file whose
    times begin again.
    """

    pictures: int
    fps: float
    end: float
    claimed: float | None
    pauses: tuple[float, ...]
    times: tuple[float, ...]
    doubt: str
    offsets: tuple[float, ...]


@contextmanager
def opened(source: VideoSource) -> Iterator[Any]:
    """The file's container.

    Raises:
        Unusable: it cannot be opened, with a guess why.
    """
    with ExitStack() as files:
        file = files.enter_context(open_bytes(source)) if isinstance(source, TarPart) else os.fspath(source.absolute())
        try:
            container = files.enter_context(av.open(file, options=OPTIONS))
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError):
            raise Unusable("corrupt", _guess(source)) from None
        yield container


def _guess(source: VideoSource) -> str:
    """Why a file may not open as a video, from its first bytes."""
    with open_bytes(source) as file:
        head = file.read(4096)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:256].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<script")) or b"<html" in start:
        return "an HTML page, not a video"
    if not head.strip(b"\0"):
        return "nothing but zeros"
    if head[4:8] == b"ftyp":
        return "its index (moov) is missing or damaged: the file was probably cut off"
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"RIFF")) and b"AVI" not in head[:16]:
        return "an image, not a video"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS in place of the file (git lfs pull gets it)"
    if not any(byte < 9 for byte in head):
        return "text, not a video"
    return "not a video that can be read"


def video_stream(container: Any) -> Any:
    """The stream that is decoded; cover pictures are none.

    Raises:
        Unusable: there is none.
    """
    videos = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not videos:
        sound = "only sound" if container.streams.audio else "nothing that can be shown"
        raise Unusable("corrupt", f"holds {sound}, no video")
    best = container.streams.best("video")
    return best if best in videos else videos[0]


def inspect(source: VideoSource) -> Contents:
    """What a file holds, as PyAV sees it without decoding.

    Raises:
        Unusable: no video, or one that cannot be opened.
    """
    with opened(source) as container:
        return _inspect(container, video_stream(container))


def _inspect(container: Any, stream: Any) -> Contents:
    """Go through all packets without decoding them."""
    starts: dict[int, float] = {}
    ends: dict[int, float] = {}
    shown: list[float] = []
    found: list[Picture] = []
    clocks: dict[int, Clock] = {}
    first = _FirstPicture(container, stream)
    odd = ""
    try:
        for packet in container.demux():
            if packet.size == 0 or packet.is_discard:
                odd = odd or ("some of its packets are not to be shown" if packet.is_discard else "")
                continue
            index, when = packet.stream_index, packet.dts if packet.pts is None else packet.pts
            if index == stream.index:
                found.append(Picture(packet.pts, packet.is_keyframe))
                odd = odd or ("a packet is damaged" if packet.is_corrupt else "")
                odd = odd or ("its pictures are mirrored" if first.mirrored(packet) else "")
            if when is None or packet.time_base is None:
                continue
            second, lasts = float(when * packet.time_base), float((packet.duration or 0) * packet.time_base)
            decoded = second if packet.dts is None else float(packet.dts * packet.time_base)
            second += clocks.setdefault(index, Clock()).offset(decoded, second, lasts)
            starts[index] = min(second, starts.get(index, second))
            ends[index] = max(second + lasts, ends.get(index, second))
            if index == stream.index:
                shown.append(second)
    except MemoryError:
        raise
    except av.FFmpegError:  # what came before counts; that something is missing shows in the times
        odd = odd or "the file cannot be read to its end"
    if not found:
        raise Unusable("corrupt", "holds no picture")
    pictures = len(found)
    fps = _rate(stream, shown)
    start, end = starts.get(stream.index, 0.0), ends.get(stream.index, pictures / fps)
    end = max(end, max(shown, default=0.0) + 1 / fps)
    claimed = _claimed(container, stream, pictures, fps, starts, ends)
    pauses, times = _pauses(container, shown), _times(stream, found)
    offsets = tuple(clocks[stream.index].offsets) if stream.index in clocks else (0.0,)
    if len(offsets) > 1:  # which a pause is told by
        pauses, times, odd = (), (), odd or "its times begin again"
    if pauses:
        odd = odd or "pictures may be missing in a pause"
    return Contents(pictures, fps, end - start, claimed, pauses, times, odd or doubt(container, stream, found), offsets)


class _FirstPicture:
    """Decodes packets until a picture comes out, for that alone tells how it is to be turned."""

    def __init__(self, container: Any, stream: Any) -> None:
        self.left = FEW if container.format.name.startswith(TURNED) else 0
        if self.left:
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1

    def mirrored(self, packet: Any) -> bool:
        if not self.left:
            return False
        self.left -= 1
        try:
            frames = packet.decode()
        except MemoryError:
            raise
        except av.FFmpegError:
            return False
        if not frames:
            return False
        self.left = 0
        (a, b), (c, d) = turn_of(frames[0])
        return a * d - b * c < 0


def _times(stream: Any, pictures: list[Picture]) -> tuple[float, ...]:
    """Seconds from the first picture at which each is shown, as PyAV computes them; () unless all have their own."""
    known = sorted({picture.pts for picture in pictures if picture.pts is not None})
    base = stream.time_base
    seconds = [pts * base.numerator / base.denominator for pts in known]
    return tuple(second - seconds[0] for second in seconds) if len(known) == len(pictures) else ()


def _rate(stream: Any, shown: list[float]) -> float:
    """Frames per second as the container says, unless its frames' times say something else altogether."""
    rate = float(stream.average_rate or 0)
    span = max(shown, default=0.0) - min(shown, default=0.0)
    if span <= 0:
        return rate or 1.0
    measured = (len(shown) - 1) / span
    return rate if 0.5 < rate / measured < 2 else measured


def _pauses(container: Any, shown: list[float]) -> tuple[float, ...]:
    """Times of the pictures before which packets may be gone: those behind a pause in a steady stream."""
    if len(shown) < 3 or container.format.name.startswith(LOSES_NOTHING):
        return ()
    times = np.sort(shown)
    steps = np.diff(times)
    usual = float(np.median(steps))
    steady = float(np.mean(steps < 1.5 * usual)) > 0.95
    return tuple(float(time) for time in times[1:][steps > max(0.5, 2 * usual)]) if steady else ()


def _claimed(
    container: Any, stream: Any, pictures: int, fps: float, starts: dict[int, float], ends: dict[int, float]
) -> float | None:
    """Seconds the container claims, when that can be compared with what the file holds."""
    if container.format.name == "avi":  # FFmpeg derives an AVI's duration from the file's size
        return stream.frames / fps if stream.frames else None
    if stream.duration:
        complete = 0 < stream.frames <= pictures
        return None if complete else float(stream.duration * stream.time_base)
    if not container.duration or not ends:
        return None
    # the longest stream sets it: when sound goes on to the end, the file is whole
    claimed = container.duration / av.time_base
    reached = max(ends.values()) - min(0.0, *starts.values())
    return claimed if reached < SHORT * claimed else None
