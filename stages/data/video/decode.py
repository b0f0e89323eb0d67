"""Read one video: what its container says, then the chosen frames, decoded in order.

PyAV goes through the packets, without decoding, and says what is wrong with the file, how many pictures there are and
when each is shown. Then decord decodes, or, where it gives other frames or finds fault (by_decord), PyAV.

Frames are never sought: every frame up to the last chosen one is decoded, and only the chosen ones are converted.
Seeking by number, as decord2 3.4 does it, returned other frames than asked for, without an error, in MPEG-TS, H.264 in
AVI, MPEG-4 with B-frames, HEVC and open-GOP H.264 (27 of 70 frames of an HEVC MP4), and damage that it leaps over
passes. Read in order, decord still loses the first pictures of MPEG-TS. PyAV notices damage by itself. What no decoder
notices, garbage inside a VP9 packet, stays unseen.
"""

import errno
import io
import math
import os
import stat
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray
from PIL import Image

from ....cache.frames.record import Decoder, FileStamp, ReadBy, Status, VideoRecord, VideoStatus
from ....configs.schema import PrepareConfig
from ....errors import DataError, printable
from .by_decord import Complaint, Picture, doubt, near_the_end, read_frames
from .clock import AGAIN, Added, Clock
from .content import content_of
from .frame_choice import frame_numbers
from .missing import Signs, overheard
from .resize import resize_crop
from .source import TarPart, VideoSource, file_of, open_bytes, stamp_of, stamp_or_none

# Formats that hold video or sound in one file. Everything else is refused, above all those that name other files
# (playlists, concatenations) and text and images that FFmpeg would render as video.
FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,m4v,h264,hevc,obu,ivf,mxf,nut,rm,dv,wtv,mjpeg,yuv4mpegpipe,"
    "mp3,wav,aac,flac,amr,ac3,eac3"
)
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}  # fail on a damaged picture rather than fill it in
TURNED = ("mov", "matroska")  # say how their pictures are to be turned, and may be decoded by decord
JOINT = 2  # packets before the one whose times begin again that may be called damaged for it
FEW = 32  # packets by which a first picture should have come out
LOSES_NOTHING = ("mov", "gif")  # an index names every packet of an MP4; a GIF says how long it holds each picture
UNDECIDED = 50  # pictures behind the last chosen one in which what is missing before it may still show
TOLERATED_LOSS = 0.1  # share of the frames that may be damaged when none of them was chosen
SHORT = 0.95  # of the duration that the container claims
INSTANT = 1e-6  # seconds that are no difference
READER = 2  # goes up when other frames, times or verdicts come out of the same file
NOT_THERE = (errno.ENOENT, errno.ENOTDIR)
NOT_FOR_US = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)
DAMAGED: tuple[Status, ...] = ("corrupt", "short")


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


@dataclass
class Taken:
    """Chosen frames as they are stored and their times, by frame number, and what happened on the way."""

    frames: dict[int, NDArray[np.uint8]]
    times: dict[int, float | None]
    damaged: set[int]
    decoded: int
    lost: int


def read_video(id: str, source: VideoSource, config: PrepareConfig) -> VideoRecord:
    """Decode one video. Whatever is wrong with it becomes a status; nothing is raised.

    Decoders take a read error for the end of the file, or for damage. A video is called damaged only when it is so
    twice, and its bytes could all be read in between.

    The record keeps the hash of the file, if that stayed as it is meanwhile, and half the time that is left suffices.

    Raises:
        DataError: decord, which the configuration wants, is missing or the wrong one.
    """
    begun = time.monotonic()
    first = record = _attempt(id, source, config)
    damaged = record.status.status in DAMAGED
    if not damaged and record.status.status != "ok":
        return record
    try:
        with open_bytes(source) as file:
            content = content_of(file, math.inf if damaged else (time.monotonic() + begun + config.timeout) / 2)
    except OSError as error:  # of one that is ok, behind the last frame that was wanted
        return without_frames(id, source, "failed", trouble(error)) if damaged else record
    if damaged:
        record = _attempt(id, source, config)
    if not first.stamp == record.stamp == stamp_or_none(source):
        return record
    return replace(record, stamp=replace(record.stamp, content=content))


def without_frames(id: str, source: VideoSource, status: Status, reason: str, decoder: Decoder = "pyav") -> VideoRecord:
    """The record of a video that was not decoded, for `reason`."""
    return VideoRecord(VideoStatus(id, status, reason), stamp=stamp_or_none(source), read_by=ReadBy(decoder, READER))


