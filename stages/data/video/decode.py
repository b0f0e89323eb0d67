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
import stat
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ....cache.frames.record import Decoder, FileStamp, ReadBy, Status, VideoRecord, VideoStatus
from ....configs.schema import PrepareConfig
from ....errors import DataError, printable
from .by_decord import Complaint, near_the_end, read_frames
from .clock import AGAIN, Added
from .container import SHORT, Contents, Unusable, inspect, opened, video_stream
from .content import content_of
from .frame_choice import frame_numbers
from .health import Health
from .missing import Signs, overheard
from .resize import resize_crop
from .source import VideoSource, file_of, open_bytes, stamp_of, stamp_or_none
from .turning import rgb

STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}  # fail on a damaged picture rather than fill it in
JOINT = 2  # packets before the one whose times begin again that may be called damaged for it
UNDECIDED = 50  # pictures behind the last chosen one in which what is missing before it may still show
TOLERATED_LOSS = 0.1  # share of the frames that may be damaged when none of them was chosen
READER = 2  # goes up when other frames, times or verdicts come out of the same file
NOT_THERE = (errno.ENOENT, errno.ENOTDIR)
NOT_FOR_US = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)
DAMAGED: tuple[Status, ...] = ("corrupt", "short")


class Frames:
    """Which frames of a video are taken, and where they go: those that the configuration chooses, into its record."""

    def __init__(self, config: PrepareConfig) -> None:
        self.config = config
        self._images: dict[int, NDArray[np.uint8]] = {}

    def numbers(self, count: int, contents: Contents) -> list[int]:
        """Of `count` pictures those that are taken, ascending."""
        config = self.config
        return frame_numbers(
            count, contents.fps, config.sample_fps, config.max_frames, config.choice, config.last_second
        )

    def begin(self) -> None:
        """The file is read from its beginning; what came before does not count."""
        self._images = {}

    def keep(self, number: int, image: NDArray[np.uint8]) -> None:
        """A picture as it is stored; they come in ascending order."""
        self._images[number] = image

    def __len__(self) -> int:
        return len(self._images)

    def record(self, numbers: list[int], status: VideoStatus, times: list[float], read_by: ReadBy) -> VideoRecord:
        """The record of a video all of whose frames came."""
        return VideoRecord.of(status, [self._images[number] for number in numbers], times, FileStamp(), read_by)

    def hashed_until(self, begun: float) -> float:
        """Until when, of the monotonic clock, a file that began to be read at `begun` may be hashed: half the time that
        is left."""
        return (time.monotonic() + begun + self.config.timeout) / 2


@dataclass
class Taken:
    """How many frames were taken and the times of all, by frame number, and what happened on the way."""

    frames: int
    times: dict[int, float | None]
    damaged: set[int]
    decoded: int
    lost: int


def read_video(id: str, source: VideoSource, config: PrepareConfig) -> VideoRecord:
    """Decode one video into its record. Whatever is wrong with it becomes a status; nothing is raised.

    Raises:
        As `read_frames_of`.
    """
    return read_frames_of(id, source, Frames(config))


def read_frames_of(id: str, source: VideoSource, frames: Frames) -> VideoRecord:
    """Decode one video. Whatever is wrong with it becomes a status; nothing is raised.

    Decoders take a read error for the end of the file, or for damage. A video is called damaged only when it is so
    twice, and its bytes could all be read in between.

    The record keeps the hash of the file, if that stayed as it is meanwhile, and half the time that is left suffices.

    Raises:
        DataError: decord, which the configuration wants, is missing or the wrong one.
    """
    begun = time.monotonic()
    first = record = _attempt(id, source, frames)
    damaged = record.status.status in DAMAGED
    if not damaged and record.status.status != "ok":
        return record
    try:
        with open_bytes(source) as file:
            content = content_of(file, math.inf if damaged else frames.hashed_until(begun))
    except OSError as error:  # of one that is ok, behind the last frame that was wanted
        return without_frames(id, source, "failed", trouble(error)) if damaged else record
    if damaged:
        record = _attempt(id, source, frames)
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


def _attempt(id: str, source: VideoSource, frames: Frames) -> VideoRecord:
    stamp = FileStamp()
    try:
        stamp = _stamp(source)
        return replace(_record(id, source, frames), stamp=stamp)
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


