"""Read frames with decord, as long as it says nothing and PyAV's look at the file gives no reason to doubt it.

decord's own way of reading a few frames is to seek, which skips what lies between: damage there would pass, and in some
files other frames come back. It is made to read on from the first frame to the last one wanted: within a group of
pictures it does so by itself, and from one group to the next it does when the last picture of each is fetched.

decord fills in pictures that are damaged. What its FFmpeg says about that on the standard error is overheard; whatever
it says but for two harmless lines, PyAV decides.
"""

import ctypes
import errno
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import DataError, printable
from ....remedies import Change, Remedy
from .source import TarPart, VideoSource, file_of

OLDEST = 3  # the maintained decord2; the abandoned decord, whose last release is 0.6.0, fills the same folder
CONTAINERS = {"mov": "MP4", "matroska": "Matroska", "avi": "AVI", "flv": "FLV"}
CODECS = ("h264", "mpeg4", "vp8", "vp9", "av1", "mjpeg")
HALVED = {"yuv420p": (2, 2), "yuvj420p": (2, 2), "yuv422p": (2, 1), "yuvj422p": (2, 1), "yuv444p": (1, 1)}
NOT_INTERLACED = (0, 1)  # FFmpeg's AV_FIELD_UNKNOWN, AV_FIELD_PROGRESSIVE
TAIL = 2.0  # seconds behind the last frame wanted that are read to see that no picture was missing on the way
NO_SUBSTITUTES = 1e-6  # share of the pictures that decord may replace by the one before
COMPLAINT_BYTES = 65536
NO_MEMORY = (os.strerror(errno.ENOMEM), "bad_alloc")
HARMLESS = re.compile(
    rb"\[in @ [^]]*\] Changing video frame properties on the fly is not supported by all filters\."
    # the same size and pixel format, colours named only by the first picture
    rb"|\[in @ [^]]*\] filter context - (w: \d+ h: \d+ fmt: \d+) csp: unknown range: unknown .*"
    rb"incoming frame - \1 csp: .*"
    rb"|\[swscaler @ [^]]*\] deprecated pixel format used, make sure you did set range correctly"
)


class Complaint(Exception):
    """What decord said, or why its frames are not what was asked for."""


@dataclass(frozen=True)
class Picture:
    """A packet of the video stream: when it is shown, in the stream's time base, and whether a group begins with it."""

    pts: int | None
    key: bool


def doubt(container: Any, stream: Any, pictures: Sequence[Picture]) -> str:
    """Why decord may give other frames of this file than PyAV; empty when it gives the same.

    Args:
        container, stream: the file as PyAV opened it.
        pictures: all packets of the stream, in file order.
    """
    codec = stream.codec_context
    name = codec.codec.canonical_name
    form = container.format.name.split(",")[0]
    steps = HALVED.get(codec.pix_fmt)
    times = [picture.pts for picture in pictures]
    known = [time for time in times if time is not None]
    if form not in CONTAINERS:
        return f"the container is {form}"
    if name not in CODECS:
        return f"the codec is {name}"
    if (form, name) == ("avi", "h264"):
        return "an AVI does not say when H.264 pictures are shown"
    if len(container.streams.video) > 1:
        return "it holds several videos"
    if steps is None or codec.width % steps[0] or codec.height % steps[1]:
        return f"its pictures are {codec.pix_fmt} of {codec.width}x{codec.height}"
    if codec.field_order not in NOT_INTERLACED:
        return "it is interlaced"
    if len(set(known)) < len(times):
        return "its pictures have no times of their own"
    if name == "mpeg4" and (codec.has_b_frames or known != sorted(known)):
        return "it is MPEG-4 with B-frames"
    if not pictures[0].key or not _closed(known, [picture.key for picture in pictures]):
        return "its groups of pictures are open"
    return ""


def _closed(times: list[int], keys: list[bool]) -> bool:
    """No picture is shown ahead of a key picture that it follows in the file."""
    latest = accumulate((time if key else times[0] for time, key in zip(times, keys, strict=True)), max)
    return all(time >= key for time, key in zip(times, latest, strict=True))


def read_frames(
    source: VideoSource, numbers: set[int], pictures: int, fps: float, keep: Callable[[int, NDArray[np.uint8]], None]
) -> None:
    """Decode up to the last of `numbers`, and hand those frames, RGB [H, W, 3], to `keep`.

    The standard error of the process is taken meanwhile; nothing else may write there.

    Args:
        pictures: how many the file holds.
        fps: frames per second.

    Raises:
        Complaint: decord failed or said anything, or counts other pictures.
        MemoryError: there was not enough for it.
        DataError: decord is not the one that is meant.
    """
    library = decord()
    with _overheard() as said:
        failure = ""
        try:
            _walk(library, source, numbers, pictures, fps, keep, said)
        except MemoryError:
            raise
        except Exception as error:  # of half a dozen classes
            failure = next(reversed(str(error).strip().splitlines()), type(error).__name__)
        # the reader is gone, and with it decord's thread: nothing more is said
        failure = complaint(said()) or failure
    if any(words in failure for words in NO_MEMORY):
        raise MemoryError(failure)
    if failure:
        raise Complaint(failure)