def trouble(error: MemoryError | OSError) -> str:
    """The reason of a video that is `failed`."""
    if isinstance(error, MemoryError):
        return "out of memory"
    return f"cannot be read: {error.strerror or error}"


def _attempt(id: str, source: VideoSource, config: PrepareConfig) -> VideoRecord:
    stamp = FileStamp()
    try:
        stamp = _stamp(source)
        return _record(id, source, config, stamp)
    except Unusable as why:
        status = VideoStatus(id, why.status, why.reason, 0, why.duration)
        return VideoRecord(status, stamp=stamp, read_by=ReadBy(why.decoder, READER))
    except DataError:
        raise
    except Exception as error:  # decoders are fed arbitrary bytes: one video's failure is that video's status
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and not isinstance(error, av.FFmpegError)):
            return without_frames(id, source, "failed", trouble(error))
        reason = printable(f"{type(error).__name__}: {error}")
        return VideoRecord(VideoStatus(id, "corrupt", reason), stamp=stamp, read_by=ReadBy(reader=READER))


def _record(id: str, source: VideoSource, config: PrepareConfig, stamp: FileStamp) -> VideoRecord:
    contents = inspect(source)
    wanted = (
        math.inf if config.last_second is None else config.last_second + 1.0
    )  # what is cut off behind is not missed
    if contents.claimed is not None and contents.end < SHORT * min(contents.claimed, wanted):
        raise Unusable("short", f"ends after {contents.end:.1f} of {contents.claimed:.1f} seconds", contents.end)
    decoder, numbers, taken = _taken(source, contents, config)
    images = [taken.frames[number] for number in numbers]
    remark = contents.doubt if config.decoder == "decord" else ""
    reason = f"decord may give other frames: {remark}" if remark else _remark(taken, contents)
    status = VideoStatus(id, "ok", reason, len(images), contents.end)
    times = _seconds(numbers, taken, contents.fps)
    return VideoRecord.of(status, images, times, stamp, ReadBy(decoder, READER))