def _record(id: str, source: VideoSource, frames: Frames) -> VideoRecord:
    contents, config = inspect(source), frames.config
    # What is cut off behind the last second that is wanted is not missed.
    wanted = math.inf if config.last_second is None else config.last_second + 1.0
    if contents.claimed is not None and contents.end < SHORT * min(contents.claimed, wanted):
        raise Unusable("short", f"ends after {contents.end:.1f} of {contents.claimed:.1f} seconds", contents.end)
    decoder, numbers, taken = _taken(source, contents, frames)
    remark = contents.doubt if config.decoder == "decord" else ""
    reason = f"decord may give other frames: {remark}" if remark else _remark(taken, contents)
    status = VideoStatus(id, "ok", reason, len(numbers), contents.end)
    return frames.record(numbers, status, _seconds(numbers, taken, contents.fps), ReadBy(decoder, READER))


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


def _taken(source: VideoSource, contents: Contents, frames: Frames) -> tuple[Decoder, list[int], Taken]:
    """The chosen frames, and who decoded them."""
    numbers, config = frames.numbers(contents.pictures, contents), frames.config
    if config.decoder == "decord" or (config.decoder == "auto" and _suits_decord(contents, numbers)):
        try:
            return "decord", numbers, _take_by_decord(source, contents, numbers, frames)
        except Complaint as why:
            if config.decoder == "decord":
                raise Unusable("corrupt", f"decord: {why}", contents.end, "decord") from None
    return "pyav", *_take(source, contents, frames)


def _suits_decord(contents: Contents, numbers: list[int]) -> bool:
    return not contents.doubt and near_the_end(max(numbers), contents.pictures, contents.fps)


def _take_by_decord(source: VideoSource, contents: Contents, numbers: list[int], frames: Frames) -> Taken:
    def keep(number: int, image: NDArray[np.uint8]) -> None:
        frames.keep(number, _stored(image, frames.config))

    frames.begin()
    read_frames(source, set(numbers), contents.pictures, contents.fps, keep)
    times: dict[int, float | None] = dict(enumerate(contents.times))
    return Taken(len(frames), times or dict.fromkeys(numbers), set(), max(numbers) + 1, 0)


def _take(source: VideoSource, contents: Contents, frames: Frames) -> tuple[list[int], Taken]:
    """The chosen frames, none of them damaged."""
    count = contents.pictures
    for _ in range(2):  # a second time when the decoder gives fewer frames than the container has packets
        numbers = frames.numbers(count, contents)
        if not numbers:
            break
        taken = _decode(source, set(numbers), contents, frames)
        if taken.frames == len(numbers):
            break
        count = taken.decoded
    if count == 0 or not numbers:
        raise Unusable("corrupt", "no picture of it can be decoded", contents.end)
    bad = len(taken.damaged) + taken.lost
    if taken.damaged & set(numbers) or bad > TOLERATED_LOSS * (taken.decoded + taken.lost):
        raise Unusable("corrupt", f"{bad} of {taken.decoded + taken.lost} pictures are damaged", contents.end)
    return numbers, taken


def _decode(source: VideoSource, numbers: set[int], contents: Contents, frames: Frames) -> Taken:
    """Decode up to the last of `numbers`, and on while it is undecided whether that one misses a picture."""
    taken, health = Taken(0, {}, set(), 0, 0), Health(contents.pauses)
    frames.begin()
    added = Added(contents.offsets)
    first: float | None = None
    behind: dict[int, float] = {}
    with ExitStack() as files:
        container = files.enter_context(opened(source))
        stream = video_stream(container)
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        stream.codec_context.options = STRICT
        signs = None
        if contents.pauses or container.format.name == "avi":  # which may hide a pause, since it has no times
            signs = Signs(stream.codec_context.codec.canonical_name, files.enter_context(overheard()))
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
                frames.keep(number, _stored(rgb(frame), frames.config))
                taken.times[number] = None if when is None or first is None else when - first
            taken.decoded += 1
            if number >= max(numbers) and (health.behind is None or number >= max(numbers) + UNDECIDED):
                break
    taken.damaged |= {number for number, pause in behind.items() if pause in health.losses}
    taken.lost, taken.frames = health.lost, len(frames)
    return taken


def _decoded(container: Any, stream: Any, health: Health, signs: Signs | None) -> Iterator[Any]:
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


def _stored(image: NDArray[np.uint8], config: PrepareConfig) -> NDArray[np.uint8]:
    """uint8 [3, S, S], or the bytes of a JPEG file."""
    try:
        kept = resize_crop(image, config.image_size, config.resize_mode, config.interpolation)
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
