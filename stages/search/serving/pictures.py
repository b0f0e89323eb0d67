"""Pictures of a video at given seconds, and frames of a clip that somebody hands in: what a `Workbench` does.

Pictures are looked at and nothing is computed from them: unlike the frames that networks see they are sought, so that
the last window of an hour costs no more than the first.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ....configs.schema import PrepareConfig
from ....errors import DataError
from ...data.video.container import Unusable, opened, video_stream
from ...data.video.decode import read_video
from ...data.video.turning import rgb

SEEK = 8.0  # seconds that are decoded rather than leapt over
QUALITY = 80
WIDEST = 4.0  # times its height: what is wider is cut off at the sides


class Clip(NamedTuple):
    """Frames uint8 [F, 3, S, S] of a video and their times [F] seconds."""

    frames: NDArray[np.uint8]
    times: NDArray[np.float64]


def picture(path: str, second: float, height: int) -> bytes:
    """The frame at a second as a JPEG, at most `height` pixels high.

    Raises:
        DataError: it holds no such picture.
    """
    return _jpeg(next(_pictures(path, [second], height)))


def strip(path: str, seconds: Sequence[float], height: int) -> bytes:
    """Frames at these ascending seconds side by side as one JPEG: F equal cells, `height` pixels high.

    Raises:
        DataError: it holds no such pictures.
    """
    frames = list(_pictures(path, seconds, height))
    width = max(frame.width for frame in frames)
    whole = Image.new("RGB", (width * len(frames), height))
    for k, frame in enumerate(frames):
        whole.paste(frame, (k * width + (width - frame.width) // 2, (height - frame.height) // 2))
    return _jpeg(whole)


def clip_frames(path: str, config: PrepareConfig) -> Clip:
    """The frames that a network sees of a clip; each video that can be indexed can be handed in.

    Raises:
        DataError: it is no video, or damaged.
    """
    record = read_video("this clip", Path(path), config)
    if record.status.status != "ok":
        raise DataError(f"this clip cannot be used: {record.status.status}, {record.status.reason}")
    return Clip(record.images, record.times)


def _pictures(path: str, seconds: Sequence[float], height: int) -> Iterator[Image.Image]:
    """The first frame at or behind each second, the last one where there is none."""
    try:
        with opened(Path(path)) as container:
            stream = video_stream(container)
            stream.thread_type = "NONE"
            found = _frames(container, stream, seconds)
            for _, frame in zip(seconds, found, strict=True):
                yield _small(Image.fromarray(rgb(frame)), height)
    except Unusable as why:
        raise DataError(f"this video cannot be shown: {why.reason}") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"this video cannot be shown: {error}") from None


def _frames(container: Any, stream: Any, seconds: Sequence[float]) -> Iterator[Any]:
    zero = float((stream.start_time or 0) * stream.time_base)
    if seconds[0] > SEEK:
        container.seek(int((zero + seconds[0]) / stream.time_base), stream=stream)
    wanted, last = list(seconds), None
    half = 0.5 / float(stream.average_rate or 25)
    for frame in _decoded(container, stream):
        last = frame
        now = None if frame.time is None else float(frame.time) - zero
        while wanted and (now is None or now >= wanted[0] - half):
            yield frame
            wanted.pop(0)
            if now is None:
                break
        if not wanted:
            return
    if last is None:
        raise DataError("this video cannot be shown: no picture of it can be decoded")
    for _ in wanted:
        yield last


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """What can be decoded; a damaged picture is no reason not to show the others."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            return
        try:
            yield from packet.decode()
        except av.FFmpegError:
            continue


def _small(image: Image.Image, height: int) -> Image.Image:
    width = max(1, round(image.width * height / image.height))
    small = image.resize((width, height))
    most = int(WIDEST * height)
    if width > most:
        left = (width - most) // 2
        small = small.crop((left, 0, left + most, height))
    return small


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
