"""Batches of prepared frames as networks read them: streamed, in memory, on the GPU; and what encoders make of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ...cache.frames.cache import FrameCache
from ...cache.read_ahead import read_ahead
from ..runtime.threads import spread

VIDEOS_AT_ONCE = 16
_AHEAD = 2  # batches that wait to be encoded


class VideoInputs(Protocol):
    """Frames or class tokens of videos, by index."""

    videos: Sequence[str]

    def read(self, index: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """(frames or class tokens [V, F, ...], mask [V, F] bool, times [V, F] seconds, NaN in padding)."""
        ...


class TextInputs(Protocol):
    """Token ids [T, W] of T texts, a tensor, or what is indexed like one: their words [T, W, D]."""

    def __getitem__(self, index: Tensor, /) -> Tensor: ...


class FrameInputs:
    """uint8 frames [V, F, 3, S, S] straight from the frame cache; with `pin`, into page-locked memory."""

    def __init__(self, cache: FrameCache, videos: Sequence[str], pin: bool = False) -> None:
        self.cache, self.videos, self.pin = cache, videos, pin

    def read(self, index: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        frames = torch.empty(len(index), *self.cache.clip_shape, dtype=torch.uint8, pin_memory=self.pin)
        clips = self.cache.read([self.videos[k] for k in index], frames.numpy())
        return frames, torch.from_numpy(clips.mask), torch.from_numpy(clips.times)


class MemoryInputs:
    """Class tokens [V, F, width] of a frozen trunk, or uint8 frames [V, F, 3, S, S], of all videos in memory; with
    `pin`, batches of them are read into page-locked memory."""

    def __init__(
        self, videos: Sequence[str], values: np.ndarray, mask: np.ndarray, times: np.ndarray, pin: bool = False
    ) -> None:
        self.videos, self.pin = videos, pin
        self.values, self.mask, self.times = (torch.from_numpy(array) for array in (values, mask, times))

    def read(self, index: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        chosen = torch.from_numpy(np.asarray(index, np.int64))
        room = torch.empty(len(chosen), *self.values.shape[1:], dtype=self.values.dtype, pin_memory=self.pin)
        return torch.index_select(self.values, 0, chosen, out=room), self.mask[chosen], self.times[chosen]

    def beside(self, others: "MemoryInputs") -> "MemoryInputs":
        """These videos, and the others behind them."""
        mine, theirs = ((each.values, each.mask, each.times) for each in (self, others))
        values, mask, times = (torch.cat(pair).numpy() for pair in zip(mine, theirs, strict=True))
        return MemoryInputs((*self.videos, *others.videos), values, mask, times, self.pin)

    def part(self, start: int, stop: int) -> "MemoryInputs":
        """The inputs of videos start <= index < stop."""
        values, mask, times = (tensor[start:stop].numpy() for tensor in (self.values, self.mask, self.times))
        return MemoryInputs(self.videos[start:stop], values, mask, times, self.pin)


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
        chosen, there = torch.from_numpy(np.asarray(index, np.int64)), self.frames.is_cuda
        return self.frames[(chosen.pin_memory() if there else chosen).to(self.frames.device, non_blocking=there)]


def encoded[R](
    inputs: VideoInputs,
    index: np.ndarray,
    encode: Callable[[Tensor, Tensor, Tensor], R],
    device: torch.device,
    at_once: int,
    *,
    alone: bool = False,
    several: bool = True,
) -> Iterator[tuple[np.ndarray, R]]:
    """What `encode` makes of videos, batch by batch and in order, while the next batches are read.

    Args:
        index: videos of `inputs` [N].
        encode: called with `VideoInputs.read`'s three tensors of a batch, on `device`; on a CPU by several threads.
        at_once: videos of a batch; last bits of what networks make can depend on it.
        alone, several: as of `spread`.

    Yields:
        The videos of a batch, a part of `index`, and what was made of them.

    Raises:
        CacheError: frames cannot be read.
    """
    batches = [index[start : start + at_once] for start in range(0, len(index), at_once)]
    to_gpu = device.type == "cuda"

    def read_batch(batch: np.ndarray) -> list[Tensor]:
        # Nobody waits for the copy of page-locked memory to a GPU.
        return [tensor.pin_memory() if to_gpu else tensor for tensor in inputs.read(batch)]

    with read_ahead(read_batch, batches, _AHEAD) as read:

        def made(tensors: list[Tensor]) -> R:
            return encode(*(tensor.to(device, non_blocking=to_gpu) for tensor in tensors))

        yield from zip(batches, spread(made, read, device, alone=alone, several=several), strict=True)
