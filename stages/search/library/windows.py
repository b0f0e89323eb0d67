"""Windows of a video: 30 seconds each, 15 from one to the next; up to 45 seconds it is one."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ....cache.library.rows import Model


@dataclass(frozen=True)
class Cut:
    """How videos are cut into windows.

    Attributes:
        frames: F, most frames of a window.
        seconds: length of a window; step: from one to the next; whole: up to this length a video is one window.
    """

    frames: int
    seconds: float = 30.0
    step: float = 15.0
    whole: float = 45.0

    @classmethod
    def of(cls, model: Model) -> "Cut":
        """That of a model's windows."""
        return cls(model.frames, model.seconds, model.step, model.whole)

    @property
    def spacing(self) -> float:
        """Seconds between frames of a window that is not the whole video."""
        return self.seconds / self.frames

    def frame_times(self, duration: float) -> list[float]:
        """Seconds at which a video longer than `whole` is looked at, from 0; neighbouring windows share them."""
        return [float(second) for second in np.arange(0, duration, self.spacing)]

    def windows(self, frames: int) -> Iterator[tuple[int, int]]:
        """First and last (exclusive) frame of each window of a video of `frames` frames; the last window ends with the
        video."""
        last = max(0, frames - self.frames)
        step = max(1, round(self.step / self.spacing))
        for first in range(0, last, step):
            yield first, first + self.frames
        yield last, frames


def span(times: np.ndarray, first: int, last: int, duration: float, cut: Cut) -> tuple[float, float]:
    """Seconds from which to which a window goes, of frames at `times` [N]."""
    start = float(times[first]) if first else 0.0
    if last == len(times):
        return start, max(duration, float(times[-1]))
    return start, max(start + cut.seconds, float(times[last - 1]))
