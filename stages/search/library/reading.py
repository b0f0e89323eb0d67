"""Reads a video of any length in a worker process: its frames are handed over while the rest is decoded.

A video that is one window has the frames that the frame cache would hold. A longer one is looked at in even steps. Or
the frames of one window are read again: the file is decoded up to its end as it was then, not sought.
No worker waits for torch: nothing here leads to it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ....cache.frames.record import ReadBy, VideoRecord, VideoStatus
from ....configs.schema import PrepareConfig
from ...data.video.container import Contents, Unusable
from ...data.video.decode import Frames, read_frames_of
from ...data.video.source import VideoSource
from ...data.video.workers import Part
from .windows import Cut

SENT = 16  # frames of a part
BEAT = 30.0  # seconds of a video after which a worker that has nothing to hand over says that it is at work


def read_windows(
    cut: Cut, id: str, source: VideoSource, config: PrepareConfig, hand_over: Callable[[Part], None]
) -> VideoRecord:
    """Decode the frames of a video's windows; the record has their times, not the frames.

    Raises:
        As `read_frames_of`.
    """
    return read_frames_of(id, source, _InParts(cut, config, hand_over))


def read_frames_at(
    seconds: Mapping[str, Sequence[float]],
    id: str,
    source: VideoSource,
    config: PrepareConfig,
    hand_over: Callable[[Part], None],
) -> VideoRecord:
    """Decode the frames at seconds, as a window has them; the record has them. Parts that are handed over are empty.

    Args:
        seconds: of each job, by its id.

    Raises:
        As `read_frames_of`.
    """
    return read_frames_of(id, source, _At(seconds[id], config, hand_over))


class _At(Frames):
    def __init__(self, seconds: Sequence[float], config: PrepareConfig, hand_over: Callable[[Part], None]) -> None:
        super().__init__(config)
        self.seconds, self.hand_over = seconds, hand_over
        self.begin()

    def numbers(self, count: int, contents: Contents) -> list[int]:
        known = len(contents.times) == count
        shown = np.array(contents.times) if known else np.arange(count) / contents.fps
        self._wanted = {int(np.abs(shown - second).argmin()) for second in self.seconds}
        beats = np.searchsorted(shown, np.arange(0.0, shown[max(self._wanted)], BEAT))
        return sorted(self._wanted | set(beats.tolist()))

    def begin(self) -> None:
        super().begin()
        self._count = 0

    def keep(self, number: int, image: NDArray[np.uint8]) -> None:
        self._count += 1
        if number in self._wanted:
            super().keep(number, image)
        else:
            self.hand_over(Part(image[None, :0], False))

    def __len__(self) -> int:
        return self._count

    def record(self, numbers: list[int], status: VideoStatus, times: list[float], read_by: ReadBy) -> VideoRecord:
        own = [(number, second) for number, second in zip(numbers, times, strict=True) if number in self._wanted]
        chosen, seconds = [number for number, _ in own], [second for _, second in own]
        return super().record(chosen, replace(status, frames=len(own)), seconds, read_by)

    def hashed_until(self, begun: float) -> float:
        return begun  # nobody asks for the hash


class _InParts(Frames):
    def __init__(self, cut: Cut, config: PrepareConfig, hand_over: Callable[[Part], None]) -> None:
        super().__init__(config)
        self.cut, self.hand_over = cut, hand_over
        self._last = time.monotonic()
        self.begin()

    def numbers(self, count: int, contents: Contents) -> list[int]:
        if contents.end <= self.cut.whole:
            return super().numbers(count, contents)
        wanted = np.array(self.cut.frame_times(contents.end))
        if len(contents.times) == count:  # the picture that is shown then
            numbers = np.searchsorted(contents.times, wanted + 1e-3, side="right") - 1
        else:
            numbers = np.floor(wanted * contents.fps + 1e-3).astype(np.int64)
        return [int(number) for number in np.unique(numbers[(numbers >= 0) & (numbers < count)])]

    def begin(self) -> None:
        self._waiting: list[NDArray[np.uint8]] = []
        self._count, self._first = 0, True

    def keep(self, number: int, image: NDArray[np.uint8]) -> None:
        self._waiting.append(image)
        self._count += 1
        if len(self._waiting) == SENT:
            self._send()

    def __len__(self) -> int:
        return self._count

    def record(self, numbers: list[int], status: VideoStatus, times: list[float], read_by: ReadBy) -> VideoRecord:
        if self._count != len(numbers):
            raise Unusable("corrupt", f"{self._count} of {len(numbers)} pictures can be decoded", status.duration)
        if self._waiting:
            self._send()
        return VideoRecord(replace(status, frames=len(numbers)), times=np.array(times, np.float64), read_by=read_by)

    def hashed_until(self, begun: float) -> float:
        return super().hashed_until(self._last)

    def _send(self) -> None:
        self.hand_over(Part(np.stack(self._waiting), self._first))
        self._waiting, self._first, self._last = [], False, time.monotonic()
