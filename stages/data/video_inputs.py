"""Batches of prepared frames as networks read them: streamed, in memory, on the GPU."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ...cache.frames.cache import FrameCache


class VideoInputs(Protocol):
    """Frames or class tokens of videos, by index."""

    videos: Sequence[str]

    def read(self, index: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """(frames or class tokens [V, F, ...], mask [V, F] bool, times [V, F] seconds, NaN in padding)."""
        ...


class FrameInputs:
    """uint8 frames [V, F, 3, S, S] straight from the frame cache; with `pin`, into page-locked memory."""

    def __init__(self, cache: FrameCache, videos: Sequence[str], pin: bool = False) -> None:
        self.cache, self.videos, self.pin = cache, videos, pin

    def read(self, index: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        frames = torch.empty(len(index), *self.cache.clip_shape, dtype=torch.uint8, pin_memory=self.pin)
        clips = self.cache.read([self.videos[k] for k in index], frames.numpy())
        return frames, torch.from_numpy(clips.mask), torch.from_numpy(clips.times)


class MemoryInputs:
    """Class tokens [V, F, width] of a frozen trunk, or uint8 frames [V, F, 3, S, S], of all videos in memory."""

    def __init__(self, videos: Sequence[str], values: np.ndarray, mask: np.ndarray, times: np.ndarray) -> None:
        self.videos = videos
        self.values, self.mask, self.times = (torch.from_numpy(array) for array in (values, mask, times))

    def read(self, index: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        chosen = torch.from_numpy(np.asarray(index, np.int64))
        return self.values[chosen], self.mask[chosen], self.times[chosen]

    def part(self, start: int, stop: int) -> "MemoryInputs":
        """The inputs of videos start <= index < stop."""
        arrays = (tensor[start:stop].numpy() for tensor in (self.values, self.mask, self.times))
        return MemoryInputs(self.videos[start:stop], *arrays)


class DeviceFrames:
    """uint8 frames [V, F, 3, S, S] of all videos on a GPU: `read` leaves them there, `take` gives a batch's."""

    def __init__(self, frames: Tensor, mask: np.ndarray, times: np.ndarray) -> None:
        self.frames, self.mask, self.times = frames, torch.from_numpy(mask), torch.from_numpy(times)

    def read(self, index: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """(no frames [V, 0], mask [V, F] bool, times [V, F] seconds, NaN in padding)."""
        chosen = torch.from_numpy(np.asarray(index, np.int64))
        return torch.empty(len(chosen), 0, dtype=torch.uint8), self.mask[chosen], self.times[chosen]

    def take(self, index: np.ndarray) -> Tensor:
        """Frames [V, F, 3, S, S] of these videos, on their device."""
        return self.frames[torch.from_numpy(np.asarray(index, np.int64)).to(self.frames.device)]