def _walk(
    library: Any,
    source: VideoSource,
    numbers: set[int],
    pictures: int,
    fps: float,
    keep: Callable[[int, NDArray[np.uint8]], None],
    said: Callable[[], bytes],
) -> None:
    with _address(source) as address:
        reader = library.VideoReader(address, num_threads=1, fault_tol=NO_SUBSTITUTES)
    if len(reader) != pictures:
        raise Complaint(f"decord counts {len(reader)} pictures, the file holds {pictures}")
    last = max(numbers)
    ends = {key - 1 for key in reader.get_key_indices()}
    stops = sorted(numbers | {number for number in ends if 0 <= number < last})
    if near_the_end(last, pictures, fps):
        stops += range(last + 1, pictures)
    for stop in stops:
        reader.seek_accurate(stop)
        image = reader.next()
        if stop in numbers:
            keep(stop, _rows(image.asnumpy()))
        if complaint(said().rpartition(b"\n")[0]):  # whole lines: one may be in the making
            return


def near_the_end(last: int, pictures: int, fps: float) -> bool:
    """Whether the rest of the file is read, too, where a picture that was missing on the way would show."""
    return pictures - 1 - last <= TAIL * fps


@contextmanager
def _address(source: VideoSource) -> Iterator[str]:
    """What FFmpeg opens; decord hands it on in UTF-8, which a path need not be."""
    path = str(file_of(source).absolute())
    with ExitStack() as opened:
        if printable(path) != path:
            path = f"/proc/self/fd/{opened.enter_context(Path(path).open('rb')).fileno()}"
        if isinstance(source, TarPart):
            yield f"subfile,,start,{source.start},end,{source.start + source.size},,:{path}"
        else:
            yield path


def _rows(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture [H, W, 3]. Narrow ones come with their rows filled up, as [H, W, C] with C above 3."""
    height, width, channels = image.shape
    return image if channels == 3 else image.reshape(height, -1)[:, : 3 * width].reshape(height, width, 3)


def complaint(said: bytes) -> str:
    """The first line that means something."""
    lines = (line for line in said.splitlines() if line.strip() and not HARMLESS.fullmatch(line.strip()))
    return next(lines, b"").decode(errors="replace")


@contextmanager
def _overheard() -> Iterator[Callable[[], bytes]]:
    """Take what this process writes to its standard error; the function given tells what that was."""
    try:
        before = os.dup(2)
    except OSError:  # it was closed
        before = os.open(os.devnull, os.O_WRONLY)
    heard = os.memfd_create("standard error")
    os.dup2(heard, 2, inheritable=False)
    try:
        yield lambda: os.pread(heard, COMPLAINT_BYTES, 0)
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(heard)


@cache
def decord() -> Any:
    """The module, imported once.

    Raises:
        DataError: it is not installed, or the abandoned package of that name is.
    """
    try:
        with _by_itself():
            import decord as library
    except ImportError as error:
        without = Remedy("decode without it", Change({"prepare.decoder": "pyav"}))
        hint = Remedy("pip install decord2", otherwise=without)
        raise DataError(f"decord cannot be imported: {error}", hint=hint) from None
    refuse_old(str(library.__version__))
    library.logging.set_level(library.logging.INFO)  # "concealing 22 DC, 22 AC, 22 MV errors" is no more than that
    return library


@contextmanager
def _by_itself() -> Iterator[None]:
    """While decord is imported, keep it from opening libraries that it does not need, and its own to everybody.

    It opens its library for the whole process, whose FFmpeg's codecs then stand in for those of libraries opened later:
    an AV1 encoder of PyAV's was decord's. And it opens all of CUDA that torch brought, gigabytes, to decode on a CPU.
    """
    whole, nvidia = ctypes.RTLD_GLOBAL, sys.modules.get("nvidia")
    vars(ctypes)["RTLD_GLOBAL"] = ctypes.RTLD_LOCAL
    sys.modules["nvidia"] = None  # type: ignore[assignment]  # which Python takes as: there is no such package
    try:
        yield
    finally:
        vars(ctypes)["RTLD_GLOBAL"] = whole
        del sys.modules["nvidia"]
        if nvidia is not None:
            sys.modules["nvidia"] = nvidia


def refuse_old(version: str) -> None:
    """Refuse the abandoned package `decord`, by its version.

    Raises:
        DataError: it is that one; says what to install.
    """
    if int(version.split(".")[0]) < OLDEST:
        raise DataError(
            f"decord {version} is the abandoned package; teachclip decodes with decord2, its continuation",
            hint="pip uninstall decord decord2, then pip install decord2 (both fill the folder decord)",
        )