def _stamp(source: VideoSource) -> FileStamp:
    path = file_of(source)
    try:
        found, stamp = path.stat(), stamp_of(source)
        if stat.S_ISREG(found.st_mode):
            with path.open("rb"):
                pass
    except OSError as error:
        if error.errno in NOT_THERE:
            raise Unusable("missing", "no such file") from None
        status: Status = "missing" if error.errno in NOT_FOR_US else "failed"
        raise Unusable(status, f"cannot be opened: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise Unusable("missing", "is a folder" if stat.S_ISDIR(found.st_mode) else "is no regular file")
    if stamp.size == 0:
        raise Unusable("corrupt", "the file is empty")
    return stamp


@contextmanager
def _opened(source: VideoSource) -> Iterator[Any]:
    with ExitStack() as files:
        opened = (
            files.enter_context(open_bytes(source)) if isinstance(source, TarPart) else os.fspath(source.absolute())
        )
        try:
            container = files.enter_context(av.open(opened, options=OPTIONS))
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


def _video_stream(container: Any) -> Any:
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
    with _opened(source) as container:
        return _inspect(container, _video_stream(container))


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
        (a, b), (c, d) = _turn(frames[0])
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


def _taken(source: VideoSource, contents: Contents, config: PrepareConfig) -> tuple[Decoder, list[int], Taken]:
    """The chosen frames, and who decoded them."""
    numbers = _numbers(contents.pictures, contents.fps, config)
    if config.decoder == "decord" or (config.decoder == "auto" and _suits_decord(contents, numbers)):
        try:
            return "decord", numbers, _take_by_decord(source, contents, numbers, config)
        except Complaint as why:
            if config.decoder == "decord":
                raise Unusable("corrupt", f"decord: {why}", contents.end, "decord") from None
    return "pyav", *_take(source, contents, config)


def _suits_decord(contents: Contents, numbers: list[int]) -> bool:
    return not contents.doubt and near_the_end(max(numbers), contents.pictures, contents.fps)


def _take_by_decord(source: VideoSource, contents: Contents, numbers: list[int], config: PrepareConfig) -> Taken:
    taken = Taken({}, dict(enumerate(contents.times)) or dict.fromkeys(numbers), set(), max(numbers) + 1, 0)

    def keep(number: int, image: NDArray[np.uint8]) -> None:
        taken.frames[number] = _stored(image, config)

    read_frames(source, set(numbers), contents.pictures, contents.fps, keep)
    return taken


def _take(source: VideoSource, contents: Contents, config: PrepareConfig) -> tuple[list[int], Taken]:
    """The chosen frames, none of them damaged."""
    count = contents.pictures
    for _ in range(2):  # a second time when the decoder gives fewer frames than the container has packets
        numbers = _numbers(count, contents.fps, config)
        if not numbers:
            break
        taken = _decode(source, set(numbers), contents, config)
        if len(taken.frames) == len(numbers):
            break
        count = taken.decoded
    if count == 0 or not numbers:
        raise Unusable("corrupt", "no picture of it can be decoded", contents.end)
    bad = len(taken.damaged) + taken.lost
    if taken.damaged & set(numbers) or bad > TOLERATED_LOSS * (taken.decoded + taken.lost):
        raise Unusable("corrupt", f"{bad} of {taken.decoded + taken.lost} pictures are damaged", contents.end)
    return numbers, taken


def _numbers(count: int, fps: float, config: PrepareConfig) -> list[int]:
    return frame_numbers(count, fps, config.sample_fps, config.max_frames, config.choice, config.last_second)


def _decode(source: VideoSource, numbers: set[int], contents: Contents, config: PrepareConfig) -> Taken:
    """Decode up to the last of `numbers`, and on while it is undecided whether that one misses a picture."""
    taken, health = Taken({}, {}, set(), 0, 0), _Health(contents.pauses)
    added = Added(contents.offsets)
    first: float | None = None
    behind: dict[int, float] = {}
    with ExitStack() as opened:
        container = opened.enter_context(_opened(source))
        stream = _video_stream(container)
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        stream.codec_context.options = STRICT
        signs = None
        if contents.pauses or container.format.name == "avi":  # which may hide a pause, since it has no times
            signs = Signs(stream.codec_context.codec.canonical_name, opened.enter_context(overheard()))
        for frame in _decoded(container, stream, health, signs):
            number, sound, when = taken.decoded, health.sound(frame), added.up(frame.time)
            if not sound and first is None:  # cut out of a longer video: what comes before the first key frame
                health.lost += 1
                continue
            if not sound:
                taken.damaged.add(number)
            elif health.behind is not None:
                behind[number] = health.behind
            first = when if first is None else first
            if number in numbers:
                taken.frames[number] = _stored(_rgb(frame), config)
                taken.times[number] = None if when is None or first is None else when - first
            taken.decoded += 1
            if number >= max(numbers) and (health.behind is None or number >= max(numbers) + UNDECIDED):
                break
    taken.damaged |= {number for number, pause in behind.items() if pause in health.losses}
    taken.lost = health.lost
    return taken


class _Health:
    """Which pictures are damaged: those from a loss on, until the next key frame.

    Pictures come out of a decoder later than they go in, so a packet that fails is made good by the first key packet
    behind it. A pause is no loss until a packet between it and the next key picture fails or misses another. In a clip
    that was cut out of a longer video, pictures shown ahead of the first key picture fail, and the next packets may
    complain about it: that breaks nothing behind.

    Attributes:
        lost: packets that failed.
        losses: the pauses in which pictures are missing.
        behind: the pause without a key picture since, before the picture that was seen last.
        whole: when packets are shown that are called damaged and are not.
    """

    def __init__(self, pauses: Sequence[float]) -> None:
        self.pauses, self.lost = pauses, 0
        self.losses: set[float] = set()
        self.behind: float | None = None
        self.whole: set[int | None] = set()
        self._keys: list[float] = []
        self._broken = self._timed = False
        self._heals: int | None = None
        self._key: int | None = None
        self._before: float | None = None

    def sees(self, packet: Any) -> None:
        self._timed |= packet.pts is not None
        if packet.is_keyframe:
            self._key = packet.pts
            if (when := _second(packet)) is not None:
                self._keys.append(when)
            if self._broken and self._heals is None:
                self._heals = packet.pts

    def fails(self, packet: Any) -> None:
        if packet.is_keyframe:
            self._key = None
        ahead = packet.pts is not None and self._key is not None and packet.pts < self._key
        begins = self._before is None and (ahead or self._heals is not None)
        self.lost += 1
        self.misses(packet)
        self._broken, self._heals = True, self._key if begins else None

    def sound(self, frame: Any) -> bool:
        if not self._timed:  # AVI: packets without presentation times
            self._broken = self._broken and not frame.key_frame
        elif self._heals is not None and frame.pts is not None and frame.pts >= self._heals:
            self._broken = False
        self.behind = self.pause_before(frame.time)
        self._before = frame.time
        damaged = frame.is_corrupt and frame.pts not in self.whole
        if damaged and self.behind is not None:
            self.losses.add(self.behind)
        return not (self._broken or self.behind in self.losses or damaged)

    def misses(self, packet: Any) -> None:
        """The packet shows that the pause before it was a loss."""
        if (pause := self.pause_before(_second(packet))) is not None:
            self.losses.add(pause)

    def pause_before(self, second: float | None) -> float | None:
        """The last pause before what is shown at `second`, unless a key picture came in between."""
        if second is None:
            return None
        pause = max((pause for pause in self.pauses if pause <= second + INSTANT), default=None)
        if pause is None or any(pause - INSTANT <= key <= second + INSTANT for key in self._keys):
            return None
        return pause


def _second(packet: Any) -> float | None:
    """When a packet is shown, or, in an AVI, decoded."""
    when = packet.dts if packet.pts is None else packet.pts
    return None if when is None or packet.time_base is None else float(when * packet.time_base)


def _decoded(container: Any, stream: Any, health: _Health, signs: Signs | None) -> Iterator[Any]:
    """Frames in order."""
    for packet, following in _packets(container, stream):
        health.sees(packet)
        if packet.is_corrupt and _begins_again(packet, following):
            health.whole.add(packet.pts)
        elif packet.is_corrupt:
            health.fails(packet)
        try:
            frames = packet.decode()
        except MemoryError:
            raise
        except av.FFmpegError:
            health.fails(packet)
            frames = []
        sign = signs.of(packet) if signs is not None else None
        if sign == "concealed" or (sign and container.format.name == "avi"):
            health.fails(packet)
        elif sign:
            health.misses(packet)
        yield from frames


def _packets(container: Any, stream: Any) -> Iterator[tuple[Any, list[Any]]]:
    """Each packet, and the `JOINT` behind it."""
    packets, ahead = container.demux(stream), deque[Any]()
    while True:
        try:
            ahead.append(next(packets))
        except MemoryError:
            raise
        except (StopIteration, av.FFmpegError):
            break
        if len(ahead) > JOINT:
            yield ahead.popleft(), list(ahead)
    while ahead:
        yield ahead.popleft(), list(ahead)


def _begins_again(packet: Any, following: Sequence[Any]) -> bool:
    """Whether times begin again just behind the packet, which a transport stream then calls damaged for it."""
    return packet.dts is not None and any(
        other.dts is not None and (packet.dts - other.dts) * packet.time_base > AGAIN for other in following
    )


def _turn(frame: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """How a picture is to be turned and mirrored, to the nearest right angle: (a, b), (c, d) is the display matrix,
    which shows what is at (x, y) at (a x + c y, b x + d y)."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return (1, 0), (0, 1)
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))
    if a * d == b * c:  # nothing could be seen
        return (1, 0), (0, 1)
    if abs(a) >= abs(b):
        return (_sign(a), 0), (0, _sign(d))
    return (0, _sign(b)), (_sign(c), 0)


def _sign(value: int) -> int:
    return 1 if value > 0 else -1


def _rgb(frame: Any) -> NDArray[np.uint8]:
    image: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    (a, b), (c, d) = _turn(frame)
    if not a:
        image = image.swapaxes(0, 1)
    return np.ascontiguousarray(image[:: b + d, :: a + c])


def _stored(image: NDArray[np.uint8], config: PrepareConfig) -> NDArray[np.uint8]:
    """uint8 [3, S, S], or the bytes of a JPEG file."""
    try:
        kept = resize_crop(image, config.image_size)
    except ValueError as error:
        raise Unusable("corrupt", str(error)) from None
    if config.storage == "raw":
        return np.ascontiguousarray(kept.transpose(2, 0, 1))
    buffer = io.BytesIO()
    Image.fromarray(kept).save(buffer, "JPEG", quality=config.jpeg_quality, subsampling=0)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def _seconds(numbers: list[int], taken: Taken, fps: float) -> list[float]:
    """Seconds from the first frame; number / fps where the container gives no ascending times."""
    times = [taken.times[number] for number in numbers]
    known = [time for time in times if time is not None]
    if len(known) == len(numbers) and all(a < b for a, b in pairwise(known)):
        return known
    return [number / fps for number in numbers]


def _remark(taken: Taken, contents: Contents) -> str:
    bad = len(taken.damaged) + taken.lost
    damage = f"{bad} of {taken.decoded + taken.lost} pictures are damaged, none of them kept" if bad else ""
    again = "its times begin again: they are added up" if len(contents.offsets) > 1 else ""
    return "; ".join(filter(None, (damage, again)))
